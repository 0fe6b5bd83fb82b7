"""The mirror of the service's bucket, against a model of the bucket itself."""

from __future__ import annotations

import itertools
import math
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol.pacing import FIRST_WINDOW, SHARED_FOR_S, SLOWER, SLOWEST, WINDOW, TokenBucket

TOLERANCE = 1e-6


class ServiceBucket:
    """The service's side, by its own clock: refuses what it holds no token for."""

    def __init__(self, capacity: float, per_s: float) -> None:
        self.capacity = capacity
        self.per_s = per_s
        self.level = capacity

    def advance(self, seconds: float) -> None:
        self.level = min(self.level + seconds * self.per_s, self.capacity)

    def admits(self) -> bool:
        if self.level < 1 - TOLERANCE:
            return False
        self.level -= 1
        return True


class World:
    """Our mirror, the service's bucket, and the requests between them.

    Real time only goes forward; our clock goes with it, but may be set back at any moment. (A clock that runs ahead
    of the service's cannot be told from time that passed.)
    """

    def __init__(self, capacity: float, per_s: float, most_unanswered: int = 10_000) -> None:
        self.clock_s = 1_000.0
        self.real_s = 0.0
        self.service = ServiceBucket(capacity, per_s)
        self.mirror = TokenBucket(capacity, per_s, self.clock_s, most_unanswered=most_unanswered)
        self.on_the_way: list[float] = []  # when they were taken
        self.seen: list[float] = []  # the service has them, we have no answer
        self.refused = 0
        self.granted_at: list[float] = []
        self.paused_until_s = -math.inf
        self.empty_since_s: float | None = None

    @property
    def unanswered(self) -> int:
        return len(self.on_the_way) + len(self.seen)

    def take(self, _: float) -> None:
        window = self.mirror.window
        if self.mirror.wait_s(self.clock_s) > 0:
            return
        self.mirror.take(self.clock_s)
        self.on_the_way.append(self.real_s)
        self.granted_at.append(self.real_s)
        assert self.unanswered <= window
        assert self.real_s >= self.paused_until_s - TOLERANCE

    def take_all(self, _: float) -> None:
        for _ in range(30):
            self.take(0)

    def arrive(self, which: float) -> None:
        if self.on_the_way:
            self.refused += not self.service.admits()
            self.seen.append(self.on_the_way.pop(int(which * 7) % len(self.on_the_way)))

    def answer(self, which: float) -> None:
        if not self.seen:
            self.arrive(which)
        if self.seen:
            taken_s = self.seen.pop(int(which * 7) % len(self.seen))
            self.mirror.answered(self.clock_s, self.real_s - taken_s)

    def lose(self, which: float) -> None:
        if self.seen:
            self.seen.pop(int(which * 7) % len(self.seen))
            self.mirror.answered(self.clock_s, None)

    def give_back(self, which: float) -> None:
        if self.on_the_way:
            self.on_the_way.pop(int(which * 7) % len(self.on_the_way))
            self.mirror.give_back(self.clock_s)

    def advance(self, seconds: float) -> None:
        self.real_s += seconds
        self.clock_s += seconds
        self.service.advance(seconds)

    def drain(self, seconds: float) -> None:
        """Another process takes tokens."""
        self.service.level = max(self.service.level - 10 * seconds, 0)

    def hear(self, which: float) -> None:
        """An answer whose headers told what the service's bucket held when it saw the request."""
        if self.on_the_way:
            index = int(which * 7) % len(self.on_the_way)
            taken_s = self.on_the_way.pop(index)
            self.refused += not self.service.admits()
            remaining = math.floor(self.service.level + TOLERANCE)
            self.advance(which)
            self.mirror.answered(self.clock_s, self.real_s - taken_s)
            self.mirror.note_remaining(self.clock_s, remaining, self.real_s - taken_s)

    def set_back(self, seconds: float) -> None:
        self.clock_s -= 100 * seconds

    def pause(self, seconds: float) -> None:
        self.mirror.pause(self.clock_s, seconds)
        self.paused_until_s = max(self.paused_until_s, self.real_s + seconds)

    def throttle(self, seconds: float) -> None:
        """Another process drained the bucket, and the service says so."""
        self.service.level = 0
        self.mirror.throttle(self.clock_s, seconds)
        self.paused_until_s = max(self.paused_until_s, self.real_s + seconds)
        self.empty_since_s = self.paused_until_s

    def do(self, steps: list[Step]) -> None:
        for name, amount in steps:
            getattr(self, name)(amount)
            statistics = self.mirror.statistics(self.clock_s)
            assert statistics.level <= statistics.capacity - statistics.unanswered + TOLERANCE
            assert statistics.unanswered == self.unanswered
            assert statistics.granted >= self.unanswered


Step: TypeAlias = tuple[str, float]
BUCKETS = [(1, 0.5), (3, 2.0), (50, 5.0), (166.7, 16.67), (2.5, 100.0)]
_PLAIN = ("take", "take_all", "arrive", "answer", "lose", "give_back", "hear", "advance", "set_back", "pause")


def steps(*names: str) -> st.SearchStrategy[list[Step]]:
    amounts = st.one_of(st.floats(0, 3), st.sampled_from([0.0, 1e-9, 0.2, 1.0]))
    return st.lists(st.tuples(st.sampled_from(names), amounts), max_size=60)


@pytest.mark.parametrize(("capacity", "per_s"), BUCKETS)
@settings(max_examples=40)
@given(steps=steps(*_PLAIN))
def test_the_service_never_refuses_whatever_the_order_of_events(
    capacity: float, per_s: float, steps: list[Step]
) -> None:
    world = World(capacity, per_s)
    world.do([*steps, ("take_all", 0), *[("arrive", 0.0)] * 300])
    assert world.refused == 0


@pytest.mark.parametrize("latency_s", [0.0, 0.05, 0.5, 3.0])
@pytest.mark.parametrize(("capacity", "per_s"), BUCKETS)
def test_under_steady_load_the_service_never_refuses_and_its_rate_is_used(
    capacity: float, per_s: float, latency_s: float
) -> None:
    # The worst for a mirror: the service sees each request only as late as it can.
    world = World(capacity, per_s)
    step_s = 0.01
    for _ in range(2_000):
        while world.on_the_way and world.real_s - world.on_the_way[0] >= latency_s:
            world.answer(0)
        world.take_all(0)
        world.advance(step_s)
    assert world.refused == 0
    if per_s * (latency_s + step_s) <= capacity - 2:  # beyond that, caution costs speed
        assert len(world.granted_at) >= per_s * world.real_s


@pytest.mark.parametrize(("capacity", "per_s"), BUCKETS)
@settings(max_examples=40)
@given(before=steps(*_PLAIN, "throttle"), pause_s=st.floats(0, 10), after=steps(*_PLAIN))
def test_after_a_429_nothing_is_granted_in_the_pause_and_no_burst_after_it(
    capacity: float, per_s: float, before: list[Step], pause_s: float, after: list[Step]
) -> None:
    world = World(capacity, per_s)
    world.do([*before, ("throttle", pause_s)])
    earlier = len(world.granted_at)
    empty_since_s = world.paused_until_s  # a longer pause may have been set before
    given_back = 0
    for step in [*after, ("take_all", 0.0)]:
        given_back += step[0] == "give_back" and bool(world.on_the_way)
        world.do([step])
        granted = len(world.granted_at) - earlier
        assert granted - given_back <= max(world.real_s - empty_since_s, 0) * per_s + TOLERANCE


@settings(max_examples=80)
@given(
    bucket=st.sampled_from(BUCKETS), most=st.integers(1, 40), steps=steps(*_PLAIN, "throttle"), seconds=st.floats(0, 30)
)
def test_waiting_as_long_as_told_gives_a_token(
    bucket: tuple[float, float], most: int, steps: list[Step], seconds: float
) -> None:
    world = World(*bucket, most_unanswered=most)
    world.do(steps)
    waits = 0
    while (wait_s := world.mirror.wait_s(world.clock_s)) > 0:
        if wait_s == math.inf:  # only an answer can help, however long we wait
            world.advance(seconds)
            assert world.mirror.wait_s(world.clock_s) == math.inf
            world.answer(0)
        else:
            world.advance(wait_s)
            waits += 1
            assert waits <= 3  # the end of the pause, then the first token
    world.take(0)
    assert world.unanswered >= 1


# ------------------------------------------------------------------------------------------------ by hand


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(3, 2.0, 0.0, most_unanswered=100)
    for _ in range(3):
        assert bucket.wait_s(0.0) == 0
        bucket.take(0.0)
    for _ in range(3):
        bucket.answered(0.0, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(0.5)
    assert bucket.wait_s(0.25) == pytest.approx(0.25)
    assert bucket.wait_s(0.5) == 0


def test_unanswered_requests_hold_back_the_refill() -> None:
    bucket = TokenBucket(3, 2.0, 0.0, most_unanswered=100)
    bucket.take(0.0)
    bucket.take(0.0)
    assert bucket.statistics(100.0).level == 1
    bucket.answered(100.0, 100.0)
    assert bucket.statistics(100.0).level == 1
    assert bucket.statistics(101.0).level == 2


def test_a_request_that_was_resent_under_the_hood_is_paid_twice() -> None:
    bucket = TokenBucket(5, 1.0, 0.0, most_unanswered=100)
    bucket.take(0.0)
    bucket.answered(0.0, 0.1, sent=3)
    assert bucket.statistics(0.0).level == 2


def test_what_was_given_back_was_never_granted() -> None:
    bucket = TokenBucket(5, 1.0, 0.0, most_unanswered=100)
    bucket.take(0.0)
    bucket.give_back(0.0)
    statistics = bucket.statistics(0.0)
    assert (statistics.level, statistics.granted, statistics.unanswered) == (5, 0, 0)


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    bucket = TokenBucket(5, 1.0, 0.0, most_unanswered=100)
    bucket.pause(0.0, 10.0)
    bucket.pause(0.0, 1.0)
    assert bucket.wait_s(4.0) == 6.0
    assert bucket.statistics(4.0).paused_for_s == 6.0
    assert bucket.wait_s(10.0) == 0


def test_a_pause_that_is_no_429_costs_no_token() -> None:
    bucket = TokenBucket(5, 1.0, 0.0, most_unanswered=100)
    bucket.pause(0.0, 2.0)
    statistics = bucket.statistics(2.0)
    assert (statistics.level, statistics.throttled) == (5, 0)


def test_a_429_empties_the_bucket_until_its_pause_is_over_and_is_counted() -> None:
    bucket = TokenBucket(5, 1.0, 0.0, most_unanswered=100)
    bucket.throttle(0.0, 2.0)
    assert bucket.wait_s(0.0) == 2.0
    assert bucket.wait_s(2.0) == pytest.approx(1.0)
    statistics = bucket.statistics(2.0)
    assert (statistics.level, statistics.throttled, statistics.paused_for_s) == (0, 1, 0)


def test_a_debt_survives_a_429() -> None:
    bucket = TokenBucket(1, 1.0, 0.0, most_unanswered=100)
    bucket.take(0.0)
    bucket.answered(0.0, None, sent=4)
    bucket.throttle(0.0, 0.0)
    assert bucket.statistics(0.0).level == -3


def test_a_clock_set_back_pays_nothing() -> None:
    bucket = TokenBucket(2, 1.0, 1_000.0, most_unanswered=100)
    for _ in range(2):
        bucket.take(1_000.0)
        bucket.answered(1_000.0, None)
    assert bucket.statistics(0.0).level == 0
    assert bucket.wait_s(0.0) == pytest.approx(1.0)
    assert bucket.wait_s(1.0) == 0


def test_before_any_answer_only_a_first_window_is_out() -> None:
    bucket = TokenBucket(1_000, 100.0, 0.0, most_unanswered=500)
    granted = 0
    while bucket.wait_s(0.0) == 0:
        bucket.take(0.0)
        granted += 1
    assert granted == FIRST_WINDOW == bucket.window
    assert bucket.wait_s(0.0) == math.inf


@pytest.mark.parametrize(
    ("per_s", "latency_s", "most", "window"),
    [
        (100.0, 1.0, 500, 200),  # twice what Little's law asks for
        (100.0, 1.0, 50, 50),  # never more than there are connections
        (1.0, 0.1, 500, WINDOW),
        (1.0, 0.1, 3, 3),
        (100.0, 0.0, 500, WINDOW),
    ],
)
def test_the_window_follows_rate_and_answer_time(per_s: float, latency_s: float, most: int, window: int) -> None:
    bucket = TokenBucket(1_000, per_s, 0.0, most_unanswered=most)
    bucket.take(0.0)
    bucket.answered(0.0, latency_s)
    assert bucket.window == window


def test_the_answer_time_is_smoothed_and_a_lost_answer_says_nothing_of_it() -> None:
    bucket = TokenBucket(1_000, 100.0, 0.0, most_unanswered=10_000)
    for latency_s in (1.0, None, 2.0):
        bucket.take(0.0)
        bucket.answered(0.0, latency_s)
    assert bucket.window == math.ceil(2 * 100 * 1.1)


# ------------------------------------------------------------------------------------------------ shared buckets


def spent(capacity: float = 10, per_s: float = 1.0) -> TokenBucket:
    """A bucket whose tokens are all gone and answered for, at 0 s."""
    bucket = TokenBucket(capacity, per_s, 0.0, most_unanswered=100)
    for _ in range(int(capacity)):
        bucket.take(0.0)
        bucket.answered(0.0, 0.0)
    return bucket


def refilled(bucket: TokenBucket, since_s: float, seconds: float = 0.1) -> float:
    """What the bucket gains in a moment, as a share of its rate."""
    before = bucket.statistics(since_s).level
    return (bucket.statistics(since_s + seconds).level - before) / seconds / bucket.refill_per_s


def test_a_first_429_does_not_slow_the_refill_and_a_second_soon_after_does() -> None:
    bucket = spent()
    bucket.throttle(0.0, 1.0)
    assert refilled(bucket, 1.0) == pytest.approx(1.0)
    bucket.throttle(2.0, 1.0)
    assert refilled(bucket, 3.0) == pytest.approx(SLOWER, rel=0.01)
    assert bucket.wait_s(3.0) > 0


def test_the_429s_of_one_burst_count_once() -> None:
    bucket = spent()
    for _ in range(7):
        bucket.throttle(0.0, 1.0)
    assert refilled(bucket, 1.0) == pytest.approx(1.0)
    assert bucket.statistics(1.0).throttled == 7


def test_a_429_long_after_another_does_not_slow_the_refill() -> None:
    bucket = spent()
    bucket.throttle(0.0, 1.0)
    for _ in range(5):
        bucket.take(SHARED_FOR_S)
        bucket.answered(SHARED_FOR_S, None, sent=4)
    bucket.throttle(SHARED_FOR_S, 1.0)
    assert refilled(bucket, SHARED_FOR_S + 1) == pytest.approx(1.0)


def test_the_refill_never_slows_to_nothing_and_creeps_back() -> None:
    bucket = spent()
    for second in range(40):
        bucket.throttle(float(second), 0.5)
    assert refilled(bucket, 40.0) == pytest.approx(SLOWEST, rel=0.5)
    creeping = [refilled(bucket, 41.0 + second) for second in range(0, 200, 5)]
    assert creeping[0] < 0.3
    assert all(later >= earlier - TOLERANCE for earlier, later in itertools.pairwise(creeping[:8]))
    fresh = bucket.statistics(500.0)
    assert fresh.level == fresh.capacity


def test_what_the_service_counted_lowers_the_level_and_never_raises_it() -> None:
    bucket = TokenBucket(10, 2.0, 0.0, most_unanswered=100)
    bucket.note_remaining(0.0, remaining=3, latency_s=0.5)
    assert bucket.statistics(0.0).level == 3 + 1 + 2.0 * 0.5
    bucket.note_remaining(0.0, remaining=9, latency_s=0.5)
    assert bucket.statistics(0.0).level == 5


@settings(max_examples=80)
@given(bucket=st.sampled_from(BUCKETS), steps=steps("take_all", "hear", "advance", "drain"))
def test_headers_bring_a_drained_bucket_to_light(bucket: tuple[float, float], steps: list[Step]) -> None:
    world = World(*bucket)
    world.do([*steps, ("take", 0.0)])
    if world.on_the_way:
        while world.on_the_way:
            world.arrive(0)
        world.seen.pop()
        told = world.service.level
        world.mirror.answered(world.clock_s, 0.0)
        world.mirror.note_remaining(world.clock_s, math.floor(told), 0.0)
        assert world.mirror.statistics(world.clock_s).level <= told + 1 + TOLERANCE


def test_another_bucket_is_taken_up_without_a_gift() -> None:
    bucket = TokenBucket(10, 1.0, 0.0, most_unanswered=100)
    bucket.take(0.0)
    bucket.retune(0.0, 50, 5.0)
    assert bucket.statistics(0.0).level == 9
    assert bucket.statistics(1.0).level == 14
    assert bucket.statistics(100.0).level == 49
    bucket.retune(100.0, 5, 0.5)
    assert bucket.statistics(100.0).level == 4


def test_asking_for_statistics_changes_nothing_so_that_another_thread_may_ask() -> None:
    bucket = TokenBucket(10, 1.0, 0.0, most_unanswered=100)
    for _ in range(6):
        bucket.take(0.0)
        bucket.answered(0.0, 0.1)
    before = {name: value for name, value in vars(bucket).items() if name != "on_more"}
    assert bucket.statistics(3.0).level == pytest.approx(7.0)
    assert {name: value for name, value in vars(bucket).items() if name != "on_more"} == before
