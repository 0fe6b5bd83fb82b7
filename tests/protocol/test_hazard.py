"""A hazard learned from polls."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol.polling.hazard import BINS, PRIOR_TASKS, Hazard, edges_of

ages = st.floats(0.0, 2_000.0)


def constant(rate: float) -> Hazard:
    """A hazard that has seen so much of one rate that the prior no longer shows."""
    hazard = Hazard(1.0)
    edges = edges_of(1.0)
    for place in range(BINS):
        width_s = min(edges[place + 1], 1e4) - edges[place]
        hazard.add(place, 1e6 * width_s, 1e6 * width_s * rate)
    return hazard


def lag_s(hazard: Hazard, age_s: float, wait_s: float, steps: int = 4_000) -> float:
    """∫₀^τ h(age + u)·(τ - u) du, by brute force."""
    step_s = wait_s / steps
    rates = hazard.rates()
    middles = ((place + 0.5) * step_s for place in range(steps))
    return sum(rates[hazard.bin_of(age_s + u)] * (wait_s - u) * step_s for u in middles)


def test_the_bins_cover_every_age_without_a_gap() -> None:
    edges = edges_of(1.0)
    assert len(edges) == BINS + 1
    assert edges[0] == 0.0
    assert edges[-1] == math.inf
    assert all(low < high for low, high in itertools.pairwise(edges))


@given(age_s=ages)
def test_an_age_falls_into_the_bin_that_holds_it(age_s: float) -> None:
    edges = edges_of(1.0)
    place = Hazard(1.0).bin_of(age_s)
    assert edges[place] <= age_s < edges[place + 1]


@settings(max_examples=50, derandomize=True, deadline=None)
@given(age_s=st.floats(0, 300), price_s=st.floats(0.01, 3), seed=st.integers(0, 50))
def test_a_wait_is_the_smallest_that_is_worth_its_price(age_s: float, price_s: float, seed: int) -> None:
    rng, hazard = random.Random(seed), Hazard(1.0)
    for _ in range(30):
        hazard.finished(0.0, rng.lognormvariate(3.2, 0.5))
    wait_s = hazard.worth_wait_s(age_s, price_s, at_least_s=0.0, at_most_s=1e4)
    assert wait_s == 1e4 or lag_s(hazard, age_s, wait_s) == pytest.approx(price_s, rel=0.02)


def test_a_wait_keeps_between_its_floor_and_its_ceiling() -> None:
    assert constant(100.0).worth_wait_s(10, 0.5, at_least_s=5, at_most_s=60) == 5
    assert constant(1e-9).worth_wait_s(10, 0.5, at_least_s=5, at_most_s=60) == 60


def test_at_a_constant_rate_the_wait_is_the_square_root_law() -> None:
    wait_s = constant(0.04).worth_wait_s(50, 0.5, at_least_s=0, at_most_s=60)
    assert wait_s == pytest.approx(math.sqrt(2 * 0.5 / 0.04), rel=1e-3)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(low_s=st.floats(0, 500), first_s=st.floats(0, 200), second_s=st.floats(0, 200))
def test_the_cumulative_hazard_adds_up(low_s: float, first_s: float, second_s: float) -> None:
    hazard = Hazard(1.0)
    hazard.finished(3.0, 40.0)
    middle_s, high_s = low_s + first_s, low_s + first_s + second_s
    parts = hazard.integral(low_s, middle_s) + hazard.integral(middle_s, high_s)
    assert parts == pytest.approx(hazard.integral(low_s, high_s), abs=1e-9)


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
    hazard.add(place, 100.0, 10.0)
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
    assert Hazard(1.0, pooled).rates() == pooled.rates()
