"""Which watched task is due when, and an alarm for the poller."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from toapis_async.engine.entry import Entry
    from toapis_async.models import Learned
    from toapis_async.protocol.endpoints import Kind
    from toapis_async.protocol.polling.forecast import Forecast
    from toapis_async.protocol.polling.schedule import Schedule

Start: TypeAlias = Literal["new", "polled", "unknown"]
"""How a watch begins: with a task that was accepted just now, with one that was queried just now, or with one whose
state nobody knows."""


class Agenda:
    """A schedule for each kind of task, and an alarm that rings when their next task is due."""

    def __init__(self, schedules: Mapping[Kind, Schedule[Entry]]) -> None:
        self._schedules = schedules
        self._each = tuple(schedules.values())
        self._loop = asyncio.get_running_loop()
        self._on_due: Callable[[], None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_s = -math.inf  # when the alarm rings: never sooner than this is another set

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
        self._set_nearer()

    def put_back(self, entry: Entry) -> None:
        """A poll was answered, or got no usable answer: plan the next."""
        schedule = self._schedules[entry.endpoint.kind]
        if entry.failures:
            schedule.put_off(entry, self._loop.time(), entry.failures)
        else:
            schedule.put_back(entry, self._loop.time())
        self._set_nearer(schedule)

    def finished(self, entry: Entry, took_s: float | None, *, by_event: bool) -> None:
        """A task that was polled finished, after `took_s` if the service said so; or an event says that it did."""
        self._schedules[entry.endpoint.kind].finished(entry, self._loop.time(), took_s, by_event=by_event)

    def event_came(self, kind: Kind) -> None:
        """An event told of an end that no poll had to find."""
        self._schedules[kind].backstop.ended(by_event=True)

    def events_interrupted(self) -> None:
        """Events may be missed from now on: polls are at once what they are without events."""
        for schedule in self._each:
            schedule.events_interrupted()
        self._set_nearer()

    def events_resumed(self) -> None:
        """Events come again."""
        for schedule in self._each:
            schedule.events_resumed(self._loop.time())

    def hurry(self, entry: Entry) -> None:
        """A task is known to have ended, though not how: poll it as soon as it may be polled."""
        self._schedules[entry.endpoint.kind].hurry(entry)
        self._set_nearer()

    def pop(self, now_s: float, fullness: float) -> Entry | None:
        """The task to poll now; `fullness` of the query bucket is 0 to 1. None when none is due, or when more are than
        are examined in one step: `next_due_s` is then past."""
        for schedule in self._each:
            schedule.fullness = fullness
            while (entry := schedule.pop(now_s)) is not None:
                if not entry.ended:
                    return entry
        return None

    def learned(self) -> Learned:
        """What all schedules learned, under the interval of images."""
        by_kind = [schedule.learned() for schedule in self._each]
        return evolve(by_kind[0], classes={name: seen for each in by_kind for name, seen in each.classes.items()})

    # -------------------------------------------------------------------------------------- the alarm

    def start(self, on_due: Callable[[], None]) -> None:
        """Call `on_due` when a task is due. The alarm has then rung, and is silent until `rest`."""
        self._on_due = on_due
        self.rest(self.next_due_s())

    def stop(self) -> None:
        """Ring no more."""
        self._on_due = None
        self._silence()

    def next_due_s(self) -> float:
        """When a task is due, infinity while none is waited for."""
        next_due_s = math.inf
        for schedule in self._each:
            due_s = schedule.next_due_s()
            if due_s is not None and due_s < next_due_s:
                next_due_s = due_s
        return next_due_s

    @property
    def is_late(self) -> bool:
        """Whether the alarm should have rung by now, but the loop was too busy for it."""
        return -math.inf < self._rings_s <= self._loop.time()

    def rest(self, due_s: float) -> None:
        """Nothing more is polled for now: set the alarm for the next task that is due (`next_due_s`)."""
        self._silence()
        self._rings_s = math.inf
        self._set(due_s)

    def _set_nearer(self, schedule: Schedule[Entry] | None = None) -> None:
        """Set the alarm for a task (of this schedule) that is due before what it is set for; most are not."""
        due_s = self.next_due_s() if schedule is None else schedule.next_due_s()
        if due_s is not None and due_s < self._rings_s:
            self._silence()
            self._set(due_s)

    def _set(self, due_s: float) -> None:
        if self._on_due is not None and due_s < math.inf:
            self._rings_s = max(due_s, self._loop.time())
            self._alarm = self._loop.call_at(self._rings_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._rings_s = -math.inf
        if self._on_due is not None:
            self._on_due()

    def _silence(self) -> None:
        self._rings_s = -math.inf
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
