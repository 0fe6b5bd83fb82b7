"""A batch's run, again: each row is known by its key or by what it asks for, and taken up as it was left."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import (
    BudgetExceeded,
    ClientStateError,
    ContentRefused,
    DownloadFailed,
    ImageRequest,
    InvalidRequest,
    JournalError,
    LinkExpired,
    ServiceError,
    TaskFailed,
    ToAPIs,
)
from toapis_async.engine.journal import records as journal_records
from toapis_async.engine.journal.records import State
from toapis_async.sandbox import Fault, Limits, Sandbox

from ..engine.journal_kit import ADDRESS, leave, no_thread_left, opened, state_of
from ..engine.kit import KEY, FakeService, Hold, answer, fast, refusal, task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from toapis_async import BatchItem


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with no_thread_left():
        yield tmp_path / "journal.sqlite"


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest) -> None:
    if "service" in request.fixturenames:
        request.getfixturevalue("service").service_time_s = 0.02


def client_of(path: Path | None, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, base_url=ADDRESS, settings=fast(**settings), journal=path)


async def ran(path: Path, rows: list[Any], run: str | None = "r", **options: Any) -> list[BatchItem]:
    async with client_of(path) as client:
        return await client.batch(rows, run=run, **options).gather()


def keyed(key: str, prompt: str = "kite", **more: Any) -> dict[str, Any]:
    return {"key": key, "prompt": prompt, **more}


# ------------------------------------------------------------------------------------------- which row is which


async def test_the_same_run_again_sends_nothing_and_gives_the_same(service: FakeService, path: Path) -> None:
    rows = ["a", "b", "a", keyed("k"), keyed("l"), ImageRequest("c", n=2)]
    first = await ran(path, rows)
    again = await ran(path, rows)
    assert len(service.of("submit")) == 6
    for item, same in zip(first, again, strict=True):
        assert item == same
        assert item.ok


async def test_other_runs_other_journals_and_batches_without_a_name_know_nothing_of_it(
    service: FakeService, path: Path
) -> None:
    await ran(path, ["a"])
    await ran(path, ["a"], run="s")
    await ran(path, ["a"], run=None)
    await ran(path.with_name("other"), ["a"])
    assert len(service.of("submit")) == 4


async def test_rows_may_be_inserted_removed_and_reordered(service: FakeService, path: Path) -> None:
    first = {item.key: item.task_id for item in await ran(path, ["a", "b", "b", keyed("k"), "c"])}
    again = {item.key: item.task_id for item in await ran(path, ["new", keyed("k"), "b", "c", "b"])}
    assert len(service.of("submit")) == 6
    assert {key: again[key] for key in again.keys() & first.keys()} == {
        key: task_id for key, task_id in first.items() if not key.startswith("a~")
    }
    third = await ran(path, ["b", "b", "b"])
    assert [item.task_id for item in third[:2]] == [first[item.key] for item in third[:2]]
    assert len(service.of("submit")) == 7


async def test_a_local_file_is_known_by_its_content(service: FakeService, path: Path, tmp_path: Path) -> None:
    picture, moved = tmp_path / "a.png", tmp_path / "b.png"
    content = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
    picture.write_bytes(content)
    [first] = await ran(path, [{"prompt": "x", "reference_images": [picture]}])
    moved.write_bytes(content)
    [second] = await ran(path, [{"prompt": "x", "reference_images": [moved]}])
    [third] = await ran(path, [{"prompt": "x", "reference_images": [content]}])
    assert first.task_id == second.task_id == third.task_id
    moved.write_bytes(content + b"\0")
    [other] = await ran(path, [{"prompt": "x", "reference_images": [moved]}])
    assert other.task_id != first.task_id
    [gone] = await ran(path, [{"prompt": "x", "reference_images": [tmp_path / "gone"]}])
    assert isinstance(gone.error, InvalidRequest)


@pytest.mark.parametrize("journaled", [True, False])
async def test_a_pipe_or_an_endless_file_is_a_bad_row_and_no_wait(
    service: FakeService, path: Path, tmp_path: Path, journaled: bool
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    endless = type(path)("/dev/zero")
    async with client_of(path if journaled else None) as client:
        items = await client.batch([{"prompt": "x", "reference_images": [each]} for each in (pipe, endless)]).gather()
    assert [str(item.error).partition(" is ")[2] for item in items] == ["not a regular file"] * 2
    assert service.seen == []


ODD_KEYS = ["", "a" * 5_000, "../../etc/passwd", "é", "e\u0301", "con", "kite-2", "a\0b", "a\nb", "🪁", "1", " 1 "]


async def test_keys_of_every_shape_are_themselves(service: FakeService, path: Path) -> None:
    rows = [keyed(key, "same") for key in ODD_KEYS]
    first = await ran(path, [*rows, keyed("half \ud800", "same"), {"key": 7, "prompt": "same"}])
    again = await ran(path, [*rows, keyed("half \ud800", "same"), {"key": 7, "prompt": "same"}])
    assert [item.ok for item in first] == [True] * len(ODD_KEYS) + [False, True]
    assert [item.task_id for item in first] == [item.task_id for item in again]
    assert len(service.of("submit")) == len(ODD_KEYS) + 1


# ------------------------------------------------------------------------------------------- how a row was left

LEFT = list(State)


@pytest.mark.parametrize("state", LEFT)
@pytest.mark.parametrize("key", ["k", None])
async def test_each_state_is_taken_up_as_it_should(
    service: FakeService, path: Path, state: State, key: str | None
) -> None:
    leave(path, "b1", "kite", state, run="r", key=key, stem="k")
    service.accept({"prompt": "kite", "client_business_id": "b1"})
    [item] = await ran(path, [keyed("k") if key else "kite"])
    sent = [seen.body["client_business_id"] for seen in service.of("submit")]
    assert sent == (["b1"] if state is State.WITHDRAWN else [])
    assert item.client_business_id == "b1"
    expected = {State.REFUSED: ContentRefused, State.FAILED: TaskFailed}.get(state, type(None))
    assert isinstance(item.error, expected)
    final = State.COMPLETED if item.ok else state
    assert state_of(path, "b1") is final


@pytest.mark.parametrize("state", LEFT)
async def test_a_row_that_changed_under_its_key_is_told_and_never_silently_reused(
    service: FakeService, path: Path, state: State
) -> None:
    leave(path, "b1", "kite", state, run="r", key="k")
    [item] = await ran(path, [keyed("k", "another kite")])
    if state in {State.INTENT, State.ACCEPTED, State.COMPLETED}:
        assert isinstance(item.error, InvalidRequest)
        assert item.error.field == "key"
        assert "another key" in str(item.error)
        assert item.client_business_id == item.error.client_business_id == "b1"
        assert service.seen == []
        assert state_of(path, "b1") is state
        return
    assert item.ok
    assert len(service.of("submit")) == 1
    if state is State.FAILED:
        assert item.client_business_id != "b1"
        assert state_of(path, "b1") is State.FAILED
    else:
        assert item.client_business_id == "b1"


async def test_what_ended_badly_is_sent_again_only_when_asked(service: FakeService, path: Path) -> None:
    leave(path, "b1", "failed", State.FAILED, run="r")
    leave(path, "b2", "refused", State.REFUSED, run="r")
    leave(path, "b3", "done", State.COMPLETED, run="r")
    rows = ["failed", "refused", "done"]
    assert [item.ok for item in await ran(path, rows)] == [False, False, True]
    assert service.seen == []
    items = await ran(path, rows, retry_failed=True)
    assert [item.ok for item in items] == [True, True, True]
    assert items[0].client_business_id not in {"b1", None}
    assert [item.client_business_id for item in items[1:]] == ["b2", "b3"]
    assert len(service.of("submit")) == 2
    again = await ran(path, rows, retry_failed=True)  # the newest record of a row stands
    assert [item.task_id for item in again] == [item.task_id for item in items]
    assert len(service.of("submit")) == 2


async def test_overdue_and_stopped_rows_need_no_flag(service: FakeService, path: Path) -> None:
    service.service_time_s = 60
    async with client_of(path, max_task_age_s=0.03) as client:
        [item] = await client.batch(["a"], run="r").gather()
    assert type(item.error).__name__ == "TaskOverdue"
    service.service_time_s = 0
    [item] = await ran(path, ["a"])
    assert item.ok
    assert len(service.of("submit")) == 1


# ------------------------------------------------------------------------------------------- ids of the caller's own

GIVEN = {
    "field": {"client_business_id": "mine"},
    "metadata": {"metadata": {"client_business_id": "mine"}},
    "extra": {"extra": {"client_business_id": "mine"}},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN.keys())
async def test_an_id_of_the_row_is_the_one_that_is_sent_and_journaled(
    service: FakeService, path: Path, given: dict[str, Any]
) -> None:
    row = keyed("k", **given)
    [first] = await ran(path, [row])
    [again] = await ran(path, [row])
    assert first == again
    assert [seen.body["client_business_id"] for seen in service.of("submit")] == ["mine"]
    assert state_of(path, "mine") is State.COMPLETED


@pytest.mark.parametrize("run", ["r", None])
async def test_rows_under_one_id_are_paid_once(service: FakeService, path: Path, run: str | None) -> None:
    service.latency_s = 0.005
    rows = [keyed(str(number), client_business_id="mine") for number in range(5)]
    items = await ran(path, [*rows, keyed("other", "another", client_business_id="mine")], run=run)
    assert {item.task_id for item in items[:5]} == {"task_1"}
    assert all(item.ok for item in items[:5])
    assert isinstance(items[5].error, InvalidRequest)
    assert items[5].error.field == "client_business_id"
    assert len(service.of("submit")) == 1


async def test_failed_under_an_id_of_its_own_it_gets_a_new_one_at_every_try(service: FakeService, path: Path) -> None:
    row = keyed("k", "kite [fail]", client_business_id="mine")
    ids: list[str | None] = []
    for _ in range(4):
        [item] = await ran(path, [row], retry_failed=True)
        assert isinstance(item.error, TaskFailed)
        ids.append(item.client_business_id)
    assert ids[0] == "mine"
    assert all(business_id and business_id.startswith("mine~") for business_id in ids[1:])
    assert len(set(ids)) == 4
    assert [seen.body["client_business_id"] for seen in service.of("submit")] == ids
    [item] = await ran(path, [row])
    assert item.client_business_id == ids[-1]
    assert len(service.of("submit")) == 4


async def test_a_failed_row_that_gets_another_id_is_sent_under_that(service: FakeService, path: Path) -> None:
    leave(path, "mine", {"prompt": "kite", "client_business_id": "mine"}, State.FAILED, run="r", key="k")
    [item] = await ran(path, [keyed("k", client_business_id="other")])
    assert (item.ok, item.client_business_id) == (True, "other")


# ------------------------------------------------------------------------------------------- misuse and trouble


@pytest.mark.parametrize(("journal", "run"), [(False, "r"), (True, "")])
async def test_a_run_needs_a_journal_and_a_name(tmp_path: Path, service: FakeService, journal: bool, run: str) -> None:
    async with client_of(tmp_path / "j" if journal else None) as client:
        with pytest.raises(InvalidRequest, match="give it a name, and the client a journal"):
            client.batch(["a"], run=run)


async def test_two_passes_of_one_run_at_once_are_misuse(service: FakeService, path: Path) -> None:
    async with client_of(path) as client:
        async with client.batch(["a"], run="r") as batch:
            aiter(batch)
            second = client.batch(["a"], run="r")
            with pytest.raises(ClientStateError, match="'r' is going on already"):
                await second.gather()
            assert [item.ok for item in await client.batch(["a"], run="s").gather()] == [True]
        assert [item.ok async for item in client.batch(["a"], run="r")] == [True]


async def test_a_pass_that_follows_an_abandoned_one_waits_for_what_that_has_under_way(
    service: FakeService, path: Path
) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(path) as client:
        async with client.batch(["a"], run="r") as batch:
            aiter(batch)
            await hold.reached.wait()
        again = asyncio.create_task(client.batch(["a"], run="r").gather())
        await asyncio.sleep(0.05)  # longer than the window of look-ups
        hold.answer(service.accept(service.of("submit")[0].body))
        [item] = await again
    assert (item.ok, item.task_id) == (True, "task_1")
    assert len(service.of("submit")) == 1


async def test_without_a_journal_a_batch_is_what_it_was(service: FakeService) -> None:
    async with client_of(None) as client:
        items = await client.batch(["a", keyed("k", client_business_id="mine")]).gather()
    assert [item.ok for item in items] == [True, True]
    assert items[1].client_business_id == "mine"


async def test_rows_that_the_journal_cannot_take_are_items_and_are_sent_by_the_next_pass(
    service: FakeService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(journal_records, "put_intent", full)
        items = await ran(path, ["a", "b"])
    assert all(isinstance(item.error, JournalError) for item in items)
    assert len({item.client_business_id for item in items}) == 2
    assert [item.error.client_business_id for item in items if item.error] == [i.client_business_id for i in items]
    assert service.seen == []
    assert [item.ok for item in await ran(path, ["a", "b"])] == [True, True]


async def test_a_batch_that_is_never_read_holds_nothing_open(service: FakeService, path: Path) -> None:
    async with client_of(path) as client:
        batch = client.batch(["a"], run="r")
        assert "_met" not in vars(batch._reader)


async def test_a_thousand_finished_rows_are_taken_up_without_a_question(service: FakeService, path: Path) -> None:
    rows = [f"kite {number}" for number in range(1_000)]
    await ran(path, rows)
    asked = len(service.seen)
    again = await ran(path, rows)
    assert all(item.ok for item in again)
    assert len(service.seen) == asked


# ------------------------------------------------------------------------------------------- images


@asynccontextmanager
async def sandbox_of(**options: Any) -> AsyncIterator[Sandbox]:
    limits = Limits(1e5, 1e5, 1e5, 1e5)
    async with Sandbox(pictures=False, service_time_s=0.02, limits=limits, **options) as sandbox:
        yield sandbox


async def saved(sandbox: Sandbox, folder: Path, rows: list[Any], **options: Any) -> list[BatchItem]:
    settings = fast(download_tries=1)
    async with ToAPIs(KEY, base_url=sandbox.base_url, settings=settings, journal=folder / "j") as client:
        return await client.batch(rows, run="r", save_to=folder / "images", **options).gather()


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "images").iterdir())


async def test_images_that_are_there_are_not_fetched_again_and_one_that_is_gone_is(tmp_path: Path) -> None:
    async with sandbox_of() as sandbox:
        first = await saved(sandbox, tmp_path, [keyed("a"), keyed("b", n=2)])
        fetched = sandbox.requests.count("file")
        assert await saved(sandbox, tmp_path, [keyed("a"), keyed("b", n=2)]) == first
        assert sandbox.requests.count("file") == fetched == 3
        first[1].files[0].unlink()
        again = await saved(sandbox, tmp_path, [keyed("a"), keyed("b", n=2)])
        assert again == first
        assert sandbox.requests.count("file") == fetched + 1
        assert all(file.is_file() for item in again for file in item.files)
        assert len(sandbox.ledger) == 2
        assert len(names(tmp_path)) == 3


async def test_an_empty_file_is_no_image_that_is_there(tmp_path: Path) -> None:
    async with sandbox_of() as sandbox:
        [first] = await saved(sandbox, tmp_path, [keyed("a")])
        whole = first.files[0].read_bytes()
        first.files[0].write_bytes(b"")
        assert await saved(sandbox, tmp_path, [keyed("a")]) == [first]
        assert first.files[0].read_bytes() == whole
        assert len(sandbox.ledger) == 1


async def test_an_image_whose_download_failed_is_fetched_by_the_next_pass(tmp_path: Path) -> None:
    async with sandbox_of() as sandbox:
        sandbox.faults.script("file", Fault.HTML_502)
        [broken] = await saved(sandbox, tmp_path, [keyed("a")])
        assert not broken.ok
        [item] = await saved(sandbox, tmp_path, [keyed("a")])
        assert item.ok
        assert len(sandbox.ledger) == 1


async def test_one_file_that_can_t_be_had_keeps_no_other_from_the_disk_and_is_all_that_a_later_pass_fetches(
    tmp_path: Path,
) -> None:
    async with sandbox_of() as sandbox:
        sandbox.faults.script("file", Fault.HTML_502)
        [item] = await saved(sandbox, tmp_path, [keyed("a", n=3)])
        assert not item.ok
        assert isinstance(item.error, DownloadFailed)
        assert item.files == item.error.files
        assert (len(item.files), len(item.error.missing)) == (2, 1)
        assert names(tmp_path) == [file.name for file in item.files]
        fetched = sandbox.requests.count("file")
        [again] = await saved(sandbox, tmp_path, [keyed("a", n=3)], retry_failed=True)
        assert again.ok
        assert [file.name for file in again.files] == ["a-1.png", "a-2.png", "a-3.png"]
        assert sandbox.requests.count("file") == fetched + 1
        assert len(sandbox.ledger) == 1


async def test_an_image_that_was_not_fetched_in_its_day_is_told_and_made_anew_only_when_asked(tmp_path: Path) -> None:
    async with sandbox_of() as sandbox:
        link = f"{sandbox.files_url}/gone.png"
        long_ago = time.time() - 100_000
        told = task("task_0", "completed", completed_at=long_ago, result={"data": [{"url": link}]})
        settings = fast()
        async with ToAPIs(KEY, base_url=sandbox.base_url, settings=settings, journal=tmp_path / "j") as client:
            made = await client.generate(ImageRequest("old", client_business_id="mine"))
        relabelled(tmp_path / "j", "mine", "task_0", told)  # which the service does not know any more
        assert made.task_id != "task_0"
        row = keyed("a", "old", client_business_id="mine")
        [item] = await saved(sandbox, tmp_path, [row])
        assert isinstance(item.error, LinkExpired)
        assert len(sandbox.ledger) == 1
        [item] = await saved(sandbox, tmp_path, [row], retry_failed=True)
        assert item.ok
        assert item.client_business_id is not None
        assert item.client_business_id.startswith("mine~")
        assert len(sandbox.ledger) == 2
        kept = await saved(sandbox, tmp_path, [row], retry_failed=True)
        assert [each.files for each in kept] == [item.files]
        assert len(sandbox.ledger) == 2


def relabelled(path: Path, business_id: str, task_id: str, told: dict[str, Any]) -> None:
    """Make it look as if the task had ended long ago."""
    db = sqlite3.connect(path)
    db.execute(
        "UPDATE submission SET answer = ?, task_id = ? WHERE client_business_id = ?",
        (json.dumps(told), task_id, business_id),
    )
    db.commit()
    db.close()


async def test_expired_images_that_are_on_disk_are_kept_when_failures_are_retried(tmp_path: Path) -> None:
    async with sandbox_of() as sandbox:
        [first] = await saved(sandbox, tmp_path, [keyed("a")])
        assert first.task_id is not None
        assert first.client_business_id is not None
        link = f"{sandbox.files_url}/gone.png"
        told = task(first.task_id, "completed", completed_at=1_000_000_000, result={"data": [{"url": link}]})
        relabelled(tmp_path / "j", first.client_business_id, first.task_id, told)
        [again] = await saved(sandbox, tmp_path, [keyed("a")], retry_failed=True)
        assert (again.ok, again.files) == (True, first.files)
        assert len(sandbox.ledger) == 1


async def test_refusals_that_say_nothing_are_told_as_they_were(service: FakeService, path: Path) -> None:
    service.on_submit.append(refusal(503, "model_not_found", "no channel"))
    [first] = await ran(path, ["a"])
    [again] = await ran(path, ["a"])
    assert str(first.error) == str(again.error)
    assert "no channel" in str(first.error)
    assert type(first.error) is type(again.error)
    assert len(service.of("submit")) == 1


async def test_a_finished_row_of_an_odd_answer_is_told_as_it_was(service: FakeService, path: Path) -> None:
    odd = {"id": "other", "status": "completed", "url": "https://files.example/b.png", "mood": ["calm"]}
    service.on_query.append(answer(200, odd))
    [first] = await ran(path, ["a"])
    [again] = await ran(path, ["a"])
    assert first == again
    assert again.generation is not None
    assert again.generation.raw["mood"] == ["calm"]
    with opened(path) as journal:
        assert journal.connection.execute("SELECT count(*) FROM submission").fetchone() == (1,)


async def test_leaving_a_batch_early_and_running_it_again_pays_for_each_row_once(
    service: FakeService, path: Path
) -> None:
    rows = [f"kite {number}" for number in range(60)]
    for taken in (0, 1, 7, 30):
        async with client_of(path) as client, client.batch(rows, run="r", max_in_flight=8) as batch:
            async for _ in batch:
                if batch.statistics().done >= taken:
                    break
    items = await ran(path, rows)
    assert all(item.ok for item in items)
    assert len(service.of("submit")) == len({made.client_business_id for made in service.tasks.values()}) == 60


# ------------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize("state", [State.INTENT, State.ACCEPTED])
async def test_no_row_waits_for_what_an_earlier_pass_holds_and_nobody_sees_to(
    service: FakeService, path: Path, state: State
) -> None:
    leave(path, "gone", "a row that is in the file no more", state, run="r", stem="gone")
    async with client_of(path, prices={"*": 2}) as client, asyncio.timeout(60):
        items = await client.batch(["a"], run="r", budget_credits=3).gather()
    assert isinstance(items[0].error, BudgetExceeded)
    assert service.of("submit") == []


async def test_a_failure_that_was_billed_counts_in_the_next_pass_and_one_that_was_not_does_not(
    service: FakeService, path: Path
) -> None:
    for business_id, status in (("billed", "settled"), ("refunded", "refunded")):
        billing = {"status": status, "credits": "2"}
        told = task(f"task_{business_id}", "failed", error={"code": "bad", "message": "no luck"}, billing=billing)
        leave(path, business_id, business_id, State.FAILED, task_id=f"task_{business_id}", answer=told, run="r")
    async with client_of(path, prices={"*": 2}) as client:
        batch = client.batch(["a", "b"], run="r", budget_credits=4)
        items = await batch.gather()
    assert [type(item.error).__name__ for item in items] == ["NoneType", "BudgetExceeded"]
    assert batch.statistics().credits_spent == 4
    assert batch.statistics().images == 2


async def test_rows_wait_for_what_an_earlier_pass_left_running_once_it_is_watched(
    service: FakeService, path: Path
) -> None:
    made = service.accept({"prompt": "kite [fail]", "client_business_id": "left"})
    service.service_time_s = 0.1
    leave(path, "left", "kite [fail]", State.ACCEPTED, task_id=json.loads(made.body)["id"], run="r", stem="left")
    async with client_of(path, prices={"*": 2}) as client, asyncio.timeout(60):
        items = await client.batch(["kite [fail]", "b"], run="r", budget_credits=2).gather()
    assert [type(item.error).__name__ for item in items] == ["TaskFailed", "NoneType"]


@pytest.mark.parametrize("known_by", [{"key": "kite"}, {}])
async def test_one_that_was_refused_inside_a_200_stays_refused_until_it_is_to_be_retried(
    service: FakeService, path: Path, known_by: dict[str, str]
) -> None:
    rows = [{"prompt": "kite", **known_by}]
    service.on_submit.append(answer(200, {"success": False, "error": {"code": "no_such_style", "message": "not this"}}))
    (first,) = await ran(path, rows)
    (again,) = await ran(path, rows)
    assert len(service.of("submit")) == 1
    for item in (first, again):
        assert isinstance(item.error, ServiceError)
        assert (item.error.status, item.error.code, str(item.error)) == (200, "no_such_style", str(first.error))
    (retried,) = await ran(path, rows, retry_failed=True)
    assert retried.ok
    assert len(service.of("submit")) == 2


@pytest.mark.parametrize("code", ["quota_not_enough", "invalid_api_key", "rate_limit_exceeded"])
async def test_one_that_was_refused_inside_a_200_for_reasons_elsewhere_is_sent_by_the_next_pass(
    service: FakeService, path: Path, code: str
) -> None:
    service.on_submit.append(answer(200, {"success": False, "error": {"code": code, "message": "no"}}))
    (first,) = await ran(path, ["kite"])
    (again,) = await ran(path, ["kite"])
    assert (first.ok, again.ok) == (False, True)
