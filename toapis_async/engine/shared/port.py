"""What the engine uses of whatever processes share: a store of turns, and a channel between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from toapis_async.protocol.leasing import Ask, Grant
    from toapis_async.protocol.tiers import Category


class StoreLost(Exception):
    """The store can't be used now; its text is the reason. The process goes on with its last known share.

    `unchanged`: it is certain that the store did not take what it was told.
    """

    def __init__(self, reason: str, *, unchanged: bool = False) -> None:
        super().__init__(reason)
        self.unchanged = unchanged


class Store(Protocol):
    """Where processes lease turns of an account's two buckets."""

    kind: str  #: "host", "redis", …

    async def lease(self, category: Category, ask: Ask) -> Grant:
        """What `protocol.leasing.lease` makes of the shared state at the store's own time, in one step.

        Turns wanted and given back, 429s and what the service counts are all told by the `Ask`; a heartbeat is one
        that wants nothing. Raises `StoreLost` when the store is not there. Nobody waits longer for it than
        `leases.STORE_TIMEOUT_S`: the call is cancelled then.
        """
        ...

    async def aclose(self) -> None:
        """Disconnect. Bounded, and never raises for a store that is not there."""
        ...


@runtime_checkable
class Channel(Protocol):
    """A store through which processes also tell each other what they learn (`engine/shared/ends.py`)."""

    async def publish(self, message: bytes) -> None:
        """Give a message to every process that listens, this one included. Raises `StoreLost`."""
        ...

    def messages(self) -> AsyncIterator[bytes | None]:
        """What the processes publish from now on, for as long as it is iterated; None after a gap, in which messages
        may have been lost."""
        ...
