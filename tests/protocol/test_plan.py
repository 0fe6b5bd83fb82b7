"""Plans: the dynamic programme against closed forms, and its bounds."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol.polling.hazard import BINS, edges_of
from toapis_async.protocol.polling.plan import LONGEST_WAIT, MOST_AGES, Curve, next_polls_s

INTERVAL_S = 5.0
EDGES = edges_of(1.0)


def curve(*rates: float) -> Curve:
    """Of a hazard whose last rate goes on for ever."""
    return Curve(EDGES, [*rates, *[rates[-1]] * (BINS - len(rates))], INTERVAL_S)


def certain_at(age_s: float) -> Curve:
    """Of a class whose tasks all finish in the bin of one age."""
    return Curve(EDGES, [50.0 if begin_s <= age_s < end_s else 1e-9 for begin_s, end_s in bins()], INTERVAL_S)


def bins() -> list[tuple[float, float]]:
    return list(pairwise(EDGES))


@pytest.mark.parametrize("price_s", [0.05, 0.5, 2.0])
def test_at_a_constant_hazard_the_wait_minimises_the_cost_of_a_wait(price_s: float) -> None:
    """Without memory the best wait w minimises (lag of one wait + price) / chance of finishing in it."""
    mean_s = 25.0

    def cost_s(wait_s: float) -> float:
        finishes = 1.0 - math.exp(-wait_s / mean_s)
        return (wait_s - mean_s * finishes + price_s) / finishes

    known_s = min((cost_s(0.05 * step), 0.05 * step) for step in range(100, 1_200))[1]
    constant = curve(1 / mean_s)
    polls_s = next_polls_s(constant, price_s, INTERVAL_S)
    for age in (0, 10, 50):
        assert polls_s[age] - age * constant.step_s == pytest.approx(known_s, abs=constant.step_s)


def test_a_certain_end_is_polled_once_and_just_after_it() -> None:
    for age_s in (9.0, 30.0, 58.0):
        begin_s = next(begin_s for begin_s, end_s in bins() if begin_s <= age_s < end_s)
        certain = certain_at(age_s)
        assert 0.0 <= next_polls_s(certain, 0.05, INTERVAL_S)[0] - begin_s <= 2 * certain.step_s


def test_a_poll_that_would_miss_by_a_moment_is_not_made_before() -> None:
    """The next could come only an interval later. Here most tasks end at about 30 s and a few before."""
    mode_s = next(begin_s for begin_s, end_s in bins() if begin_s <= 30.0 < end_s)
    steep = Curve(EDGES, [50.0 if begin_s == mode_s else 0.005 for begin_s, _ in bins()], INTERVAL_S)
    polls_s, at_s = next_polls_s(steep, 0.05, INTERVAL_S), 0.0
    while (at_s := polls_s[round(at_s / steep.step_s)]) < mode_s:
        assert at_s <= mode_s - INTERVAL_S + 2 * steep.step_s
    assert at_s <= mode_s + 2 * steep.step_s


@settings(max_examples=40)
@given(
    rates=st.lists(st.floats(1e-6, 3.0), min_size=BINS, max_size=BINS),
    price_s=st.floats(0.01, 100.0),
    first_s=st.floats(0.1, 100.0),
)
def test_waits_keep_between_their_floor_and_their_ceiling(rates: list[float], price_s: float, first_s: float) -> None:
    made = Curve(EDGES, rates, INTERVAL_S)
    polls_s = next_polls_s(made, price_s, first_s)
    assert len(polls_s) == len(made.cumulative) <= MOST_AGES
    longest_s = LONGEST_WAIT * INTERVAL_S
    assert min(first_s, longest_s) - 1e-9 <= polls_s[0] <= longest_s
    for age, poll_s in enumerate(polls_s[1:], start=1):
        assert INTERVAL_S - 1e-9 <= poll_s - age * made.step_s <= longest_s + 1e-9


def test_the_grid_is_as_fine_as_reaches_to_where_hardly_a_task_is_left() -> None:
    assert curve(0.5).step_s == 0.5
    assert curve(1 / 70).step_s > curve(1 / 30).step_s
    assert curve(1e-9).step_s == INTERVAL_S


@settings(max_examples=50)
@given(low_s=st.floats(0, 500), first_s=st.floats(0, 2_000), second_s=st.floats(0, 2_000))
def test_the_cumulative_hazard_of_a_constant_rate_is_exact_within_and_beyond_the_grid(
    low_s: float, first_s: float, second_s: float
) -> None:
    constant = curve(0.03)
    for age_s in (low_s, low_s + first_s, low_s + first_s + second_s):
        assert constant.at(age_s) == pytest.approx(0.03 * age_s)
        assert constant.rate_at(age_s) == 0.03
