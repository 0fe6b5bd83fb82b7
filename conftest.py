"""Runs the code of README.md and docs/ against a sandbox: ```python fixture:service```."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from toapis_async import Settings
from toapis_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

asyncio.set_event_loop(None)  # pytest-asyncio would otherwise find, and leak, the loop of the main thread
SPEED = 200.0


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of a reader who has a key: a service that answers (in a thread, so that `asyncio.run` can be
    shown), an empty folder to work in, and waits in the service's compressed time."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started = threading.Event()
    address: list[str] = []

    async def serve() -> None:
        async with Sandbox(speed=SPEED, tier="svip") as sandbox:
            address.append(sandbox.base_url)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10), "the sandbox did not start"
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-readme")
    monkeypatch.setenv("TOAPIS_BASE_URL", address[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "toapis_async.client.Settings",
        lambda: Settings(tier="svip", first_poll_s=5 / SPEED, min_poll_interval_s=5 / SPEED),
    )
    yield
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()
