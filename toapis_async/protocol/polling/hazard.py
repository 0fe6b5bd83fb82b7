"""How likely a task of some age is to finish next: a hazard, learned per request class.

The hazard is piecewise constant on bins of age (piecewise-exponential survival): per bin the tasks that finished in
it, over the seconds that tasks were watched in it, both on top of a weak prior. Every poll counts, finished or not;
counting finished tasks alone would see only the fast ones at first.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import Final

from toapis_async.models import Evidence

FINEST: Final = 0.5
"""The width of the first bins, in units: the service gives its times in whole seconds."""
GROWTH: Final = 1.05
BINS: Final = 150
PRIOR_TASKS: Final = 0.02
"""The prior's weight per bin, in finished tasks: a few that really finish outweigh it. With more, a class that is
known well is still polled early now and then; with less, the first polls of a cold batch are believed too readily."""


class Hazard:
    """A learned hazard. `unit_s` scales all ages: 1 s at the service's interval of 5 s."""

    __slots__ = ("_ages_s", "_entered", "_finished", "_prior_rates", "_watched_s", "edges", "finishes")

    edges: list[float]  #: of the bins, in seconds of age; the last is infinity
    finishes: float  #: how many tasks were seen to finish

    def __init__(self, unit_s: float, prior: Hazard | None = None, typical_s: float | None = None) -> None:
        """`typical_s` is how long a task takes before anything is known; 25 units if left out."""
        guess_s = 25.0 * unit_s if typical_s is None else typical_s
        self.edges = edges_of(unit_s)
        self._prior_rates = prior.rates() if prior else [_guess(age_s, unit_s, guess_s) for age_s in self.edges[:BINS]]
        self._entered = [0.0] * BINS  # tasks that began to be watched in a bin, less those that ceased to be
        self._watched_s = [0.0] * BINS  # what is to be added to (tasks watched) x (width of the bin)
        self._finished = [0.0] * BINS
        self.finishes = 0.0
        self._ages_s = 0.0  # the sum of the ages at which tasks finished

    def watched(self, from_s: float, to_s: float, weight: float = 1.0) -> None:
        """A task was seen unfinished at both ages: nothing happened in between."""
        if from_s >= to_s:
            return
        edges, first, last = self.edges, self.bin_of(from_s), self.bin_of(to_s)
        # Whole bins are entered at `first` and left at `last`; the parts at both ends are corrected for.
        self._entered[first] += weight
        self._entered[last] -= weight
        self._watched_s[first] -= weight * (from_s - edges[first])
        self._watched_s[last] += weight * (to_s - edges[last])

    def finished(self, from_s: float, at_s: float, weight: float = 1.0) -> None:
        """A task seen unfinished at age `from_s` finished at age `at_s`."""
        self.watched(from_s, at_s, weight)
        self._finished[self.bin_of(at_s)] += weight
        self.finishes += weight
        self._ages_s += weight * at_s

    def rates(self) -> list[float]:
        """Finishes per second, by bin. A rate is a Gamma prior's mean: the prior's rate, weighing PRIOR_TASKS."""
        return [
            (PRIOR_TASKS + finished) / (PRIOR_TASKS / rate + watched_s)
            for finished, rate, watched_s in zip(self._finished, self._prior_rates, self._exposure_s(), strict=True)
        ]

    def _exposure_s(self) -> list[float]:
        """Seconds that tasks were watched, by bin."""
        widths_s = [end_s - begin_s for begin_s, end_s in pairwise(self.edges[:BINS])]
        widths_s.append(0.0)  # the open bin is never watched whole
        return [
            max(count * width_s + part_s, 0.0)
            for count, width_s, part_s in zip(accumulate(self._entered), widths_s, self._watched_s, strict=True)
        ]

    def bin_of(self, age_s: float) -> int:
        return bisect_right(self.edges, age_s) - 1 if age_s > 0 else 0  # the last edge is infinity

    def evidence(self) -> Evidence:
        """Seconds watched and tasks finished, bin by bin."""
        return Evidence(tuple(self._exposure_s()), tuple(self._finished))

    def add_all(self, evidence: Evidence, weight: float = 1.0) -> None:
        """Add what another hazard of the same unit saw."""
        for place, (seconds, count) in enumerate(zip(evidence.watched_s[:BINS], evidence.finished, strict=False)):
            self._watched_s[place] += seconds * weight
            self._finished[place] += count * weight
            self.finishes += count * weight
            self._ages_s += count * weight * self.edges[place]

    def mean_age_s(self) -> float:
        """The mean age at which tasks finished; 0 when none did."""
        return self._ages_s / self.finishes if self.finishes else 0.0


def edges_of(unit_s: float) -> list[float]:
    """0, then bins of half a unit, or of a twentieth of their age where that is more; the last bin is open."""
    edges = [0.0]
    while len(edges) < BINS:
        edges.append(max(edges[-1] + FINEST * unit_s, edges[-1] * GROWTH))
    return [*edges, math.inf]


def _guess(age_s: float, unit_s: float, typical_s: float) -> float:
    """Before anything is known: nothing finishes in the first units (the provider's 5 s), then about one in
    `typical_s`."""
    return (0.2 if age_s < 3 * unit_s else 1.0) / typical_s
