"""The journal on disk: one sqlite file that outlives the process. Everything here blocks.

A submission is one record, from its intent (committed before its POST is sent) to its final state and its files. The
file is bound to one account at one address, so that yesterday's records never answer for another account's tasks.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
import re
import secrets
import sqlite3
from typing import TYPE_CHECKING, Final, Self

from attrs import frozen

from toapis_async.engine.journal.soundness import check_pages, check_values
from toapis_async.errors import JournalError, JournalLocked
from toapis_async.protocol.lenient import shorten

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from toapis_async.settings import Credentials

APPLICATION_ID: Final = 0x544F4A4C  #: "TOJL"
MIGRATIONS: Final = (
    """
    CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE submission (
        id INTEGER PRIMARY KEY,
        client_business_id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        run TEXT,
        place INTEGER,
        key TEXT,
        digest TEXT NOT NULL,
        occurrence INTEGER NOT NULL,
        stem TEXT,
        request TEXT NOT NULL,
        task_id TEXT,
        asked_id TEXT,
        answer TEXT,
        intended_at REAL NOT NULL,
        accepted_at REAL,
        ended_at REAL
    );
    CREATE INDEX submission_by_key ON submission (run, key) WHERE run IS NOT NULL AND key IS NOT NULL;
    CREATE INDEX submission_by_digest ON submission (run, digest, occurrence) WHERE run IS NOT NULL AND key IS NULL;
    CREATE INDEX submission_unfinished ON submission (state) WHERE state IN ('intent', 'accepted');
    CREATE TABLE file (
        client_business_id TEXT NOT NULL, place INTEGER NOT NULL, name TEXT NOT NULL, saved_at REAL NOT NULL,
        PRIMARY KEY (client_business_id, place)
    ) WITHOUT ROWID;
    """,
)
"""One script a version, each from the one before; `PRAGMA user_version` tells where a file stands."""


class State(enum.StrEnum):
    """How far a submission got, as far as the journal knows."""

    INTENT = "intent"  #: about to be sent, perhaps sent: only the service can tell
    WITHDRAWN = "withdrawn"  #: certainly not accepted, and not for a fault of its own: may be sent at any time
    REFUSED = "refused"  #: certainly not accepted; the same request would be refused again
    ACCEPTED = "accepted"  #: the service works on it
    COMPLETED = "completed"
    FAILED = "failed"


@frozen
class Intent:
    """What is known of a submission before it is sent."""

    client_business_id: str
    digest: str  #: of the fields that were given, and the contents of files among them
    request: str  #: the same as JSON, for people
    run: str | None = None  #: the batch's run; None: a plain submission
    place: int | None = None  #: the row's place in its source
    key: str | None = None  #: the row's own key; rows without one are told apart by digest and occurrence
    occurrence: int = 1
    stem: str | None = None  #: what its files are named after


@frozen
class Record:
    """A submission as the journal knows it."""

    intent: Intent
    state: State
    task_id: str | None
    asked_id: str | None  #: the id by which the task is known to be found
    answer: str | None  #: the final answer's body, or the refusal, as JSON
    intended_at: float  #: Unix seconds, by this machine's clock; like the next two
    accepted_at: float | None
    ended_at: float | None
    number: int  #: grows from one intent to the next
    files: tuple[str, ...] = ()  #: names of saved files, in the images' order
    saved_at: float | None = None  #: when the last of them was on disk


SELECT: Final = (
    "SELECT client_business_id, digest, request, run, place, key, occurrence, stem,"
    " state, task_id, asked_id, answer, intended_at, accepted_at, ended_at, id FROM submission"
)
SAVED: Final = "EXISTS (SELECT 1 FROM file WHERE file.client_business_id = submission.client_business_id)"
_PAGE_ROWS: Final = 500
_INTENT_COLUMNS: Final = 8


class JournalFile:
    """An open journal. One process at a time may hold it for writing; readers may look on."""

    def __init__(self, connection: sqlite3.Connection, lock: sqlite3.Connection) -> None:
        self.connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: Path, credentials: Credentials, *, same_account: bool) -> Self:
        """Open it, made if missing (for its owner's eyes only), locked, checked and brought up to date.

        Raises `JournalLocked`, or `JournalError` when it is not ours, damaged, newer than this library, another
        account's or at another address; nothing is changed then.
        """
        try:
            path = path.resolve()  # one file has one lock, by whatever name it is opened
            _create(path)
            lock = _locked(path)
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name; a link that leads to itself
            reason = error.strerror if isinstance(error, OSError) else error
            raise JournalError(f"can't use the journal {path}: {reason}") from error
        try:
            with explained(path):
                connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                try:
                    check_ours(connection, path)
                    check_pages(connection)
                    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
                    _migrate(connection)
                    check_values(connection)
                    _bind(connection, path, credentials, same_account=same_account)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            lock.close()
            raise
        return cls(connection, lock)

    def close(self) -> None:
        """Close it, and let others have it."""
        try:
            self.connection.close()
        finally:
            self._lock.close()


# ---------------------------------------------------------------------------------------------- statements


def put_intent(db: sqlite3.Connection, intent: Intent, now_s: float) -> None:
    """A submission is about to be sent; one that certainly was not accepted before may be."""
    written = db.execute(
        "INSERT INTO submission (client_business_id, digest, request, run, place, key, occurrence, stem, state,"
        " intended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'intent', ?) ON CONFLICT (client_business_id) DO UPDATE SET"
        " digest = excluded.digest, request = excluded.request, run = excluded.run, place = excluded.place,"
        " key = excluded.key, occurrence = excluded.occurrence,"
        " stem = excluded.stem, state = 'intent', answer = NULL, ended_at = NULL,"
        " intended_at = excluded.intended_at WHERE state IN ('withdrawn', 'refused')",
        (
            intent.client_business_id,
            intent.digest,
            intent.request,
            intent.run,
            intent.place,
            intent.key,
            intent.occurrence,
            intent.stem,
            now_s,
        ),
    )
    if not written.rowcount:
        raise sqlite3.IntegrityError(f"{intent.client_business_id} was sent already")


def put_accepted(db: sqlite3.Connection, client_business_id: str, task_id: str, asked_id: str, now_s: float) -> None:
    """The service has taken it."""
    db.execute(
        "UPDATE submission SET state = 'accepted', task_id = ?, asked_id = ?, accepted_at = ?"
        " WHERE client_business_id = ?",
        (task_id, asked_id, now_s, client_business_id),
    )


def put_end(
    db: sqlite3.Connection,
    client_business_id: str,
    state: State,
    now_s: float,
    *,
    task_id: str | None = None,
    answer: str | None = None,
) -> None:
    """It came to an end, or was never taken; only an intent can be withdrawn."""
    end = "UPDATE submission SET state = ?, task_id = ?, answer = ?, ended_at = ? WHERE client_business_id = ?"
    only = " AND state = 'intent'" if state is State.WITHDRAWN else ""
    db.execute(end + only, (state.value, task_id, answer, now_s, client_business_id))


def put_files(db: sqlite3.Connection, client_business_id: str, names: tuple[str, ...], now_s: float) -> None:
    """Its images are on disk."""
    db.executemany(
        "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)",
        [(client_business_id, place, name, now_s) for place, name in enumerate(names)],
    )


def record_of_row(db: sqlite3.Connection, run: str, key: str | None, digest: str, occurrence: int) -> Record | None:
    """The latest record of a batch's row, wherever the row stands now."""
    if key is not None:
        return _one(db, "run = ? AND key = ?", (run, key))
    return _one(db, "run = ? AND key IS NULL AND digest = ? AND occurrence = ?", (run, digest, occurrence))


def record_of_id(db: sqlite3.Connection, client_business_id: str) -> Record | None:
    """The record of a submission's own id."""
    return _one(db, "client_business_id = ?", (client_business_id,))


def unfinished(db: sqlite3.Connection) -> tuple[Record, ...]:
    """The plain submissions that the service may still work on, oldest first."""
    rows = db.execute(f"{SELECT} WHERE state IN ('intent', 'accepted') AND run IS NULL ORDER BY id").fetchall()
    return tuple(record_of(db, row) for row in rows)


_CHARGED: Final = "state IN ('intent', 'accepted', 'completed', 'failed')"


def paid(db: sqlite3.Connection, run: str, after: int, *, unsaved: bool) -> tuple[Record, ...]:
    """The next rows of a run that the service has charged or may have (also for a failure), in the order they were
    sent; with `unsaved`, those that may have images which are not on disk. A page of them, after this number."""
    only = f"state IN ('intent', 'accepted', 'completed') AND NOT {SAVED}" if unsaved else _CHARGED
    page = f"{SELECT} WHERE run = ? AND id > ? AND {only} ORDER BY id"
    return tuple(record_of(db, row) for row in db.execute(f"{page} LIMIT {_PAGE_ROWS}", (run, after)).fetchall())


def _one(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> Record | None:
    row = db.execute(f"{SELECT} WHERE {where} ORDER BY id DESC LIMIT 1", values).fetchone()
    return None if row is None else record_of(db, row)


def record_of(db: sqlite3.Connection, row: tuple[object, ...]) -> Record:
    """A record from its columns, with its files."""
    intent = Intent(*row[:_INTENT_COLUMNS])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    state, *rest = row[_INTENT_COLUMNS:]
    files: list[tuple[str, float]] = db.execute(
        "SELECT name, saved_at FROM file WHERE client_business_id = ? ORDER BY place", (intent.client_business_id,)
    ).fetchall()
    names = tuple(name for name, _ in files)
    saved_at = max((saved_at for _, saved_at in files), default=None)
    return Record(intent, State(state), *rest, names, saved_at)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------------------------------------- opening


def _create(path: Path) -> None:
    """Make the file with its owner's permissions only; what sqlite puts beside it gets the same."""
    for name in (path, lock_path(path)):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def lock_path(path: Path) -> Path:
    """The sibling file whose lock keeps a second writer out, while readers of the journal itself may work."""
    return path.with_name(f"{path.name}.lock")


def _locked(path: Path) -> sqlite3.Connection:
    """Hold the sibling file's write lock for as long as this connection lives, with our pid readable in it.

    sqlite's own locks end with the process however it ends, on every system. Race: between writing the pid and taking
    the lock again another process may come first; it then holds the lock, and ours is refused.
    """
    try:
        lock = sqlite3.connect(lock_path(path), isolation_level=None, timeout=0, check_same_thread=False)
    except sqlite3.OperationalError as error:  # another user's, or a folder
        raise JournalError(f"can't lock the journal {path}: {error}") from error
    try:
        lock.execute("PRAGMA synchronous = OFF")
        lock.execute("BEGIN IMMEDIATE")
        lock.execute("PRAGMA busy_timeout = 1000")  # for one who is reading the pid just now
        lock.execute("CREATE TABLE IF NOT EXISTS holder (pid INTEGER)")
        lock.execute("DELETE FROM holder")
        lock.execute("INSERT INTO holder VALUES (?)", (os.getpid(),))
        lock.execute("PRAGMA busy_timeout = 1000")  # one who was refused may be reading whose it is
        lock.execute("COMMIT")
        lock.execute("PRAGMA busy_timeout = 0")
        lock.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            lock.close()
            raise JournalError(f"can't lock the journal {path}: {error}") from error
        with contextlib.suppress(sqlite3.Error):
            pid = lock.execute("SELECT pid FROM holder").fetchone()[0]
            lock.close()
            raise JournalLocked(
                f"process {pid} is using the journal {path}: wait for it to end, or take another journal"
            ) from None
        lock.close()
        raise JournalLocked(f"another process is using the journal {path}") from None
    except sqlite3.DatabaseError as error:
        lock.close()
        raise JournalError(
            f"{lock_path(path)} is not the lock of a journal ({error}): remove it if no other process is at work"
        ) from error
    return lock


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """sqlite's errors in plain words."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        reason, code = shorten(str(error), 100), getattr(error, "sqlite_errorcode", None)
        is_damage = code in {None, sqlite3.SQLITE_ERROR} and re.match(
            "no such|table|duplicate|Could not decode", reason
        )
        if isinstance(error, sqlite3.OperationalError) and not is_damage:  # busy, full, not to be opened
            raise JournalError(
                f"can't use the journal {path}: {reason}; see that the file and its folder may be written, or take "
                "another path"
            ) from error
        raise JournalError(
            f"{path} is no journal, or a damaged one ({reason}): nothing was changed; take another path, or put the "
            "file aside first (the .recover command of sqlite3 may still read it)"
        ) from error


def check_ours(db: sqlite3.Connection, path: Path) -> None:
    """Raise `JournalError` for a database that is no journal, or one that we are too old for."""
    application_id: int = db.execute("PRAGMA application_id").fetchone()[0]
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    tables: int = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise JournalError(f"{path} is a database of something else: take another path for the journal")
    if version > len(MIGRATIONS):
        raise JournalError(
            f"{path} was written by a newer version of this library (its schema is {version}, ours {len(MIGRATIONS)}): "
            "update toapis-async"
        )


def _migrate(db: sqlite3.Connection) -> None:
    """Bring the schema up to date, a version at a time, each in one transaction."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(
            f"BEGIN IMMEDIATE; {script} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {number}; COMMIT;"
        )


def _bind(db: sqlite3.Connection, path: Path, credentials: Credentials, *, same_account: bool) -> None:
    """Bind a new journal to the account and its address; refuse another's."""
    facts = dict(db.execute("SELECT name, value FROM fact").fetchall())
    salt = facts.get("salt") or secrets.token_hex(16)
    mine = {
        "address": credentials.base_url,
        "salt": salt,
        # Of the key no more than this is kept: enough to know it again, and useless to everybody else.
        "account": hashlib.sha256(f"toapis-async {salt} {credentials.api_key}".encode()).hexdigest()[:32],
    }
    if facts and facts.get("address") != mine["address"]:
        raise JournalError(
            f"the journal {path} belongs to {facts.get('address')}, not to {mine['address']}: its tasks are not known "
            "there; use the same address, or another journal"
        )
    if facts and facts.get("account") != mine["account"] and not same_account:
        raise JournalError(
            f"the journal {path} was written with another API key: if that was this very account's (a rotated key), "
            "say so with --same-account or Journal(path, same_account=True); else take another journal"
        )
    if facts != mine:
        db.execute("BEGIN IMMEDIATE")  # all or none: a process that dies here must not leave half a binding
        db.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", mine.items())
        db.execute("COMMIT")
