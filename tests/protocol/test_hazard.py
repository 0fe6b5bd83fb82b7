"""A hazard learned from polls."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.models import Evidence
from toapis_async.protocol.polling.hazard import BINS, PRIOR_TASKS, Hazard, edges_of

ages = st.floats(0.0, 2_000.0)


def constant(rate: float) -> Hazard:
    """A hazard that has seen so much of one rate that the prior no longer shows."""
    hazard = Hazard(1.0)
    edges, watched_s, finished = edges_of(1.0), [0.0] * BINS, [0.0] * BINS
    for place in range(BINS):
        width_s = min(edges[place + 1], 1e4) - edges[place]
        watched_s[place], finished[place] = 1e6 * width_s, 1e6 * width_s * rate
    hazard.add_all(Evidence(tuple(watched_s), tuple(finished)))
    return hazard


def test_the_bins_cover_every_age_without_a_gap() -> None:
    edges = edges_of(1.0)
    assert len(edges) == BINS + 1
    assert edges[0] == 0.0
    assert edges[-1] == math.inf
    assert edges[-2] > 3_600, "the default of max_task_age_s"
    assert all(low < high for low, high in itertools.pairwise(edges))


@given(age_s=ages)
def test_an_age_falls_into_the_bin_that_holds_it(age_s: float) -> None:
    edges = edges_of(1.0)
    place = Hazard(1.0).bin_of(age_s)
    assert edges[place] <= age_s < edges[place + 1]


@settings(max_examples=50)
@given(spans=st.lists(st.tuples(ages, ages), min_size=1, max_size=20))
def test_the_seconds_watched_in_each_bin_are_those_of_the_spans(spans: list[tuple[float, float]]) -> None:
    hazard = Hazard(1.0)
    for from_s, to_s in spans:
        hazard.watched(from_s, to_s)
    expected_s = [
        sum(max(min(to_s, end_s) - max(from_s, begin_s), 0.0) for from_s, to_s in spans)
        for begin_s, end_s in itertools.pairwise(edges_of(1.0))
    ]
    assert hazard.evidence().watched_s == pytest.approx(expected_s, abs=1e-6)


def test_watching_without_a_finish_lowers_the_hazard_and_a_finish_raises_it() -> None:
    hazard = Hazard(1.0)
    before = hazard.rates()[hazard.bin_of(20.0)]
    hazard.watched(0.0, 200.0)
    watched = hazard.rates()[hazard.bin_of(20.0)]
    hazard.finished(200.0, 20.0)
    assert watched < before
    assert hazard.rates()[hazard.bin_of(20.0)] > watched


def test_the_rate_is_finishes_over_seconds_watched_behind_a_weak_prior() -> None:
    hazard = Hazard(1.0)
    place = hazard.bin_of(20.0)
    prior = hazard.rates()[place]
    seen = [0.0] * place + [1.0]
    hazard.add_all(Evidence(tuple(seen), tuple(seen)), weight=10.0)
    hazard.add_all(Evidence(tuple(seen), (0.0,) * (place + 1)), weight=90.0)
    assert hazard.rates()[place] == pytest.approx((PRIOR_TASKS + 10.0) / (PRIOR_TASKS / prior + 100.0))


def test_what_was_watched_is_kept_to_the_second() -> None:
    hazard = Hazard(1.0)
    hazard.watched(2.5, 77.0)
    hazard.finished(77.0, 99.0)
    evidence = hazard.evidence()
    assert sum(evidence.watched_s) == pytest.approx(99.0 - 2.5)
    assert sum(evidence.finished) == 1


def test_the_mean_age_is_close_to_the_mean_of_the_finishes() -> None:
    rng, hazard = random.Random(1), Hazard(1.0)
    assert hazard.mean_age_s() == 0.0
    seen = [rng.lognormvariate(3.2, 0.5) for _ in range(500)]
    for age_s in seen:
        hazard.finished(0.0, age_s)
    assert hazard.mean_age_s() == pytest.approx(sum(seen) / len(seen), rel=0.05)


def test_a_new_class_starts_from_the_pooled_rates() -> None:
    pooled = constant(0.3)
    assert Hazard(1.0, pooled).rates() == pytest.approx(pooled.rates())
