"""Which watched task is due when, for the poller that waits for it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toapis_async.engine.entry import Entry
    from toapis_async.models import Learned
    from toapis_async.protocol.endpoints import Kind
    from toapis_async.protocol.polling.forecast import Forecast
    from toapis_async.protocol.polling.schedule import Schedule

Start: TypeAlias = Literal["new", "polled", "unknown"]
"""How a watch begins: with a task that was accepted just now, with one that was queried just now, or with one whose
state nobody knows."""


class Agenda:
    """A schedule for each kind of task, and an alarm for whoever sleeps until their next task is due."""

    def __init__(self, schedules: Mapping[Kind, Schedule[Entry]]) -> None:
        self._schedules = schedules
        self._loop = asyncio.get_running_loop()
        self._nearer = asyncio.Event()
        self._sleeps_until_s = -math.inf

    def forecast_of(self, kind: Kind, request_class: str | None) -> Forecast:
        """What is known of how long such requests take; None: of tasks whose request nobody knows."""
        return self._schedules[kind].forecast_of(request_class)

    def add(self, entry: Entry, start: Start) -> None:
        """Begin to poll a task."""
        schedule = self._schedules[entry.endpoint.kind]
        if start == "unknown":
            schedule.add_unseen(entry)
        elif start == "polled":
            entry.seen_s = entry.since_s
            schedule.put_back(entry, self._loop.time())
        else:
            schedule.add(entry)
        self._wake()

    def put_back(self, entry: Entry) -> None:
        """A poll was answered, or got no usable answer: plan the next."""
        schedule = self._schedules[entry.endpoint.kind]
        if entry.failures:
            schedule.put_off(entry, self._loop.time(), entry.failures)
        else:
            schedule.put_back(entry, self._loop.time())
        self._wake()

    def finished(self, entry: Entry, took_s: float | None, *, by_event: bool) -> None:
        """A task that was polled finished, after `took_s` if the service said so; or an event says that it did."""
        self._schedules[entry.endpoint.kind].finished(entry, self._loop.time(), took_s, by_event=by_event)

    def event_came(self, kind: Kind) -> None:
        """An event told of an end that no poll had to find."""
        self._schedules[kind].backstop.ended(by_event=True)

    def events_interrupted(self) -> None:
        """Events may be missed from now on: polls are at once what they are without events."""
        for schedule in self._schedules.values():
            schedule.events_interrupted()
        self._wake()

    def events_resumed(self) -> None:
        """Events come again."""
        for schedule in self._schedules.values():
            schedule.events_resumed(self._loop.time())

    def hurry(self, entry: Entry) -> None:
        """A task is known to have ended, though not how: poll it as soon as it may be polled."""
        self._schedules[entry.endpoint.kind].hurry(entry)
        self._wake()

    def due(self, fullness: float) -> Iterator[Entry]:
        """The tasks to poll now; `fullness` of the query bucket is 0 to 1."""
        for schedule in self._schedules.values():
            schedule.fullness = fullness
            while (entry := schedule.pop(self._loop.time())) is not None:
                if not entry.ended:
                    yield entry

    def learned(self) -> Learned:
        """What all schedules learned, under the interval of images."""
        by_kind = [schedule.learned() for schedule in self._schedules.values()]
        return evolve(by_kind[0], classes={name: seen for each in by_kind for name, seen in each.classes.items()})

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
        moments_s = [schedule.next_due_s() for schedule in self._schedules.values()]
        return min((due_s for due_s in moments_s if due_s is not None), default=math.inf)

    def _wake(self) -> None:
        """Wake the sleeper for a task that is due before what it sleeps for; most are not."""
        if self._due_s() < self._sleeps_until_s:
            self._nearer.set()
