"""Reading a journal without holding its lock, also while another process writes. Everything here blocks."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

from attrs import frozen

from toapis_async.engine.journal import records as journal_records
from toapis_async.engine.journal.file import MIGRATIONS, check_ours, explained
from toapis_async.engine.journal.records import SAVED, SELECT, Record, State, record_of_id, record_of_row, records_of
from toapis_async.engine.journal.soundness import check_values
from toapis_async.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

_LATEST: Final = (
    "id IN (SELECT max(id) FROM submission WHERE run = ? GROUP BY key, iif(key IS NULL, digest, ''), occurrence)"
)
"""Of a row that was sent anew after a failure, only the newest record stands."""


@frozen
class RunStatus:
    """How many rows of a run stand where."""

    saved: int  #: completed, and its files are on disk
    completed: int  #: completed, and its files are not known to be on disk
    failed: int
    refused: int
    running: int
    in_doubt: int  #: sent perhaps, and nothing is known yet
    withdrawn: int  #: not sent, or certainly not accepted

    @property
    def rows(self) -> int:
        """All of them."""
        known = self.saved + self.completed + self.failed + self.refused
        return known + self.running + self.in_doubt + self.withdrawn


@contextlib.contextmanager
def _connected(path: Path, *, of_any_version: bool = False) -> Generator[sqlite3.Connection | None]:
    """The database, None when nothing was ever written into it."""
    if not path.is_file():
        raise JournalError(f"there is no journal {path}{', but a folder of that name' if path.is_dir() else ''}")
    with explained(path), contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
        db.execute("PRAGMA query_only = ON")  # mode=ro would leave sqlite's side files behind
        version = check_ours(db, path)
        if 0 < version < len(MIGRATIONS) and not of_any_version:
            raise JournalError(
                f"{path} was written by an earlier version of this library: run its batch again, or open a client with "
                "it, which brings it up to date"
            )
        yield db if version else None


def fact_of(path: Path, name: str) -> str | None:
    """What was written down under this name; None when nothing was, or there is no journal yet. Raises `JournalError`
    for what is none."""
    if not path.exists():
        return None
    with _connected(path, of_any_version=True) as db:
        found = db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone() if db is not None else None
    return None if found is None else str(found[0])


def records(path: Path, run: str) -> Generator[Record]:
    """The rows of a run as they stand, in the order of their source.

    Raises `JournalError` when there is no journal, or it can't be read.
    """
    with _connected(path) as db:
        if db is not None:
            check_values(db)
            yield from records_of(
                db, db.execute(f"{SELECT} WHERE run = ? AND {_LATEST} ORDER BY place, id", (run, run))
            )


def plain_submissions(path: Path) -> list[Record]:
    """The submissions that are not those of a batch's run, the oldest first. Raises `JournalError`."""
    with _connected(path) as db:
        if db is None:
            return []
        check_values(db)
        return list(records_of(db, db.execute(f"{SELECT} WHERE run IS NULL ORDER BY id")))


@contextlib.contextmanager
def record_finder(path: Path, run: str) -> Generator[Callable[[str | None, str, int, str | None], Record | None]]:
    """A function that finds what a run knows of a row: by its key, or else by digest and occurrence; and if nothing, by
    the client_business_id that the row has of its own."""
    with _connected(path) as db:
        if db is not None:
            check_values(db)

        def find(key: str | None, digest: str, occurrence: int, client_business_id: str | None) -> Record | None:
            if db is None:
                return None
            known = record_of_row(db, run, key, digest, occurrence)
            return record_of_id(db, client_business_id) if known is None and client_business_id else known

        yield find


def run_status(path: Path, run: str) -> RunStatus:
    """The rows of a run, counted."""
    with _connected(path) as db:
        if db is None:
            return RunStatus(0, 0, 0, 0, 0, 0, 0)
        counted: dict[tuple[str, int], int] = {
            (state, saved): number
            for state, saved, number in db.execute(
                f"SELECT state, {SAVED} AS saved, count(*)"  # noqa: S608  (the parts are constants)
                f" FROM submission WHERE run = ? AND {_LATEST} GROUP BY state, saved",
                (run, run),
            )
        }

    def number(state: State) -> int:
        return counted.get((state.value, 0), 0) + counted.get((state.value, 1), 0)

    return RunStatus(
        saved=counted.get((State.COMPLETED.value, 1), 0),
        completed=counted.get((State.COMPLETED.value, 0), 0),
        failed=number(State.FAILED),
        refused=number(State.REFUSED),
        running=number(State.ACCEPTED),
        in_doubt=number(State.INTENT),
        withdrawn=number(State.WITHDRAWN),
    )


def latest_run(path: Path) -> str | None:
    """The run that was begun last; None when there is none, or no journal."""
    if not path.exists():
        return None
    with _connected(path, of_any_version=True) as db:
        if db is None:
            return None
        found = db.execute("SELECT run FROM submission WHERE run IS NOT NULL ORDER BY id DESC LIMIT 1").fetchone()
        if found is not None and not isinstance(found[0], str):
            raise sqlite3.DatabaseError("the name of its latest run is no text")
        return None if found is None else found[0]


def latest(path: Path, most: int) -> tuple[Record, ...]:
    """The submissions that were begun last, plain ones and rows of runs alike: the newest first. This and the next two
    are for a journal that this process holds open: its values were checked then."""
    with _connected(path) as db:
        return () if db is None else journal_records.latest(db, most)


def record_of_any_id(path: Path, some_id: str) -> Record | None:
    """The record of a submission by its own id, or by its task's; None when the journal knows none."""
    with _connected(path) as db:
        return None if db is None else journal_records.record_of_any_id(db, some_id)


def latest_of_prefix(path: Path, prefix: str) -> Record | None:
    """The newest submission whose own id begins so; None when there is none."""
    with _connected(path) as db:
        return None if db is None else journal_records.latest_of_prefix(db, prefix)
