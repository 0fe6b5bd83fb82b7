"""The stock of turns of one process."""

from __future__ import annotations

import math

import pytest

from toapis_async.protocol.leased import LeasedBucket
from toapis_async.protocol.leasing import GUESSED, LOOSE_S, SEEN, STATED, Ask, Grant
from toapis_async.protocol.pacing import FIRST_WINDOW

BURST, PER_S = 50.0, 5.0


class Process:
    """A bucket whose gate has so many waiters."""

    def __init__(self, waiting: int = 0, *, sureness: int = STATED) -> None:
        ask = Ask(member="a", burst=BURST, per_s=PER_S, sureness=sureness)
        self.bucket = LeasedBucket(ask, most_unanswered=100)
        self.waiting = waiting
        self.wanted = 0
        self.bucket.waiting = lambda: self.waiting
        self.bucket.on_want = self.count

    def count(self) -> None:
        self.wanted += 1

    def granted(self, turns: int, *, level: float = 0.0, at_s: float = 0.0, **others: float) -> None:
        given = {"after_s": 0.0, "rate": PER_S, "hold_s": 0.5, "burst": BURST, "per_s": PER_S, "epoch": 1, **others}
        self.bucket.granted(Grant(turns, level, members=2, **given), at_s, at_s)  # type: ignore[arg-type]

    def take_all(self, now_s: float) -> int:
        taken = 0
        while self.bucket.wait_s(now_s) == 0:
            self.bucket.take(now_s)
            taken += 1
        return taken


def test_turns_are_due_one_after_another_and_more_are_wanted_when_there_is_none() -> None:
    process = Process(waiting=3)
    assert process.bucket.wait_s(0.0) == math.inf
    assert process.wanted == 1
    assert process.bucket.ask(0.0).want == 3
    process.granted(3, level=1.0)
    assert process.take_all(0.0) == 1
    assert process.bucket.wait_s(0.0) == pytest.approx(0.2)
    assert process.wanted == 1
    assert process.take_all(0.2) == 1
    assert process.take_all(0.4) == 1
    assert process.wanted == 2  # the last wait_s found no turn
    assert process.bucket.statistics(0.4).granted == 3


def test_no_more_is_wanted_than_may_be_unanswered() -> None:
    process = Process(waiting=50)
    assert process.bucket.ask(0.0).want == FIRST_WINDOW
    process.granted(50, level=50.0)
    assert process.take_all(0.0) == FIRST_WINDOW
    assert process.bucket.wait_s(0.0) == math.inf
    assert process.wanted == 0
    process.bucket.answered(0.1, 0.1)
    assert process.take_all(0.1) > 0


def test_a_turn_that_nobody_took_in_time_is_given_back() -> None:
    process = Process(waiting=2)
    process.granted(2, level=2.0)
    process.waiting = 0
    assert process.bucket.late_in_s(0.2) == pytest.approx(0.3)
    assert process.bucket.ask(0.5).unused == 0
    ask = process.bucket.ask(0.6)
    assert (ask.unused, round(ask.unused_for_s, 6)) == (2, 0.6)
    assert process.bucket.ask(0.6).unused == 0  # told once
    process.bucket.untold(ask, 0.7, unchanged=True)
    assert process.bucket.ask(0.8).unused == 2
    process.bucket.untold(ask, 0.7, unchanged=False)
    assert process.bucket.ask(0.8).unused == 0


def test_turns_leased_ahead_are_kept_longer_and_not_given_back() -> None:
    process = Process(waiting=1)
    process.granted(8, level=400.0, hold_s=LOOSE_S)
    assert process.bucket.late_in_s(0.0) == math.inf
    assert process.take_all(4.9) == FIRST_WINDOW
    for _ in range(FIRST_WINDOW):
        process.bucket.answered(4.9, 0.1)
    assert process.bucket.wait_s(5.1) == math.inf
    assert process.bucket.ask(5.1).unused == 0


def test_a_turn_that_was_not_used_goes_to_the_next() -> None:
    process = Process(waiting=1)
    process.granted(1, level=1.0)
    process.bucket.take(0.0)
    process.bucket.give_back(0.1)
    assert process.bucket.wait_s(0.1) == 0
    process.bucket.take(0.1)
    process.bucket.give_back(0.6)
    assert process.bucket.wait_s(0.6) == math.inf  # too late for it
    assert process.bucket.ask(0.6).unused == 1
    assert process.bucket.statistics(0.6).unanswered == 0


def test_a_429_voids_the_turns_and_is_told_at_once() -> None:
    process = Process(waiting=1)
    process.granted(5, level=5.0)
    process.bucket.throttle(1.0, 2.0)
    assert process.wanted == 1
    assert process.bucket.wait_s(1.0) == pytest.approx(2.0)
    ask = process.bucket.ask(1.5)
    assert (ask.pause_s, ask.want, ask.unused, ask.epoch) == (1.5, 0, 0, 1)
    assert process.bucket.ask(1.5).pause_s is None
    process.bucket.untold(ask, 1.6, unchanged=False)
    assert process.bucket.ask(1.6).pause_s == pytest.approx(1.5)


def test_the_429_of_another_process_voids_the_turns_too() -> None:
    process = Process(waiting=9)
    process.granted(5, level=0.0)
    process.granted(0, epoch=2, after_s=2.0, at_s=0.1)
    assert process.bucket.wait_s(0.1) == pytest.approx(2.0)
    assert process.bucket.statistics(0.1).paused_for_s == pytest.approx(2.0)
    assert process.bucket.ask(2.2).unused == 0


def test_resends_are_booked_also_when_the_store_was_not_reached() -> None:
    process = Process(waiting=1)
    process.granted(1, level=1.0)
    process.bucket.take(0.0)
    process.bucket.answered(0.1, 0.1, sent=3)
    ask = process.bucket.ask(0.1)
    assert ask.extra == 2.0
    process.bucket.untold(ask, 0.1, unchanged=False)
    assert process.bucket.ask(0.2).extra == 2.0
    assert process.bucket.ask(0.2).extra == 0.0


def test_what_the_service_counts_is_told_and_at_once_when_it_is_little() -> None:
    process = Process(waiting=1)
    process.granted(0, level=40.0)
    process.bucket.note_remaining(0.0, 45.0, 0.1)
    assert process.wanted == 0
    process.bucket.note_remaining(0.0, 3.0, 0.1)
    process.bucket.note_remaining(0.0, 30.0, 0.1)
    assert process.wanted == 1
    assert process.bucket.ask(1.0).remaining == pytest.approx(3.0 + 1.0 + 0.5 + 5.0)
    assert process.bucket.ask(1.0).remaining is None


def test_a_header_that_shows_other_limits_moves_them_once_for_all() -> None:
    process = Process(waiting=1, sureness=GUESSED)
    assert process.bucket.ask(0.0).sureness == GUESSED
    process.bucket.retune(0.0, 167.0, 16.7)
    process.granted(0)  # an answer to what was asked before
    ask = process.bucket.ask(0.0)
    assert (ask.sureness, ask.burst, ask.per_s) == (SEEN, 167.0, 16.7)
    process.granted(0, burst=334.0, per_s=33.4)  # another process has seen more since
    assert (process.bucket.capacity, process.bucket.refill_per_s) == (334.0, 33.4)
    assert process.bucket.ask(0.0).sureness == GUESSED


def test_the_level_shown_is_of_what_is_shared() -> None:
    process = Process(waiting=1)
    process.granted(2, level=10.0)
    statistics = process.bucket.statistics(1.0)
    assert (statistics.level, statistics.capacity) == (8.0 + PER_S, 45.0)
