"""Budgets: nothing is sent that could pass the cap, whatever comes back is used, and what runs is collected."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.kit import KEY, FakeService, answer, lost, refusal, task, turns
from toapis_async import (
    AuthenticationFailed,
    BudgetExceeded,
    InsufficientQuota,
    InvalidRequest,
    Settings,
    SubmitUncertain,
    TaskFailed,
    ToAPIs,
)

if TYPE_CHECKING:
    from toapis_async import BatchItem

pytestmark = pytest.mark.looptime


def client_of(budget: float | None = None, **settings: Any) -> ToAPIs:
    values: dict[str, Any] = {"prices": {"*": 2}, "poll_jitter": 0, "uncertain_submits": "raise", **settings}
    return ToAPIs(KEY, settings=Settings(**values), budget_credits=budget)


def kinds(items: list[BatchItem]) -> list[str]:
    return [type(item.error).__name__ if item.error else "ok" for item in items]


async def test_a_batch_sends_what_fits_and_tells_the_rest_one_by_one(service: FakeService) -> None:
    async with client_of() as client:
        batch = client.batch([f"kite {number}" for number in range(10)], budget_credits=8)
        items = await batch.gather()
    assert kinds(items) == ["ok"] * 4 + ["BudgetExceeded"] * 6
    assert len(service.tasks) == 4
    assert batch.statistics().credits_spent == 8
    assert batch.statistics().images == 4
    assert all(item.client_business_id for item in items)


async def test_what_failed_is_given_back_and_spent_on_rows_that_waited_for_it(service: FakeService) -> None:
    async with client_of() as client:
        rows = ["kite 1 [fail]", "kite 2 [fail]", "kite 3", "kite 4", "kite 5"]
        items = await client.batch(rows, budget_credits=6).gather()
    assert kinds(items) == ["TaskFailed", "TaskFailed", "ok", "ok", "ok"]


async def test_what_was_refused_is_given_back(service: FakeService) -> None:
    service.on_submit.extend([refusal(422), refusal(400)])
    async with client_of() as client:
        items = await client.batch([f"kite {number}" for number in range(4)], budget_credits=4).gather()
    assert sorted(kinds(items)) == ["ContentRefused", "ServiceError", "ok", "ok"]


async def test_a_dearer_row_is_told_and_a_cheaper_one_after_it_is_still_sent(service: FakeService) -> None:
    async with client_of() as client:
        rows: list[dict[str, Any]] = [{"prompt": "a", "n": 2}, {"prompt": "b", "n": 3}, {"prompt": "c"}]
        items = await client.batch(rows, budget_credits=6).gather()
    assert kinds(items) == ["ok", "BudgetExceeded", "ok"]


async def test_n_from_extra_counts_as_it_is_sent(service: FakeService) -> None:
    async with client_of() as client:
        items = await client.batch([{"prompt": "a", "extra": {"n": 5}}], budget_credits=8).gather()
    assert kinds(items) == ["BudgetExceeded"]
    assert service.of("submit") == []


async def test_a_cap_on_images_needs_no_prices(service: FakeService) -> None:
    async with client_of(prices={}) as client:
        items = await client.batch([{"prompt": f"{n}", "n": 2} for n in range(4)], max_images=5).gather()
    assert kinds(items) == ["ok", "ok", "BudgetExceeded", "BudgetExceeded"]


async def test_without_a_price_nothing_is_sent_and_the_words_are_given(service: FakeService) -> None:
    async with client_of(prices={"flux": 1}) as client:
        items = await client.batch(["kite"], budget_credits=100).gather()
    assert "--price gpt-image-2-vip/1k/medium=" in str(items[0].error)
    assert service.of("submit") == []


async def test_billing_corrects_the_price(service: FakeService) -> None:
    billed = {"status": "settled", "credits": "3.5", "cost_usd": "0.0175"}
    service.on_query.extend(answer(200, task(f"task_{n}", "completed", billing=billed)) for n in (1, 2))
    async with client_of(budget=8) as client:
        await client.generate("first")
        await client.generate("second")
        with pytest.raises(BudgetExceeded, match=r"for 3\.5 credits"):
            await client.generate("third")


@pytest.mark.parametrize("credits_", ["-100", "1e999999999", "-0.5"])
async def test_a_bill_that_is_none_is_taken_for_what_was_reserved(service: FakeService, credits_: str) -> None:
    service.on_query.append(answer(200, task("t", "completed", billing={"status": "settled", "credits": credits_})))
    async with client_of() as client:
        batch = client.batch(["one", "two", "three"], budget_credits=4)
        assert kinds(await batch.gather()) == ["ok", "ok", "BudgetExceeded"]
        assert batch.statistics().credits_spent == 4


async def test_a_refund_on_a_failure_gives_back_and_a_settled_failure_does_not(service: FakeService) -> None:
    for status, left in (("refunded", True), ("settled", False)):
        service.on_query.append(answer(200, task("t", "failed", billing={"status": status, "credits": "2"})))
        async with client_of(budget=2) as client:
            with pytest.raises(TaskFailed):
                await client.generate("kite")
            if left:
                await client.generate("again")
            else:
                with pytest.raises(BudgetExceeded):
                    await client.generate("again")


async def test_the_client_s_budget_is_that_of_everything_it_sends(service: FakeService) -> None:
    async with client_of(budget=6) as client:
        await client.generate("one")
        items = await client.batch(["two", "three", "four"], budget_credits=100).gather()
        assert kinds(items) == ["ok", "ok", "BudgetExceeded"]
        with pytest.raises(BudgetExceeded) as caught:
            await client.submit({"prompt": "five", "client_business_id": "mine"})
        assert caught.value.client_business_id == "mine"
    assert len(service.tasks) == 3


async def test_what_is_shared_under_one_id_counts_once(service: FakeService) -> None:
    row = {"prompt": "one", "client_business_id": "mine"}
    async with client_of() as client:
        batch = client.batch([row] * 3, budget_credits=2)
        assert kinds(await batch.gather()) == ["ok", "ok", "ok"]
        assert batch.statistics().credits_spent == 2
    assert len(service.of("submit")) == 1


async def test_a_second_under_one_id_that_is_refused_leaves_the_first_reserved(service: FakeService) -> None:
    row = {"prompt": "one", "client_business_id": "mine"}
    async with client_of(budget=4) as client:
        await client.submit(row)
        with pytest.raises(InvalidRequest):
            await client.submit({**row, "prompt": "another"})
        await client.submit("two")
        with pytest.raises(BudgetExceeded):
            await client.submit("three")


async def test_a_single_call_does_not_wait_for_what_may_be_given_back(service: FakeService) -> None:
    async with client_of(budget=2) as client:
        await client.submit("one [fail]")
        with pytest.raises(BudgetExceeded):
            await client.submit("two")


async def test_a_submission_in_doubt_is_taken_for_paid(service: FakeService) -> None:
    service.on_submit.append(lost())
    async with client_of(budget=2) as client:
        with pytest.raises(SubmitUncertain):
            await client.submit("one")
        with pytest.raises(BudgetExceeded):
            await client.submit("two")


async def test_a_task_that_is_overdue_is_taken_for_paid_and_nobody_waits_for_it(service: FakeService) -> None:
    service.service_time_s = 1e6
    async with client_of(max_task_age_s=60) as client:
        items = await client.batch(["one", "two"], budget_credits=2).gather()
    assert kinds(items) == ["TaskOverdue", "BudgetExceeded"]


async def test_cancelled_before_it_was_sent_it_is_given_back(service: FakeService) -> None:
    async with client_of(budget=2, max_connections=1) as client:
        service.latency_s = 5
        service.on_submit.append(refusal(422))
        first = asyncio.create_task(client.submit("one"))
        await turns()
        first.cancel()
        await asyncio.wait([first])
        await asyncio.sleep(10)  # the POST went on without its caller, and was refused
        await client.submit("two")


async def test_leaving_a_batch_whose_rows_wait_for_the_budget_ends_at_once(service: FakeService) -> None:
    service.service_time_s = 1e6
    async with client_of(close_grace_s=0) as client:
        async with client.batch(["one", "two", "three"], budget_credits=2) as batch:
            reading = asyncio.ensure_future(anext(aiter(batch)))
            await asyncio.sleep(1)
            reading.cancel()
            await asyncio.wait([reading])
        assert len(service.tasks) == 1


@pytest.mark.parametrize("value", [-1, "many", float("nan"), float("inf"), True, [1]])
def test_a_budget_that_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="budget_credits must be credits from 0"):
        ToAPIs(KEY, budget_credits=value)


def test_a_budget_may_be_exact() -> None:
    ToAPIs(KEY, budget_credits=Decimal("0.1"))


@pytest.mark.parametrize("price", [-1, "dear", None, True, float("nan")])
def test_a_price_that_is_none_is_refused(price: Any) -> None:
    with pytest.raises(ValueError, match=r"prices: '\*': .* is no price"):
        Settings(prices={"*": price})


@pytest.mark.parametrize("table", [5, "vip=1", [("vip", 1)]])
def test_prices_that_are_no_mapping_are_refused(table: Any) -> None:
    with pytest.raises(ValueError, match="prices must map"):
        Settings(prices=table)


# ------------------------------------------------------------------------------------------- 401 and 402


@pytest.mark.parametrize(("status", "kind"), [(402, InsufficientQuota), (401, AuthenticationFailed)])
async def test_a_401_or_402_stops_admitting_at_once_and_what_runs_is_collected(
    service: FakeService, status: int, kind: type[Exception]
) -> None:
    taken = 0

    def rows() -> Any:
        nonlocal taken
        for number in range(1_000):
            taken += 1
            yield f"kite {number}"

    async with client_of(tier="default") as client:
        service.on_submit.extend([*(answer(200, task(f"t{n}")) for n in range(3)), *[refusal(status)] * 997])
        service.on_query.extend(answer(200, task(f"t{n}", "completed")) for n in range(3))
        batch = client.batch(rows())
        items = await batch.gather()
    assert isinstance(batch.stopped_by, kind)
    assert kinds(items)[:3] == ["ok"] * 3
    assert set(kinds(items)[3:]) == {kind.__name__}
    assert len(items) == taken < 100


async def test_a_batch_tells_its_rate_and_the_time_left(service: FakeService) -> None:
    async with client_of() as client:
        batch = client.batch([f"kite {number}" for number in range(10)], max_in_flight=5)
        assert batch.statistics().left_s is None
        async with batch:
            seen = 0
            async for _ in batch:
                seen += 1
                if seen == 5:
                    break
            now = batch.statistics()
            assert now.rows_per_s > 0
            assert now.left_s == pytest.approx(5 / now.rows_per_s)
        endless = client.batch(iter(["kite"]))
        await endless.gather()
        assert endless.statistics().left_s is None


@pytest.mark.parametrize("cap", ["5", -1, 1.5, True])
async def test_a_cap_on_images_is_a_whole_number(service: FakeService, cap: Any) -> None:
    async with client_of() as client:
        with pytest.raises(InvalidRequest, match="max_images must be a whole number from 0") as caught:
            client.batch(["kite"], max_images=cap)
    assert caught.value.field == "max_images"
