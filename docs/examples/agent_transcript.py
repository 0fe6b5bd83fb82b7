"""The transcript on docs/agents.md: an agent's calls to `toapis mcp --sandbox`, and what it is told."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent


async def main(folder: str) -> None:
    """Print it, with the folder's name made short."""
    options = ["--out", folder, "--sandbox", "--speed", "3", "--max-images", "5"]
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "toapis_async", "mcp", *options])
    kite = {"prompt": "a red kite over the sea", "size": "16:9", "request_id": "kite-1"}
    async with Client(parameters) as host:
        await show(host, folder, "generate", kite, cut_off_after_s=1)
        token = await show(host, folder, "generate", kite | {"wait_s": 1})
        await show(host, folder, "wait", {"token": token})
        await show(host, folder, "batch", {"prompts": ["a blue kite", {"prompt": "a boat", "key": "boat"}]})
        await show(host, folder, "generate", {"prompt": "four kites", "n": 4})
        await show(host, folder, "recent", {"limit": 2})


async def show(
    host: Client, folder: str, tool: str, arguments: dict[str, Any], *, cut_off_after_s: float | None = None
) -> str:
    """Print a call and its answer; the token in it is returned."""
    lines = [f"> {tool} {json.dumps(arguments)}"]
    try:
        said = await host.call_tool(tool, arguments, read_timeout_seconds=cut_off_after_s)
    except MCPError as error:
        print("\n".join([*lines, f"(the host: {error})", ""]))  # noqa: T201
        return ""
    text = next(content.text for content in said.content if isinstance(content, TextContent))
    rest = [f"({content.type})" for content in said.content[1:]]
    print("\n".join([*lines, text.replace(folder, "/home/me/pictures"), *rest, ""]))  # noqa: T201
    found = re.search(r"^token: (\S+)$", text, re.MULTILINE)
    return found[1] if found else ""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(temporary))
