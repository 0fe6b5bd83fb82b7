"""The plan of a request class: at which age to poll a task that was last seen unfinished at some other age.

A dynamic programme over a grid of ages. It minimises the expected lag plus the price of the polls, knowing that a poll
a moment too early bars the next one for a whole interval.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_WAIT: Final = 12.0
"""The longest wait between two polls, in intervals: one minute at the service's 5 s."""
STEPS: Final = (10, 5, 2, 1)
"""Steps of the grid in one interval: as many as let `MOST_AGES` reach to where hardly a task is left."""
MOST_AGES: Final = 300
FEW_LEFT: Final = 1e-3


class Curve:
    """The cumulative hazard of a class on a grid of ages. `rates` are finishes per second between the `edges`."""

    __slots__ = ("_edges", "_rates", "cumulative", "step_s", "steps")

    def __init__(self, edges: Sequence[float], rates: Sequence[float], interval_s: float) -> None:
        self._edges = edges
        self._rates = rates
        enough = -math.log(FEW_LEFT)
        reach_s = self._reach_s(enough)
        self.steps: int = next((steps for steps in STEPS if (MOST_AGES - 1) * interval_s / steps >= reach_s), STEPS[-1])
        self.step_s: float = interval_s / self.steps
        self.cumulative: list[float] = self._cumulated(enough)

    def _reach_s(self, enough: float) -> float:
        """The age at which the cumulative hazard is `enough`."""
        total = 0.0
        for (begin_s, end_s), rate in zip(pairwise(self._edges), self._rates, strict=True):
            more = rate * (end_s - begin_s)
            if total + more >= enough:
                return begin_s + (enough - total) / rate
            total += more
        return math.inf

    def _cumulated(self, enough: float) -> list[float]:
        edges, rates, step_s = self._edges, self._rates, self.step_s
        total, at_s, place, sums = 0.0, 0.0, 0, [0.0]
        for step in range(1, MOST_AGES):
            until_s = step * step_s
            while edges[place + 1] < until_s:
                total += rates[place] * (edges[place + 1] - at_s)
                at_s, place = edges[place + 1], place + 1
            total += rates[place] * (until_s - at_s)
            sums.append(total)
            if total >= enough:
                break
            at_s = until_s
        return sums

    def at(self, age_s: float) -> float:
        """The cumulative hazard from age 0; beyond the grid as if the hazard had been constant since its end."""
        steps, sums = age_s / self.step_s, self.cumulative
        place = int(steps)
        if place + 1 < len(sums):
            return sums[place] + (sums[place + 1] - sums[place]) * (steps - place)
        return sums[-1] + self.rate_at(age_s) * (age_s - self.step_s * (len(sums) - 1))

    def rate_at(self, age_s: float) -> float:
        """Finishes per second."""
        return self._rates[bisect_right(self._edges, age_s) - 1]


def next_polls_s(curve: Curve, price_s: float, first_s: float) -> list[float]:
    """For each age of the grid at which a task was seen unfinished, the age (s) at which to poll it next.

    The second poll and later ones come an interval to `LONGEST_WAIT` intervals after the one before, the first after
    `first_s` at least. Costs are kept times the chance of being unfinished, so that nothing is divided by a tail's tiny
    one; beyond the grid they are 0, since hardly a task gets there.
    """
    step_s, ages, longest = curve.step_s, len(curve.cumulative), int(LONGEST_WAIT * curve.steps)
    first = min(max(math.ceil(first_s / step_s - 1e-9), 1), longest)
    unfinished = [math.exp(-total) for total in curve.cumulative]
    spent_s = _integrals([*unfinished, 0.0], step_s)
    spent_s += spent_s[-1:] * (longest - 1)
    cost_s, polls_s, latest = [0.0] * (ages + longest), [0.0] * ages, ages + longest
    for age in range(ages - 1, -1, -1):
        left, soonest = unfinished[age], age + (curve.steps if age else first)
        # Seen at a younger age, a task is never polled later: more are unfinished then that a later poll keeps waiting.
        last = min(latest, age + longest) if age else longest
        # How long those that finish in between wait for the poll: the wait, less the time until they finish. What of
        # both was before this age is the same for every poll, and is added to the best.
        wait_s, best_s = left * step_s, math.inf
        for at in range(soonest, last + 1):
            lag_s = at * wait_s - spent_s[at]
            if lag_s >= best_s:
                break
            total_s = lag_s + cost_s[at]
            if total_s < best_s:
                best_s, latest = total_s, at
        cost_s[age] = best_s - age * wait_s + spent_s[age] + price_s * left
        polls_s[age] = latest * step_s
    return polls_s


def _integrals(values: Sequence[float], step_s: float) -> list[float]:
    pieces = [step_s * (before + after) / 2 for before, after in pairwise(values)]
    return list(accumulate(pieces, initial=0.0))
