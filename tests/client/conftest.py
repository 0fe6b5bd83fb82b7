"""Fixtures of the client's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.kit import FakeService

if TYPE_CHECKING:
    from toapis_async.events import Event


@pytest.fixture(autouse=True)
async def clean(no_leftovers: None, whole_microseconds: None, seeded: None) -> None:
    """Every test here ends without tasks left over, and may use virtual time."""


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

    for user in ("queries", "downloads"):
        monkeypatch.setattr(f"toapis_async.engine.{user}.backoff_s", at_once)


@pytest.fixture
def events() -> list[Event]:
    """Give `events.append` as `on_event`."""
    return []
