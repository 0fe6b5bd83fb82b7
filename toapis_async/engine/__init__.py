"""asyncio and I/O: everything here runs on the client's one event loop."""
