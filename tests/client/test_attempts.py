"""`batch(attempts=…)`: a row whose task failed for nothing is submitted anew, inside the budget, and no other."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.test_bills import REFUNDED, client_of, kinds, pending_until, settled
from tests.engine.kit import FakeService, answer, lost, refusal, task, until
from toapis_async import ContentRefused, InvalidRequest, SubmitUncertain, TaskFailed

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.protocol.lenient import Answer

pytestmark = pytest.mark.looptime


def heals_after(service: FakeService, failures: int) -> None:
    """The service's tasks fail until so many have."""
    service.failures = failures


def failed(task_id: str, code: str, message: str = "no luck") -> Answer:
    return answer(200, task(task_id, "failed", error={"code": code, "message": message}))


async def test_a_row_is_submitted_anew_until_it_succeeds_each_time_under_an_id_of_its_own(service: FakeService) -> None:
    heals_after(service, 2)
    async with client_of() as client:
        (item,) = await client.batch([{"prompt": "a", "client_business_id": "mine"}], attempts=5).gather()
    assert item.ok
    assert item.attempts == 3
    ids = [made.client_business_id or "" for made in service.tasks.values()]
    assert ids[0] == "mine"
    assert all(name.startswith("mine~") for name in ids[1:])
    assert len(set(ids)) == 3
    assert (item.task_id, item.client_business_id) == ("task_3", ids[2])


async def test_attempts_are_the_total_and_the_last_failure_is_given(service: FakeService) -> None:
    async with client_of() as client:
        items = await client.batch(["a [fail]", "b"], attempts=3).gather()
    assert kinds(items) == ["TaskFailed", "ok"]
    assert [item.attempts for item in items] == [3, 1]
    assert len(service.tasks) == 4
    assert items[0].task_id == items[0].error.task_id if items[0].error else None


async def test_by_default_nothing_is_submitted_anew(service: FakeService) -> None:
    async with client_of() as client:
        (item,) = await client.batch(["a [fail]"]).gather()
    assert item.attempts == 1
    assert len(service.tasks) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("content_policy_violation", "no"),
        ("moderation_blocked", "no"),
        ("fail_to_fetch_task", '{"code": "InputImagePrivacyInformation"}'),
    ],
)
async def test_a_failure_for_its_content_is_given_at_once(service: FakeService, code: str, message: str) -> None:
    service.on_query.append(failed("task_1", code, message))
    async with client_of() as client:
        (item,) = await client.batch(["a"], attempts=3).gather()
    assert isinstance(item.error, TaskFailed)
    assert len(service.tasks) == 1


async def test_a_refused_submission_is_not_submitted_anew(service: FakeService) -> None:
    service.on_submit.append(refusal(422))
    async with client_of() as client:
        (item,) = await client.batch(["a"], attempts=3).gather()
    assert isinstance(item.error, ContentRefused)
    assert item.attempts == 1
    assert len(service.of("submit")) == 1


async def test_a_pending_bill_is_asked_for_first_and_holds_no_permit(service: FakeService) -> None:
    service.bill = lambda prompt, since_end_s: (
        None if prompt == "b" else {"status": "pending"} if since_end_s < 50 else REFUNDED
    )
    heals_after(service, 1)
    async with client_of() as client:
        batch = client.batch(["a", "b"], attempts=2, max_in_flight=1)
        order = [(item.key[0], item.attempts, asyncio.get_running_loop().time()) async for item in batch]
    assert [(key, attempts) for key, attempts, _ in order] == [("b", 1), ("a", 2)]
    assert order[0][2] < 60
    assert order[1][2] > 60


@pytest.mark.parametrize("billed", [settled("1"), {"status": "pending"}])
async def test_a_row_that_was_paid_or_may_be_is_not_submitted_anew(
    service: FakeService, billed: dict[str, object]
) -> None:
    service.bill = pending_until(200, billed)
    async with client_of() as client:
        (item,) = await client.batch(["a [fail]"], attempts=3).gather()
    assert kinds([item]) == ["TaskFailed"]
    assert item.attempts == 1
    assert len(service.tasks) == 1
    assert asyncio.get_running_loop().time() < 1_000


async def test_without_attempts_left_it_is_given_at_once(service: FakeService) -> None:
    service.bill = pending_until(1e9, {})
    async with client_of() as client:
        await client.batch(["a [fail]"], attempts=1).gather()
    assert asyncio.get_running_loop().time() < 30


async def test_another_attempt_keeps_within_the_budget(service: FakeService) -> None:
    service.bill = lambda prompt, since_end_s: settled("1") if "[fail]" not in prompt else None
    async with client_of() as client:
        batch = client.batch(["a", "b [fail]"], attempts=9, budget_credits=2, max_in_flight=2)
        items = await batch.gather()
    assert kinds(items) == ["ok", "TaskFailed"]
    assert items[1].attempts == 9
    assert batch.statistics().credits_spent == 1


async def test_a_failure_that_no_budget_lets_be_repeated_is_given_as_it_failed(service: FakeService) -> None:
    heals_after(service, 1)
    async with client_of() as client:
        batch = client.batch(["a", "b", "c"], attempts=2, budget_credits=2, max_in_flight=3)
        items = await batch.gather()
    assert sorted(kinds(items)) == ["BudgetExceeded", "ok", "ok"] or sorted(kinds(items)) == ["TaskFailed", "ok", "ok"]
    for item in items:
        assert item.attempts == (0 if kinds([item]) == ["BudgetExceeded"] else item.attempts)
    assert sum("[fail]" not in made.prompt for made in service.tasks.values()) == 2


async def test_stop_and_close_end_the_wait_for_a_bill(service: FakeService) -> None:
    service.bill = pending_until(1e9, {})
    async with client_of() as client:
        batch = client.batch(["a [fail]"], attempts=2)
        items = aiter(batch)
        getting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(100)
        batch.stop()
        assert kinds([await getting]) == ["TaskFailed"]
        assert asyncio.get_running_loop().time() == 100
        leaving = client.batch(["b [fail]"], attempts=2)
        getting = asyncio.ensure_future(anext(aiter(leaving)))
        await asyncio.sleep(100)
        assert client.unclaimed() == ()
    assert kinds([await getting]) == ["TaskFailed"]
    assert client.unclaimed() == ()
    assert len(service.tasks) == 2


async def test_an_attempt_in_doubt_is_no_failure_to_follow(service: FakeService) -> None:
    async with client_of(reconcile_window_s=1) as client:
        batch = client.batch(["a [fail]"], attempts=5)
        getting = asyncio.ensure_future(batch.gather())
        await asyncio.sleep(5)
        service.on_submit.append(lost())
        (item,) = await getting
    assert isinstance(item.error, SubmitUncertain)
    assert item.attempts == 2
    assert item.task_id is None
    assert item.client_business_id == item.error.client_business_id


async def test_a_later_pass_goes_on_with_the_attempts_of_its_run(service: FakeService, tmp_path: Path) -> None:
    async with client_of(journal=tmp_path / "j.db") as client:
        (item,) = await client.batch(["a [fail]"], run="r", attempts=2).gather()
        assert item.attempts == 2
        (item,) = await client.batch(["a [fail]"], run="r", attempts=2).gather()
        assert (item.attempts, len(service.tasks)) == (2, 2)
        (item,) = await client.batch(["a [fail]"], run="r", attempts=3).gather()
        assert (item.attempts, len(service.tasks)) == (3, 3)
        (item,) = await client.batch(["a [fail]"], run="r", retry_failed=True).gather()
        assert (item.attempts, len(service.tasks)) == (4, 4)
        (item,) = await client.batch(["a [fail]"], run="r", retry_failed=True, attempts=2).gather()
        assert (item.attempts, len(service.tasks)) == (6, 6)


async def test_a_run_that_was_cut_short_takes_up_the_newest_attempt(service: FakeService, tmp_path: Path) -> None:
    heals_after(service, 1)
    async with client_of(journal=tmp_path / "j.db") as client:
        batch = client.batch([{"key": "k", "prompt": "a"}], run="r", attempts=3)
        getting = asyncio.ensure_future(anext(aiter(batch)))
        await until(lambda: len(service.tasks) == 2)
    await asyncio.gather(getting, return_exceptions=True)
    async with client_of(journal=tmp_path / "j.db") as client:
        (item,) = await client.batch([{"key": "k", "prompt": "a"}], run="r", attempts=3).gather()
    assert (item.ok, item.task_id, item.attempts) == (True, "task_2", 2)
    assert len(service.tasks) == 2


async def test_a_pending_bill_of_an_earlier_pass_is_asked_for_at_once(service: FakeService, tmp_path: Path) -> None:
    service.bill = pending_until(60, REFUNDED)
    async with client_of(journal=tmp_path / "j.db") as client:
        await client.batch(["a [fail]"], run="r").gather()
    await asyncio.sleep(100)
    service.bill = lambda prompt, since_end_s: REFUNDED if since_end_s > 60 else {"status": "pending"}
    now_s = asyncio.get_running_loop().time()
    async with client_of(journal=tmp_path / "j.db") as client:
        batch = client.batch(["a [fail]"], run="r", attempts=2, budget_credits=Decimal(1))
        getting = asyncio.ensure_future(batch.gather())
        await until(lambda: len(service.tasks) == 2)
        assert asyncio.get_running_loop().time() < now_s + 9
        (item,) = await getting
        assert item.attempts == 2


@pytest.mark.parametrize("attempts", [0, -1, True, 1.5, "2"])
async def test_attempts_are_a_whole_number_from_1(service: FakeService, attempts: Any) -> None:
    async with client_of() as client:
        with pytest.raises(InvalidRequest, match="attempts"):
            client.batch(["a"], attempts=attempts)
