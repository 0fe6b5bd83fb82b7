"""Gates: turns in order, the urgent first, and no turn lost to a waiter that went away."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any, Generic, TypeVar

import pytest

from toapis_async import SessionClosed
from toapis_async.engine import limiter
from toapis_async.engine.limiter import MOST_OVERTAKEN, Gate, Permits, Priority
from toapis_async.engine.pacer import RateGate
from toapis_async.protocol.pacing import TokenBucket

from .kit import turns

G = TypeVar("G", bound=Gate[Any])


class Line(Generic[G]):
    """Waiters by name, and the order in which they got their turns."""

    def __init__(self, gate: G) -> None:
        self.gate = gate
        self.served: list[str] = []
        self.at_s: list[float] = []

    def join(self, name: str, priority: Priority = Priority.ORDINARY) -> asyncio.Task[None]:
        return asyncio.create_task(self._wait(name, priority))

    async def _wait(self, name: str, priority: Priority) -> None:
        await self.gate.acquire(priority)
        self.served.append(name)
        self.at_s.append(round(asyncio.get_running_loop().time(), 6))


def rate_gate(capacity: float, per_s: float, most_unanswered: int = 100) -> RateGate:
    now_s = asyncio.get_running_loop().time()
    return RateGate(TokenBucket(capacity, per_s, now_s, most_unanswered=most_unanswered))


async def test_turns_come_in_the_order_of_asking() -> None:
    line = Line(Gate(Permits(2)))
    for name in "abcdef":
        line.join(name)
    for expected in ("ab", "abc", "abcd", "abcde", "abcdef"):
        await turns()
        assert "".join(line.served) == expected
        line.gate.give_back()


async def test_nobody_takes_a_turn_at_once_while_others_wait() -> None:
    line = Line(Gate(Permits(1)))
    assert line.gate.try_acquire(asyncio.get_running_loop().time())
    assert not line.gate.try_acquire(asyncio.get_running_loop().time())
    line.join("first")
    await turns()
    line.gate.give_back()
    assert not line.gate.try_acquire(
        asyncio.get_running_loop().time()
    )  # granted to the one who waits, which has not run yet
    await turns()
    assert line.served == ["first"]
    line.gate.close()
    with pytest.raises(SessionClosed):
        line.gate.try_acquire(asyncio.get_running_loop().time())


async def test_the_urgent_go_before_all_others_and_in_their_own_order() -> None:
    line = Line(Gate(Permits(1)))
    line.join("holder")
    await turns()
    for name in "abc":
        line.join(name)
    await turns()
    for name in "XYZ":
        line.join(name, Priority.URGENT)
    for _ in range(7):
        await turns()
        line.gate.give_back()
    assert line.served == ["holder", *"XYZabc"]


async def test_a_single_submission_goes_before_the_rows_of_a_batch_and_rows_sent_again_before_new_ones() -> None:
    line = Line(Gate(Permits(1)))
    line.join("holder")
    await turns()
    for name, priority in (
        ("r", Priority.ROW),
        ("s", Priority.ROW),
        ("a", Priority.ROW_AGAIN),
        ("1", Priority.ORDINARY),
    ):
        line.join(name, priority)
    for _ in range(4):
        await turns()
        line.gate.give_back()
    await turns()
    assert line.served == ["holder", *"1ars"]


async def test_a_flood_of_single_submissions_leaves_rows_a_third_of_the_turns_in_their_order() -> None:
    line = Line(Gate(Permits(1)))
    line.join("holder")
    await turns()
    waiting = [line.join(f"single {number}") for number in range(20)]
    waiting += [line.join(f"row {number}", Priority.ROW) for number in range(5)]
    for _ in waiting:
        await turns()
        line.gate.give_back()
    await turns()
    served = line.served[1:]
    assert [name for name in served if name.startswith("row")] == [f"row {number}" for number in range(5)]
    places = [place for place, name in enumerate(served) if name.startswith("row")]
    assert places == [number * (MOST_OVERTAKEN + 1) + MOST_OVERTAKEN for number in range(5)]


async def test_a_row_that_comes_after_many_single_submissions_does_not_overtake_those_that_wait() -> None:
    line = Line(Gate(Permits(1)))
    line.join("holder")
    await turns()
    for name in "abcdef":
        line.join(name)
    for _ in range(4):  # a, b, c and d got their turns before any row came
        await turns()
        line.gate.give_back()
    line.join("row", Priority.ROW)
    for _ in range(3):
        await turns()
        line.gate.give_back()
    await turns()
    assert line.served == ["holder", *"abcdef", "row"]


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    line = Line(Gate(Permits(1)))
    await line.gate.acquire()
    waiting = line.join("first")
    await turns()
    line.gate.give_back()  # granted to `first`, which has not run yet
    late = line.join("late")
    await turns()
    assert line.served == ["first"]
    line.gate.give_back()
    await asyncio.gather(waiting, late)


async def test_a_newcomer_does_not_take_what_came_up_since_for_those_who_wait() -> None:
    permits = Permits(1)
    line = Line(Gate(permits))
    await line.gate.acquire()
    waiting = line.join("first")
    await turns()
    permits.limit = 2  # as a bucket refills by itself, a moment before the gate's timer fires
    late = line.join("late")
    await turns()
    assert line.served == []
    line.gate.give_back()
    await asyncio.gather(waiting, late)
    assert line.served == ["first", "late"]


async def test_a_cancelled_waiter_is_passed_over() -> None:
    line = Line(Gate(Permits(1)))
    await line.gate.acquire()
    waiting = {name: line.join(name) for name in "abcd"}
    await turns()
    for name in "ac":
        waiting[name].cancel()
    for _ in range(2):
        line.gate.give_back()
        await turns()
    assert line.served == ["b", "d"]
    assert line.gate.waiting == 0


async def test_a_waiter_cancelled_after_its_grant_passes_the_turn_on() -> None:
    line = Line(Gate(Permits(1)))
    await line.gate.acquire()
    granted, following = line.join("granted"), line.join("following")
    await turns()
    line.gate.give_back()
    granted.cancel()  # in the same tick, before it runs
    await turns()
    assert granted.cancelled()
    assert line.served == ["following"]
    await following


async def test_a_whole_chain_of_granted_and_cancelled_waiters_loses_no_turn() -> None:
    permits = Permits(3)
    line = Line(Gate(permits))
    for _ in range(3):
        await line.gate.acquire()
    waiting = [line.join(str(number)) for number in range(50)]
    await turns()
    for _ in range(3):
        line.gate.give_back()  # granted to the first three, who do not run any more
    for doing in waiting[:-1]:
        doing.cancel()
    await turns(200)
    assert line.served == ["49"]
    assert permits.taken == 1


@pytest.mark.looptime
async def test_a_cancelled_waiter_in_front_does_not_keep_the_next_one_from_its_token() -> None:
    line: Line[RateGate] = Line(rate_gate(1, 0.5))
    await line.gate.acquire()
    line.gate.answered(latency_s=0)
    first = line.join("first")
    await asyncio.sleep(1)
    first.cancel()
    second = line.join("second")
    await second
    assert line.at_s == [2]


@pytest.mark.looptime
async def test_tokens_come_at_the_rate_and_a_pause_holds_everyone() -> None:
    gate = rate_gate(2, 0.5)
    line = Line(gate)
    waiting = [line.join(name) for name in "abcd"]
    await asyncio.sleep(0.5)
    gate.answered(latency_s=0.5)
    gate.answered(latency_s=0.5)
    gate.pause(9.5)
    await asyncio.gather(*waiting)
    assert line.served == list("abcd")
    assert line.at_s == [0, 0, 10, 10]


@pytest.mark.looptime
async def test_after_a_429_the_bucket_is_taken_to_be_empty_until_the_pause_ends() -> None:
    gate = rate_gate(5, 1)
    line = Line(gate)
    await gate.acquire()
    gate.answered(latency_s=0)
    gate.throttle(10)
    await asyncio.gather(*(line.join(name) for name in "abc"))
    assert line.at_s == [11, 12, 13]
    assert gate.statistics().throttled == 1


@pytest.mark.looptime
async def test_a_token_that_was_not_used_is_there_again() -> None:
    gate = rate_gate(1, 0.001)
    await gate.acquire()
    gate.give_back()
    await gate.acquire()
    assert asyncio.get_running_loop().time() == 0
    assert 0 <= gate.fullness(asyncio.get_running_loop().time()) < 1e-6


@pytest.mark.looptime
async def test_no_more_are_unanswered_at_once_than_there_are_connections() -> None:
    gate = rate_gate(100, 100, most_unanswered=2)
    line = Line(gate)
    waiting = [line.join(name) for name in "abc"]
    await asyncio.sleep(50)
    assert line.served == ["a", "b"]
    gate.answered(latency_s=50)
    await asyncio.gather(*waiting)
    assert line.at_s == [0, 0, 50]


async def test_closing_refuses_waiters_and_newcomers() -> None:
    line = Line(Gate(Permits(1)))
    await line.gate.acquire()
    waiting = [line.join(name, Priority.URGENT if name == "b" else Priority.ORDINARY) for name in "abc"]
    await turns()
    line.gate.close()
    waiting.append(line.join("late"))
    for doing in waiting:
        with pytest.raises(SessionClosed):
            await doing
    assert (line.served, line.gate.waiting) == ([], 0)
    line.gate.give_back()


async def test_closing_in_the_tick_of_a_grant_refuses_that_one_too_and_loses_no_permit() -> None:
    permits = Permits(1)
    line = Line(Gate(permits))
    await line.gate.acquire()
    granted = line.join("granted")
    await turns()
    line.gate.give_back()
    line.gate.close()
    with pytest.raises(SessionClosed):
        await granted
    assert permits.taken == 0


@pytest.mark.parametrize("granted", [False, True])
async def test_closing_and_cancelling_in_one_tick_is_a_cancellation(granted: bool) -> None:
    permits = Permits(1)
    line = Line(Gate(permits))
    await line.gate.acquire()
    waiting = line.join("waiting")
    await turns()
    if granted:
        line.gate.give_back()
    line.gate.close()
    waiting.cancel()
    await turns()
    assert waiting.cancelled()
    assert permits.taken == (0 if granted else 1)


@pytest.mark.looptime
async def test_closing_stops_the_timer() -> None:
    gate = rate_gate(1, 0.01)
    line = Line(gate)
    await gate.acquire()
    waiting = line.join("waiting")
    await turns()
    gate.close()
    with pytest.raises(SessionClosed):
        await waiting
    handles = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    assert all(handle.cancelled() for handle in handles)


async def test_20_000_waiters_are_cancelled_without_searching_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    class Counting(deque[Any]):
        """A queue that counts what is done to it, in elements touched."""

        def popleft(self) -> Any:
            nonlocal steps
            steps += 1
            return super().popleft()

        def remove(self, value: Any) -> None:
            nonlocal steps
            steps += len(self)
            super().remove(value)

        def __contains__(self, value: object) -> bool:
            nonlocal steps
            steps += len(self)
            return super().__contains__(value)

        def __iter__(self) -> Any:
            nonlocal steps
            steps += len(self)
            return super().__iter__()

    monkeypatch.setattr(limiter, "deque", Counting)
    gate = Gate(Permits(1))
    await gate.acquire()
    count = 20_000
    waiting = [asyncio.ensure_future(gate.acquire()) for _ in range(count)]
    await asyncio.sleep(0)
    assert gate.waiting == count
    for doing in waiting[:-1]:
        doing.cancel()
    await asyncio.sleep(0)
    gate.give_back()
    await waiting[-1]
    assert steps <= count + 10
    assert gate.waiting == 0


def test_a_permit_is_never_a_matter_of_time() -> None:
    permits = Permits(1)
    assert permits.wait_s(0) == 0
    permits.take(0)
    assert permits.wait_s(1e9) == math.inf
