"""What is known of one request class: how long it takes, and whether its tasks' `progress` says anything about that.

Two hazards compete. One runs on a task's age. The other runs on the time since the last look, in units of the time
left that the task's progress would mean if it grew evenly (`age · (100 - p) / p`). Both are scored online by how well
they foretold each look; the second is used while it is clearly ahead. A service whose progress is decoration (stuck,
or jumping) never gets ahead, and is ignored.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

from toapis_async.protocol.polling.hazard import Hazard

if TYPE_CHECKING:
    from toapis_async.models import Evidence

LEAD: Final = 5.0
"""The log-likelihood by which progress must be ahead before it is believed: odds of 150 to 1."""
MEMORY: Final = 0.98
"""How much of the lead is kept from one look to the next, so that a service that changes is noticed."""
VOTE_EVERY: Final = 1.0
"""In units: how often a look may vote. The looks at a batch are no independent witnesses: all bring up the same
surprise at once, and a thousand votes for a progress that means nothing would win."""
RISEN: Final = 1.2
"""A hazard that rose by a fifth since its class was planned calls for a new plan."""
_MOST_RECALLED: Final = 200.0
"""An earlier session counts as at most this many tasks: enough to start warm, few enough to be overruled."""
_STEP: Final = 0.02
"""The first bin of the progress hazard, as a fraction of the foretold time left."""


class Seen(Protocol):
    """What a forecast needs to know of a task."""

    since_s: float  #: when its age was 0
    looked_s: float  #: when it was last seen unfinished
    percent: int | None  #: its progress then


class Forecast:
    """How likely the tasks of one request class are to finish when."""

    __slots__ = ("_ages", "_lead", "_planned", "_progress", "_unit_s", "_votes_s", "typical_s")

    _ages: Hazard
    typical_s: float  #: the mean age at which tasks finish; 0 while unknown

    def __init__(self, unit_s: float, pooled: Hazard | None = None) -> None:
        self._ages = Hazard(unit_s, pooled)
        self._progress = Hazard(_STEP)
        self._planned = self._ages.rates()
        self._lead = 0.0
        self._unit_s = unit_s
        self._votes_s = -math.inf
        self.typical_s = pooled.mean_age_s() if pooled else 0.0

    @property
    def trusts_progress(self) -> bool:
        """Whether progress has proved to say something about the time left."""
        return self._lead >= LEAD

    def worth_wait_s(self, task: Seen, price_s: float, *, at_least_s: float, at_most_s: float) -> float:
        """The wait, from the last look, after which the next is worth its price."""
        left_s = _left_s(task) if self.trusts_progress else None
        if left_s is None:
            return self._ages.worth_wait_s(_age_s(task), price_s, at_least_s=at_least_s, at_most_s=at_most_s)
        return left_s * self._progress.worth_wait_s(
            0.0, price_s / left_s, at_least_s=at_least_s / left_s, at_most_s=at_most_s / left_s
        )

    def chance(self, task: Seen, now_s: float) -> float:
        """The cumulative hazard since the last look: the larger, the likelier it has finished."""
        left_s = _left_s(task) if self.trusts_progress else None
        if left_s is None:
            return self._ages.integral(_age_s(task), now_s - task.since_s)
        return self._progress.integral(0.0, (now_s - task.looked_s) / left_s)

    def has_risen(self, age_s: float) -> bool:
        """Whether tasks of this age finish faster, by a fifth, than when `mark` was last called."""
        place = self._ages.bin_of(age_s)
        return self._ages.rate_in(place) > RISEN * self._planned[place]

    def mark(self) -> None:
        """The class has been planned with what is known now."""
        self._planned = self._ages.rates()

    def saw_unfinished(self, task: Seen, now_s: float) -> None:
        """A look at `now_s` showed the task unfinished."""
        left_s = _left_s(task)
        if left_s is not None:
            self._score(task, now_s, left_s, finished=False)
            self._progress.watched(0.0, (now_s - task.looked_s) / left_s)
        self._ages.watched(_age_s(task), now_s - task.since_s)

    def saw_finished(self, task: Seen, now_s: float, at_s: float) -> None:
        """A look at `now_s` showed that the task had finished at `at_s`."""
        left_s = _left_s(task)
        if left_s is not None:
            self._score(task, now_s, left_s, finished=True)
            self._progress.finished(0.0, (at_s - task.looked_s) / left_s)
        self._ages.finished(_age_s(task), at_s - task.since_s)
        self.typical_s = self._ages.mean_age_s()

    def evidence(self) -> Evidence:
        """What was seen so far, to be `recall`ed by a later session."""
        return self._ages.evidence()

    def recall(self, evidence: Evidence) -> None:
        """Start from what an earlier session saw."""
        self._ages.add_all(evidence, min(1.0, _MOST_RECALLED / max(sum(evidence.finished), 1.0)))
        self.typical_s = self._ages.mean_age_s()
        self.mark()

    def _score(self, task: Seen, now_s: float, left_s: float, *, finished: bool) -> None:
        if now_s < self._votes_s:
            return
        self._votes_s = now_s + VOTE_EVERY * self._unit_s
        by_age = self._ages.integral(_age_s(task), now_s - task.since_s)
        by_progress = self._progress.integral(0.0, (now_s - task.looked_s) / left_s)
        self._lead = MEMORY * self._lead + _log_likelihood(by_progress, finished) - _log_likelihood(by_age, finished)


def _age_s(task: Seen) -> float:
    return task.looked_s - task.since_s


def _left_s(task: Seen) -> float | None:
    """The time left at the last look if progress grows evenly; None where progress says nothing."""
    percent, age_s = task.percent, _age_s(task)
    if percent is None or not 0 < percent < 100 or age_s <= 0:
        return None
    return age_s * (100 - percent) / percent


def _log_likelihood(cumulative: float, finished: bool) -> float:
    """Of an outcome whose cumulative hazard was foretold; floored, so that no single surprise decides."""
    return math.log(max(-math.expm1(-cumulative), 1e-3)) if finished else max(-cumulative, math.log(1e-3))
