"""`toapis mcp`: a server for agents."""

from __future__ import annotations

import asyncio
import os
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

from toapis_async.agents.caps import CappedClient
from toapis_async.agents.folder import Folder
from toapis_async.agents.tools import Tools
from toapis_async.cli.output import ALL_DONE, CliError, calling_on_signals
from toapis_async.cli.session import SANDBOX_FOLDER, Session
from toapis_async.protocol.wording import count
from toapis_async.settings import Journal

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from toapis_async.cli.options import Caps, Options
    from toapis_async.cli.output import Output

JOURNAL: Final = "journal.sqlite"
MOST_SHOWN: Final = 20
TOKEN: Final = "TOAPIS_MCP_TOKEN"  # noqa: S105  (the name of a variable)


async def serve(
    options: Options, out: Output, into: Path, journal: Path | None, caps: Caps, *, port: int | None
) -> int:
    """Serve agents until the host goes away: over stdio, or with a `port` over HTTP. Returns the exit code."""
    try:
        from toapis_async.agents.server import AgentServer  # noqa: PLC0415  (needs the SDK, of an extra)
    except ImportError as error:
        raise CliError(f"toapis mcp needs {error.name}: pip install 'toapis-async[mcp]'") from None
    folder = Folder(into)
    try:
        path = _journal_path(folder, journal)
        session = Session(options, out, caps.prices)
        make = partial(CappedClient, most_credits=caps.budget_credits, most_images=caps.max_images)
        async with session.opened(folder.path / SANDBOX_FOLDER, Journal(path), make):
            client = session.client
            assert isinstance(client, CappedClient)
            tools = Tools(client, folder, path)
            try:
                left = await tools.take_up()
                _tell(out, folder, left)
                server = AgentServer(tools, folder, left)
                if port is None:
                    await _until_stopped(server.serve_stdio())
                else:
                    token = os.environ.get(TOKEN, "").strip() or secrets.token_urlsafe(24)
                    await _until_stopped(server.serve_http(port, token, partial(_tell_address, out, token)))
            finally:
                await tools.aclose()
    finally:
        folder.close()
    return ALL_DONE


async def _until_stopped(serving: Coroutine[None, None, None]) -> None:
    """Serve until the host has gone, or Ctrl-C or SIGTERM come, which are how a server is meant to end."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        served, stopped = group.create_task(serving), group.create_task(stop.wait())
        with calling_on_signals(stop.set):
            await asyncio.wait([served, stopped], return_when=asyncio.FIRST_COMPLETED)
        served.cancel()
        stopped.cancel()


def _journal_path(folder: Folder, given: Path | None) -> Path:
    """The journal: as the operator says, else in the folder, where it may be no link that leads out of it."""
    path = given or folder.path / JOURNAL
    if given is None and any(os.path.islink(f"{path}{end}") for end in ("", "-wal", "-shm", ".lock")):
        raise CliError(f"{path} is a symbolic link: remove it, or name a journal with --journal")
    return path


def _tell(out: Output, folder: Folder, left: list[str]) -> None:
    if left:
        out.note(f"{count(len(left), 'submission')} of earlier sessions unfinished; they are watched and saved:")
        for line in left[:MOST_SHOWN]:
            out.note(f"  {line}")
    out.note(f"serving agents; files go to {folder.path}")


def _tell_address(out: Output, token: str, url: str) -> None:
    out.note(f"{url}  with the header  Authorization: Bearer {token}")
