"""Where two parts of the engine meet: what one does while the other is in the middle of something."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.journal_kit import ADDRESS, leave, state_of
from tests.engine.kit import KEY, FakeService, Hold, answer, lost, not_sent, refusal, task, until
from toapis_async import (
    BudgetExceeded,
    InvalidRequest,
    JournalError,
    Settings,
    TaskNotFound,
    ToAPIs,
    TransportError,
    WebhookOutcome,
)
from toapis_async.engine.journal import records as journal_records
from toapis_async.engine.journal.records import State

from .events import SECRET, URL, deliver, event

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async import Batch, BatchItem

pytestmark = pytest.mark.looptime


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def client_of(path: Path | None = None, budget: float | None = None, **settings: Any) -> ToAPIs:
    values: dict[str, Any] = {"prices": {"*": 2}, "poll_jitter": 0, "webhook_secrets": SECRET, **settings}
    return ToAPIs(KEY, base_url=ADDRESS, settings=Settings(**values), journal=path, budget_credits=budget)


async def gathered(batch: Batch) -> list[BatchItem]:
    """What a batch gives, or a failure when it hangs: the journal's thread needs real time, so no time-out can tell."""
    async with batch:
        gathering = asyncio.create_task(batch.gather())
        await until(gathering.done, "the batch's end")
        return await gathering


async def test_an_event_while_the_turn_for_sending_again_is_awaited_is_an_answer(service: FakeService) -> None:
    service.on_submit.append(lost())
    service.on_query.extend([refusal(404)] * 8)
    async with client_of(max_in_flight=2) as client:
        waiting = asyncio.create_task(client.generate("kite", client_business_id="mine"))
        await asyncio.sleep(29)
        service.on_submit.append(refusal(429, "rate_limit_exceeded", retry_after="300"))
        other = asyncio.create_task(client.submit("another"))  # what it meets pauses all submissions
        await asyncio.sleep(100)
        assert await deliver(client, event("task_9", "mine")) is WebhookOutcome.EARLY
        generation = await waiting
        assert (generation.task_id, generation.images[0].url) == ("task_9", URL)
        other.cancel()
        await asyncio.wait([other])
    assert [seen.subject for seen in service.of("submit")].count("kite") == 1


async def test_what_an_earlier_pass_left_and_no_row_takes_up_holds_up_no_row(service: FakeService, path: Path) -> None:
    leave(path, "b1", "a row that is gone", State.INTENT, run="r")
    async with client_of(path) as client:
        items = await gathered(client.batch(["kite"], run="r", max_images=1))
    assert isinstance(items[0].error, BudgetExceeded)
    assert service.of("submit") == []


@pytest.mark.parametrize("state", [State.INTENT, State.ACCEPTED])
async def test_a_row_waits_for_what_an_earlier_pass_left_once_it_is_taken_up(
    service: FakeService, path: Path, state: State
) -> None:
    service.service_time_s = 0.1
    service.accept({"prompt": "kite [fail]", "client_business_id": "b1"})
    leave(path, "b1", "kite [fail]", state, run="r")
    async with client_of(path, first_poll_s=0.1, min_poll_interval_s=0.1) as client:
        items = await gathered(client.batch(["kite [fail]", "another"], run="r", max_images=1))
    assert [item.ok for item in items] == [False, True]
    assert len(service.of("submit")) == 1


async def test_a_recovered_watch_that_ends_withdraws_nothing_that_is_being_sent(
    service: FakeService, path: Path
) -> None:
    row = {"prompt": "kite", "client_business_id": "mine"}
    leave(path, "mine", row, State.INTENT)
    held = Hold()
    async with client_of(path) as client:
        (recovered,) = client.recovered()
        service.on_submit.append(held)
        sending = asyncio.create_task(client.submit(row))
        with pytest.raises(TaskNotFound):
            await recovered
        await held.reached.wait()
        assert client._engine is not None
        assert client._engine.journal is not None
        known = await client._engine.journal.of_id("mine")
        assert known is not None
        assert known.state is State.INTENT
        held.answer(answer(200, task("task_1")))
        await sending
    assert state_of(path, "mine") is State.ACCEPTED


async def test_a_task_attached_before_its_submission_is_answered_settles_its_budget(
    service: FakeService, path: Path
) -> None:
    held = Hold()
    service.on_submit.append(held)
    async with client_of(path, budget=2) as client:
        sending = asyncio.create_task(client.submit("kite [fail]"))
        await held.reached.wait()
        client.attach("task_1")
        held.answer(service.accept({"prompt": "kite [fail]"}))
        handle = await sending
        assert handle.client_business_id is not None
        await asyncio.wait([asyncio.ensure_future(handle.result())])
        await client.generate("kite")  # its budget is free again


async def test_two_submissions_under_one_id_are_one_that_may_be_paid(service: FakeService) -> None:
    async with client_of(budget=2) as client:
        first = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        second = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        assert first.task_id == second.task_id
        with pytest.raises(BudgetExceeded):
            await client.submit("another")


async def test_a_refused_request_gives_nothing_back_of_another_submission_under_its_id(service: FakeService) -> None:
    async with client_of(budget=2) as client:
        await client.submit({"prompt": "kite", "client_business_id": "mine"})
        for _ in range(2):
            with pytest.raises(InvalidRequest):
                await client.submit({"prompt": "kites", "n": 2, "client_business_id": "mine"})
            with pytest.raises(BudgetExceeded):
                await client.submit("another")


async def test_what_find_raises_names_the_id_as_what_it_is(service: FakeService) -> None:
    service.on_query.extend(not_sent() for _ in range(4))
    async with client_of() as client:
        with pytest.raises(TransportError) as caught:
            await client.find("mine")
    assert (caught.value.task_id, caught.value.client_business_id) == (None, "mine")


@pytest.mark.parametrize("reading", ["record_of_row", "record_of_id"])
async def test_what_the_journal_raises_before_anything_is_submitted_names_the_id(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with client_of(path) as client:
        monkeypatch.setattr(journal_records, reading, full)
        row = {"prompt": "kite", "client_business_id": "mine"}
        (item,) = await client.batch([row], run="r").gather()
        assert isinstance(item.error, JournalError)
        assert item.error.client_business_id == item.client_business_id == "mine"
        if reading == "record_of_id":
            with pytest.raises(JournalError) as caught:
                await client.submit(row)
            assert caught.value.client_business_id == "mine"
