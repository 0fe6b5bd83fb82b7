"""The journal's thread: one commit for all that has gathered, each waiter told of its own, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import JournalError, JournalLocked, SessionClosed
from toapis_async.engine.journal import file as journal_file
from toapis_async.engine.journal import writer as journal_module
from toapis_async.engine.journal.file import JournalFile
from toapis_async.engine.journal.records import End, State
from toapis_async.engine.journal.writer import JournalWriter
from toapis_async.settings import Journal

from .journal_kit import MINE, an_intent, journal_threads, record, state_of
from .kit import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[JournalWriter]:
    writer = await JournalWriter.open(Journal(path), MINE)
    try:
        yield writer
    finally:
        await writer.aclose()
        assert journal_threads() == []


_FULL = 2  # of sqlite's PRAGMA synchronous


class Disk:
    """Stands between the thread and the database: counts commits, holds them up, and fails on demand."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.commits = 0
        self.syncs: list[bool] = []  #: of each commit, whether it waits until it is on the disk
        self.failing: dict[str, Exception] = {}
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        for start, error in self.failing.items():
            if sql.startswith(start):
                raise error
        if sql == "COMMIT":
            self.commits += 1
            self.syncs.append(self._connection.execute("PRAGMA synchronous").fetchone()[0] >= _FULL)
            self.reached.set()
            assert self.free.wait(60)
        return self._connection.execute(sql, *args)

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        return self._connection.executemany(sql, *args)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> list[Disk]:
    """The disk of each journal that is opened in this test."""
    made: list[Disk] = []
    real = JournalFile.__init__

    def init(self: JournalFile, connection: sqlite3.Connection, *others: Any) -> None:
        made.append(Disk(connection))
        real(self, made[-1], *others)  # type: ignore[arg-type]

    monkeypatch.setattr(JournalFile, "__init__", init)
    return made


def full() -> sqlite3.OperationalError:
    return sqlite3.OperationalError("database or disk is full")


# ------------------------------------------------------------------------------------------- commits


async def test_an_intent_is_durable_when_the_wait_for_it_ends(path: Path) -> None:
    async with writing(path) as writer:
        await writer.intend(an_intent())
        other = sqlite3.connect(path)  # sees what was committed, and nothing else
        assert other.execute("SELECT client_business_id, state FROM submission").fetchall() == [("b1", "intent")]
        other.close()


async def test_a_submission_waits_for_its_own_commit_and_not_for_the_next(path: Path, disks: list[Disk]) -> None:
    async with writing(path) as writer:
        [disk] = disks
        disk.free.clear()
        first = asyncio.create_task(writer.intend(an_intent("first")))
        await asyncio.to_thread(disk.reached.wait, 10)
        later = [asyncio.create_task(writer.intend(an_intent(f"later {number}"))) for number in range(50)]
        await asyncio.sleep(0)
        assert not first.done()
        disk.reached.clear()
        disk.free.set()
        await first
        await asyncio.gather(*later)
        assert disk.commits == 2  # what came during the first commit shares the second


async def test_only_a_commit_that_somebody_waits_for_is_synced(path: Path, disks: list[Disk]) -> None:
    async with writing(path) as writer:
        [disk] = disks
        await writer.intend(an_intent())
        writer.accepted("b1", "task_1", "task_1")
        await until(lambda: disk.commits == 2)
        await writer.intend(an_intent("b2"))
        assert disk.syncs == [True, False, True]
        known = await writer.of_id("b1")
        assert known is not None
        assert known.state is State.ACCEPTED


async def test_ten_thousand_intents_at_once_take_few_commits(path: Path, disks: list[Disk]) -> None:
    async with writing(path) as writer:
        await asyncio.gather(*(writer.intend(an_intent(f"b{number}")) for number in range(10_000)))
        assert disks[0].commits < 100
        known = await writer.of_id("b9999")
        assert known is not None


async def test_ids_of_one_submission_are_written_in_the_order_they_came(path: Path) -> None:
    async with writing(path) as writer:
        await writer.intend(an_intent())
        writer.accepted("b1", "task_1", "task_1")
        writer.ended("b1", End(State.COMPLETED, "task_1", "{}"))
        writer.saved("b1", ["a.png"])
        known = await writer.of_id("b1")
    assert known is not None
    assert (known.state, known.task_id, known.files) == (State.COMPLETED, "task_1", {0: "a.png"})


async def test_a_value_that_cannot_be_kept_is_its_own_fault_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def too_large(_: sqlite3.Connection) -> None:
        raise sqlite3.DataError("string or blob too big")

    async with writing(path) as writer:
        good = asyncio.create_task(writer.intend(an_intent("good")))
        with pytest.raises(JournalError, match=r"can't hold this.*nothing was sent"):
            await writer.intend(an_intent("half a pair \ud800"))
        with pytest.raises(JournalError, match="was sent already"):
            await writer.intend(an_intent("good"))
        writer._note(too_large)  # nobody waits, and it must not come again with every commit
        await good
        await writer.intend(an_intent("after"))
    assert caplog.text.count("can't hold this") == 2
    assert state_of(path, "good") is state_of(path, "after") is State.INTENT


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO submission", "COMMIT"])
async def test_while_the_disk_is_full_intents_fail_and_notes_are_kept(
    path: Path, disks: list[Disk], statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with writing(path) as writer:
        await writer.intend(an_intent("sent"))
        disks[0].failing = {statement: full()}
        writer.accepted("sent", "task_1", "task_1")
        tries = [asyncio.create_task(writer.intend(an_intent(f"b{number}"))) for number in range(3)]
        errors = await asyncio.gather(*tries, return_exceptions=True)
        assert [str(error) for error in errors] == [
            f"the journal {path} can't be written: database or disk is full; nothing was sent"
        ] * 3
        assert all(isinstance(error, JournalError) for error in errors)
        assert len({id(error) for error in errors}) == 3  # each will name its own submission
        disks[0].failing = {}
        await writer.intend(an_intent("after"))
    assert caplog.text.count("can't be written") in {1, 2}
    assert state_of(path, "sent") is State.ACCEPTED
    assert state_of(path, "b0") is None
    assert state_of(path, "after") is State.INTENT


async def test_a_disk_that_cannot_even_take_back_does_not_end_the_thread(path: Path, disks: list[Disk]) -> None:
    async with writing(path) as writer:
        broken = sqlite3.OperationalError("disk I/O error")
        disks[0].failing = {"COMMIT": broken, "ROLLBACK": broken}
        for number in range(2):
            with pytest.raises(JournalError):
                await writer.intend(an_intent(f"b{number}"))
        with pytest.raises(JournalError):
            await writer.of_id("b0")


async def test_notes_that_the_disk_refuses_for_long_are_bounded(
    path: Path, disks: list[Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MOST_KEPT", 3)
    async with writing(path) as writer:
        for number in range(5):
            await writer.intend(an_intent(f"b{number}"))
        disks[0].failing = {"BEGIN": full()}
        for number in range(5):
            writer.accepted(f"b{number}", "t", "t")
        await writer.flush()
        disks[0].failing = {}
        states = [known.state for number in range(5) if (known := await writer.of_id(f"b{number}"))]
    assert states == [State.INTENT, State.INTENT, State.ACCEPTED, State.ACCEPTED, State.ACCEPTED]


async def test_a_caller_that_is_cancelled_disturbs_nobody(path: Path, disks: list[Disk]) -> None:
    async with writing(path) as writer:
        disks[0].free.clear()
        tries = [asyncio.create_task(writer.intend(an_intent(f"b{number}"))) for number in range(3)]
        await asyncio.to_thread(disks[0].reached.wait, 10)
        tries[1].cancel()
        await asyncio.wait([tries[1]])
        disks[0].free.set()
        await asyncio.gather(tries[0], tries[2])
    assert state_of(path, "b1") is State.INTENT  # perhaps sent, for all the journal knows


# ------------------------------------------------------------------------------------------- opening and closing


async def test_closing_writes_what_is_left_and_frees_the_lock(path: Path) -> None:
    writer = await JournalWriter.open(Journal(path), MINE)
    await writer.intend(an_intent())
    writer.accepted("b1", "task_1", "task_1")
    await writer.aclose()
    await writer.aclose()
    assert state_of(path, "b1") is State.ACCEPTED
    writer.accepted("b1", "other", "other")  # too late, and harmless
    with pytest.raises(SessionClosed):
        await writer.intend(an_intent("b2"))
    await writer.flush()
    assert journal_threads() == []


async def test_a_journal_is_opened_once_in_a_process(path: Path) -> None:
    async with writing(path) as writer:
        with pytest.raises(JournalLocked):
            await JournalWriter.open(Journal(path), MINE)
        await writer.intend(an_intent())


async def test_cancelled_while_it_opens_it_leaves_no_lock_and_no_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, reached = threading.Event(), threading.Event()
    real = journal_file._migrate

    def slow(db: sqlite3.Connection, version: int) -> None:
        reached.set()
        assert gate.wait(60)
        real(db, version)

    monkeypatch.setattr(journal_file, "_migrate", slow)
    opening = asyncio.create_task(JournalWriter.open(Journal(path), MINE))
    await until(reached.is_set)
    opening.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with writing(path):
        pass


async def test_cancelled_while_it_closes_it_is_closed_all_the_same(path: Path, disks: list[Disk]) -> None:
    writer = await JournalWriter.open(Journal(path), MINE)
    disks[0].free.clear()
    writer.accepted("b1", "task_1", "task_1")
    await asyncio.to_thread(disks[0].reached.wait, 10)
    closing = asyncio.create_task(writer.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.sleep(0)
    disks[0].free.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert journal_threads() == []


def test_a_loop_that_was_closed_is_no_harm_to_the_thread(path: Path) -> None:
    async def leave() -> JournalWriter:
        writer = await JournalWriter.open(Journal(path), MINE)
        asyncio.get_running_loop().create_task(writer.intend(an_intent())).cancel()
        return writer

    writer = asyncio.run(leave())
    writer._items.put(journal_module._Item(lambda _: None, asyncio.Future(loop=writer._loop)))
    writer.accepted("b1", "task_1", "task_1")
    writer.forget()
    writer._thread.join(60)
    assert not writer._thread.is_alive()
    assert record(path, "b1") is None
    gc.collect()


UNCLOSED = """
import asyncio, sys
from toapis_async import ToAPIs
from toapis_async.engine.journal.records import Intent

async def main():
    global client
    client = await ToAPIs(sys.argv[2], base_url=sys.argv[3], journal=sys.argv[1]).start()
    await client._engine.journal.intend(Intent("b1", "d", "{}"))

asyncio.run(main())
print("ended")
"""


def test_an_interpreter_that_ends_unclosed_does_not_wait_and_loses_no_intent(path: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", UNCLOSED, str(path), MINE.api_key, MINE.base_url]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  (our own)
    assert (ended.returncode, ended.stdout) == (0, "ended\n")
    assert "Traceback" not in ended.stderr  # aiohttp grumbles about its sessions
    assert state_of(path, "b1") is State.INTENT


async def test_no_thread_to_be_had_leaves_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    await asyncio.to_thread(time.sleep, 0)  # the pool's thread is there before threads run out
    opened = JournalFile.open(path, MINE, same_account=False)
    monkeypatch.setattr(JournalFile, "open", lambda *_, **__: opened)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(journal_module, "in_thread", _here)
    with pytest.raises(RuntimeError, match="can't start"):
        await JournalWriter.open(Journal(path), MINE)
    monkeypatch.undo()
    async with writing(path):
        pass


async def _here(act: Any) -> None:
    act()


async def test_a_bug_in_the_thread_is_told_to_whoever_waits(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def bug(_: sqlite3.Connection) -> None:
        raise KeyError("mine")

    async with writing(path) as writer:
        with caplog.at_level(logging.ERROR), pytest.raises(JournalError, match="mine") as caught:
            await writer._do(bug)
        assert isinstance(caught.value.__cause__, KeyError)
        await writer.intend(an_intent())
