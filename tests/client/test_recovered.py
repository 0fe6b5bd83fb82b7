"""`recovered()`: finished plain submissions that nobody has, read from the journal when they are wanted."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from tests.engine.journal_kit import ADDRESS, leave, make_first_version, opened, record
from tests.engine.kit import KEY, FakeService, answer, served, task
from toapis_async import ClientStateError, Generation, JournalError, SessionClosed, Settings, ToAPIs, ToAPIsError
from toapis_async.engine.journal import records as journal_records
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import ENDED_BADLY, Fetch, Send, decide
from toapis_async.protocol.token import decode_token

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def client_of(path: Path, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, base_url=ADDRESS, settings=Settings(**settings), journal=path)


def finish(path: Path, number: int = 1, *, age_s: float = 60, told: str | None = None) -> None:
    """A plain submission that an earlier process saw completed `age_s` ago."""
    business_id, task_id = f"mine-{number}", f"task_{number}"
    leave(path, business_id, f"kite {number}", State.COMPLETED, task_id=task_id)
    with opened(path) as journal:
        values = (time.time() - age_s, told or json.dumps(task(task_id, "completed")), business_id)
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
    finish(path, told=answer)
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


# ------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("wrong_by_s", [-3 * 86_400.0, 3 * 86_400.0])
async def test_a_clock_that_was_wrong_by_days_when_it_was_written_down_hides_no_finished_one(
    service: FakeService, path: Path, wrong_by_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's `completed_at` says when its links were made."""
    clock = time.time
    monkeypatch.setattr("toapis_async.engine.journal.writer.time.time", lambda: clock() + wrong_by_s)
    service.on_query.append(answer(200, task("task_1", "completed", completed_at=clock() - 60)))
    async with client_of(path, first_poll_s=0.01, min_poll_interval_s=0.01) as client:
        await client.generate("kite")
    monkeypatch.undo()
    monkeypatch.setattr("toapis_async.engine.core.Transport", service.transport)
    async with client_of(path) as client:
        assert [handle.task_id for handle in client.recovered()] == ["task_1"]


async def test_one_that_both_clocks_say_is_out_of_date_is_not_listed(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time
    monkeypatch.setattr("toapis_async.engine.journal.writer.time.time", lambda: clock() - 86_500)
    service.on_query.append(answer(200, task("task_1", "completed", completed_at=clock() - 86_500)))
    async with client_of(path, first_poll_s=0.01, min_poll_interval_s=0.01) as client:
        await client.generate("kite")
    monkeypatch.undo()
    monkeypatch.setattr("toapis_async.engine.core.Transport", service.transport)
    async with client_of(path) as client:
        assert client.recovered() == ()


# ------------------------------------------------------------------------------------------- other versions, processes


async def test_of_the_first_version_s_journal_what_is_saved_is_not_listed_and_what_is_saved_in_part_is(
    service: FakeService, path: Path
) -> None:
    two = task("task_2", "completed", result={"data": [{"url": f"https://files.example/{n}.png"} for n in "ab"]})
    finish(path, 1)
    finish(path, 2, told=json.dumps(two))
    finish(path, 3, told='{"status": "completed", "result": {"data": [{"url": 5}]}}')
    finish(path, 4)
    with opened(path) as journal:
        for number, files in ((1, ["1.png"]), (2, ["2-1.png"])):
            journal_records.put_files(journal.connection, f"mine-{number}", files, time.time())
    make_first_version(path)
    async with client_of(path) as client:
        assert [handle.task_id for handle in client.recovered()] == ["task_2", "task_3", "task_4"]
        generation = await client.recovered()[0]
        assert len(generation.images) == 2
    known = record(path, "mine-2")
    assert known is not None
    assert known.images == 2
    assert service.seen == []


async def test_a_row_of_the_first_version_s_journal_that_is_saved_in_part_is_fetched(
    tmp_path: Path, path: Path
) -> None:
    async with served() as (sandbox, _):

        def client() -> ToAPIs:
            settings = Settings(first_poll_s=0.01, min_poll_interval_s=0.01)
            return ToAPIs(KEY, base_url=sandbox.base_url, settings=settings, journal=path)

        rows, folder = [{"key": "kite", "prompt": "kite", "n": 2}], tmp_path / "images"
        async with client() as first:
            (item,) = await first.batch(rows, run="r", save_to=folder).gather()
            assert len(item.files) == 2
        item.files[1].unlink()
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("DELETE FROM file WHERE place = 1")
        make_first_version(path)
        async with client() as second:
            (again,) = await second.batch(rows, run="r", save_to=folder).gather()
        assert again.files == item.files
        assert all(file.is_file() for file in again.files)
        assert len(sandbox.ledger) == 1


async def test_what_a_recovered_one_gives_travels_to_another_process(service: FakeService, path: Path) -> None:
    finish(path)
    async with client_of(path) as client:
        (handle,) = client.recovered()
        generation = await handle
        travelled = pickle.loads(pickle.dumps(generation))  # noqa: S301  (our own)
        assert (travelled, copy.deepcopy(generation), copy.copy(generation)) == (generation,) * 3
        with pytest.raises(ClientStateError):
            await travelled.save("nowhere")
        assert pickle.loads(pickle.dumps(handle.snapshot)) == handle.snapshot  # noqa: S301
        assert client.attach(handle.token()).task_id == "task_1"


@pytest.mark.parametrize("by_id", [False, True])
async def test_an_off_peak_video_that_is_taken_up_is_watched_for_two_days_as_a_new_one_is(
    service: FakeService, path: Path, by_id: bool
) -> None:
    """A token tells how many times `max_task_age_s` its task is watched."""
    row: dict[str, Any] = {"kind": "video", "prompt": "kite", "model": "viduq3", "image_urls": ["https://a.example/a"]}
    row |= {"metadata": {"off_peak": True}, "client_business_id": "mine-1"}
    service.service_time_s = 60
    async with client_of(path) as client:
        new = decode_token((await client.submit(row)).token())
    async with client_of(path) as client:
        handle = await client.submit(row) if by_id else client.recovered()[0]
        taken_up = decode_token(handle.token())
    assert new is not None
    assert taken_up is not None
    assert new.age_factor == taken_up.age_factor == 48
    assert len(service.of("submit")) == 1


def test_what_was_saved_in_part_is_never_paid_for_again(path: Path) -> None:
    """Links that looked dead once (by a host with a wrong clock), and of which one worked later."""
    leave(path, "mine-1", "kite", State.COMPLETED, run="r")
    known = record(path, "mine-1")
    assert known is not None
    lost = evolve(known, images=2, lost_at=5.0)
    assert decide(lost, retry=ENDED_BADLY) == Send(None)
    in_part = evolve(lost, files={0: "kite-1.png"})
    assert decide(in_part, retry=ENDED_BADLY) == Fetch(in_part)
