"""How likely a task of some age is to finish next: a hazard, learned per request class.

The hazard is piecewise constant on ages that grow by a fifth (piecewise-exponential survival): per bin the tasks that
finished in it, over the seconds that tasks were watched in it, both on top of a weak prior. Watching counts from every
look, finished or not; counting finished tasks alone would see only the fast ones at first.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final

GROWTH: Final = 1.2
BINS: Final = 48
PRIOR_TASKS: Final = 0.3
"""The prior's weight per bin, in finished tasks: a few that really finish outweigh it (best of 0.03 to 3)."""


class Hazard:
    """A learned hazard. `unit_s` is the first bin's width; all ages scale with it."""

    __slots__ = ("_edges", "_finished", "_prior", "_rates", "_watched_s")

    _rates: list[float]

    def __init__(self, unit_s: float, prior: Hazard | None = None) -> None:
        self._edges = edges_of(unit_s)
        self._prior = prior._rates[:] if prior is not None else [_guess(age_s, unit_s) for age_s in self._edges[:BINS]]
        self._watched_s = [0.0] * BINS
        self._finished = [0.0] * BINS
        self._rates = self._prior[:]

    def watched(self, from_s: float, to_s: float) -> None:
        """A task was seen unfinished at both ages: nothing happened in between."""
        if from_s >= to_s:
            return
        place = self.bin_of(from_s)
        while (end_s := self._edges[place + 1]) < to_s:
            self.add(place, end_s - from_s, 0.0)
            from_s, place = end_s, place + 1
        self.add(place, to_s - from_s, 0.0)

    def finished(self, from_s: float, at_s: float) -> None:
        """A task seen unfinished at age `from_s` finished at age `at_s`."""
        self.watched(from_s, at_s)
        self.add(self.bin_of(at_s), 0.0, 1.0)

    def rates(self) -> list[float]:
        """Finishes per second, by bin."""
        return self._rates[:]

    def bin_of(self, age_s: float) -> int:
        return bisect_right(self._edges, age_s) - 1 if age_s > 0 else 0  # the last edge is infinity

    def integral(self, from_s: float, to_s: float) -> float:
        """The cumulative hazard between two ages; 1 - exp(-it) is the chance of having finished in between."""
        if from_s >= to_s:
            return 0.0
        total, place = 0.0, self.bin_of(from_s)
        while (end_s := self._edges[place + 1]) < to_s:
            total += self._rates[place] * (end_s - from_s)
            from_s, place = end_s, place + 1
        return total + self._rates[place] * (to_s - from_s)

    def worth_wait_s(self, age_s: float, price_s: float, *, at_least_s: float, at_most_s: float) -> float:
        """The wait τ after which a look is worth its price: the smallest τ from `at_least_s` on with
        ∫₀^τ h(age + u)·(τ - u) du >= price, the expected seconds that a finished task will have lain unseen."""
        place = self.bin_of(age_s)
        wait_s, chance, lag_s = 0.0, 0.0, 0.0  # chance: the cumulative hazard so far, by which the lag grows
        while wait_s < at_most_s:
            rate = self._rates[place]
            step_s = min(self._edges[place + 1] - age_s, at_most_s) - wait_s
            lag_after_s = lag_s + chance * step_s + rate * step_s * step_s / 2
            if lag_after_s >= price_s:
                missing_s = price_s - lag_s
                wait_s += 2 * missing_s / (chance + math.sqrt(chance * chance + 2 * rate * missing_s))
                break
            wait_s, chance, lag_s = wait_s + step_s, chance + rate * step_s, lag_after_s
            place = min(place + 1, BINS - 1)
        return min(max(wait_s, at_least_s), at_most_s)

    def seen(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Seconds watched and tasks finished, bin by bin."""
        return tuple(self._watched_s), tuple(self._finished)

    def add(self, place: int, watched_s: float, finished: float) -> None:
        """Add evidence to a bin. Its rate is a Gamma prior's mean: the prior's rate, weighing PRIOR_TASKS finishes."""
        self._watched_s[place] += watched_s
        self._finished[place] += finished
        prior_watched_s = PRIOR_TASKS / self._prior[place]
        self._rates[place] = (PRIOR_TASKS + self._finished[place]) / (prior_watched_s + self._watched_s[place])

    def mean_age_s(self) -> float:
        """The mean age at which tasks finished, from their bins; 0 when none did."""
        total = sum(self._finished)
        if not total:
            return 0.0
        # Halfway into a bin that grows by a fifth is about nine tenths of its end; the last bin has no end.
        ends = (*self._edges[1:BINS], self._edges[BINS - 1])
        return sum(0.9 * end * count for end, count in zip(ends, self._finished, strict=True)) / total


def edges_of(unit_s: float) -> list[float]:
    """0, one unit, then ages growing by a fifth; the last bin is open."""
    return [0.0, *(unit_s * GROWTH**power for power in range(BINS - 1)), math.inf]


def _guess(age_s: float, unit_s: float) -> float:
    """Before anything is known: nothing finishes in the first units (the provider's 5 s), then about one in 25."""
    return (0.2 if age_s < 3 * unit_s else 1.0) / (25.0 * unit_s)
