"""What is known of one request class: how long its tasks take, and when to poll them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from toapis_async.protocol.polling.hazard import Hazard
from toapis_async.protocol.polling.plan import LONGEST_WAIT, Curve, next_polls_s

if TYPE_CHECKING:
    from toapis_async.models import Evidence

PLANNED_ANEW: Final = 1.1
"""A class is planned anew when a tenth more polls have taught it: some sixty times in its first 1,000 tasks."""
PRICE_STEP: Final = 1.4
"""Plans are made for prices that differ by so much."""
_LOG_OF_STEP: Final = math.log(PRICE_STEP)
MOST_RECALLED: Final = 200.0
"""An earlier session counts as at most this many tasks: enough to start warm, few enough to be overruled."""


class Forecast:
    """How likely the tasks of one request class are to finish at which age. Ages are in seconds since submission."""

    __slots__ = (
        "_curve",
        "_first_s",
        "_hazard",
        "_interval_s",
        "_plan",
        "_plans",
        "_polls",
        "_polls_of_next_plan",
        "_price_s",
        "plans",
        "typical_s",
    )

    typical_s: float  #: the mean age at which tasks finish; 0 while unknown
    plans: int  #: how many were made; one takes a thousandth of a second

    def __init__(
        self, interval_s: float, first_s: float, pooled: Hazard | None = None, typical_s: float | None = None
    ) -> None:
        self._interval_s = interval_s
        self._first_s = first_s
        self._hazard = Hazard(interval_s / 5, pooled, typical_s)
        self._polls = self.plans = 0
        self.typical_s = pooled.mean_age_s() if pooled else 0.0
        self._renew()

    def _renew(self) -> None:
        """Take what is known now; plans are made of it when they are needed."""
        self._curve = Curve(self._hazard.edges, self._hazard.rates(), self._interval_s)
        self._plans: dict[int, list[float]] = {}
        self._price_s = math.nan  # of `_plan`: most polls ask for the same price as the one before
        self._plan: list[float] = []
        self._polls_of_next_plan = self._polls * PLANNED_ANEW + 4

    def next_poll_age_s(self, age_s: float, price_s: float) -> float:
        """The age at which to poll next a task that was seen unfinished at `age_s`, when a poll costs `price_s`."""
        if self._polls >= self._polls_of_next_plan:
            self._renew()
        if price_s != self._price_s:
            self._price_s, self._plan = price_s, self._plan_for(price_s)
        plan, place = self._plan, int(age_s / self._curve.step_s)
        if place < len(plan):
            return plan[place]
        # Few tasks get that old, and their hazard is about constant: the wait has a closed form.
        wait_s = math.sqrt(2.0 * price_s / self._curve.rate_at(age_s))
        return age_s + min(wait_s, LONGEST_WAIT * self._interval_s)

    def _plan_for(self, price_s: float) -> list[float]:
        level = round(math.log(price_s / self._interval_s) / _LOG_OF_STEP)
        plan = self._plans.get(level)
        if plan is None:
            plan = self._plans[level] = next_polls_s(self._curve, self._interval_s * PRICE_STEP**level, self._first_s)
            self.plans += 1
        return plan

    def chance(self, from_age_s: float, to_age_s: float) -> float:
        """The cumulative hazard between two ages: the larger, the likelier that a task finished in between."""
        return self._curve.at(to_age_s) - self._curve.at(from_age_s)

    def saw_unfinished(self, from_age_s: float, to_age_s: float) -> None:
        """A poll showed a task unfinished that was seen unfinished before."""
        self._hazard.watched(from_age_s, to_age_s)
        self._polls += 1

    def saw_finished(self, from_age_s: float, *at_ages_s: float) -> None:
        """A task that was seen unfinished at the first age finished at the second, or with equal chances at any of
        several."""
        for at_age_s in at_ages_s:
            self._hazard.finished(from_age_s, at_age_s, 1.0 / len(at_ages_s))
        self._polls += 1
        self.typical_s = self._hazard.mean_age_s()

    def evidence(self) -> Evidence:
        """What was seen so far, to be `recall`ed by a later session."""
        return self._hazard.evidence()

    def recall(self, evidence: Evidence) -> None:
        """Start from what an earlier session saw."""
        self._hazard.add_all(evidence, min(1.0, MOST_RECALLED / max(sum(evidence.finished), 1.0)))
        self.typical_s = self._hazard.mean_age_s()
        self._renew()
