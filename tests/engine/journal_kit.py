"""Journals as an earlier process left them."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from toapis_async import ImageRequest
from toapis_async.engine.fingerprint import _fingerprint
from toapis_async.engine.journal import records as journal_records
from toapis_async.engine.journal.file import APPLICATION_ID, MIGRATIONS, JournalFile
from toapis_async.engine.journal.records import End, Intent, Record, State
from toapis_async.settings import Credentials

from .kit import KEY, task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADDRESS = "https://toapis.example"
MINE = Credentials(KEY, f"{ADDRESS}/v1")


def opened(path: Path, credentials: Credentials = MINE, *, same_account: bool = False) -> closing[JournalFile]:
    return closing(JournalFile.open(path, credentials, same_account=same_account))


def an_intent(business_id: str = "b1", **changes: Any) -> Intent:
    return Intent(**{"client_business_id": business_id, "digest": "d", "request": "{}", **changes})


def leave(
    path: Path,
    business_id: str,
    row: Any,
    state: State,
    *,
    task_id: str = "task_1",
    answer: dict[str, Any] | None = None,
    files: tuple[str, ...] = (),
    **of_intent: Any,
) -> None:
    """Write a submission as it stood when its process died."""
    identity = _fingerprint(ImageRequest.of(row))
    intent = Intent(business_id, identity.digest, identity.text, **of_intent)
    with opened(path) as journal:
        db = journal.connection
        journal_records.put_intent(db, intent, 1.0)
        if state in {State.ACCEPTED, State.COMPLETED, State.FAILED}:
            journal_records.put_accepted(db, business_id, task_id, task_id, 2.0)
        if state in {State.COMPLETED, State.FAILED}:
            told = answer or task(task_id, state.value, error={"code": "bad", "message": "no luck"})
            journal_records.put_end(db, business_id, End(state, task_id, json.dumps(told), 1), 3.0)
        elif state is State.REFUSED:
            refusal = {"status": 422, "error": {"code": "content_policy_violation", "message": "not this"}}
            journal_records.put_end(db, business_id, End(state, answer=json.dumps(refusal)), 3.0)
        elif state is State.WITHDRAWN:
            journal_records.put_end(db, business_id, End(state), 3.0)
        journal_records.put_files(db, business_id, files, 4.0)


def make_first_version(path: Path) -> None:
    """Bring a journal that nobody uses back to what the first version of this library would have written."""
    old = path.with_name("old")
    with closing(sqlite3.connect(path)) as new, closing(sqlite3.connect(old, isolation_level=None)) as db:
        new.execute("PRAGMA journal_mode = DELETE")
        db.executescript(f"{MIGRATIONS[0]} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;")
        for table in ("fact", "file", "submission"):
            columns = ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
            for row in new.execute(f"SELECT {columns} FROM {table}"):  # noqa: S608
                db.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
    old.replace(path)


def record(path: Path, business_id: str) -> Record | None:
    """What a journal that nobody uses holds of a submission."""
    with opened(path) as journal:
        return journal_records.record_of_id(journal.connection, business_id)


def state_of(path: Path, business_id: str) -> State | None:
    known = record(path, business_id)
    return known.state if known else None


@contextmanager
def no_thread_left() -> Iterator[None]:
    """No journal's thread of this test's outlives it; those that a failed test left are not its business."""
    before = set(journal_threads())
    yield
    assert set(journal_threads()) <= before


def journal_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "toapis-journal"]
