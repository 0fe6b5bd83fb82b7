"""Turns: a fair gate in front of something that is scarce.

Waiters leave in the order they came, the urgent before the others. A cancelled waiter is marked by its own future and
skipped when its turn comes; searching it out of 100,000 others would make a mass cancellation quadratic.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from toapis_async.errors import SessionClosed
from toapis_async.protocol.pacing import TokenBucket

if TYPE_CHECKING:
    from toapis_async.protocol.pacing import PacingStatistics


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
            self._serve()
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
        self._serve()

    def close(self) -> None:
        """Refuse everyone, those waiting now included."""
        self._closed = True
        self._stop_timer()
        for turn in (*self._urgent, *self._ordinary):
            if not turn.done():
                turn.set_result(False)
        self._urgent.clear()
        self._ordinary.clear()

    def _serve(self) -> None:
        """Grant what can be granted now, and set the one timer for the next."""
        if not self.waiting:
            return
        self._stop_timer()
        now_s = self._loop.time()
        while (turns := self._next_queue()) is not None:
            wait_s = self._source.wait_s(now_s)
            if wait_s > 0:
                if wait_s < math.inf:
                    self._timer = self._loop.call_later(wait_s, self._serve)
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


class RateGate(Gate[TokenBucket]):
    """A gate in front of one of the service's buckets, told how each request ended."""

    def answered(self, *, latency_s: float | None, sent: int = 1) -> None:
        """The request ended, with an answer after `latency_s` or without one (None)."""
        self._source.answered(self._loop.time(), latency_s, sent=sent)
        self._serve()

    def told_remaining(self, remaining: float, latency_s: float) -> None:
        """The service said how many tokens it counts."""
        self._source.told_remaining(self._loop.time(), remaining, latency_s)

    def retune(self, burst: float, per_s: float) -> None:
        """The bucket is another one than was thought."""
        if (self._source.capacity, self._source.refill_per_s) != (burst, per_s):
            self._source.retune(self._loop.time(), burst, per_s)
            self._serve()

    def throttle(self, pause_s: float) -> None:
        """The service said 429."""
        self._source.throttle(self._loop.time(), pause_s)
        self._serve()

    def pause(self, pause_s: float) -> None:
        """No turns for `pause_s`."""
        self._source.pause(self._loop.time(), pause_s)
        self._serve()

    @property
    def fullness(self) -> float:
        """The bucket's level as a fraction, 0 to 1."""
        statistics = self.statistics()
        return max(statistics.level, 0.0) / statistics.capacity

    def statistics(self) -> PacingStatistics:
        return self._source.statistics(self._loop.time())


def _closed() -> SessionClosed:
    return SessionClosed("the client was closed before this was sent")
