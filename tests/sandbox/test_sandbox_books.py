"""Charges, refunds, the ledger, the counters, and driving tasks by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from toapis_async.sandbox import Fault, Job, Sandbox
from toapis_async.sandbox.catalogue import IMAGE_MODELS

from .kit import VIP, Caller, Clock

if TYPE_CHECKING:
    import aiohttp


def test_the_prices_that_were_seen_are_the_ones_charged() -> None:
    assert IMAGE_MODELS[VIP].credits("1k", "low") / 200 == pytest.approx(0.0019)
    assert IMAGE_MODELS["gpt-image-2"].credits("1k", "medium") / 200 == pytest.approx(0.015)


async def test_a_submission_is_charged_at_once_for_every_image(sandbox: Sandbox, caller: Caller) -> None:
    await caller.task(quality="low", n=3)

    assert sandbox.ledger.credits_charged == 1.14
    assert (await caller.balance())["used_credits"] == 1.14
    assert (await caller.balance())["remain_credits"] == 100_000 - 1.14


async def test_a_failure_is_refunded_when_it_happens_whether_anybody_asks_or_not(
    sandbox: Sandbox, caller: Caller, clock: Clock
) -> None:
    task_id = await caller.task("[fail]", quality="low")
    await caller.task(quality="low")
    assert (await caller.balance())["used_credits"] == 0.76
    clock.advance(10)

    assert (await caller.balance())["used_credits"] == 0.38
    assert (await caller.balance("/v1/balance"))["used_credits"] == 0.38
    entry = sandbox.ledger.by_task(task_id)
    assert entry is not None
    assert (entry.credits, entry.refunded, entry.paid, entry.status) == (0.38, 0.38, 0, "failed")
    assert (sandbox.ledger.credits_refunded, sandbox.ledger.credits_paid) == (0.38, 0.38)


async def test_the_ledger_tells_what_was_accepted(sandbox: Sandbox, caller: Caller, clock: Clock) -> None:
    task_id = await caller.task("a kite", client_business_id="order", n=2)
    await caller.submit("[refuse]")
    clock.advance(10)

    (entry,) = sandbox.ledger.entries
    assert entry == sandbox.ledger.by_task(task_id)
    assert (entry,) == sandbox.ledger.by_client_business_id("order")
    assert entry.request == {"model": VIP, "prompt": "a kite", "client_business_id": "order", "n": 2}
    assert (entry.user, entry.model, entry.prompt, entry.n) == ("user", VIP, "a kite", 2)
    assert (entry.accepted_at, entry.status, entry.finished_at) == (clock.now - 10, "completed", clock.now)
    assert sandbox.ledger.by_task("nobody") is None
    assert sandbox.ledger.by_client_business_id("nobody") == ()
    assert "1 accepted" in repr(sandbox.ledger)


async def test_paid_twice_lists_ids_charged_twice_to_one_user(session: aiohttp.ClientSession) -> None:
    async with Sandbox(service_time_s=0, keys={"a": "ann", "b": "bob"}, pictures=False) as sandbox:
        ann, bob = Caller(session, sandbox, "a"), Caller(session, sandbox, "b")
        for caller, prompt, given in (
            (ann, "x", "twice"),
            (ann, "x", "twice"),
            (ann, "x", "once"),
            (bob, "x", "once"),
            (ann, "[fail]", "refunded"),
            (ann, "x", "refunded"),
            (ann, "x", None),
            (ann, "x", None),
        ):
            await caller.task(prompt, client_business_id=given)

        assert sandbox.ledger.paid_twice() == ("twice",)
        assert len(sandbox.ledger.by_client_business_id("once")) == 2


async def test_the_latest_of_several_tasks_answers_for_their_id(caller: Caller) -> None:
    await caller.task(client_business_id="order")
    latest = await caller.task(client_business_id="order")

    assert (await caller.query("order")).body["id"] == latest


async def test_a_task_is_finished_by_hand(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(service_time_s=math.inf, clock=clock, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        task_id = await caller.task()
        clock.advance(3)
        early = (await caller.query(task_id)).body
        clock.advance(1e6)
        late = (await caller.query(task_id)).body
        sandbox.finish(task_id)
        done = (await caller.query(task_id)).body

    assert early["status"] == late["status"] == "in_progress"
    assert 0 < early["progress"] < late["progress"] < 100
    assert (done["status"], done["completed_at"]) == ("completed", int(clock.now))


async def test_a_task_is_failed_by_hand_and_refunded(sandbox: Sandbox, caller: Caller) -> None:
    task_id = await caller.task()
    sandbox.fail(task_id, "upstream_error", "the upstream went away")
    body = (await caller.query(task_id)).body

    assert body["error"] == {"code": "upstream_error", "message": "the upstream went away"}
    assert sandbox.ledger.credits_paid == 0


async def test_only_a_running_task_can_be_driven(sandbox: Sandbox, caller: Caller) -> None:
    task_id = await caller.task("[fail] appointed to fail later")
    sandbox.finish(task_id)

    with pytest.raises(ValueError, match="already completed"):
        sandbox.fail(task_id)
    with pytest.raises(KeyError):
        sandbox.finish("nobody")


async def test_a_task_finished_by_hand_is_not_refunded_at_its_old_appointment(
    sandbox: Sandbox, caller: Caller, clock: Clock
) -> None:
    task_id = await caller.task("[fail]")
    sandbox.finish(task_id)
    clock.advance(100)

    assert sandbox.ledger.credits_refunded == 0


async def test_the_counters_tell_kinds_tasks_and_times(sandbox: Sandbox, caller: Caller, clock: Clock) -> None:
    task_id = await caller.task(client_business_id="order")
    for wanted in (task_id, "order", task_id):
        clock.advance(5)
        await caller.query(wanted)
    await caller.query("nobody")
    url = (await caller.query(task_id)).body["result"]["data"][0]["url"]
    await caller.file(url)

    requests = sandbox.requests
    assert requests.counts == {"submit": 1, "query": 5, "file": 1}
    assert requests.total == 7
    assert requests.by_task == {task_id: 4}
    assert requests.gaps_s(task_id) == (5, 5, 0)
    assert requests.statuses["query", 200] == 4
    assert requests.statuses["query", 404] == 1
    (file,) = requests.of_kind("file")
    assert file.task_id == task_id
    assert "authorization" not in file.headers
    assert requests.of_kind("submit")[0].headers["authorization"] == "Bearer sk-one"
    assert "Bearer" not in repr(requests.of_kind("submit")[0])
    assert repr(requests) == "<RequestLog: 5 query, 1 submit, 1 file; 0 times 429>"


async def test_the_log_is_bounded_and_the_counters_are_not(session: aiohttp.ClientSession) -> None:
    async with Sandbox(log_size=3, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        for number in range(5):
            await caller.query(f"task_{number}")
        paths = [request.path for request in sandbox.requests.log]

        assert paths == [f"/v1/images/generations/task_{number}" for number in (2, 3, 4)]
        assert sandbox.requests.count("query") == 5


async def service_times(session: aiohttp.ClientSession, prompts: list[str], seed: int) -> dict[str, float]:
    async with Sandbox(clock=Clock(), seed=seed, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        for prompt in prompts:
            await caller.task(prompt)
        sandbox._clock.advance(1e6)  # type: ignore[attr-defined]
        return {
            f"{entry.prompt}/{index}": (entry.finished_at or 0) - entry.accepted_at
            for index, entry in enumerate(sorted(sandbox.ledger, key=lambda entry: entry.prompt))
        }


async def test_service_times_follow_from_the_seed_and_the_work_not_from_the_order(
    session: aiohttp.ClientSession,
) -> None:
    prompts = [f"kite {number}" for number in range(12)]
    times = await service_times(session, prompts, seed=1)

    assert await service_times(session, prompts[::-1], seed=1) == times
    assert await service_times(session, prompts, seed=2) != times
    assert len(set(times.values())) == 12


async def test_equal_work_takes_another_time_at_each_occurrence(session: aiohttp.ClientSession) -> None:
    times = await service_times(session, ["kite", "kite", "kite"], seed=1)

    assert len(set(times.values())) == 3


@pytest.mark.parametrize(
    ("resolution", "quality", "median_s"), [("1k", "low", 8), ("1k", "high", 24), ("4k", "high", 78)]
)
async def test_service_times_are_spread_around_the_median_of_their_class(
    session: aiohttp.ClientSession, clock: Clock, resolution: str, quality: str, median_s: float
) -> None:
    async with Sandbox(clock=clock, tier="svip", speed=10, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        for number in range(101):
            await caller.task(f"kite {number}", resolution=resolution, quality=quality)
        start = clock.now
        clock.advance(1e6)
        times = sorted(10 * ((entry.finished_at or 0) - start) for entry in sandbox.ledger)

    assert times[50] == pytest.approx(median_s, rel=0.15)
    assert times[10] < 0.75 * median_s
    assert times[90] > 1.35 * median_s


async def test_a_service_time_can_be_a_function_of_the_job(session: aiohttp.ClientSession, clock: Clock) -> None:
    def seconds(job: Job) -> float:
        return 40.0 if job.resolution == "4k" else 4.0

    async with Sandbox(clock=clock, service_time_s=seconds, speed=4, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        quick, slow = await caller.task(), await caller.task(resolution="4k", size="9:16")
        clock.advance(1)

        assert (await caller.query(quick)).body["status"] == "completed"
        assert (await caller.query(slow)).body["status"] == "in_progress"


async def test_a_fault_that_is_drawn_is_counted(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", Fault.ERROR_500)
    await caller.submit()

    assert sandbox.faults.drawn == {("submit", Fault.ERROR_500): 1}
