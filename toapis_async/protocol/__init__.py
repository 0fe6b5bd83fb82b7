"""Pure rules: no asyncio, no aiohttp, no clock. Time and bytes come in, values or errors come out."""
