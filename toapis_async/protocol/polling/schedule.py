"""When to poll which task: a poll is made when it is worth its price, the likeliest first when polls are scarce.

Pure: time comes in, tasks come out. The poller and the simulator of the benchmarks drive this very class.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from toapis_async.models import Learned
from toapis_async.protocol.polling.backstop import Backstop
from toapis_async.protocol.polling.forecast import Forecast
from toapis_async.protocol.polling.hazard import Hazard
from toapis_async.protocol.polling.plan import LONGEST_WAIT
from toapis_async.protocol.retry import backoff_s

if TYPE_CHECKING:
    import random

PRICE: Final = 0.01
"""The lag that one poll is worth, as a fraction of the interval, while the query bucket is more than half full: 0.05 s
at the service's 5 s. A poll takes nothing from anyone then, so only those are saved that would hardly find anything."""
PRICE_EVENTS: Final = 0.08
"""The same where events report the ends, and polls are there for what events miss."""
PLENTY: Final = 0.5
"""How full the bucket is at least while polls are not scarce."""
PRICE_SCARCE: Final = 0.4
"""What is added to the price when the bucket is empty; below `PLENTY`, by the square of what is missing."""
PRICED_FOR: Final = 7.0
"""A class that takes longer than so many intervals has cheaper polls in proportion: its tasks need more of them anyway,
and at the full price they would be seen up to half as late again."""
CHECKED_EVERY: Final = 2.0
"""In intervals: a task that waits longer has its plan checked in between, in case its class turned out quicker."""
SLICE: Final = 200
"""Waiting tasks that one `pop` examines at most, and due ones that it ranks anew: about a millisecond of work."""
PLANNING: Final = 100
"""Tasks that could be examined in the time that it takes to plan a class."""
RANKED_PER_UNIT: Final = 2_000
"""Due tasks ranked anew per unit of time (1 s at the service's 5 s): their chances grow at different speeds."""
EVENLY: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where between two polls a task may have finished when the service does not say."""
MOST_CLASSES: Final = 64
"""Request classes kept apart; beyond that the rest share one, so that odd requests can't grow the memory."""


class Watched(Protocol):
    """What the schedule keeps about a task; its owner provides the slots."""

    forecast: Forecast  #: of its request class
    since_s: float  #: when its age was 0
    seen_s: float  #: when it was last seen unfinished
    polled_s: float  #: when it was last polled, with or without success
    ended: bool  #: by an event, while it waits here: it is dropped when its time comes

    def __lt__(self, other: Any) -> bool:
        """Of two that are due at the same moment, which comes first."""
        ...


W = TypeVar("W", bound=Watched)


class Schedule(Generic[W]):
    """Waiting tasks in a heap by due time, due ones in heaps by their chance of having finished.

    Never a poll sooner than `interval_s` after the last (`first_s` after the start); every task is polled again
    within `LONGEST_WAIT` intervals while the query bucket allows; a task is in exactly one heap until it is popped.
    No call examines more than `SLICE` tasks, however many are due at once.
    """

    def __init__(
        self,
        *,
        first_s: float,
        interval_s: float,
        jitter: float,
        rng: random.Random,
        most_age_s: float = math.inf,
        typical: float = 5.0,
    ) -> None:
        """`typical` is how many intervals a task takes, before any was seen."""
        self._first_s = first_s
        self._interval_s = interval_s
        self._jitter = jitter
        self._most_age_s = most_age_s
        self._rng = rng
        self._unit_s = interval_s / 5
        self._typical_s = typical * interval_s
        self._strangers = Forecast(interval_s, first_s, None, self._typical_s)
        self._others = Forecast(interval_s, first_s, None, self._typical_s)
        self._forecasts: dict[str, Forecast] = {}
        self._waiting: list[tuple[float, W]] = []
        self._ready: list[tuple[float, W]] = []
        self._ranked: list[tuple[float, W]] = []
        self._ranked_s = -math.inf
        self._missed_until_s = -math.inf  # events may have been missed until then
        self.backstop: Backstop = Backstop()  #: polls get dearer as events leave them less to find
        self.fullness: float = 1.0  #: of the query bucket, 0 to 1; polls get dearer as it empties

    def _teaches(self, task: W) -> bool:
        """Whether a poll of the task teaches its forecast: not when its true age is unknown."""
        return task.seen_s != -math.inf and task.forecast is not self._strangers

    def forecast_of(self, request_class: str | None) -> Forecast:
        """What is known of a request class; a new one starts from what all classes taught. None: of a task that was
        submitted elsewhere, whose class and age nobody knows."""
        if request_class is None:
            return self._strangers
        forecast = self._forecasts.get(request_class)
        if forecast is None:
            if len(self._forecasts) >= MOST_CLASSES:
                return self._others
            forecast = self._forecasts[request_class] = Forecast(self._interval_s, self._first_s, self._pooled())
        return forecast

    def _pooled(self) -> Hazard:
        """What all classes taught."""
        pooled = Hazard(self._unit_s, None, self._typical_s)
        for forecast in self._forecasts.values():
            pooled.add_all(forecast.evidence())
        return pooled

    def learned(self) -> Learned:
        """What was learned so far."""
        return Learned(self._interval_s, {name: forecast.evidence() for name, forecast in self._forecasts.items()})

    def recall(self, prior: Learned) -> None:
        """Start from what an earlier session learned under the same interval."""
        if prior.interval_s != self._interval_s:
            return
        for name, evidence in prior.classes.items():
            self.forecast_of(name).recall(evidence)

    def add(self, task: W) -> None:
        """Begin with a task that was just begun: `since_s` is now."""
        task.seen_s = task.polled_s = task.since_s
        self._wait(task, self._planned_s(task), task.since_s)

    def add_unseen(self, task: W) -> None:
        """Begin with a task of unknown age and state: it is due at once."""
        task.seen_s = -math.inf
        heapq.heappush(self._waiting, (-math.inf, task))

    def put_back(self, task: W, now_s: float) -> None:
        """A poll showed the task unfinished: learn from it, and plan the next."""
        if self._teaches(task):
            task.forecast.saw_unfinished(task.seen_s - task.since_s, now_s - task.since_s)
        task.seen_s = task.polled_s = now_s
        self._wait(task, self._planned_s(task), now_s)

    def put_off(self, task: W, now_s: float, failures: int) -> None:
        """A poll failed (`failures` in a row) and showed nothing: back off, above the floor."""
        task.polled_s = now_s
        longest_s = LONGEST_WAIT * self._interval_s
        wait_s = max(
            backoff_s(failures, base_s=self._interval_s, cap_s=longest_s, rng=self._rng),
            self._interval_s * (1.0 + self._jitter * self._rng.random()),
        )
        heapq.heappush(self._waiting, (min(now_s + wait_s, task.since_s + self._most_age_s), task))

    def finished(self, task: W, now_s: float, took_s: float | None = None, *, by_event: bool = False) -> None:
        """A poll showed the task finished, after `took_s` if the service said so (in whole seconds); or an event
        did, which comes at once."""
        self.backstop.ended(by_event=by_event)
        if not self._teaches(task):
            return
        seen_age_s, age_s = task.seen_s - task.since_s, now_s - task.since_s
        if by_event:
            task.forecast.saw_finished(seen_age_s, age_s)
        elif took_s is not None and age_s - seen_age_s > 1.0:
            task.forecast.saw_finished(seen_age_s, min(max(took_s, seen_age_s), age_s))
        else:
            gap_s = age_s - seen_age_s
            task.forecast.saw_finished(seen_age_s, *(seen_age_s + part * gap_s for part in EVENLY))

    def events_interrupted(self) -> None:
        """Events of any task may be missed from now on: polls are what they are without events, those that wait
        already included. A poll that failed keeps its back-off."""
        self._missed_until_s = math.inf
        self._waiting = [(due_s if task.seen_s != task.polled_s else -math.inf, task) for due_s, task in self._waiting]
        heapq.heapify(self._waiting)

    def events_resumed(self, now_s: float) -> None:
        """Events come again: tasks whose end may have been missed are polled as without events until they are seen
        once more, and how much events find is learned anew."""
        self._missed_until_s = now_s
        self.backstop = Backstop()

    def hurry(self, task: W) -> None:
        """The task is known to have ended, though not how: its next poll is as soon as one may be. Linear in the tasks
        that wait."""
        for place, (_, waiting) in enumerate(self._waiting):
            if waiting is task:
                task.seen_s = -math.inf
                self._waiting[place] = (task.polled_s + self._interval_s, task)
                heapq.heapify(self._waiting)
                return

    def next_due_s(self) -> float | None:
        """When `pop` is to be called next; None while no task is waited for."""
        if self._ready or self._ranked:
            return -math.inf
        return self._waiting[0][0] if self._waiting else None

    def pop(self, now_s: float) -> W | None:
        """A due task: while polls are scarce, the one most likely to have finished. Give it back with `put_back` or
        `put_off`, or not at all when it has ended. None if none is due, or if more are due than one call examines:
        `next_due_s` is then past, and the next call goes on."""
        work, waiting, ready, ranked = 0, self._waiting, self._ready, self._ranked
        while waiting and waiting[0][0] <= now_s:
            if work >= SLICE:
                return None
            task = heapq.heappop(waiting)[1]
            plans = task.forecast.plans
            is_ready, is_new_plan = self._is_ready(task, now_s), task.forecast.plans != plans
            if is_ready:
                is_alone = not waiting or waiting[0][0] > now_s
                if not ready and not ranked and (is_alone or (self.fullness >= PLENTY and not is_new_plan)):
                    return task  # whether another is likelier need not be known
                heapq.heappush(ready, (-self._chance(task, now_s), task))
            work += PLANNING if is_new_plan else 1
        if not ready and not ranked:
            return None
        self._rank(now_s)
        ready, ranked = self._ready, self._ranked
        if ranked and (not ready or ranked[0] < ready[0]):
            return heapq.heappop(ranked)[1]
        return heapq.heappop(ready)[1]

    def _is_ready(self, task: W, now_s: float) -> bool:
        """Whether a task whose time has come is to be polled. It waits again when its class was planned anew and it
        should wait longer."""
        if task.ended:
            return False
        planned_s = self._planned_s(task)
        if planned_s > now_s and task.since_s + self._most_age_s > now_s:
            self._wait(task, planned_s, now_s)
            return False
        return True

    def _rank(self, now_s: float) -> None:
        """Chances grow while tasks are ready, at different speeds: rank some anew, by and by all of them."""
        due = (now_s - self._ranked_s) / self._unit_s * RANKED_PER_UNIT
        if len(self._ready) + len(self._ranked) < 2 or due < 1:
            return
        self._ranked_s = now_s
        if not self._ready:
            self._ready, self._ranked = self._ranked, self._ready
        for _ in range(int(min(due, SLICE, len(self._ready)))):
            task = self._ready.pop()[1]  # a heap without its last leaf is a heap
            heapq.heappush(self._ranked, (-self._chance(task, now_s), task))

    def _chance(self, task: W, now_s: float) -> float:
        """How likely it has finished since it was last seen (as a cumulative hazard: the order is the same)."""
        if task.seen_s == -math.inf:
            return math.inf
        return task.forecast.chance(task.seen_s - task.since_s, now_s - task.since_s)

    def _planned_s(self, task: W) -> float:
        """When a poll of the task is worth its price, without jitter."""
        if task.seen_s == -math.inf:
            return -math.inf
        at_s = task.since_s + task.forecast.next_poll_age_s(task.seen_s - task.since_s, self._price_s(task))
        return max(at_s, task.seen_s + (self._first_s if task.seen_s == task.since_s else self._interval_s))

    def _price_s(self, task: W) -> float:
        """λ in seconds: for the task's class, the more the emptier the query bucket is, and the fewer ends polls find,
        unless the task's end may have been missed."""
        price, share = PRICE, 1.0
        if task.seen_s >= self._missed_until_s and (share := self.backstop.share) < 1.0:
            price = PRICE * share + PRICE_EVENTS * (1.0 - share)
        if self.fullness < PLENTY:
            price += PRICE_SCARCE * (1.0 - self.fullness / PLENTY) ** 2
        price_s, typical = price / share * self._interval_s, task.forecast.typical_s / self._interval_s
        return price_s if typical <= PRICED_FOR else price_s * PRICED_FOR / typical

    def _wait(self, task: W, planned_s: float, now_s: float) -> None:
        """Wait for the task's next poll, or until its plan is checked if that is sooner. Checks are at the same moments
        for all tasks, so that nobody is woken for each."""
        if task.seen_s == task.since_s:  # later polls are spread by the first
            planned_s += self._interval_s * self._jitter * self._rng.random()
        checked_every_s = CHECKED_EVERY * self._interval_s
        checked_s = (now_s // checked_every_s + 2.0) * checked_every_s
        heapq.heappush(self._waiting, (min(planned_s, checked_s, task.since_s + self._most_age_s), task))
