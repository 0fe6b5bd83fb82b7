"""A server for agents on a sandbox: inside this process, driven by the SDK's own client."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from typing import TYPE_CHECKING, Any

import mcp_types as types
import pytest
from attrs import define
from mcp import Client

from toapis_async import RateLimits, Settings
from toapis_async.agents.caps import CappedClient
from toapis_async.agents.folder import Folder
from toapis_async.agents.server import AgentServer
from toapis_async.agents.tools import Tools
from toapis_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from decimal import Decimal
    from pathlib import Path

KEY = "sk-agents-0123456789abcdef"
FAST = Settings(
    first_poll_s=0.01,
    min_poll_interval_s=0.01,
    reconcile_window_s=0.3,
    close_grace_s=0.1,
    limits=RateLimits(submit_per_s=10_000, submit_burst=1_000, query_per_s=10_000, query_burst=1_000),
)


@define
class Said:
    """A tool's answer, as an agent has it."""

    result: types.CallToolResult

    @property
    def text(self) -> str:
        content = self.result.content[0]
        assert isinstance(content, types.TextContent)
        return content.text

    @property
    def is_error(self) -> bool:
        return bool(self.result.is_error)

    @property
    def token(self) -> str:
        found = re.search(r"^token: (\S+)$", self.text, re.MULTILINE)
        assert found is not None, self.text
        return found[1]

    @property
    def files(self) -> list[str]:
        return re.findall(r"^file: (.+?) \(", self.text, re.MULTILINE)

    @property
    def previews(self) -> list[types.ImageContent]:
        return [content for content in self.result.content if isinstance(content, types.ImageContent)]

    @property
    def links(self) -> list[types.ResourceLink]:
        return [content for content in self.result.content if isinstance(content, types.ResourceLink)]


@define
class Agent:
    """An agent that calls tools."""

    client: Client
    left: list[str]
    instructions: str | None

    async def call(self, tool: str, /, **arguments: Any) -> Said:
        return Said(await self.client.call_tool(tool, arguments))

    async def cut_off(self, sandbox: Sandbox, tool: str, /, **arguments: Any) -> None:
        """A call whose host has no patience; it is cancelled when it waits for its task."""
        calling = asyncio.create_task(self.call(tool, **arguments))
        await until(lambda: sandbox.requests.count("query") > 0)
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await calling


@contextlib.asynccontextmanager
async def agent_of(
    sandbox: Sandbox,
    out: Path,
    *,
    credits_: Decimal | None = None,
    images: int | None = None,
    settings: Settings = FAST,
) -> AsyncGenerator[Agent]:
    """A session: a server on the folder `out`, and an agent that has connected to it."""
    folder = Folder(out)
    journal = folder.path / "journal.sqlite"
    capped = CappedClient(
        KEY, base_url=sandbox.base_url, settings=settings, journal=journal, most_credits=credits_, most_images=images
    )
    try:
        async with capped as client:
            tools = Tools(client, folder, journal)
            left = await tools.take_up()
            server = AgentServer(tools, folder, left)
            try:
                async with Client(server.sdk) as connected:
                    yield Agent(connected, left, connected.instructions)
            finally:
                await tools.aclose()
    finally:
        folder.close()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Tasks take 5 ms."""
    async with Sandbox(service_time_s=0.005, pictures=False) as served:
        yield served


@pytest.fixture
async def slow_sandbox() -> AsyncIterator[Sandbox]:
    """Tasks wait until they are finished by the test."""
    async with Sandbox(service_time_s=math.inf, pictures=False) as served:
        yield served


def finish_all(sandbox: Sandbox) -> None:
    for entry in sandbox.ledger:
        if entry.finished_at is None:
            sandbox.finish(entry.task_id)


async def accepted(sandbox: Sandbox, number: int) -> None:
    """Wait until so many submissions are in the books."""
    await until(lambda: len(sandbox.ledger) >= number)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (the sandbox has no event for it)
            await asyncio.sleep(0.005)
