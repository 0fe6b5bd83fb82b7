"""A journal's opening, killed before each of its statements in turn."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from toapis_async.engine.journal.file import JournalFile, lock_path
from toapis_async.settings import Credentials

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ACCOUNT = Credentials("sk-0123456789", "http://127.0.0.1:1/v1")


def test_a_journal_opens_before_whatever_statement_its_first_opening_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process leaves is what is in its files at that instant: so they are copied there."""
    home, connect = tmp_path / "home", sqlite3.connect
    home.mkdir()
    instants: list[Path] = []

    def keep(_: str) -> None:
        instants.append(tmp_path / f"before-{len(instants)}")
        shutil.copytree(home, instants[-1])

    def watched(*args: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **named)
        connection.set_trace_callback(keep)
        return connection

    with monkeypatch.context() as watching:
        watching.setattr(sqlite3, "connect", watched)
        JournalFile.open(home / "journal.sqlite", ACCOUNT, same_account=False).close()
    assert len(instants) > 20
    for instant in instants:
        with closing(JournalFile.open(instant / "journal.sqlite", ACCOUNT, same_account=False)) as journal:
            facts = {name for (name,) in journal.connection.execute("SELECT name FROM fact")}
        assert facts == {"address", "salt", "account"}


def test_two_that_begin_at_once_do_not_refuse_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who was refused reads the other's pid in the very moment in which the other writes it down."""
    JournalFile.open(tmp_path / "journal.sqlite", ACCOUNT, same_account=False).close()
    connect, at_commit = sqlite3.connect, threading.Event()

    def read_on() -> None:
        refused = connect(lock_path(tmp_path / "journal.sqlite"), check_same_thread=False, isolation_level=None)
        refused.execute("BEGIN")
        refused.execute("SELECT pid FROM holder").fetchone()
        reading.set()
        at_commit.wait(60)
        time.sleep(0.05)  # the commit is tried, and tried again
        refused.close()

    def watched(*args: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **named)
        connection.set_trace_callback(lambda sql: at_commit.set() if sql == "COMMIT" else None)
        return connection

    reading = threading.Event()
    reader = threading.Thread(target=read_on)
    reader.start()
    assert reading.wait(60)
    monkeypatch.setattr(sqlite3, "connect", watched)
    JournalFile.open(tmp_path / "journal.sqlite", ACCOUNT, same_account=False).close()
    reader.join()
