"""The clock that can be put forward, and the loops that wait by it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from toapis_async.sandbox import Clock, Fault, FaultPlan, Sandbox

if TYPE_CHECKING:
    from .kit import Caller

HOURS = 3_600.0


def test_it_passes_as_time_does() -> None:
    before, clock = time.time(), Clock()
    assert before - 1 <= clock() <= time.time() + 1
    assert clock() <= clock()


def test_it_stands_still_and_goes_on_and_never_back() -> None:
    clock = Clock()
    clock.stop()
    stopped = clock()
    assert clock() == stopped
    clock.advance(HOURS)
    assert clock() == pytest.approx(stopped + HOURS, abs=1e-3)
    clock.go()
    assert stopped + HOURS - 1e-3 <= clock() < stopped + HOURS + 100
    clock.stop()
    clock.stop()
    assert stopped + HOURS - 1e-3 <= clock() < stopped + HOURS + 100


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), 1e9])
def test_it_is_never_put_back_nor_out_of_the_calendar(seconds: float) -> None:
    with pytest.raises(ValueError, match="put forward by a number of seconds from 0"):
        Clock().advance(seconds)


async def test_a_loop_that_follows_it_is_woken_when_its_time_has_come() -> None:
    loop, clock = asyncio.get_running_loop(), Clock()
    before_s = loop.time()
    clock.follow(loop)
    assert before_s <= loop.time() < before_s + 100
    asleep = asyncio.ensure_future(asyncio.sleep(HOURS))
    await asyncio.sleep(0)
    clock.advance(HOURS)
    await asleep
    clock.forget(loop)
    clock.advance(HOURS)
    assert loop.time() >= before_s + 2 * HOURS


def test_a_loop_that_keeps_its_time_to_itself_is_refused() -> None:
    with pytest.raises(TypeError, match="object can't be given a clock"):
        Clock().follow(object())  # type: ignore[arg-type]


async def test_a_closed_sandbox_is_woken_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with Sandbox(clock=clock, pictures=False):
        pass
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", None)
        clock.advance(1)


async def test_files_that_expire_are_gone_when_their_task_completes(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", Fault.FILES_EXPIRE)
    task_id = await caller.task()
    sandbox.finish(task_id)
    answer = (await caller.query(task_id)).body
    assert (answer["status"], answer["expires_at"]) == ("completed", answer["completed_at"])
    assert (await caller.file(answer["result"]["data"][0]["url"])).status == 404
    with pytest.raises(ValueError, match="means nothing at 'query', only at submit"):
        FaultPlan().script("query", Fault.FILES_EXPIRE)
