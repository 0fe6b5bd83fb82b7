"""A poller in virtual time: the engine's loop without asyncio, over any policy and the library's own token bucket."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.library import Bucket, Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.loads import Load
    from benchmarks.policies import Policy

LATENCY_S = 0.05
"""From a poll's sending to its answer; the service reads the task's state half-way."""


@dataclass(frozen=True)
class Outcome:
    """What one run came to, over some of its jobs."""

    polls: float  #: GETs per task
    lag_s: float  #: mean of: moment it was seen finished, minus moment it was
    p95_s: float
    makespan_s: float  #: until the last one was seen
    least_gap_s: float  #: between two polls of one job

    def cost_s(self, price_s: float) -> float:
        """J: the lag, plus the polls at their price."""
        return self.lag_s + price_s * self.polls


class Simulation:
    """Jobs come at their `since_s`, or (with `in_flight`) as soon as others are seen finished."""

    def __init__(self, policy: Policy, jobs: Sequence[Job], bucket: Bucket, in_flight: int | None = None) -> None:
        self._policy = policy
        self._jobs = jobs
        self._bucket = bucket
        self._begun = 0
        self._allowed = in_flight if in_flight is not None else len(jobs)
        self._unseen = len(jobs)
        self._answers: deque[tuple[float, Job]] = deque()

    def run(self) -> None:
        now_s = 0.0
        while self._unseen:
            self._begin(now_s)
            self._take_answers(now_s)
            self._poll_while_allowed(now_s)
            now_s = max(now_s, min(self._next_job_s(now_s), self._next_answer_s(), self._next_poll_s(now_s)))

    def _begin(self, now_s: float) -> None:
        while self._begun < self._allowed and self._begun < len(self._jobs):
            job = self._jobs[self._begun]
            if job.since_s > now_s:
                return
            job.since_s = now_s
            self._begun += 1
            self._policy.add(job)

    def _take_answers(self, now_s: float) -> None:
        while self._answers and self._answers[0][0] <= now_s:
            job = self._answers.popleft()[1]
            self._bucket.answered(now_s, LATENCY_S)
            if job.end_s > now_s - LATENCY_S / 2:
                self._policy.unfinished(job, now_s)
                continue
            job.found_s = now_s
            self._policy.finished(job, now_s)
            self._unseen -= 1
            if self._allowed < len(self._jobs):
                self._allowed += 1
                self._begin(now_s)

    def _poll_while_allowed(self, now_s: float) -> None:
        while self._next_poll_s(now_s) <= now_s:
            job = self._policy.pop(now_s, self._bucket.fullness(now_s))
            if job is not None:
                self._bucket.take(now_s)
                job.polls_s.append(now_s)
                self._answers.append((now_s + LATENCY_S, job))

    def _next_poll_s(self, now_s: float) -> float:
        due_s = self._policy.next_due_s()
        if due_s is None:
            return math.inf
        return due_s if due_s > now_s else now_s + self._bucket.wait_s(now_s)

    def _next_job_s(self, now_s: float) -> float:
        if self._begun < min(self._allowed, len(self._jobs)):
            return self._jobs[self._begun].since_s
        return math.inf

    def _next_answer_s(self) -> float:
        return self._answers[0][0] if self._answers else math.inf


def make_jobs(load: Load, count: int, *, seed: int, burst: float = math.inf, per_s: float = math.inf) -> list[Job]:
    """Jobs submitted through a bucket: `burst` at once, then `per_s`."""
    rng = random.Random(seed)
    jobs = [Job(number, *load.draw(number, rng)) for number in range(count)]
    for job in jobs:
        job.since_s = max(job.number - burst, 0.0) / per_s
    return jobs


def outcome_of(jobs: Sequence[Job]) -> Outcome:
    lags = sorted(job.found_s - job.end_s for job in jobs)
    gaps = (b - a for job in jobs for a, b in zip([job.since_s, *job.polls_s], job.polls_s, strict=False))
    return Outcome(
        polls=sum(len(job.polls_s) for job in jobs) / len(jobs),
        lag_s=sum(lags) / len(lags),
        p95_s=lags[int(0.95 * len(lags))],
        makespan_s=max(job.found_s for job in jobs),
        least_gap_s=min(gaps),
    )
