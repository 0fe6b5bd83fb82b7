"""The one poller: it looks at every watched task, and resolves whoever waits."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING

from toapis_async.errors import ServiceError, TaskNotFound, ToAPIsError
from toapis_async.log import logger

if TYPE_CHECKING:
    import random

    from toapis_async.engine.queries import Queries
    from toapis_async.engine.registry import Entry, Registry
    from toapis_async.protocol.schedule import Schedule
    from toapis_async.settings import Settings


class Poller:
    """A heap of looks, one loop that takes the next due one, and as many GETs at once as the query gate allows.

    A look that fails never fails its task: it is repeated later. Two looks at one task never overlap, since a task
    is back in the heap only after its look has ended.
    """

    def __init__(
        self,
        *,
        queries: Queries,
        registry: Registry,
        schedule: Schedule,
        settings: Settings,
        rng: random.Random,
    ) -> None:
        self._queries = queries
        self._registry = registry
        self._schedule = schedule
        self._settings = settings
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[float, int, Entry]] = []
        self._pushed = 0
        self._nearer = asyncio.Event()

    def watch(self, entry: Entry, *, at_once: bool = False) -> None:
        """Begin to look at a task: after the first wait, or at once when its state is unknown."""
        if not entry.ended:
            self._push(entry, 0.0 if at_once else self._schedule.first_wait_s(self._rng))

    async def run(self) -> None:
        """Until cancelled. An unexpected error here is a bug of ours; the client then ends every watch with it."""
        async with asyncio.TaskGroup() as looks:
            while True:
                await self._wait_due()
                await self._queries.gate.acquire()
                entry = self._pop()
                if entry is None:
                    self._queries.gate.give_back()
                else:
                    looks.create_task(self._look(entry))

    async def _look(self, entry: Entry) -> None:
        entry.looks += 1
        try:
            snapshot = await self._queries.ask(entry.asked_id)
        except TaskNotFound as error:
            self._registry.missing(entry, error, self._settings.vanish_grace_s)
            entry.failures = 0
        except ToAPIsError as error:
            entry.failures += 1
            level = "warning" if isinstance(error, ServiceError) and error.status < 500 else "debug"
            getattr(logger, level)("look at task %s failed (%d in a row): %s", entry.task_id, entry.failures, error)
        else:
            entry.failures = 0
            self._registry.saw(entry, snapshot)
        if not entry.ended:
            self._push(entry, self._next_wait_s(entry))

    def _next_wait_s(self, entry: Entry) -> float:
        if entry.failures:
            return self._schedule.wait_after_failure_s(entry.failures, self._rng)
        return self._schedule.next_wait_s(self._rng)

    def _push(self, entry: Entry, wait_s: float) -> None:
        overdue_s = entry.since_s + self._settings.max_task_age_s
        due_s = min(self._loop.time() + wait_s, overdue_s)
        self._pushed += 1  # keeps the order among equals, and entries out of comparisons
        heapq.heappush(self._due, (due_s, self._pushed, entry))
        if self._due[0][2] is entry:
            self._nearer.set()

    def _pop(self) -> Entry | None:
        """The next task that is due and still open; those too old are ended on the way."""
        now_s = self._loop.time()
        while self._due and self._due[0][0] <= now_s:
            entry = heapq.heappop(self._due)[2]
            if now_s - entry.since_s >= self._settings.max_task_age_s:
                self._registry.overdue(entry, self._settings.max_task_age_s)
            elif not entry.ended:
                return entry
        return None

    async def _wait_due(self) -> None:
        """Until the first look in the heap is due; a nearer one that is pushed meanwhile is noticed."""
        while not self._due or self._due[0][0] > self._loop.time():
            self._nearer.clear()
            timer = self._loop.call_at(self._due[0][0], self._nearer.set) if self._due else None
            try:
                await self._nearer.wait()
            finally:
                if timer is not None:
                    timer.cancel()
