"""How likely a task of some age is to finish next: a hazard, learned per request class.

The hazard is piecewise constant on ages that grow by a fifth (piecewise-exponential survival): per bin the tasks that
finished in it, over the seconds that tasks were watched in it, both on top of a weak prior. Watching counts from every
poll, finished or not; counting finished tasks alone would see only the fast ones at first.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final

from toapis_async.models import Evidence

GROWTH: Final = 1.2
BINS: Final = 48
PRIOR_TASKS: Final = 0.2
"""The prior's weight per bin, in finished tasks: a few that really finish outweigh it. With less, tasks that come one
after the other are seen a little better, and a cold batch much worse (its first polls are believed too readily)."""


class Hazard:
    """A learned hazard. `unit_s` is the first bin's width; all ages scale with it."""

    __slots__ = ("_ages_s", "_edges", "_finished", "_prior_s", "_rates", "_watched_s", "finishes")

    _rates: list[float]
    finishes: float  #: how many tasks were seen to finish

    def __init__(self, unit_s: float, prior: Hazard | None = None) -> None:
        self._edges = edges_of(unit_s)
        self._rates = prior._rates[:] if prior else [_guess(age_s, unit_s) for age_s in self._edges[:BINS]]
        self._prior_s = [PRIOR_TASKS / rate for rate in self._rates]
        self._watched_s = [0.0] * BINS
        self._finished = [0.0] * BINS
        self.finishes = 0.0
        self._ages_s = 0.0  # the sum of the ages at which tasks finished, as far as bins resolve them

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

    def rate_in(self, place: int) -> float:
        """Finishes per second in one bin."""
        return self._rates[place]

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
        """The wait τ after which a poll is worth its price: the smallest τ from `at_least_s` on with
        ∫₀^τ h(age + u)·(τ - u) du >= price, the expected seconds that a finished task will have lain unseen."""
        edges, rates, place = self._edges, self._rates, self.bin_of(age_s)
        wait_s, chance, lag_s = 0.0, 0.0, 0.0  # chance: the cumulative hazard so far, by which the lag grows
        while wait_s < at_most_s:
            rate = rates[place]
            step_s = edges[place + 1] - age_s - wait_s
            lag_after_s = lag_s + (chance + rate * step_s / 2) * step_s
            if lag_after_s >= price_s:
                missing_s = price_s - lag_s
                wait_s += 2 * missing_s / (chance + math.sqrt(chance * chance + 2 * rate * missing_s))
                break
            wait_s, chance, lag_s, place = wait_s + step_s, chance + rate * step_s, lag_after_s, place + 1
        return min(max(wait_s, at_least_s), at_most_s)

    def evidence(self) -> Evidence:
        """Seconds watched and tasks finished, bin by bin."""
        return Evidence(tuple(self._watched_s), tuple(self._finished))

    def add_all(self, evidence: Evidence, weight: float = 1.0) -> None:
        """Add what another hazard of the same unit saw."""
        for place, (seconds, count) in enumerate(zip(evidence.watched_s[:BINS], evidence.finished, strict=False)):
            self.add(place, seconds * weight, count * weight)

    def add(self, place: int, watched_s: float, finished: float) -> None:
        """Add evidence to a bin. Its rate is a Gamma prior's mean: the prior's rate, weighing PRIOR_TASKS finishes."""
        self._watched_s[place] += watched_s
        self._finished[place] += finished
        self._rates[place] = (PRIOR_TASKS + self._finished[place]) / (self._prior_s[place] + self._watched_s[place])
        if finished:
            self.finishes += finished
            # Halfway into a bin that grows by a fifth is about nine tenths of its end; the last bin has no end.
            self._ages_s += finished * 0.9 * self._edges[min(place + 1, BINS - 1)]

    def mean_age_s(self) -> float:
        """The mean age at which tasks finished, from their bins; 0 when none did."""
        return self._ages_s / self.finishes if self.finishes else 0.0


def edges_of(unit_s: float) -> list[float]:
    """0, one unit, then ages growing by a fifth; the last bin is open."""
    return [0.0, *(unit_s * GROWTH**power for power in range(BINS - 1)), math.inf]


def _guess(age_s: float, unit_s: float) -> float:
    """Before anything is known: nothing finishes in the first units (the provider's 5 s), then about one in 25."""
    return (0.2 if age_s < 3 * unit_s else 1.0) / (25.0 * unit_s)
