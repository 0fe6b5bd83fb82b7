"""Turns: a fair gate in front of something that is scarce.

Waiters leave by priority, and in the order they came within one. A cancelled waiter is marked by its own future and
skipped when its turn comes; searching it out of 100,000 others would make a mass cancellation quadratic.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

from toapis_async.errors import SessionClosed

MOST_OVERTAKEN: Final = 2
"""Turns that ordinary waiters get while rows of a batch wait; the next is a row's, so that a flood of single
submissions leaves a batch a third of the turns."""


class Priority(enum.IntEnum):
    """Who goes first."""

    URGENT = 0  #: look-ups, and single submissions that are sent again
    ORDINARY = 1
    ROW_AGAIN = 2  #: rows of a batch that are sent again
    ROW = 3


def priority_of(*, is_row: bool, is_sent_again: bool = False) -> Priority:
    """Of a submission: a single one goes before the rows of batches, and for a turn of the bucket, what is sent again
    before what is new of its kind."""
    if is_row:
        return Priority.ROW_AGAIN if is_sent_again else Priority.ROW
    return Priority.URGENT if is_sent_again else Priority.ORDINARY


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
        self.taken: int = 0

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
        self._queues: tuple[deque[asyncio.Future[bool]], ...] = tuple(deque() for _ in Priority)
        self._overtaken = 0  # turns that ordinary waiters got since a row waits
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many wait for a turn; a cancelled one counts until its turn comes."""
        return sum(map(len, self._queues))

    async def acquire(self, priority: Priority = Priority.ORDINARY) -> None:
        """Wait for a turn. Raises `SessionClosed` when the client closes meanwhile."""
        if self.try_acquire(self._loop.time()):
            return
        turn: asyncio.Future[bool] = self._loop.create_future()
        self._queues[priority].append(turn)
        if priority is Priority.URGENT or self.waiting == 1:
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

    def try_acquire(self, now_s: float) -> bool:
        """Take a turn when one is there and nobody waits for it. Raises `SessionClosed`."""
        self.check_open()
        if any(self._queues) or self._source.wait_s(now_s) > 0:
            return False
        self._source.take(now_s)
        return True

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
        for turns in self._queues:
            for turn in turns:
                if not turn.done():
                    turn.set_result(False)
            turns.clear()

    def serve(self) -> None:
        """Grant what can be granted now, and set the one timer for the next. Called also when a source got more by
        itself (`Bucket.on_more`)."""
        if not any(self._queues):
            return
        self._stop_timer()
        now_s = self._loop.time()
        while (priority := self._next_priority()) is not None:
            wait_s = self._source.wait_s(now_s)
            if wait_s > 0:
                if wait_s < math.inf:
                    self._timer = self._loop.call_later(wait_s, self.serve)
                return
            self._source.take(now_s)
            self._queues[priority].popleft().set_result(True)
            self._count_overtaken(priority)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next_priority(self) -> Priority | None:
        """Whose turn is next, with cancelled waiters dropped from the front of each queue."""
        for turns in self._queues:
            while turns and turns[0].done():
                turns.popleft()
        waiting = [priority for priority in Priority if self._queues[priority]]
        if waiting[1:] and waiting[0] is Priority.ORDINARY and self._overtaken >= MOST_OVERTAKEN:
            return waiting[1]
        return waiting[0] if waiting else None

    def _count_overtaken(self, granted: Priority) -> None:
        if granted is Priority.ORDINARY:
            is_before_rows = any(self._queues[Priority.ROW_AGAIN :])
            self._overtaken = self._overtaken + 1 if is_before_rows else 0
        elif granted is not Priority.URGENT:
            self._overtaken = 0


def _closed() -> SessionClosed:
    return SessionClosed("the client was closed before this was sent")
