"""Time-outs of requests by one timer: each is ended when it is late, and nobody else is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toapis_async.engine.watchdog import Watchdog

pytestmark = pytest.mark.looptime


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def ended_s(
    dog: Watchdog, work_s: float, *, sent_after_s: float | None = None, hears_every_s: float = 0
) -> float:
    """When a request of `work_s` seconds that is watched ends; negative when it was ended."""
    begun_s = now_s()
    try:
        with dog.watch() as watch:
            if sent_after_s is not None:
                await asyncio.sleep(sent_after_s)
                watch.heard_s = now_s()
            while hears_every_s and now_s() - begun_s < work_s:
                await asyncio.sleep(hears_every_s)
                watch.heard_s = now_s()
            await asyncio.sleep(max(work_s - (now_s() - begun_s), 0))
    except TimeoutError:
        return -(now_s() - begun_s)
    return now_s() - begun_s


async def test_each_is_ended_at_its_own_time_and_only_when_it_is_late() -> None:
    dog = Watchdog(60.0, 30.0)
    outcomes = await asyncio.gather(
        ended_s(dog, 59),  # not sent: queued for a connection
        ended_s(dog, 100),
        ended_s(dog, 29, sent_after_s=0),
        ended_s(dog, 100, sent_after_s=0),
        ended_s(dog, 100, sent_after_s=20),
        ended_s(dog, 100, sent_after_s=40),  # the whole time is over before its silence is
        ended_s(dog, 50, sent_after_s=1, hears_every_s=10),
        ended_s(dog, 100, sent_after_s=1, hears_every_s=10),
    )
    assert [round(outcome, 3) for outcome in outcomes] == [59, -60, 29, -30, -50, -60, 51, -60]


async def test_there_is_one_timer_however_many_are_watched_and_none_when_nobody_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, timers = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def counting(at_s: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
        if getattr(callback, "__self__", None) is dog:
            timers.append(at_s)
        return call_at(at_s, callback, *args, **options)

    dog = Watchdog(60.0, 30.0)
    monkeypatch.setattr(loop, "call_at", counting)
    for _ in range(50):
        await asyncio.gather(*(ended_s(dog, 0.5, sent_after_s=0) for _ in range(20)))
    assert timers == [30.0]
    await asyncio.sleep(100)
    assert timers == [30.0]
    assert await ended_s(dog, 100, sent_after_s=0) == -30.0


async def test_who_is_cancelled_as_it_is_late_is_cancelled() -> None:
    dog = Watchdog(1.0, 1.0)

    async def request() -> None:
        with dog.watch():
            await asyncio.sleep(100)

    waiting = asyncio.create_task(request())
    asyncio.get_running_loop().call_later(1.0, waiting.cancel)
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_an_answer_in_the_moment_of_the_time_out_is_late_and_leaves_no_cancellation_behind() -> None:
    dog, loop = Watchdog(1.0, 1.0), asyncio.get_running_loop()
    answer = loop.create_future()
    loop.call_at(loop.time() + 1.0, answer.set_result, None)  # before the timer of the watchdog, in the same turn

    async def request() -> None:
        with pytest.raises(TimeoutError), dog.watch():
            await answer
        await asyncio.sleep(1)

    asking = asyncio.create_task(request())
    await asking
    assert asking.cancelling() == 0


async def test_a_stopped_one_ends_nobody() -> None:
    dog = Watchdog(1.0, 1.0)
    waiting = asyncio.create_task(ended_s(dog, 5))
    await asyncio.sleep(0.5)
    dog.stop()
    assert await waiting == 5
