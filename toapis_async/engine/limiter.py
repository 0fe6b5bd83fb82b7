"""Turns: a fair gate in front of something that is scarce.

Waiters leave in the order they came, the urgent before the others. A cancelled waiter is marked by its own future and
skipped when its turn comes; searching it out of 100,000 others would make a mass cancellation quadratic.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Generic, Protocol, TypeVar

from toapis_async.errors import SessionClosed


class Source(Protocol):
    """What a gate hands out."""

    def wait_s(self, now_s: float) -> float:
        """0 when one may be taken now, seconds until then, infinity while only a `give_back` can help."""
        ...

    def take(self, now_s: float) -> None: ...
    def give_back(self, now_s: float) -> None: ...


class Permits:
    """A plain number of permits (tasks in flight)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def wait_s(self, now_s: float) -> float:
        return 0.0 if self.taken < self.limit else math.inf

    def take(self, now_s: float) -> None:
        self.taken += 1

    def give_back(self, now_s: float) -> None:
        self.taken -= 1


S = TypeVar("S", bound=Source)


class Gate(Generic[S]):
    """Hands out what its source has, in order. Every `acquire` is followed by one `give_back` (or `answered`).

    Race: a turn granted to a waiter that is cancelled before it runs again is given to the next one.
    """

    def __init__(self, source: S) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._urgent: deque[asyncio.Future[bool]] = deque()
        self._ordinary: deque[asyncio.Future[bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many wait for a turn; a cancelled one counts until its turn comes."""
        return len(self._urgent) + len(self._ordinary)

    async def acquire(self, *, urgent: bool = False) -> None:
        """Wait for a turn. Raises `SessionClosed` when the client closes meanwhile."""
        self.check_open()
        if not self.waiting and self._source.wait_s(self._loop.time()) == 0:
            self._source.take(self._loop.time())
            return
        turn: asyncio.Future[bool] = self._loop.create_future()
        (self._urgent if urgent else self._ordinary).append(turn)
        if urgent or self.waiting == 1:
            self.serve()
        try:
            granted = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.give_back()
            raise
        if self._is_closed():  # also when granted in the very tick of closing: nothing may begin after it
            if granted:
                self.give_back()
            raise _closed()

    def check_open(self) -> None:
        """Raise `SessionClosed` when nothing may begin any more."""
        if self._is_closed():
            raise _closed()

    def _is_closed(self) -> bool:
        return self._closed

    def give_back(self) -> None:
        """A turn ended, or was not used."""
        self._source.give_back(self._loop.time())
        self.serve()

    def close(self) -> None:
        """Refuse everyone, those waiting now included."""
        self._closed = True
        self._stop_timer()
        for turn in (*self._urgent, *self._ordinary):
            if not turn.done():
                turn.set_result(False)
        self._urgent.clear()
        self._ordinary.clear()

    def serve(self) -> None:
        """Grant what can be granted now, and set the one timer for the next. Called also when a source got more by
        itself (`Bucket.on_more`)."""
        if not self.waiting:
            return
        self._stop_timer()
        now_s = self._loop.time()
        while (turns := self._next_queue()) is not None:
            wait_s = self._source.wait_s(now_s)
            if wait_s > 0:
                if wait_s < math.inf:
                    self._timer = self._loop.call_later(wait_s, self.serve)
                return
            self._source.take(now_s)
            turns.popleft().set_result(True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next_queue(self) -> deque[asyncio.Future[bool]] | None:
        """The queue whose head is next, with cancelled waiters dropped from its front."""
        for turns in (self._urgent, self._ordinary):
            while turns and turns[0].done():
                turns.popleft()
            if turns:
                return turns
        return None


def _closed() -> SessionClosed:
    return SessionClosed("the client was closed before this was sent")
