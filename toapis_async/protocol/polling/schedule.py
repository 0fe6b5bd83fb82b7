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
from toapis_async.protocol.retry import backoff_s

if TYPE_CHECKING:
    import random

PRICE: Final = 0.08
"""λ as a fraction of the interval, the lag that one poll is worth: 0.4 s at the service's 5 s. A class that takes
longer than `PRICED_FOR` intervals has cheaper polls in proportion: its tasks need more of them anyway, and at the full
price they would be seen up to half as late again (1.4 times the lag of polling every 5 s, at 70 s of service)."""
PRICED_FOR: Final = 7.0
LONGEST_WAIT: Final = 12.0
"""The longest wait between two polls, in intervals: one minute at the service's 5 s."""
PUT_OFF: Final = 0.25
"""A task whose time has come is put off only for at least this fraction of the interval: every poll lowers a class's
hazard a little, and its tasks would else creep along, planned anew a dozen times a poll."""
MOST_CLASSES: Final = 64
"""Request classes kept apart; beyond that the rest share one, so that odd requests can't grow the memory."""


class Watched(Protocol):
    """What the schedule keeps about a task; its owner provides the slots."""

    forecast: Forecast  #: of its request class
    since_s: float  #: when its age was 0
    seen_s: float  #: when it was last seen unfinished
    polled_s: float  #: when it was last polled, with or without success

    def __lt__(self, other: Any) -> bool:
        """Of two that are due at the same moment, which comes first."""
        ...


W = TypeVar("W", bound=Watched)


class Schedule(Generic[W]):
    """Waiting tasks in a heap by due time, due ones in a heap by their chance of having finished.

    Never a poll sooner than `interval_s` after the last (`first_s` after the start); every task is polled again
    within `LONGEST_WAIT` intervals while the query bucket allows; a task is in exactly one heap until it is popped.
    """

    def __init__(
        self,
        *,
        first_s: float,
        interval_s: float,
        jitter: float,
        rng: random.Random,
        most_age_s: float = math.inf,
    ) -> None:
        self._first_s = first_s
        self._interval_s = interval_s
        self._jitter = jitter
        self._most_age_s = most_age_s
        self._rng = rng
        self._unit_s = interval_s / 5
        self._strangers = Forecast(self._unit_s)
        self._others = Forecast(self._unit_s)
        self._forecasts: dict[str, Forecast] = {}
        self._waiting: list[tuple[float, W]] = []
        self._ready: list[tuple[float, W]] = []
        self._ranked_s = -math.inf
        self._finishes = 0
        self.backstop = Backstop()  #: polls get dearer as events leave them less to find
        self.fullness = 1.0  #: of the query bucket, 0 to 1; polls get dearer as it empties

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
            forecast = self._forecasts[request_class] = Forecast(self._unit_s, self._pooled())
        return forecast

    def _pooled(self) -> Hazard:
        """What all classes taught."""
        pooled = Hazard(self._unit_s)
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
        self._push(task, self._planned_s(task) + self._jitter_s())

    def add_unseen(self, task: W) -> None:
        """Begin with a task of unknown age and state: it is due at once."""
        task.seen_s = -math.inf
        self._push(task, -math.inf)

    def put_back(self, task: W, now_s: float) -> None:
        """A poll showed the task unfinished: learn from it, and plan the next."""
        if self._teaches(task):
            task.forecast.saw_unfinished(task.seen_s - task.since_s, now_s - task.since_s)
        task.seen_s = task.polled_s = now_s
        self._push(task, self._planned_s(task) + self._jitter_s())

    def put_off(self, task: W, now_s: float, failures: int) -> None:
        """A poll failed (`failures` in a row) and showed nothing: back off, above the floor."""
        task.polled_s = now_s
        longest_s = LONGEST_WAIT * self._interval_s
        wait_s = backoff_s(failures, base_s=self._interval_s, cap_s=longest_s, rng=self._rng)
        self._push(task, now_s + max(wait_s, self._interval_s + self._jitter_s()))

    def finished(self, task: W, now_s: float, took_s: float | None = None, *, by_event: bool = False) -> None:
        """A poll showed the task finished, after `took_s` if the service said so (in whole seconds); or an event
        did, which comes at once."""
        self.backstop.ended(by_event=by_event)
        if not self._teaches(task):
            return
        at_s = now_s if by_event else (task.seen_s + now_s) / 2
        if took_s is not None and now_s - task.seen_s > 1.0:
            at_s = min(max(task.since_s + took_s, task.seen_s), now_s)
        task.forecast.saw_finished(task.seen_s - task.since_s, at_s - task.since_s)
        self._finishes += 1
        self._replan_if_moved(task.forecast, at_s - task.since_s)

    def next_due_s(self) -> float | None:
        """When the first poll is due; None while no task is waited for."""
        if self._ready:
            return -math.inf
        return self._waiting[0][0] if self._waiting else None

    def pop(self, now_s: float) -> W | None:
        """The due task most likely to have finished, None if none is due. Give it back with `put_back` or `put_off`,
        or not at all when it has ended."""
        while self._waiting and self._waiting[0][0] <= now_s:
            task = heapq.heappop(self._waiting)[1]
            planned_s = min(self._planned_s(task), task.since_s + self._most_age_s)
            if planned_s > now_s + PUT_OFF * self._interval_s:
                # less likely to finish soon than it was thought when it was planned
                self._push(task, planned_s)
            else:
                heapq.heappush(self._ready, (-self._chance(task, now_s), task))
        if not self._ready:
            return None
        self._rank(now_s)
        return heapq.heappop(self._ready)[1]

    def _rank(self, now_s: float) -> None:
        """Chances grow while tasks wait, at different speeds: rank them anew, the more rarely the more they are."""
        if len(self._ready) > 1 and now_s - self._ranked_s >= self._unit_s * len(self._ready) / 1_000:
            self._ranked_s = now_s
            self._ready = [(-self._chance(task, now_s), task) for _, task in self._ready]
            heapq.heapify(self._ready)

    def _chance(self, task: W, now_s: float) -> float:
        """How likely it has finished since it was last seen (as a cumulative hazard: the order is the same)."""
        if task.seen_s == -math.inf:
            return math.inf
        return task.forecast.chance(task.seen_s - task.since_s, now_s - task.since_s)

    def _planned_s(self, task: W) -> float:
        """When a poll of the task is worth its price."""
        if task.seen_s == -math.inf:
            return -math.inf
        never_seen = task.seen_s == task.since_s
        wait_s = task.forecast.worth_wait_s(
            task.seen_s - task.since_s,
            self._price_of(task.forecast),
            at_least_s=self._first_s if never_seen else self._interval_s,
            at_most_s=max(LONGEST_WAIT * self._interval_s, self._first_s),
        )
        return task.seen_s + wait_s

    def _price_of(self, forecast: Forecast) -> float:
        """λ in seconds: for this class, the more the emptier the query bucket is, and the fewer ends polls find."""
        priced_for_s = PRICED_FOR * self._interval_s
        price_s = PRICE * self._interval_s * priced_for_s / max(forecast.typical_s, priced_for_s)
        return price_s * (1.0 + 6.0 * (1.0 - self.fullness) ** 2) / self.backstop.share

    def _jitter_s(self) -> float:
        return self._interval_s * self._jitter * self._rng.random()

    def _push(self, task: W, due_s: float) -> None:
        heapq.heappush(self._waiting, (min(due_s, task.since_s + self._most_age_s), task))

    def _replan_if_moved(self, forecast: Forecast, age_s: float) -> None:
        """Poll a class's waiting tasks sooner when it finishes sooner than when it was planned; popping alone can
        only delay. Done for every tenth of the waiting tasks that finish at most, so that planning stays cheap."""
        if self._finishes < len(self._waiting) / 10 or not forecast.has_risen(age_s):
            return
        self._finishes = 0
        forecast.mark()
        self._waiting = [
            (self._sooner(due_s, task) if task.forecast is forecast else due_s, task) for due_s, task in self._waiting
        ]
        heapq.heapify(self._waiting)

    def _sooner(self, due_s: float, task: W) -> float:
        return min(due_s, max(self._planned_s(task) + self._jitter_s(), task.polled_s + self._interval_s))
