"""A server for agents (`toapis mcp`): tools that generate, wait and look up, and that buy nothing twice.

`server` alone imports the MCP SDK. `tools` are the tools, by `schemas`; `jobs` and `batches` own what runs beyond the
call that began it; `folder` is the only way to a file that an agent names.
"""
