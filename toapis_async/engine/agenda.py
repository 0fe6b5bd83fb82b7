"""Which watched task is due when, for the poller that waits for it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toapis_async.engine.entry import Entry
    from toapis_async.protocol.polling.schedule import Schedule

Start: TypeAlias = Literal["new", "polled", "unknown"]
"""How a watch begins: with a task that was accepted just now, with one that was queried just now, or with one whose
state nobody knows."""


class Agenda:
    """The schedule, and an alarm for whoever sleeps until its next task is due."""

    def __init__(self, schedule: Schedule[Entry]) -> None:
        self.schedule = schedule
        self._loop = asyncio.get_running_loop()
        self._nearer = asyncio.Event()
        self._sleeps_until_s = -math.inf

    def add(self, entry: Entry, start: Start) -> None:
        """Begin to poll a task."""
        if start == "unknown":
            self.schedule.add_unseen(entry)
        elif start == "polled":
            entry.seen_s = entry.since_s
            self.schedule.put_back(entry, self._loop.time())
        else:
            self.schedule.add(entry)
        self._wake()

    def put_back(self, entry: Entry) -> None:
        """A poll was answered, or got no usable answer: plan the next."""
        if entry.failures:
            self.schedule.put_off(entry, self._loop.time(), entry.failures)
        else:
            self.schedule.put_back(entry, self._loop.time())
        self._wake()

    def due(self, fullness: float) -> Iterator[Entry]:
        """The tasks to poll now; `fullness` of the query bucket is 0 to 1."""
        self.schedule.fullness = fullness
        while (entry := self.schedule.pop(self._loop.time())) is not None:
            if not entry.ended:
                yield entry

    async def wait_due(self) -> None:
        """Until a poll is due; a nearer one that is added meanwhile wakes it."""
        while (due_s := self._due_s()) > self._loop.time():
            self._nearer.clear()
            self._sleeps_until_s = due_s
            timer = self._loop.call_at(due_s, self._nearer.set) if due_s < math.inf else None
            try:
                await self._nearer.wait()
            finally:
                self._sleeps_until_s = -math.inf
                if timer is not None:
                    timer.cancel()

    def _due_s(self) -> float:
        due_s = self.schedule.next_due_s()
        return math.inf if due_s is None else due_s

    def _wake(self) -> None:
        """Wake the sleeper for a task that is due before what it sleeps for; most are not."""
        if self._due_s() < self._sleeps_until_s:
            self._nearer.set()
