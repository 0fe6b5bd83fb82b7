"""`recovered()`: finished plain submissions that nobody has, read from the journal when they are wanted."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from tests.engine.journal_kit import ADDRESS, leave, opened, record
from tests.engine.kit import KEY, FakeService, served, task
from toapis_async import Generation, JournalError, SessionClosed, Settings, ToAPIs, ToAPIsError
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import ENDED_BADLY, Fetch, Send, decide

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def client_of(path: Path, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, base_url=ADDRESS, settings=Settings(**settings), journal=path)


def finish(path: Path, number: int = 1, *, age_s: float = 60, answer: str | None = None) -> None:
    """A plain submission that an earlier process saw completed `age_s` ago."""
    business_id, task_id = f"mine-{number}", f"task_{number}"
    leave(path, business_id, f"kite {number}", State.COMPLETED, task_id=task_id)
    with opened(path) as journal:
        values = (time.time() - age_s, answer or json.dumps(task(task_id, "completed")), business_id)
        journal.connection.execute(
            "UPDATE submission SET ended_at = ?, answer = ? WHERE client_business_id = ?", values
        )


async def test_a_stored_handle_is_a_handle_of_a_finished_task(service: FakeService, path: Path) -> None:
    finish(path)
    async with client_of(path) as client:
        (handle,) = client.recovered()
        assert (handle.done, str(handle.status), handle.task_id, handle.client_business_id, handle.kind) == (
            True,
            "completed",
            "task_1",
            "mine-1",
            "image",
        )
        assert repr(handle) == "<TaskHandle task_1 completed>"
        assert [str(each.status) async for each in handle.updates()] == ["completed"]
        generations = await asyncio.gather(handle.result(), handle.result(timeout_s=5), handle)
        assert {each.client_business_id for each in generations} == {"mine-1"}
        assert handle.snapshot is not None
        (again,) = client.recovered()
        assert (await again) == generations[0]
    assert service.seen == []


async def test_its_token_is_one_of_a_finished_task_for_any_client(service: FakeService, path: Path) -> None:
    finish(path)
    service.service_time_s = 0
    service.accept({"prompt": "kite", "client_business_id": "mine-1"})
    async with client_of(path) as client:
        (handle,) = client.recovered()
        token = handle.token()
    async with ToAPIs(KEY, base_url=ADDRESS) as other:
        assert (await other.attach(token)).task_id == "task_1"


@pytest.mark.parametrize(
    "answer",
    ['{"id": "task_1", "status": "completed", "result": {"data": [{"url": 5}]}}', '{"status": "in_progress"}'],
)
async def test_an_answer_that_cannot_be_read_any_more_is_a_journal_error_with_its_ids(
    service: FakeService, path: Path, answer: str
) -> None:
    finish(path, answer=answer)
    async with client_of(path) as client:
        (handle,) = client.recovered()
        for asking in (handle.result(), anext(handle.updates())):
            with pytest.raises(JournalError, match="task_1") as caught:
                await asking
            assert (caught.value.task_id, caught.value.client_business_id) == ("task_1", "mine-1")


async def test_the_client_s_end_while_it_is_read_is_told(service: FakeService, path: Path) -> None:
    finish(path)
    async with client_of(path) as client:
        (handle,) = client.recovered()
    with pytest.raises(SessionClosed) as caught:
        await handle
    assert isinstance(caught.value, ToAPIsError)
    assert caught.value.client_business_id == "mine-1"


async def test_what_is_acknowledged_saved_lost_or_out_of_date_is_not_given_again(
    service: FakeService, path: Path
) -> None:
    finish(path, 1)
    finish(path, 2)
    finish(path, 3, age_s=24 * 3600 + 60)
    async with client_of(path) as client:
        assert [handle.task_id for handle in client.recovered()] == ["task_1", "task_2"]
        client.recovered()[0].acknowledge()
        (await client.recovered()[1]).acknowledge()
    async with client_of(path) as client:
        assert client.recovered() == ()
        assert client.statistics().recoverable == 0


async def test_saving_a_recovered_one_through_its_generation_counts(tmp_path: Path, path: Path) -> None:
    async with served() as (sandbox, _):
        settings = Settings(first_poll_s=0.01, min_poll_interval_s=0.01)

        def client() -> ToAPIs:
            return ToAPIs(KEY, base_url=sandbox.base_url, settings=settings, journal=path)

        async with client() as first:
            await first.generate("kite", client_business_id="mine")
        async with client() as second:
            (handle,) = second.recovered()
            (file,) = await (await handle).save(tmp_path / "images")
            assert file.is_file()
        async with client() as third:
            assert third.recovered() == ()
        assert len(sandbox.ledger) == 1


async def test_only_the_newest_are_listed_oldest_first_and_all_are_counted(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 6):
        finish(path, number)
    monkeypatch.setattr("toapis_async.engine.journal.records.MOST_RECOVERED", 3)
    async with client_of(path) as client:
        assert [handle.task_id for handle in client.recovered()] == ["task_3", "task_4", "task_5"]
        assert client.statistics().recoverable == 5
        assert isinstance(await client.recovered()[0], Generation)


async def test_one_that_is_sent_anew_after_it_was_given_up_is_recovered_again(service: FakeService, path: Path) -> None:
    """Acknowledged as nothing worth having, withdrawn, and then sent again: its new result is news."""
    leave(path, "mine-1", {"prompt": "kite", "client_business_id": "mine-1"}, State.WITHDRAWN)
    with opened(path) as journal:
        journal.connection.execute("UPDATE submission SET acknowledged_at = 1, lost_at = 1")
    service.service_time_s = 0.01
    async with client_of(path, first_poll_s=0.01, min_poll_interval_s=0.01) as client:
        await client.generate("kite", client_business_id="mine-1")
    known = record(path, "mine-1")
    assert known is not None
    assert (known.state, known.acknowledged_at, known.lost_at) == (State.COMPLETED, None, None)


def test_what_was_saved_in_part_is_never_paid_for_again(path: Path) -> None:
    """Links that looked dead once (by a host with a wrong clock), and of which one worked later."""
    leave(path, "mine-1", "kite", State.COMPLETED, run="r")
    known = record(path, "mine-1")
    assert known is not None
    lost = evolve(known, images=2, lost_at=5.0)
    assert decide(lost, retry=ENDED_BADLY) == Send(None)
    in_part = evolve(lost, files={0: "kite-1.png"})
    assert decide(in_part, retry=ENDED_BADLY) == Fetch(in_part)
