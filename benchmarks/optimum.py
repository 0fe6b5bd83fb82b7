"""The best possible: what a poller that knows the distribution, or even every task's end, could reach.

`best_plan` is a dynamic programme over the age of the last poll; `oracle_makespan_s` knows everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Plan:
    """When to poll, for each age (in steps of `step_s`) at which a task was last seen unfinished."""

    step_s: float
    steps: tuple[int, ...]
    cost_s: float  #: the expected J of one task: its lag plus the price of its polls

    def wait_s(self, age_s: float) -> float:
        place = min(round(age_s / self.step_s), len(self.steps) - 1)
        return self.steps[place] * self.step_s


def best_plan(
    cdf: Callable[[float], float],
    price_s: float,
    *,
    interval_s: float = 5.0,
    horizon_s: float,
    longest_s: float = 60.0,
    step_s: float = 0.25,
) -> Plan:
    """Minimise E[lag + price_s * polls] with polls at least `interval_s` and at most `longest_s` apart.

    Costs are kept times the chance of being unfinished, so that nothing is divided by a tail's tiny probability.
    Beyond `horizon_s` hardly a task is left (choose it so); there the plan is to poll every `interval_s`.
    """
    ages = round(horizon_s / step_s)
    least, most = math.ceil(interval_s / step_s - 1e-9), round(longest_s / step_s)
    done = [cdf(place * step_s) for place in range(ages + most + 1)]
    area = _integrals(cdf, step_s, len(done))
    cost = [0.0] * len(done)
    steps = [least] * (ages + 1)
    for age in range(ages, -1, -1):
        known, behind = done[age], area[age]
        best, chosen = math.inf, least
        for wait in range(least, most + 1):
            # The lag of those that finish in between: the integral of (age + wait - u) dF(u), by parts.
            lag_s = area[age + wait] - behind - wait * step_s * known
            if lag_s >= best:
                break
            total = lag_s + cost[age + wait]
            if total < best:
                best, chosen = total, wait
        cost[age], steps[age] = best + price_s * (1.0 - known), chosen
    return Plan(step_s, tuple(steps), cost[0])


def _integrals(cdf: Callable[[float], float], step_s: float, count: int) -> list[float]:
    """The integral of the distribution from 0 to each step, by Simpson's rule."""
    total, sums = 0.0, [0.0]
    for place in range(1, count):
        left_s = (place - 1) * step_s
        total += step_s / 6 * (cdf(left_s) + 4 * cdf(left_s + step_s / 2) + cdf(left_s + step_s))
        sums.append(total)
    return sums


def oracle_polls_s(ends_s: Iterable[float], burst: float, per_s: float) -> list[tuple[float, float]]:
    """(end, poll) of each task when every task is polled at once, after its end, as soon as there is a token.

    The bucket is full at time 0. Serving in the order of the ends is the best for the makespan and for the mean lag.
    """
    level, at_s, polls = burst, 0.0, []
    for end_s in sorted(ends_s):
        now_s = max(at_s, end_s)
        level = min(level + (now_s - at_s) * per_s, burst)
        if level < 1.0:
            now_s += (1.0 - level) / per_s
            level = 1.0
        level, at_s = level - 1.0, now_s
        polls.append((end_s, now_s))
    return polls
