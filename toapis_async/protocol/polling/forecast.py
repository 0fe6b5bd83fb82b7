"""What is known of one request class: how long its tasks take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toapis_async.protocol.polling.hazard import Hazard

if TYPE_CHECKING:
    from toapis_async.models import Evidence

RISEN: Final = 1.2
"""A hazard that rose by a fifth since its class was planned calls for a new plan."""
_MOST_RECALLED: Final = 200.0
"""An earlier session counts as at most this many tasks: enough to start warm, few enough to be overruled."""


class Forecast:
    """How likely the tasks of one request class are to finish at which age. Ages are in seconds since submission."""

    __slots__ = ("_hazard", "_planned", "typical_s")

    typical_s: float  #: the mean age at which tasks finish; 0 while unknown

    def __init__(self, unit_s: float, pooled: Hazard | None = None) -> None:
        self._hazard = Hazard(unit_s, pooled)
        self._planned = self._hazard.rates()
        self.typical_s = pooled.mean_age_s() if pooled else 0.0

    def worth_wait_s(self, age_s: float, price_s: float, *, at_least_s: float, at_most_s: float) -> float:
        """The wait after which the next poll of a task seen unfinished at `age_s` is worth its price."""
        return self._hazard.worth_wait_s(age_s, price_s, at_least_s=at_least_s, at_most_s=at_most_s)

    def chance(self, from_age_s: float, to_age_s: float) -> float:
        """The cumulative hazard between two ages: the larger, the likelier that a task finished in between."""
        return self._hazard.integral(from_age_s, to_age_s)

    def has_risen(self, age_s: float) -> bool:
        """Whether tasks of this age finish faster, by a fifth, than when `mark` was last called."""
        place = self._hazard.bin_of(age_s)
        return self._hazard.rate_in(place) > RISEN * self._planned[place]

    def mark(self) -> None:
        """The class has been planned with what is known now."""
        self._planned = self._hazard.rates()

    def saw_unfinished(self, from_age_s: float, to_age_s: float) -> None:
        """A task was seen unfinished at both ages."""
        self._hazard.watched(from_age_s, to_age_s)

    def saw_finished(self, from_age_s: float, at_age_s: float) -> None:
        """A task that was seen unfinished at the first age finished at the second."""
        self._hazard.finished(from_age_s, at_age_s)
        self.typical_s = self._hazard.mean_age_s()

    def evidence(self) -> Evidence:
        """What was seen so far, to be `recall`ed by a later session."""
        return self._hazard.evidence()

    def recall(self, evidence: Evidence) -> None:
        """Start from what an earlier session saw."""
        self._hazard.add_all(evidence, min(1.0, _MOST_RECALLED / max(sum(evidence.finished), 1.0)))
        self.typical_s = self._hazard.mean_age_s()
        self.mark()
