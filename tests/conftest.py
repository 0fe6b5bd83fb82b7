"""Fixtures that the tests of several parts use; none of them is automatic."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.engine.kit import FakeService
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from toapis_async.events import Event

hypothesis.settings.register_profile(
    "the same wherever it runs",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine is no fault of a test's
)
hypothesis.settings.load_profile("the same wherever it runs")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Before virtual time moves, looptime lets the loop turn 42 times with nothing to do, in case something else is yet
    to be run: more than half of what these tests cost. In the next two turns all that is ready has been run."""
    if item.get_closest_marker("looptime") is not None:
        item.add_marker(pytest.mark.looptime(noop_cycles=2))


@pytest.fixture
async def no_leftovers() -> AsyncIterator[None]:
    """Nothing of ours may outlive a test: no task is left on its loop."""
    before = asyncio.all_tasks()
    yield
    for _ in range(10_000):  # a server's handlers see their connections' ends a moment later
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"tasks left over: {sorted(task.get_name() for task in left)[:10]}")


@pytest.fixture
async def whole_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers fire at whole microseconds, as looptime counts them: it never gets to a moment between two of them, and
    whoever waits for one would be woken too early for ever."""
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def rounded_up(when: float, callback: Callable[..., object], *args: Any, **named: Any) -> asyncio.TimerHandle:
        count = round(when * 1e6)
        return call_at((count if count / 1e6 >= when else count + 1) / 1e6, callback, *args, **named)

    monkeypatch.setattr(loop, "call_at", rounded_up)


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client made in this test draws the same jitter."""

    def same() -> random.Random:
        return random.Random(20)

    monkeypatch.setattr("toapis_async.engine.core.random", SimpleNamespace(Random=same))


@pytest.fixture
async def clean(no_leftovers: None, whole_microseconds: None, seeded: None) -> None:
    """The test ends without tasks left over, and may use virtual time."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    """A service without sockets: every client made in this test talks to it."""
    fake = FakeService()
    monkeypatch.setattr("toapis_async.engine.core.Transport", fake.transport)
    return fake


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-offs take no time: over real sockets, only their number and order matter."""

    def at_once(failures: int, **_: object) -> float:
        return 0.0

    for user in ("pacer", "downloads"):
        monkeypatch.setattr(f"toapis_async.engine.{user}.backoff_s", at_once)


@pytest.fixture
def events() -> list[Event]:
    """Give `events.append` as `on_event`."""
    return []


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own; skips where there is none."""
    server = RedisServer(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.kill()
