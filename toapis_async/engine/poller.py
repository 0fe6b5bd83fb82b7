"""The one poller: it looks at every watched task, and resolves whoever waits."""

from __future__ import annotations

import asyncio
import logging
import math
from itertools import islice
from typing import TYPE_CHECKING

from toapis_async.errors import ServiceError, TaskNotFound, ToAPIsError, UnreadableAnswer
from toapis_async.log import logger
from toapis_async.protocol.wire import decode_task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from toapis_async.engine.queries import StatusPort
    from toapis_async.engine.registry import Entry, Registry
    from toapis_async.protocol.lenient import Answer
    from toapis_async.protocol.polling.forecast import Forecast
    from toapis_async.protocol.polling.schedule import Schedule
    from toapis_async.request import ImageRequest
    from toapis_async.settings import Settings
    from toapis_async.task import TaskSnapshot


UNREADABLE_LOOKS = 3
"""A task that is completed, but whose result can't be read in this many looks, is given to its waiters as such."""


class Poller:
    """One loop that takes the schedule's next task, and as many GETs at once as the query gate allows.

    A look that fails never fails its task: it is repeated later. Two looks at one task never overlap, since a task
    is back in the schedule only after its look has ended.
    """

    def __init__(self, *, port: StatusPort, registry: Registry, schedule: Schedule[Entry], settings: Settings) -> None:
        self._port = port
        self._registry = registry
        self._schedule = schedule
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._nearer = asyncio.Event()
        self._sleeps_until_s = -math.inf

    def forecast_of(self, request: ImageRequest | None) -> Forecast:
        """What is known of how long such requests take; None: of tasks whose request we don't know."""
        if request is None:
            return self._schedule.forecast_of(None)
        parts = (request.model, request.resolution or "", request.quality or "", str(request.n or 1))
        return self._schedule.forecast_of(" ".join(parts)[:200])

    def watch(self, entry: Entry, *, at_once: bool = False, seen: bool = False) -> None:
        """Begin to look at a task: when a first look is worth it, at once when its state is unknown, or as after a look
        when it was `seen` just now."""
        if entry.ended:
            return
        if at_once:
            self._schedule.add_unseen(entry)
        elif seen:
            entry.seen_s = entry.since_s
            self._schedule.put_back(entry, self._loop.time())
        else:
            self._schedule.add(entry)
        self._notice()

    async def run(self) -> None:
        """Until cancelled. An unexpected error here is a bug of ours; the client then ends every watch with it."""
        async with asyncio.TaskGroup() as looks:
            while True:
                await self._wait_due()
                await self._port.gate.acquire()
                entries = list(islice(self._due(), self._port.ids_per_request))
                if entries:
                    looks.create_task(self._look(entries))
                else:
                    self._port.gate.give_back()
                    await asyncio.sleep(0)  # more are due than the schedule examines in one step

    async def _look(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.looks += 1
        for entry, told in zip(entries, await self._port.ask_all([e.asked_id for e in entries]), strict=True):
            self._heard(entry, told)

    def _heard(self, entry: Entry, told: Answer | ToAPIsError) -> None:
        """Learn from what a look told, and put the task back unless it ended."""
        if entry.ended:  # by an event, while it was asked
            return
        try:
            snapshot = self._shown(entry, told)
        except TaskNotFound as error:
            entry.failures = 1  # nothing was seen, so nothing is to be learned from it
            self._registry.missing(entry, error, self._settings.vanish_grace_s)
            self._again(entry)
        except ToAPIsError as error:
            entry.failures += 1
            if isinstance(error, UnreadableAnswer) and error.is_of_result and entry.failures >= UNREADABLE_LOOKS:
                self._registry.unreadable(entry, error)
            level = logging.WARNING if isinstance(error, ServiceError) and error.status < 500 else logging.DEBUG
            logger.log(level, "look at task %s failed (%d in a row): %s", entry.task_id, entry.failures, error)
            self._again(entry)
        else:
            if entry.failures:
                entry.failures = 0
                self._registry.found(entry)
            if snapshot is not None and snapshot.status.is_final:
                self._schedule.finished(entry, self._loop.time(), _took_s(snapshot))
            else:
                self._again(entry)

    def _shown(self, entry: Entry, told: Answer | ToAPIsError) -> TaskSnapshot | None:
        """What an answer shows, reported to the registry; None when it says what the last one said."""
        if isinstance(told, ToAPIsError):
            raise told
        if entry.is_shown_by(told.body):
            return None
        snapshot = decode_task(told, entry.asked_id)
        self._registry.saw(entry, snapshot, told.body)
        return snapshot

    def _again(self, entry: Entry) -> None:
        """Back into the schedule, unless it ended meanwhile."""
        if entry.ended:
            return
        if self._is_too_old(entry):
            self._registry.overdue(entry, self._settings.max_task_age_s)
        elif entry.failures:
            self._schedule.put_off(entry, self._loop.time(), entry.failures)
        else:
            self._schedule.put_back(entry, self._loop.time())
        self._notice()

    def _due(self) -> Iterator[Entry]:
        """The tasks to look at now; those that ended are dropped. One that is too old is looked at a last time, unless
        that would be too soon after the look before."""
        now_s = self._loop.time()
        self._schedule.fullness = self._port.gate.fullness
        while (entry := self._schedule.pop(now_s)) is not None:
            if entry.ended:
                continue
            if self._is_too_old(entry) and now_s - entry.polled_s < self._settings.min_poll_interval_s:
                self._registry.overdue(entry, self._settings.max_task_age_s)
            else:
                yield entry

    def _is_too_old(self, entry: Entry) -> bool:
        return self._loop.time() - entry.since_s >= self._settings.max_task_age_s

    async def _wait_due(self) -> None:
        """Until a look is due; a nearer one that is added meanwhile is noticed."""
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
        due_s = self._schedule.next_due_s()
        return math.inf if due_s is None else due_s

    def _notice(self) -> None:
        """Wake the loop for a task that is due before what it sleeps for; most are not."""
        if self._due_s() < self._sleeps_until_s:
            self._nearer.set()


def _took_s(snapshot: TaskSnapshot) -> float | None:
    """How long the service says it worked: both times are its own, so our clock does not matter."""
    if snapshot.created_at is None or snapshot.completed_at is None:
        return None
    return (snapshot.completed_at - snapshot.created_at).total_seconds()
