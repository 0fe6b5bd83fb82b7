"""The journal on disk: made for its owner, locked, checked, bound to one account, brought up to date."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import JournalError, JournalLocked, ToAPIs
from toapis_async.engine.journal import file as journal_file
from toapis_async.engine.journal import reader as journal_reader
from toapis_async.engine.journal import records as journal_records
from toapis_async.engine.journal.file import JournalFile, lock_path
from toapis_async.engine.journal.records import End, State
from toapis_async.settings import Credentials

from .journal_kit import ADDRESS, MINE, an_intent, opened
from .kit import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def clean() -> None:
    """No loop is needed here."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with opened(path) as journal:
        yield journal.connection


def refused(path: Path, match: str, credentials: Credentials = MINE) -> None:
    with pytest.raises(JournalError, match=match) as caught:
        JournalFile.open(path, credentials, same_account=False)
    assert KEY not in str(caught.value)


# ------------------------------------------------------------------------------------------- the file


def test_only_its_owner_may_read_it_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path) as journal:
            journal_records.put_intent(journal.connection, an_intent(), 1.0)
            names = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    suffixes = ("", "-shm", "-wal", ".lock")
    assert names == {f"journal.sqlite{suffix}": 0o600 for suffix in suffixes}


def test_what_is_committed_survives_and_is_synced_at_every_commit(path: Path) -> None:
    with opened(path) as journal:
        assert journal.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert journal.connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        journal_records.put_intent(journal.connection, an_intent(request='{"prompt": "kite"}'), 1.0)
    with opened(path) as journal:
        known = journal_records.record_of_id(journal.connection, "b1")
    assert known is not None
    assert (known.state, known.intent.request, known.intended_at) == (State.INTENT, '{"prompt": "kite"}', 1.0)


def test_the_key_is_not_in_it(path: Path) -> None:
    with opened(path):
        pass
    assert not any(KEY.encode() in file.read_bytes() for file in path.parent.iterdir())


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch()
    with opened(path):
        pass
    with opened(path):
        pass


ODD_FILES: dict[str, tuple[bytes, str]] = {
    "text": (b"a shopping list\n" * 200, "no journal, or a damaged one"),
    "short text": (b"milk", "no journal, or a damaged one"),
    "zeros": (bytes(8192), "no journal, or a damaged one"),
}


@pytest.mark.parametrize(("content", "match"), ODD_FILES.values(), ids=ODD_FILES.keys())
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes, match: str) -> None:
    path.write_bytes(content)
    refused(path, match)
    assert path.read_bytes() == content


@pytest.mark.parametrize("statement", ["CREATE TABLE mine (x)", "PRAGMA user_version = 3", "PRAGMA application_id = 7"])
def test_a_database_of_something_else_is_refused_and_left_alone(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as foreign:
        foreign.execute(statement)
    foreign.close()
    before = path.read_bytes()
    refused(path, "a database of something else: take another path")
    assert path.read_bytes() == before


def test_one_who_reads_while_another_makes_it_sees_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def was_made_before(statement: int, path: Path) -> bool:
        path.touch()
        left = [None] * statement

        class Reader(sqlite3.Connection):
            def execute(self, *args: Any) -> sqlite3.Cursor:
                if left:
                    left.pop()
                elif not lock_path(path).exists():
                    with monkeypatch.context() as others:
                        others.setattr(sqlite3, "connect", connect)
                        with opened(path):
                            pass
                return super().execute(*args)

        with monkeypatch.context() as reading:
            reading.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Reader, **options))
            assert journal_reader.fact_of(path, "address") in {None, MINE.base_url}
        return lock_path(path).exists()

    made = [was_made_before(statement, tmp_path / f"{statement}.sqlite") for statement in range(10)]
    assert made[:2] == [True, True]


def filled(path: Path, count: int = 300) -> None:
    with opened(path) as journal:
        journal.connection.execute("BEGIN")
        request = json.dumps({"prompt": "x" * 200})
        for number in range(count):
            journal_records.put_intent(journal.connection, an_intent(f"b{number}", request=request), 1.0)
        journal.connection.execute("COMMIT")


def test_a_truncated_journal_is_refused_and_left_alone(path: Path) -> None:
    filled(path)
    content = path.read_bytes()[:-20_000]
    path.write_bytes(content)
    refused(path, "no journal, or a damaged one.*nothing was changed")
    assert path.read_bytes() == content


def test_a_damaged_journal_is_refused(path: Path) -> None:
    filled(path)
    content = bytearray(path.read_bytes())
    content[30_000:50_000] = b"\xff" * 20_000
    path.write_bytes(content)
    refused(path, "damaged")


def test_a_journal_of_a_newer_version_is_refused(path: Path) -> None:
    with opened(path) as journal:
        journal.connection.execute("PRAGMA user_version = 99")
    refused(path, "newer version of this library.*update toapis-async")
    with pytest.raises(JournalError, match="newer version"):
        journal_reader.latest_run(path)


def test_a_directory_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    refused(path, "can't use the journal")


@pytest.mark.parametrize("odd", ["/", "no/such/folder/j", "nul\0l", "file/j", "loop"])
def test_paths_that_cannot_be_are_refused_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    refused(Path(odd), "can't use the journal")


async def test_a_name_that_is_too_long_is_refused_in_plain_words_by_a_client(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"can't use the journal .*name too long"):
        await ToAPIs("sk-any", journal=tmp_path / ("x" * 300)).start()


def test_a_read_only_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Injected, since root may write everywhere.
    def failing(*_: object) -> None:
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(journal_file, "_migrate", failing)
    refused(path, "can't use the journal .*: attempt to write a readonly database")
    monkeypatch.undo()
    with opened(path):  # the lock was given back
        pass


# ------------------------------------------------------------------------------------------- the lock


def test_a_second_one_is_locked_out_and_told_the_pid(path: Path) -> None:
    with opened(path):
        with pytest.raises(JournalLocked, match=rf"process {os.getpid()} is using the journal"):
            JournalFile.open(path, MINE, same_account=False)
        assert journal_reader.latest_run(path) is None  # a reader may look on
    with opened(path):
        pass


def test_it_is_one_journal_by_whatever_name_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alias = path.with_name("alias")
    alias.symlink_to(path)
    monkeypatch.chdir(path.parent)
    with opened(alias):
        assert path.stat().st_mode & 0o777 == 0o600
        for name in (path, Path("journal.sqlite"), Path("alias")):
            with pytest.raises(JournalLocked):
                JournalFile.open(name, MINE, same_account=False)


HOLD = """
import sys, pathlib
from toapis_async.engine.journal.file import JournalFile
from toapis_async.settings import Credentials
held = JournalFile.open(pathlib.Path(sys.argv[1]), Credentials(sys.argv[2], sys.argv[3]), same_account=False)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_pid_of_another_process_is_told_and_its_death_frees_the_lock(path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(path), MINE.api_key, MINE.base_url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:  # noqa: S603  (our own words)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(JournalLocked, match=f"process {holder.pid} is using"):
                JournalFile.open(path, MINE, same_account=False)
        finally:
            holder.kill()
    with opened(path):
        pass


def test_a_lock_whose_holder_has_not_said_its_pid_yet_is_a_lock(path: Path) -> None:
    other = sqlite3.connect(lock_path(path), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JournalLocked, match="another process is using the journal"):
        JournalFile.open(path, MINE, same_account=False)
    other.close()


def test_a_lock_file_that_is_none_is_refused(path: Path) -> None:
    lock_path(path).write_bytes(b"something of the user's" * 100)
    refused(path, r"journal.sqlite.lock is not the lock of a journal.*remove it")
    lock_path(path).unlink()
    lock_path(path).mkdir()
    refused(path, "can't lock the journal")


def test_a_lock_that_cannot_be_written_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ReadOnly(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql.startswith("CREATE TABLE"):
                error = sqlite3.OperationalError("attempt to write a readonly database")
                error.sqlite_errorcode = sqlite3.SQLITE_READONLY
                raise error
            return super().execute(sql, *args)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **named: real(*a, factory=ReadOnly, **named))
    refused(path, "can't lock the journal .*: attempt to write a readonly database")


# ------------------------------------------------------------------------------------------- the account


def test_until_something_may_have_been_accepted_it_is_bound_to_no_key(path: Path) -> None:
    with opened(path) as journal:
        journal_records.put_intent(journal.connection, an_intent(), 1.0)
        journal_records.put_end(journal.connection, "b1", End(State.WITHDRAWN), 2.0)
    other = Credentials("sk-another", MINE.base_url)
    with opened(path, other) as journal:
        journal_records.put_intent(journal.connection, an_intent("b2"), 3.0)
    refused(path, "another API key")


def test_a_lock_file_of_zeroes_that_nobody_holds_is_taken(path: Path) -> None:
    with opened(path):
        pass
    lock_path(path).write_bytes(bytes(8192))
    with opened(path), pytest.raises(JournalLocked):
        JournalFile.open(path, MINE, same_account=False)


def test_it_is_bound_to_one_address_and_one_key(path: Path) -> None:
    filled(path, 1)
    other_key = Credentials("sk-another", MINE.base_url)
    other_address = Credentials(KEY, "http://127.0.0.1:8765/v1")
    refused(path, "written with another API key.*--same-account", other_key)
    refused(path, re.escape(f"belongs to {ADDRESS}/v1, not to http://127.0.0.1:8765/v1"), other_address)
    with pytest.raises(JournalError, match="belongs to"):
        JournalFile.open(path, other_address, same_account=True)  # a rotated key, not another service
    with opened(path):
        pass


def test_a_rotated_key_is_accepted_when_said_and_is_the_key_from_then_on(path: Path) -> None:
    rotated = Credentials("sk-rotated", MINE.base_url)
    filled(path, 1)
    with opened(path, rotated, same_account=True):
        pass
    with opened(path, rotated):
        pass
    refused(path, "another API key")


def test_the_binding_is_written_at_once_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(sqlite3.Connection):
        """Dies before the binding is committed."""

        begun = False

        def executemany(self, *args: Any) -> sqlite3.Cursor:
            cursor = super().executemany(*args)
            Dying.begun = True
            return cursor

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if self.begun and sql == "COMMIT":
                raise KeyboardInterrupt
            return super().execute(sql, *args)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **named: real(*a, factory=Dying, **named))
    with pytest.raises(KeyboardInterrupt):
        JournalFile.open(path, MINE, same_account=False)
    monkeypatch.undo()
    with sqlite3.connect(path) as left:
        assert left.execute("SELECT * FROM fact").fetchall() == []
    left.close()
    with opened(path):
        pass


# ------------------------------------------------------------------------------------------- versions


def test_an_older_journal_is_brought_up_to_date_with_all_it_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 20)
    added = "ALTER TABLE submission ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm';"
    monkeypatch.setattr(journal_file, "MIGRATIONS", (*journal_file.MIGRATIONS, added, "CREATE TABLE more (x);"))
    with opened(path) as journal:
        assert journal.connection.execute("PRAGMA user_version").fetchone() == (len(journal_file.MIGRATIONS),)
        assert journal.connection.execute("SELECT count(*) FROM submission WHERE mood = 'calm'").fetchone() == (20,)
        assert journal_records.record_of_id(journal.connection, "b7") is not None
    monkeypatch.undo()
    refused(path, "newer version")


def test_a_step_that_fails_leaves_the_journal_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 20)
    broken = "CREATE TABLE more (x); ALTER TABLE missing ADD COLUMN y;"
    monkeypatch.setattr(journal_file, "MIGRATIONS", (*journal_file.MIGRATIONS, broken))
    refused(path, "no such table")
    monkeypatch.undo()
    with opened(path) as journal:
        tables = {name for (name,) in journal.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert tables == {"fact", "submission", "file", "run"}


# ------------------------------------------------------------------------------------------- statements


def test_an_id_that_may_be_paid_for_is_never_begun_again(db: sqlite3.Connection) -> None:
    journal_records.put_intent(db, an_intent(), 1.0)
    with pytest.raises(journal_records.SentAlready, match="b1 was sent already"):
        journal_records.put_intent(db, an_intent(), 2.0)
    journal_records.put_accepted(db, "b1", "task_1", "task_1", 3.0)
    with pytest.raises(journal_records.SentAlready):
        journal_records.put_intent(db, an_intent(), 4.0)
    journal_records.put_end(db, "b1", End(State.FAILED, "task_1", "{}"), 5.0)
    with pytest.raises(journal_records.SentAlready):
        journal_records.put_intent(db, an_intent(), 6.0)
    known = journal_records.record_of_id(db, "b1")
    assert known is not None
    assert (known.state, known.task_id, known.intended_at) == (State.FAILED, "task_1", 1.0)


@pytest.mark.parametrize("state", [State.WITHDRAWN, State.REFUSED])
def test_an_id_that_was_certainly_not_accepted_may_be_begun_again(db: sqlite3.Connection, state: State) -> None:
    journal_records.put_intent(db, an_intent(run="r", place=3, key="k", stem="k"), 1.0)
    journal_records.put_end(db, "b1", End(state, answer="{}"), 2.0)
    again = an_intent(digest="other", request="[]", run="s", place=4, key="l", occurrence=2, stem="l")
    journal_records.put_intent(db, again, 3.0)
    known = journal_records.record_of_id(db, "b1")
    assert known is not None
    assert known.intent == again
    assert (known.state, known.answer, known.intended_at, known.ended_at) == (State.INTENT, None, 3.0, None)


def test_only_an_intent_can_be_withdrawn(db: sqlite3.Connection) -> None:
    journal_records.put_intent(db, an_intent(), 1.0)
    journal_records.put_accepted(db, "b1", "task_1", "task_1", 2.0)
    journal_records.put_end(db, "b1", End(State.WITHDRAWN), 3.0)
    known = journal_records.record_of_id(db, "b1")
    assert known is not None
    assert (known.state, known.task_id, known.ended_at) == (State.ACCEPTED, "task_1", None)


def test_rows_are_known_by_their_key_or_by_what_they_ask_for_and_the_newest_counts(db: sqlite3.Connection) -> None:
    journal_records.put_intent(db, an_intent("b1", run="r", key="k", digest="d1"), 1.0)
    journal_records.put_intent(db, an_intent("b2", run="r", key="k", digest="d2"), 1.0)
    journal_records.put_intent(db, an_intent("b3", run="r", digest="d1"), 1.0)
    journal_records.put_intent(db, an_intent("b4", run="r", digest="d1", occurrence=2), 1.0)
    journal_records.put_intent(db, an_intent("b5", run="s", digest="d1"), 1.0)
    journal_records.put_intent(db, an_intent("b6", digest="d1"), 1.0)

    def found(run: str, key: str | None, digest: str, occurrence: int = 1) -> str | None:
        known = journal_records.record_of_row(db, run, key, digest, occurrence)
        return known.intent.client_business_id if known else None

    assert found("r", "k", "whatever") == "b2"
    assert found("r", None, "d1") == "b3"
    assert found("r", None, "d1", 2) == "b4"
    assert found("r", None, "d1", 3) is None
    assert found("s", None, "d1") == "b5"
    assert found("s", "k", "d1") is None
    assert [known.intent.client_business_id for known in journal_records.recoverable(db, 0.0)[0]] == ["b6"]


def test_looking_up_a_row_or_an_id_reads_an_index(db: sqlite3.Connection) -> None:
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    journal_records.record_of_row(db, "r", "k", "d", 1)
    journal_records.record_of_row(db, "r", None, "d", 1)
    journal_records.record_of_id(db, "b1")
    journal_records.recoverable(db, 0.0)
    db.set_trace_callback(None)
    plans = [" ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")) for statement in asked]
    assert len(plans) == 5
    assert all(re.search("USING INDEX (submission_by|submission_unf|sqlite_autoindex)", plan) for plan in plans), plans


def test_files_replace_those_of_the_same_places(db: sqlite3.Connection) -> None:
    journal_records.put_intent(db, an_intent(), 1.0)
    journal_records.put_files(db, "b1", ("a-1.png", "a-2.png"), 2.0)
    journal_records.put_files(db, "b1", ("b-1.png", "b-2.png"), 3.0)
    known = journal_records.record_of_id(db, "b1")
    assert known is not None
    assert known.files == {0: "b-1.png", 1: "b-2.png"}


# ------------------------------------------------------------------------------------------- looking on


def test_a_standing_counts_every_row_once_by_its_newest_record(path: Path) -> None:
    with opened(path) as journal:
        db = journal.connection
        for place, state in enumerate([State.FAILED, State.COMPLETED, State.COMPLETED, State.REFUSED, State.WITHDRAWN]):
            journal_records.put_intent(db, an_intent(f"b{place}", run="r", key=f"k{place}", place=place), 1.0)
            journal_records.put_end(db, f"b{place}", End(state), 2.0)
        journal_records.put_files(db, "b1", ("k1-1.png", "k1-2.png"), 3.0)
        journal_records.put_intent(db, an_intent("again", run="r", key="k0", place=0), 4.0)
        journal_records.put_intent(db, an_intent("equal", run="r", place=5), 4.0)
        journal_records.put_intent(db, an_intent("equal2", run="r", place=6, occurrence=2), 4.0)
        journal_records.put_accepted(db, "equal2", "t", "t", 5.0)
        journal_records.put_intent(db, an_intent("other run", run="s"), 4.0)
        journal_records.put_intent(db, an_intent("plain"), 4.0)
        # while its writer is at work
        now = journal_reader.run_status(path, "r")
        listed = [known.intent.client_business_id for known in journal_reader.records(path, "r")]
        assert journal_reader.latest_run(path) == "s"
    assert now == journal_reader.RunStatus(
        saved=1, completed=1, failed=0, refused=1, running=1, in_doubt=2, withdrawn=1
    )
    assert now.rows == 7
    assert listed == ["again", "b1", "b2", "b3", "b4", "equal", "equal2"]


def test_looking_changes_nothing_and_a_journal_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        journal_reader.run_status(path, "r")
    assert journal_reader.latest_run(path) is None
    path.touch()
    assert journal_reader.latest_run(path) is None
    assert journal_reader.run_status(path, "r").rows == 0
    assert list(journal_reader.records(path, "r")) == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_text("milk and bread, and then some more of it")
    with pytest.raises(JournalError, match="no journal"):
        journal_reader.latest_run(path)
