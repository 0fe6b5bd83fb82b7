"""`python -m benchmarks.steps`: the longest single call of the schedule, in CPU of its thread, with the collector off.

Between two calls the poller lets the event loop go on, so this is what a schedule can stall it for.
"""

from __future__ import annotations

import gc
import math
import random
import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.library import Job, Ours
from benchmarks.report import Row, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REACH_MS = {1_000: 5.0, 10_000: 10.0, 50_000: 20.0}
"""By how many tasks wait."""
POLLS = 500
"""That are answered in each scenario: the burst of the default tier."""


class Timed:
    """Calls, and the longest of them."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.calls = 0

    def __call__(self, what: Callable[[], object]) -> object:
        began_s = time.thread_time()
        result = what()
        self.longest_s = max(self.longest_s, time.thread_time() - began_s)
        self.calls += 1
        return result


def waiting(count: int, seed: int) -> tuple[Ours, list[Job]]:
    """So many tasks of one known class, begun together."""
    rng, ours = random.Random(seed), Ours(seed=seed)
    jobs = [Job(number, 0, 30.0 * math.exp(0.4 * rng.gauss(0.0, 1.0))) for number in range(count)]
    for job in jobs:
        ours.add(job)
    return ours, jobs


def poll_all_due(ours: Ours, now_s: float, timed: Timed) -> None:
    """What is due is popped as the poller does; `POLLS` of it are answered."""
    answered = 0
    while answered < POLLS and (ours.next_due_s() or -math.inf) <= now_s:
        job = timed(partial(ours.pop, now_s, 1.0))
        if isinstance(job, Job):
            answered += 1
            answer = ours.finished if job.end_s <= now_s else ours.unfinished
            timed(partial(answer, job, now_s))


def all_due(count: int, seed: int) -> Timed:
    """A laptop was suspended, or the service was away: every task is due at once."""
    ours, _ = waiting(count, seed)
    timed = Timed()
    poll_all_due(ours, 60.0, timed)
    return timed


def planned_anew(count: int, seed: int) -> Timed:
    """A tenth of a class finishes much sooner than it was thought to take; the rest has to be planned anew."""
    ours, jobs = waiting(count, seed)
    timed = Timed()
    for job in jobs[: count // 10]:
        timed(partial(ours.finished, job, 7.0))
    for now_s in (10.0, 20.0, 30.0):
        poll_all_due(ours, now_s, timed)
    return timed


def step_rows() -> Iterator[Row]:
    """Measure 12."""
    gc.disable()
    try:
        for name, scenario in (("all tasks are due", all_due), ("a class is planned anew", planned_anew)):
            for count, reach_ms in REACH_MS.items():
                runs = [scenario(count, seed) for seed in range(5)]
                what = f"longest call of the schedule (ms), {name}, {count:,} tasks"
                yield Row(12, what, tuple(1e3 * run.longest_s for run in runs), reach_ms, f"{runs[0].calls:,} calls")
                gc.collect()
    finally:
        gc.enable()


if __name__ == "__main__":
    print(table(step_rows()))
