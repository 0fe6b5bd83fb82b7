"""What the engine uses of whatever processes share: a store of turns, and a channel to what the others know."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from toapis_async.engine.entry import Entry
    from toapis_async.protocol.leasing import Ask, Grant
    from toapis_async.protocol.tiers import Category


STORE_TIMEOUT_S: Final = 0.5
"""A store that takes longer is lost."""


class StoreLost(Exception):
    """The store can't be used now; its text is the reason. The process goes on with its last known share.

    `unchanged`: it is certain that the store did not take what it was told.
    """

    def __init__(self, reason: str, *, unchanged: bool = False) -> None:
        super().__init__(reason)
        self.unchanged = unchanged


def check_cancelled() -> None:
    """Raise `CancelledError` in a task that was cancelled: redis-py may turn its own into another error, or drop it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@runtime_checkable
class Store(Protocol):
    """Where processes lease turns of an account's two buckets."""

    kind: str  #: "host", "redis", …
    lease_s: float  #: for how long ahead turns are leased

    async def lease(self, category: Category, ask: Ask) -> Grant:
        """What `protocol.leasing.lease` makes of the shared state at the store's own time, in one step.

        Turns wanted and given back, 429s and what the service counts are all told by the `Ask`; a heartbeat is one
        that wants nothing. Raises `StoreLost` when the store is not there. Nobody waits longer for it than
        `STORE_TIMEOUT_S`: the call is cancelled then.
        """
        ...

    async def aclose(self) -> None:
        """Disconnect. Bounded, and never raises for a store that is not there."""
        ...


@frozen
class Outgoing:
    """A message to all processes; with `keep_as`, it can be read under that task's id for some minutes."""

    message: bytes
    keep_as: str | None = None


@runtime_checkable
class Channel(Protocol):
    """A store through which processes also tell each other what they learn (`engine/shared/ends.py`). All raise
    `StoreLost`, within seconds, when it can't be used."""

    on_epoch: Callable[[], None]
    """Set by who leases: called when a 429 has begun a new epoch. Over a store that is no channel, each learns of it
    when it leases next."""

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Give the messages, in their order, to every process that listens, this one included."""
        ...

    async def kept(self, task_ids: Sequence[str]) -> Sequence[bytes | None]:
        """What is kept under each id."""
        ...

    def messages(self) -> AsyncGenerator[bytes | None, None]:
        """First None, once all that is published from then on will come; then every message. The first that may be
        missing ends it, with `StoreLost`."""
        ...


class OtherProcesses(Protocol):
    """The processes at the other ends of a channel, as the registry of tasks sees them."""

    def tell(self, entry: Entry, *, by_event: bool) -> None:
        """This process saw the task's outcome."""
        ...

    def ask(self, entry: Entry) -> bool:
        """Whether it is asked now if another process knows the task's end; its polls then wait for the answer."""
        ...
