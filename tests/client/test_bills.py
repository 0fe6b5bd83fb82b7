"""Bills that are pending when a task ends: they hold their share of a budget until the service has decided."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.kit import KEY, FakeService, not_sent
from toapis_async import BudgetExceeded, Settings, TaskFailed, ToAPIs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from toapis_async import BatchItem

pytestmark = pytest.mark.looptime


def client_of(budget: float | None = None, *, journal: Path | None = None, **settings: Any) -> ToAPIs:
    values: dict[str, Any] = {"prices": {"*": 1}, "poll_jitter": 0, "uncertain_submits": "raise", **settings}
    return ToAPIs(KEY, settings=Settings(**values), budget_credits=budget, journal=journal)


def kinds(items: list[BatchItem]) -> list[str]:
    return [type(item.error).__name__ if item.error else "ok" for item in items]


def pending_until(at_s: float, then: Mapping[str, object]) -> Callable[[str, float], Mapping[str, object] | None]:
    return lambda prompt, since_end_s: {"status": "pending"} if since_end_s < at_s else then


REFUNDED = {"status": "refunded", "credits": "0", "cost_usd": "0"}


def settled(credits_: str) -> Mapping[str, object]:
    return {"status": "settled", "credits": credits_}


async def test_a_failure_whose_bill_is_pending_stays_reserved_and_the_batch_ends(service: FakeService) -> None:
    service.bill = pending_until(1e9, {})
    async with client_of() as client:
        batch = client.batch(["a [fail]", "b", "c"], budget_credits=1)
        assert kinds(await batch.gather()) == ["TaskFailed", "BudgetExceeded", "BudgetExceeded"]
        assert asyncio.get_running_loop().time() < 60  # nobody waits for a bill that may never be decided
        assert batch.statistics().credits_spent == 0
        assert len(service.tasks) == 1


async def test_it_is_asked_for_four_times_and_given_back_when_it_is_refunded(service: FakeService) -> None:
    service.bill = pending_until(290, REFUNDED)
    async with client_of(1) as client:
        with pytest.raises(TaskFailed):
            await client.generate("a [fail]")
        ended_s = asyncio.get_running_loop().time()
        with pytest.raises(BudgetExceeded):
            await client.generate("b")
        await asyncio.sleep(295)
        with pytest.raises(BudgetExceeded):
            await client.generate("c")
        await asyncio.sleep(10)
        await client.generate("d")
    asked = [round(at_s - ended_s) for at_s in service.queries("task_1") if at_s > ended_s]
    assert asked == [10, 60, 300]


async def test_one_that_is_never_decided_is_asked_for_no_longer_than_15_minutes(service: FakeService) -> None:
    service.bill = pending_until(1e9, {})
    async with client_of(1) as client:
        with pytest.raises(TaskFailed):
            await client.generate("a [fail]")
        ended_s = asyncio.get_running_loop().time()
        await asyncio.sleep(10_000)
        assert [round(at_s - ended_s) for at_s in service.queries("task_1") if at_s > ended_s] == [10, 60, 300, 900]
        with pytest.raises(BudgetExceeded):
            await client.generate("b")


async def test_a_settled_bill_replaces_what_was_reserved_once(service: FakeService) -> None:
    service.bill = pending_until(30, settled("2.5"))
    async with client_of() as client:
        batch = client.batch(["a", "b [fail]"], budget_credits=10)
        assert kinds(await batch.gather()) == ["ok", "TaskFailed"]
        assert batch.statistics().credits_spent == 1  # the image, as reserved
        await asyncio.sleep(100)
        assert batch.statistics().credits_spent == 5
        assert batch.statistics().images == 2


async def test_a_finished_task_that_is_refunded_cost_nothing(service: FakeService) -> None:
    service.bill = pending_until(30, REFUNDED)
    async with client_of(1) as client:
        await client.generate("a")
        with pytest.raises(BudgetExceeded):
            await client.generate("b")
        await asyncio.sleep(100)
        await client.generate("c")


async def test_an_answer_that_is_lost_says_nothing_and_the_next_is_asked(service: FakeService) -> None:
    service.bill = pending_until(5, REFUNDED)
    async with client_of(1) as client:
        with pytest.raises(TaskFailed):
            await client.generate("a [fail]")
        service.on_query.append(not_sent())
        await asyncio.sleep(30)
        with pytest.raises(BudgetExceeded):
            await client.generate("b")
        await asyncio.sleep(40)
        await client.generate("c")


async def test_a_failure_without_any_bill_frees_its_share(service: FakeService) -> None:
    async with client_of(1) as client:
        with pytest.raises(TaskFailed):
            await client.generate("a [fail]")
        await client.generate("b")


async def test_without_a_cap_nobody_asks(service: FakeService) -> None:
    service.bill = pending_until(1e9, {})
    async with client_of() as client:
        await client.batch(["a [fail]", "b"]).gather()
        queries = len(service.of("query"))
        await asyncio.sleep(2_000)
        assert len(service.of("query")) == queries


async def test_closing_waits_for_no_bill(service: FakeService) -> None:
    service.bill = pending_until(1e9, {})
    async with client_of(5) as client:
        for prompt in ("a [fail]", "b"):
            await asyncio.gather(client.generate(prompt), return_exceptions=True)
        closing_s = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() == closing_s


async def test_the_next_pass_asks_the_rest_and_the_journal_keeps_the_answer(
    service: FakeService, tmp_path: Path
) -> None:
    service.bill, service.latency_s = pending_until(100, REFUNDED), 0.2
    for expected in (["TaskFailed", "BudgetExceeded"], ["TaskFailed", "BudgetExceeded"], ["TaskFailed", "ok"]):
        async with client_of(journal=tmp_path / "j.db") as client:
            batch = client.batch(["a [fail]", "b"], budget_credits=1, run="r")
            assert kinds(await batch.gather()) == expected
        await asyncio.sleep(60)
    queries = len(service.queries("task_1"))
    async with client_of(journal=tmp_path / "j.db") as client:
        batch = client.batch(["a [fail]", "b"], budget_credits=1, run="r")
        assert kinds(await batch.gather()) == ["TaskFailed", "ok"]
    assert len(service.queries("task_1")) == queries  # the journal holds its bill
    assert len(service.tasks) == 2
    assert batch.statistics().credits_spent == Decimal(1)
