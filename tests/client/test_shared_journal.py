"""A folder as journal: several clients, each as a process of its own, and what becomes of those that are gone."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.journal_kit import ADDRESS, leave, no_thread_left
from tests.engine.kit import KEY, FakeService, Hold, answer, fast, lost, refusal, task, turns, until
from toapis_async import (
    Journal,
    JournalError,
    JournalLocked,
    SubmitUncertain,
    TaskHandle,
    TaskNotFound,
    ToAPIs,
)
from toapis_async.engine.journal.folder import open_in_folder
from toapis_async.engine.journal.locks import hold
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.writer import JournalWriter
from toapis_async.events import Event, JournalTakenOver
from toapis_async.settings import Credentials

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

ROW = {"prompt": "kite", "client_business_id": "mine"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with no_thread_left():
        yield tmp_path / "journals"


@pytest.fixture(autouse=True)
def quick(service: FakeService) -> None:
    service.service_time_s = 0.02


@pytest.fixture
def made_folder(folder: Path) -> Path:
    """One that is there already."""
    folder.mkdir()
    return folder


def client_of(folder: Path, key: str = KEY, **settings: Any) -> ToAPIs:
    return ToAPIs(key, base_url=ADDRESS, settings=fast(**settings), journal=Journal(folder, per_process=True))


@asynccontextmanager
async def processes(folder: Path, number: int = 2, **settings: Any) -> AsyncGenerator[list[ToAPIs]]:
    """So many clients, each with a name and a lock of its own, as if each were in a process of its own."""
    clients = [await client_of(folder, **settings).start() for _ in range(number)]
    try:
        yield clients
    finally:
        for client in clients:
            await client.aclose()


async def die(client: ToAPIs) -> None:
    """From now on nothing of a client reaches the journal, and its lock is free: as far as others can see, its process
    is gone."""
    await journal_in(client).aclose()


def journal_in(client: ToAPIs) -> JournalWriter:
    assert client._engine is not None
    journal = client._engine.journal
    assert isinstance(journal, JournalWriter)
    return journal


def files(folder: Path) -> dict[str, int]:
    """The names in a folder, with their modes."""
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def journal_of(folder: Path) -> Path:
    (path,) = folder.glob("*.journal")
    return path


def columns(folder: Path, what: str, business_id: str = "mine") -> tuple[Any, ...] | None:
    with closing(sqlite3.connect(journal_of(folder))) as db:
        found: tuple[Any, ...] | None = db.execute(
            f"SELECT {what} FROM submission WHERE client_business_id = ?",  # noqa: S608
            (business_id,),
        ).fetchone()
        return found


def state(folder: Path, business_id: str = "mine") -> str | None:
    found = columns(folder, "state", business_id)
    return found[0] if found else None


async def posted(service: FakeService, client: ToAPIs) -> tuple[Hold, asyncio.Task[TaskHandle]]:
    """A submission of ROW whose POST is under way."""
    hold = Hold()
    service.on_submit.append(hold)
    submitting = asyncio.create_task(client.submit(ROW))
    await hold.reached.wait()
    return hold, submitting


# ------------------------------------------------------------------------------------------- an id of the caller's own


async def test_the_same_ids_sent_to_every_process_at_once_are_paid_once_each(
    service: FakeService, folder: Path
) -> None:
    """Look-then-write is one statement of the journal: of those that all found nothing, one writes its intent, and the
    others read again, wait for it, and get its task."""
    service.latency_s = 0.002
    async with processes(folder, 4) as clients:
        rows = [{"prompt": "kite", "client_business_id": f"order-{number}"} for number in range(15)]
        got = await asyncio.gather(*(client.generate(row) for row in rows for client in clients))
    assert len(service.of("submit")) == len(service.tasks) == 15
    assert len({generation.task_id for generation in got}) == 15
    assert [columns(folder, "state", row["client_business_id"]) for row in rows] == [("completed",)] * 15


async def test_the_loser_of_the_race_gives_its_turn_and_permit_back_and_withdraws_nothing(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked before either writes."""
    async with processes(folder, max_in_flight=1) as (one, other):
        looked, of_id = asyncio.Event(), journal_in(other).of_id

        async def slow(business_id: str) -> Any:
            found = await of_id(business_id)
            await looked.wait()
            return found

        monkeypatch.setattr(journal_in(other), "of_id", slow)
        second = asyncio.create_task(other.submit(ROW))
        await turns()
        hold, first = await posted(service, one)
        looked.set()
        await asyncio.sleep(0.05)
        assert (second.done(), state(folder)) == (False, "intent")
        hold.answer(service.accept(ROW))
        assert (await first).task_id == (await second).task_id == "task_1"
        await (await second)
        await other.generate("its permit came back")
        assert other.statistics().submit.unanswered == 0
    assert [seen.subject for seen in service.of("submit")] == ["kite", "its permit came back"]


async def test_an_intent_of_a_live_process_is_waited_for_and_then_attached(service: FakeService, folder: Path) -> None:
    async with processes(folder) as (one, other):
        hold, first = await posted(service, one)
        second = asyncio.create_task(other.submit(ROW))
        await asyncio.sleep(0.1)  # longer than the window of look-ups
        assert not second.done()
        assert service.queries("mine") == []
        hold.answer(service.accept(ROW))
        handles = await first, await second
        assert {(await handle).task_id for handle in handles} == {"task_1"}
    assert len(service.of("submit")) == 1


async def test_one_whose_process_dies_while_another_waits_is_looked_up_and_not_sent(
    service: FakeService, folder: Path
) -> None:
    """The service took it, and the answer died with the process."""
    async with processes(folder) as (one, other):
        hold, first = await posted(service, one)
        second = asyncio.create_task(other.submit(ROW))
        await asyncio.sleep(0.03)
        service.accept(ROW)
        await die(one)
        assert (await second).task_id == "task_1"
        assert other.statistics().adopted == 1
        await (await second)
        hold.answer(lost())
        await first
    assert len(service.of("submit")) == 1
    assert state(folder) == "completed"


async def test_one_that_never_left_its_process_is_sent_by_the_one_that_waits_after_a_window(
    service: FakeService, folder: Path
) -> None:
    async with processes(folder, uncertain_submits="resubmit") as (one, other):
        hold, first = await posted(service, one)
        await die(one)
        assert (await other.generate(ROW)).task_id == "task_1"
        first.cancel()
        hold.answer(refusal(422))
    assert len(service.queries("mine")) >= 8
    assert len(service.tasks) == 1


async def test_what_was_certainly_not_accepted_there_is_sent_here(service: FakeService, folder: Path) -> None:
    async with processes(folder) as (one, other):
        hold, first = await posted(service, one)
        second = asyncio.create_task(other.submit(ROW))
        hold.answer(refusal(429))
        with pytest.raises(Exception, match="no"):
            await first
        assert (await second).task_id == "task_1"
    assert len(service.of("submit")) == 2


async def test_one_that_a_live_process_gave_up_in_doubt_is_looked_up_at_once(
    service: FakeService, folder: Path
) -> None:
    async with processes(folder) as (one, other):
        service.on_submit.append(lost())
        with pytest.raises(SubmitUncertain):
            await one.submit(ROW)
        service.accept(ROW)
        assert (await other.generate(ROW)).task_id == "task_1"
    assert len(service.of("submit")) == 1


async def test_of_two_that_take_up_one_intent_one_looks_it_up_and_the_other_waits(
    service: FakeService, folder: Path
) -> None:
    async with processes(folder, 3, uncertain_submits="resubmit") as (gone, one, other):
        hold, first = await posted(service, gone)
        await die(gone)
        handles = await asyncio.gather(one.submit(ROW), other.submit(ROW))
        assert {(await handle).task_id for handle in handles} == {"task_1"}
        first.cancel()
        hold.answer(refusal(422))
    assert len(service.tasks) == 1
    assert len(service.of("submit")) == 2  # the first was never answered


async def test_accepted_there_it_is_attached_here_and_finished_there_it_is_given(
    service: FakeService, folder: Path
) -> None:
    async with processes(folder) as (one, other):
        handle = await one.submit(ROW)
        assert (await other.submit(ROW)).task_id == handle.task_id
        generation = await handle
        await until(lambda: state(folder) == "completed")
        seen = len(service.seen)
        assert (await other.generate(ROW)).images == generation.images
        assert len(service.seen) == seen
    assert len(service.of("submit")) == 1


async def test_a_live_process_that_does_not_come_to_an_end_is_waited_for_a_bounded_time(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was stopped (SIGSTOP) between its intent and its answer."""
    monkeypatch.setattr("toapis_async.engine.journal.writer.RELEASE_S", 0.05)
    async with processes(folder) as (one, other):
        hold, first = await posted(service, one)
        with pytest.raises(JournalLocked, match=rf"process {os.getpid()} has been submitting 'mine'.*nothing was") as e:
            await other.submit(ROW)
        assert e.value.client_business_id == "mine"
        hold.answer(answer(200, task()))
        await first
    assert len(service.of("submit")) == 1


async def test_a_cancelled_wait_leaves_the_id_to_the_one_that_has_it(service: FakeService, folder: Path) -> None:
    async with processes(folder) as (one, other):
        hold, first = await posted(service, one)
        second = asyncio.create_task(other.submit(ROW))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.wait([second])
        hold.answer(service.accept(ROW))
        await (await first)
        await until(lambda: state(folder) == "completed")


async def test_rows_of_batches_in_two_processes_that_bring_the_same_ids_are_paid_once(
    service: FakeService, folder: Path
) -> None:
    service.latency_s = 0.001
    rows = [{"prompt": "kite", "client_business_id": f"order-{number}"} for number in range(20)]
    async with processes(folder) as clients:
        batches = await asyncio.gather(*(client.batch(rows).gather() for client in clients))
    assert [item.ok for batch in batches for item in batch] == [True] * 40
    assert len(service.tasks) == 20


# ------------------------------------------------------------------------------------------- taking over


async def test_one_that_starts_takes_over_what_those_that_are_gone_left_and_nothing_of_the_living(
    service: FakeService, folder: Path
) -> None:
    service.service_time_s = 60
    async with processes(folder) as (gone, alive):
        left = [await gone.submit("kite"), await gone.submit(ROW)]
        await alive.submit("not to be taken")
        await until(lambda: state(folder) == "accepted")
        await die(gone)
        async with processes(folder, 1) as (new,):
            assert [handle.task_id for handle in new.recovered()] == [handle.task_id for handle in left]
            assert new.statistics().recoverable == 2
            async with processes(folder, 1) as (newer,):
                assert newer.recovered() == ()
        async with processes(folder, 1) as (after,):  # the taker ended, and they have no owner again
            assert len(after.recovered()) == 2
    assert len(service.of("submit")) == 3


async def test_one_that_runs_takes_over_within_a_minute_tells_so_and_lists_them_after_the_others(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toapis_async.engine.recovery.TAKES_OVER_EVERY_S", 0.02)
    service.service_time_s = 60
    told: list[Event] = []
    async with processes(folder, 1) as (gone,):
        await gone.submit("earlier")
        await until(lambda: columns(folder, "count(*)", "x"))
        await die(gone)
        async with processes(folder, 1, on_event=told.append) as (alive,):
            first = alive.recovered()
            async with processes(folder, 1) as (other,):
                left = await other.submit("kite")
                assert [handle.task_id for handle in alive.recovered()] == [handle.task_id for handle in first]
                await die(other)
                await until(lambda: len(alive.recovered()) == 2)
            assert [handle.task_id for handle in alive.recovered()] == [first[0].task_id, left.task_id]
            assert [event.submissions for event in told if isinstance(event, JournalTakenOver)] == [1, 1]
            assert alive.statistics().recoverable == 2


async def test_several_that_look_at_once_take_over_each_submission_once(service: FakeService, folder: Path) -> None:
    service.service_time_s = 60
    async with processes(folder, 1) as (gone,):
        await asyncio.gather(*(gone.submit(f"kite {number}") for number in range(10)))
        await die(gone)
        clients = [client_of(folder) for _ in range(4)]
        await asyncio.gather(*(client.start() for client in clients))
        taken = [handle.task_id for client in clients for handle in client.recovered()]
        assert sorted(taken) == sorted(made for made in service.tasks)
        for client in clients:
            await client.aclose()


async def test_a_process_that_died_while_it_took_over_left_them_to_the_next(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking over is one commit: before it they are of one that is gone, and after it of another that is gone."""
    service.service_time_s = 60
    async with processes(folder, 2) as (gone, taker):
        await gone.submit(ROW)
        await die(gone)
        await journal_in(taker).recoverable()
        await die(taker)
        async with processes(folder, 1) as (next_one,):
            assert [handle.client_business_id for handle in next_one.recovered()] == ["mine"]


async def test_what_is_finished_and_acknowledged_is_not_taken_over(service: FakeService, folder: Path) -> None:
    async with processes(folder, 1) as (gone,):
        (await gone.generate("kite", client_business_id="kept")).acknowledge()
        await gone.generate("kite", client_business_id="open")
        await until(lambda: columns(folder, "acknowledged_at IS NULL", "kept") == (0,))
        await die(gone)
        async with processes(folder, 1) as (alive,):
            (handle,) = alive.recovered()
            assert (handle.client_business_id, handle.done) == ("open", True)
            assert (await handle).client_business_id == "open"


async def test_the_watch_of_one_taken_over_does_not_withdraw_it_from_another_that_submits_it(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The taker's queries find nothing for a whole window, while another process holds the id, and is about to send
    it."""
    monkeypatch.setattr("toapis_async.engine.recovery.TAKES_OVER_EVERY_S", 0.02)
    async with processes(folder) as (gone, taker):
        hold, first = await posted(service, gone)
        await die(gone)
        await until(lambda: taker.statistics().recoverable == 1)
        async with processes(folder, 1, uncertain_submits="resubmit", reconcile_window_s=1.0) as (other,):
            second = asyncio.create_task(other.submit(ROW))
            await until(lambda: columns(folder, "is_submitting") == (1,))
            (watched,) = taker.recovered()
            with pytest.raises(TaskNotFound):
                await watched
            await journal_in(taker).flush()
            assert state(folder) == "intent"
            await (await second)
        first.cancel()
        hold.answer(refusal(422))
    assert len(service.tasks) == 1


async def test_of_two_that_found_one_intent_free_at_the_same_moment_the_second_is_refused_it(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is free is asked once more in the step that takes it."""
    async with processes(folder, 3, uncertain_submits="resubmit", reconcile_window_s=0.2) as (gone, one, other):
        hold, first = await posted(service, gone)
        await die(gone)
        second = asyncio.create_task(one.submit(ROW))
        await until(lambda: columns(folder, "owner") == (journal_in(one)._owner,))
        released, calls = journal_in(other).released, 0

        async def as_if_free(business_id: str) -> bool:
            nonlocal calls
            calls += 1
            return await released(business_id) if calls > 1 else False

        monkeypatch.setattr(journal_in(other), "released", as_if_free)
        handles = await other.submit(ROW), await second
        assert {(await handle).task_id for handle in handles} == {"task_1"}
        first.cancel()
        hold.answer(refusal(422))
    assert calls > 1
    assert len(service.tasks) == 1


async def test_of_one_taken_over_that_the_service_never_took_it_is_written_down_so(
    service: FakeService, folder: Path
) -> None:
    async with processes(folder, 1) as (gone,):
        hold, first = await posted(service, gone)
        await die(gone)
        async with processes(folder, 1) as (taker,):
            (handle,) = taker.recovered()
            with pytest.raises(TaskNotFound):
                await handle
            await until(lambda: state(folder) == "withdrawn")
        first.cancel()
        hold.answer(refusal(422))


async def test_look_ups_for_those_that_are_gone_survive_a_journal_that_fails(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("toapis_async.engine.recovery.TAKES_OVER_EVERY_S", 0.02)
    async with processes(folder, 1) as (alive,):
        journal, tries = journal_in(alive), 0
        recoverable = journal.recoverable

        async def failing() -> Any:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise JournalError("the disk is gone")
            return await recoverable()

        monkeypatch.setattr(journal, "recoverable", failing)
        await until(lambda: tries > 2)
    assert "the disk is gone" in caplog.text


# ------------------------------------------------------------------------------------------- runs


async def test_a_run_that_goes_on_in_another_process_is_refused_and_may_follow_it(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["a", "b", "c"]
    async with processes(folder) as (one, other):
        hold = Hold()
        service.on_submit.append(hold)
        going = asyncio.create_task(one.batch(rows, run="r").gather())
        await hold.reached.wait()
        with monkeypatch.context() as hasty:
            hasty.setattr("toapis_async.engine.journal.writer.RUN_END_S", 0.05)
            with pytest.raises(JournalLocked, match=rf"the run 'r' is going on in process {os.getpid()}: wait"):
                await other.batch(rows, run="r").gather()
        assert [item.ok for item in await other.batch(rows[:1], run="another").gather()] == [True]
        hold.answer(service.accept({"prompt": "a"}))
        assert [item.ok for item in await going] == [True] * 3
        again = await other.batch(rows, run="r").gather()
        assert [item.ok for item in again] == [True] * 3
        assert other.statistics().accepted == 1  # of the other run
    assert len(service.tasks) == 4


async def test_a_run_whose_process_is_gone_is_taken_up_in_any_other(service: FakeService, folder: Path) -> None:
    rows = [f"kite {number}" for number in range(6)]
    async with processes(folder) as (gone, other):
        holds = [Hold(), Hold()]
        service.on_submit.extend(holds)
        going = asyncio.create_task(gone.batch(rows, run="r").gather())
        await until(lambda: len(service.tasks) == 4)
        service.accept(service.of("submit")[0].body)  # taken, and the answer is never written down
        await die(gone)
        items = await other.batch(rows, run="r").gather()
        assert [(item.ok, item.error) for item in items if item.index != 1] == [(True, None)] * 5
        going.cancel()
        for hold in holds:
            hold.answer(refusal(422))
    prompts = [made.prompt for made in service.tasks.values()]
    assert len(prompts) == len(set(prompts))


async def test_a_row_that_a_left_batch_is_still_submitting_is_waited_for_in_the_next_process(
    service: FakeService, folder: Path
) -> None:
    async with processes(folder) as (one, other):
        hold = Hold()
        service.on_submit.append(hold)
        async with one.batch(["kite"], run="r") as batch:
            going = asyncio.ensure_future(anext(aiter(batch)))
            await hold.reached.wait()
        await asyncio.gather(going, return_exceptions=True)
        following = asyncio.create_task(other.batch(["kite"], run="r").gather())
        await asyncio.sleep(0.1)
        assert (following.done(), service.of("query")) == (False, [])
        hold.answer(service.accept(service.of("submit")[0].body))
        assert [item.ok for item in await following] == [True]
    assert len(service.tasks) == 1


# ------------------------------------------------------------------------------------------- locks that can't be had


async def test_while_the_journal_is_locked_nothing_is_sent_the_wait_is_bounded_and_the_loop_goes_on(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held by a process that was stopped in the middle of a commit."""
    monkeypatch.setattr("toapis_async.engine.journal.writer.WRITE_LOCK_S", 0.1)
    async with processes(folder, 1) as (client,):
        with closing(sqlite3.connect(journal_of(folder), isolation_level=None)) as stopped:
            stopped.execute("BEGIN IMMEDIATE")
            submitting = [asyncio.create_task(client.submit(row)) for row in (ROW, "minted")]
            ticks = 0
            while not all(each.done() for each in submitting):
                await asyncio.sleep(0.002)
                ticks += 1
            assert ticks > 5
            for each in submitting:
                with pytest.raises(JournalError, match=r"another process has been writing.*stopped.*nothing was sent"):
                    await each
            assert service.seen == []
        assert (await client.generate(ROW)).task_id == "task_1"


STOPPED = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE submission SET request = '{}'")
os.kill(os.getpid(), signal.SIGSTOP)
"""


async def test_a_process_that_was_stopped_in_a_commit_holds_others_up_until_it_is_killed(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had half written is undone, and the others go on."""
    monkeypatch.setattr("toapis_async.engine.journal.writer.WRITE_LOCK_S", 0.05)
    async with processes(folder, 1) as (client,):
        await client.generate({"prompt": "kite", "client_business_id": "before"})
        await until(lambda: state(folder, "before") == "completed")
        stopped = await asyncio.create_subprocess_exec(sys.executable, "-c", STOPPED, str(journal_of(folder)))
        try:
            await asyncio.to_thread(os.waitid, os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
            with pytest.raises(JournalError, match=r"another process has been writing.*stopped.*nothing was sent"):
                await client.submit(ROW)
            assert len(service.of("submit")) == 1
        finally:
            stopped.kill()
            await stopped.wait()
        assert (await client.generate(ROW)).task_id == "task_2"
    assert columns(folder, "request LIKE '%kite%'", "before") == (1,)


async def test_a_process_that_opens_for_ever_is_named_to_the_next(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toapis_async.engine.journal.folder.OPENING_S", 0.05)
    async with processes(folder, 1):
        with (
            closing(hold(folder / "folder.lock")),
            pytest.raises(JournalError, match=f"process {os.getpid()} has been"),
        ):
            await client_of(folder).start()


async def test_a_journal_of_a_folder_is_not_one_process_s_own_nor_the_other_way_round(
    service: FakeService, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toapis_async.engine.journal.folder._ALONE_S", 0.0)
    async with processes(folder, 1):
        with pytest.raises(JournalLocked, match="another process is using the journal"):
            await ToAPIs(KEY, base_url=ADDRESS, journal=journal_of(folder)).start()
        async with processes(folder, 1):
            pass
    async with ToAPIs(KEY, base_url=ADDRESS, journal=journal_of(folder)):
        with pytest.raises(JournalLocked, match=rf"process {os.getpid()} has the journal .* for itself"):
            await client_of(folder).start()


# ------------------------------------------------------------------------------------------- the folder


async def test_the_folder_and_all_in_it_are_its_owner_s_alone_and_locks_go_with_their_processes(
    service: FakeService, folder: Path
) -> None:
    async with processes(folder, 3) as clients:
        assert files(folder.parent)["journals"] == 0o700
        assert {*files(folder).values()} == {0o600}
        names = [*files(folder)]
        assert len([name for name in names if re.fullmatch("[0-9a-f]{32}\\.process\\.lock", name)]) == 3
        assert len([name for name in names if name.endswith(".journal")]) == 1
        await clients[0].generate(ROW)
    assert {re.sub("[0-9a-f]{32}", "", name) for name in files(folder)} == {
        ".journal",
        ".journal.lock",
        "folder.lock",
    }


async def test_lock_files_of_the_dead_are_cleared_away_by_the_next(service: FakeService, folder: Path) -> None:
    async with processes(folder, 1):
        (folder / f"{'0' * 32}.process.lock").touch()
        (folder / "of somebody else.process.lock").touch()
        async with processes(folder, 1):
            names = [name for name in files(folder) if name.endswith(".process.lock")]
            assert len(names) == 3
            assert f"{'0' * 32}.process.lock" not in names


async def test_an_existing_folder_is_shared_unasked_and_a_file_is_not_made_one(
    service: FakeService, made_folder: Path, tmp_path: Path
) -> None:
    async with (
        ToAPIs(KEY, base_url=ADDRESS, journal=made_folder),
        ToAPIs(KEY, base_url=ADDRESS, journal=str(made_folder)),
    ):
        assert len([name for name in files(made_folder) if name.endswith(".process.lock")]) == 2
    (tmp_path / "file").write_text("mine")
    with pytest.raises(JournalError, match="is a file: per_process=True takes a folder"):
        await client_of(tmp_path / "file").start()
    assert (tmp_path / "file").read_text() == "mine"


async def test_a_single_process_s_journal_that_is_moved_in_is_gone_on_with(
    service: FakeService, made_folder: Path
) -> None:
    leave(made_folder / "kites.journal", "mine", ROW, State.ACCEPTED)
    service.accept(ROW)
    async with processes(made_folder, 1) as (client,):
        (handle,) = client.recovered()
        assert (await handle).client_business_id == "mine"
        assert (await client.generate(ROW)).task_id == "task_1"
    assert service.of("submit") == []


async def test_other_accounts_journals_in_the_folder_are_not_touched(service: FakeService, made_folder: Path) -> None:
    leave(made_folder / "theirs.journal", "theirs", "kite", State.ACCEPTED)
    (made_folder / "link.journal").symlink_to(made_folder / "theirs.journal")
    before = (made_folder / "theirs.journal").read_bytes()
    async with processes(made_folder, 1, key="sk-another") as (client,):
        assert client.recovered() == ()
        await client.generate({"prompt": "kite", "client_business_id": "theirs"})
    assert (made_folder / "theirs.journal").read_bytes() == before
    async with processes(made_folder, 1) as (client,):
        assert [handle.client_business_id for handle in client.recovered()] == ["theirs"]


async def test_two_journals_of_one_account_or_one_that_is_damaged_are_refused_in_words(
    service: FakeService, made_folder: Path
) -> None:
    leave(made_folder / "a.journal", "mine", ROW, State.ACCEPTED)
    shutil.copy(made_folder / "a.journal", made_folder / "b.journal")
    with pytest.raises(JournalError, match=r"holds 2 journals of this account \(a.journal, b.journal\): leave one"):
        await client_of(made_folder).start()
    (made_folder / "b.journal").write_bytes(b"no journal" * 1000)
    with pytest.raises(JournalError, match=r"b.journal is no journal, or a damaged one"):
        await client_of(made_folder).start()
    (made_folder / "b.journal").unlink()
    async with processes(made_folder, 1):
        pass


def test_a_name_in_the_journal_is_never_a_path(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.process.lock").write_bytes(b"of the user's")
    with closing(open_in_folder(folder, Credentials(KEY, f"{ADDRESS}/v1"), same_account=False)) as journal:
        assert journal.processes is not None
        assert not journal.processes.is_alive("../x")
        assert journal.processes.is_alive(journal.owner)
    assert (tmp_path / "x.process.lock").read_bytes() == b"of the user's"
