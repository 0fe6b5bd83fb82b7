"""The journal on disk: one sqlite file that outlives the process. Everything here blocks.

A submission is one record, from its intent (committed before its POST is sent) to its final state and its files. The
file is bound to one account at one address, so that yesterday's records never answer for another account's tasks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import sqlite3
from typing import TYPE_CHECKING, Final, Self

from toapis_async.engine.journal.records import CHARGED, SELECT
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
    """
    ALTER TABLE submission ADD COLUMN kind TEXT NOT NULL DEFAULT 'image';
    ALTER TABLE submission ADD COLUMN images INTEGER;
    ALTER TABLE submission ADD COLUMN lost_at REAL;
    ALTER TABLE submission ADD COLUMN acknowledged_at REAL;
    CREATE INDEX submission_unclaimed ON submission (id)
        WHERE run IS NULL AND state = 'completed' AND acknowledged_at IS NULL;
    """,
)
"""One script a version, each from the one before; `PRAGMA user_version` tells where a file stands."""


_FIRST_LOCKED_BYTE: Final = 0x40000000
_LOCKED_BYTES: Final = 512
_DATABASE: Final = b"SQLite format 3\0"
"""Where sqlite keeps the locks of a database file."""


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
        if _emptied(lock_path(path)):
            return _locked(path)
        raise JournalError(
            f"{lock_path(path)} is not the lock of a journal ({error}): remove it if no other process is at work"
        ) from error
    return lock


def _emptied(lock: Path) -> bool:
    """Empty a lock file that can't be read (zeroes after a power loss), if nobody holds it.

    sqlite locks bytes of this range, also in a file that it can't read afterwards. The file stays the same one, so that
    a process which opens it meanwhile meets our lock. False for a file that never was a lock, and where files can't be
    locked so (Windows).
    """
    try:
        import fcntl  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return False
    with lock.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKED_BYTES, _FIRST_LOCKED_BYTE)
        except OSError:
            return False
        head = file.read(len(_DATABASE))
        if not head or head not in {_DATABASE, bytes(len(head))}:
            return False
        file.truncate(0)
        return True


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
    if facts and not db.execute(f"{SELECT} WHERE {CHARGED} LIMIT 1").fetchone():
        facts = {"salt": facts["salt"]} if "salt" in facts else {}  # nothing was accepted: it may be anybody's
    salt = facts.get("salt") or secrets.token_hex(16)
    mine = {
        "address": credentials.base_url,
        "salt": salt,
        # Of the key no more than this is kept: enough to know it again, and useless to everybody else.
        "account": hashlib.sha256(f"toapis-async {salt} {credentials.api_key}".encode()).hexdigest()[:32],
    }
    if "address" in facts and facts["address"] != mine["address"]:
        raise JournalError(
            f"the journal {path} belongs to {facts.get('address')}, not to {mine['address']}: its tasks are not known "
            "there; use the same address, or another journal"
        )
    if "account" in facts and facts["account"] != mine["account"] and not same_account:
        raise JournalError(
            f"the journal {path} was written with another API key: if that was this very account's (a rotated key), "
            "say so with --same-account or Journal(path, same_account=True); else take another journal"
        )
    if facts != mine:
        db.execute("BEGIN IMMEDIATE")  # all or none: a process that dies here must not leave half a binding
        db.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", mine.items())
        db.execute("COMMIT")
