"""Turns that processes lease of a shared bucket, against a model of the service's."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol import leasing
from toapis_async.protocol.leasing import (
    GUESSED,
    LOOSE,
    LOOSE_S,
    MARGIN_S,
    SEEN,
    STATED,
    Ask,
    Grant,
    State,
    capacity,
    hold_s,
    lease,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

BURST, PER_S = 50.0, 5.0


class Store:
    """A bucket, and those who ask at a time that is told."""

    def __init__(self, burst: float = BURST, per_s: float = PER_S, *, is_loose: bool = False) -> None:
        self.state: State | None = None
        self.now_s = 1_000.0
        self.common = Ask(member="a", burst=burst, per_s=per_s, sureness=STATED, is_loose=is_loose)
        self.epochs: dict[str, int] = {}

    def ask(self, member: str = "a", want: int = 0, **told: object) -> Grant:
        told = {"epoch": self.epochs.get(member, 0), **told}
        ask = evolve(self.common, member=member, want=want, **told)  # type: ignore[arg-type]
        self.state, grant = lease(self.state, ask, self.now_s)
        self.epochs[member] = grant.epoch
        return grant


def due(grant: Grant) -> list[float]:
    return [round(offset_s, 6) for offset_s in grant.offsets_s()]


def test_a_first_process_is_given_the_burst_and_then_turns_a_rate_apart() -> None:
    store = Store()
    assert due(store.ask(want=45)) == [0.0] * 45
    assert due(store.ask(want=45)) == [0.2, 0.4]  # what fits in half a second
    assert due(store.ask(want=45)) == [0.6]  # and one at least


def test_who_wants_nothing_is_counted_and_given_nothing() -> None:
    store = Store()
    assert store.ask("b").turns == 0
    assert store.ask("c").members == 2
    assert store.ask(want=100).turns == 15  # a third of 45 and of what comes in half a second


def test_processes_that_always_want_more_are_served_in_turn() -> None:
    store = Store()
    for member in "abcd":
        store.ask(member)
    for member in "abcd" * 20:
        store.ask(member, want=100)
    later = [(member, due(store.ask(member, want=100))[-1]) for member in "abcd" * 3]
    assert all(after > before for (_, before), (_, after) in pairwise(later))


def test_a_process_that_has_gone_is_not_counted_for_long() -> None:
    store = Store()
    store.ask("b")
    store.now_s += leasing.SEEN_S + 0.1
    assert store.ask(want=1).members == 1
    store.ask("b")
    assert store.ask("b", is_leaving=True).members == 1


def test_members_of_times_to_come_are_not_counted_for_good() -> None:
    state, _ = lease(None, Ask(member="a", burst=10, per_s=1), 0.0)
    strangers = {f"{number}": seen_s for number, seen_s in enumerate([1e12, math.inf, math.nan] * 7_000)}
    ask = Ask(member="a", burst=10, per_s=1, want=1)
    state, grant = lease(evolve(state, members=strangers), ask, 1.0)
    assert (grant.members, set(state.members)) == (1, {"a"})


def test_no_more_members_are_counted_than_a_process_believes() -> None:
    state, _ = lease(None, Ask(member="a", burst=10, per_s=1), 0.0)
    ask = Ask(member="a", burst=10, per_s=1, want=1)
    state, grant = lease(evolve(state, members=dict.fromkeys(map(str, range(20_000)), 0.0)), ask, 1.0)
    assert grant.is_sound(ask)
    assert lease(state, ask, 8.0)[1].members == 1


def test_turns_not_used_go_to_others() -> None:
    store = Store()
    store.ask(want=45)
    store.now_s += 0.1
    assert due(store.ask(want=2)) == [0.1, 0.3]
    store.now_s += 1.0
    assert due(store.ask("b", unused=1, unused_for_s=0.9, want=3)) == [0.0] * 3


def test_turns_of_before_the_bucket_was_half_full_are_not_given_back() -> None:
    store = Store()
    store.ask(want=45)
    store.now_s += 20.0  # full again
    store.ask()
    assert store.state is not None
    store.ask(want=44)
    level = store.state.level
    store.ask(unused=10, unused_for_s=20.0)
    assert store.state.level == level


def test_turns_not_used_fill_the_bucket_to_the_half_only() -> None:
    store = Store()
    store.ask(want=43)  # leaves two
    store.ask(unused=60, unused_for_s=-1.0)
    assert store.state is not None
    assert store.state.level == 22.5


def test_resends_are_taken_off() -> None:
    assert Store().ask(extra=3.0).level == 42.0


def test_nothing_is_refilled_during_the_pause_after_a_429() -> None:
    store = Store()
    store.ask()
    store.ask(pause_s=10.0)
    store.now_s += 12.0
    assert store.ask().level == pytest.approx(2 * PER_S)


def test_a_429_is_everybodys_and_the_next_slows_all_down_once() -> None:
    store = Store()
    store.ask("a"), store.ask("b")
    store.ask("a", want=45)
    first = store.ask("a", pause_s=2.0)
    same = store.ask("b", pause_s=2.0)  # of the same burst: it did not know of the other yet
    assert (first.epoch, same.epoch) == (2, 2)
    assert first.rate == PER_S
    assert due(store.ask("b", want=1)) == [2.2]
    store.now_s += 3.0
    again = store.ask("b", pause_s=1.0)
    assert (again.epoch, round(again.rate, 6)) == (3, round(PER_S * (0.7 + 0.0), 6))
    store.now_s += 200.0
    assert store.ask("a").rate == PER_S


def test_what_the_service_counts_lowers_the_level_and_never_raises_it() -> None:
    store = Store()
    assert store.ask(remaining=500.0).level == 45.0
    assert store.ask(remaining=3.0).level == 3.0
    assert store.ask(remaining=30.0).level == 3.0


def test_limits_that_are_stated_win_over_a_guess_and_a_header_over_both() -> None:
    store = Store()
    assert store.ask(sureness=GUESSED).burst == BURST
    assert store.ask("b", sureness=STATED, burst=334.0, per_s=33.3).burst == 334.0
    assert store.ask("c", sureness=STATED, burst=100.0, per_s=10.0).burst == 334.0
    assert store.ask("a", sureness=SEEN, burst=167.0, per_s=16.7).burst == 167.0
    assert store.ask("b", sureness=STATED, burst=334.0, per_s=33.3).per_s == 16.7


def test_queries_are_leased_ahead_while_the_bucket_is_more_than_half_full() -> None:
    store = Store(500.0, 50.0, is_loose=True)
    grant = store.ask(want=1)
    assert (grant.turns, grant.hold_s) == (LOOSE, LOOSE_S)
    for number in range(40):
        store.ask(f"other-{number}")
    assert store.ask(want=1).turns == 3  # of the quarter that is set aside
    store.ask(want=0, remaining=100.0)
    grant = store.ask(want=1)
    assert (grant.turns, grant.hold_s) == (1, 0.5)


def test_a_store_that_forgot_begins_empty_for_those_who_knew_it() -> None:
    store = Store()
    epoch = store.ask(want=5).epoch
    store.state = None
    assert store.ask(want=1).level == 0.0
    assert store.ask("b", epoch=epoch).epoch == epoch + 1

    store.state = None  # and one who knew nothing came first
    assert store.ask("new").level == 45.0
    grant = store.ask("b", epoch=epoch + 1)
    assert (grant.level, grant.epoch) == (0.0, epoch + 2)


def test_what_was_spent_alone_is_booked() -> None:
    store = Store()
    store.ask("a", want=45), store.ask("b")
    for _ in range(10):  # b has lost the store, a has not
        store.now_s += 1.0
        store.ask("a", want=5)
    assert store.state is not None
    level = store.state.level
    store.ask("b", alone_s=9.0, spent_alone=20.0)
    assert store.state.level == pytest.approx(level - 20.0)


def test_nothing_is_refilled_while_nobody_had_the_store() -> None:
    store = Store()
    store.ask("a", want=45), store.ask("b")
    store.now_s += 10.0
    # Half of what is refilled in a second is the other's, who goes on alone until then.
    assert store.ask("b", alone_s=9.5, spent_alone=25.0, of=2).level == -2.5
    store.now_s += 1.0
    assert store.ask("a", alone_s=10.0, spent_alone=25.0, of=2).level == pytest.approx(2.5)
    store.now_s += 1.0
    grant = store.ask("c", alone_s=10.0, spent_alone=25.0, of=2)
    assert grant.level == pytest.approx(7.5 - 2.5)  # it was later than was expected


def test_a_clock_that_is_set_back_is_paid_neither_in_tokens_nor_in_pauses() -> None:
    store = Store()
    store.ask(want=45)
    store.ask(pause_s=2.0)
    store.now_s -= 3_600.0
    assert due(store.ask(want=1)) == [2.2]


@pytest.mark.parametrize(("burst", "per_s"), [(1.0, 5.0), (1.5, 0.1), (10.0, 100.0), (50.0, 5.0), (334.0, 33.4)])
def test_what_is_shared_leaves_the_margin_where_there_is_room(burst: float, per_s: float) -> None:
    for is_loose in (False, True):
        assert 1.0 <= capacity(burst, per_s, is_loose=is_loose) <= burst
        assert 0.1 <= hold_s(burst, per_s, is_loose=is_loose) <= 0.5
    assert capacity(50.0, 5.0, is_loose=False) == 50.0 - 5.0 * MARGIN_S


# ------------------------------------------------------------------------------------------------ the promise


def most_over(arrivals: Sequence[float], burst: float, per_s: float) -> float:
    """By how much the arrivals of any window exceed `burst + per_s * its length`: the service's bucket, in one pass."""
    level, at_s, least = burst, 0.0, 0.0
    for arrival_s in sorted(arrivals):
        level = min(level + (arrival_s - at_s) * per_s, burst)
        at_s = arrival_s
        level -= 1.0
        least = min(least, level)
    return -least


STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 1.5),  # time that passes
        st.sampled_from("abc"),
        st.integers(0, 60),  # wanted
        st.floats(0.0, 1.0),  # what part of it is used
        st.floats(0.0, 1.0),  # how late, of the margin
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.floats(0.1, 40.0), st.floats(1.2, 15.0), st.booleans())
def test_no_window_has_more_arrivals_than_the_service_allows_whatever_their_delays(
    steps: list[tuple[float, str, int, float, float]], per_s: float, seconds_of_burst: float, is_loose: bool
) -> None:
    """Each process uses some of its turns, late by up to the margin in all (turns leased ahead: by up to `LOOSE_S`
    more), and gives the others back."""
    burst = max(per_s * seconds_of_burst * (2.0 if is_loose else 1.0), 1.0 + per_s)
    store = Store(burst, per_s, is_loose=is_loose)
    arrivals: list[float] = []
    unused: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for passed_s, member, want, used, late in steps:
        store.now_s += passed_s
        dropped = [at_s for at_s in unused[member] if at_s + leasing.HOLD_S < store.now_s]
        unused[member] = [at_s for at_s in unused[member] if at_s + leasing.HOLD_S >= store.now_s]
        oldest_s = store.now_s - min(dropped, default=store.now_s)
        grant = store.ask(member, want, unused=len(dropped), unused_for_s=oldest_s)
        is_ahead = grant.hold_s == LOOSE_S
        due_s = [store.now_s + offset_s for offset_s in grant.offsets_s()]
        kept = round(len(due_s) * used)
        arrivals += [at_s + late * (LOOSE_S if is_ahead else MARGIN_S) for at_s in due_s[:kept]]
        unused[member] += [] if is_ahead else due_s[kept:]
    assert most_over(arrivals, burst, per_s) <= 1e-3
