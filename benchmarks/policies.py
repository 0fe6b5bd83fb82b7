"""Other ways of deciding when to poll, driven as ours is: fixed spacing, back-off, and a plan made beforehand."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Protocol

from benchmarks.library import INTERVAL_S

if TYPE_CHECKING:
    from benchmarks.library import Job
    from benchmarks.optimum import Plan


class Policy(Protocol):
    """What the simulator needs of a policy."""

    def add(self, job: Job) -> None:
        """The job was just submitted."""
        ...

    def unfinished(self, job: Job, now_s: float) -> None: ...
    def finished(self, job: Job, now_s: float) -> None: ...
    def next_due_s(self) -> float | None: ...
    def pop(self, now_s: float, fullness: float) -> Job | None:
        """The job to poll now, if one is due. `fullness` is the query bucket's, 0 to 1."""
        ...


class Timetable:
    """First due, first served. A subclass says how long to wait."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Job]] = []
        self._pushed = 0

    def wait_s(self, job: Job, age_s: float) -> float:
        """Seconds until the next poll of a job just seen unfinished at this age."""
        return INTERVAL_S

    def add(self, job: Job) -> None:
        self._push(job, job.since_s)

    def unfinished(self, job: Job, now_s: float) -> None:
        self._push(job, now_s)

    def finished(self, job: Job, now_s: float) -> None:
        pass

    def next_due_s(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None

    def pop(self, now_s: float, fullness: float) -> Job | None:
        if not self._waiting or self._waiting[0][0] > now_s:
            return None
        return heapq.heappop(self._waiting)[2]

    def _push(self, job: Job, now_s: float) -> None:
        self._pushed += 1
        heapq.heappush(self._waiting, (now_s + self.wait_s(job, now_s - job.since_s), self._pushed, job))


class FixedSpacing(Timetable):
    """The naive loop: every 5 s, in turn."""


class BackOff(Timetable):
    """The naive loop's cousin: 5 s, then half as long again each time, up to 10 s."""

    def wait_s(self, job: Job, age_s: float) -> float:
        return min(INTERVAL_S * 1.5 ** len(job.polls_s), 2 * INTERVAL_S)


class Planned(Timetable):
    """One plan per request class, made with the distribution known."""

    def __init__(self, plans: tuple[Plan, ...]) -> None:
        super().__init__()
        self._plans = plans

    def wait_s(self, job: Job, age_s: float) -> float:
        return self._plans[job.request_class % len(self._plans)].wait_s(age_s)
