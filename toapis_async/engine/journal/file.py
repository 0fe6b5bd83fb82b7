"""The journal on disk: one sqlite file that outlives the process. Everything here blocks.

A submission is one record, from its intent (committed before its POST is sent) to its final state and its files. The
file is bound to one account at one address, so that yesterday's records never answer for another account's tasks.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING, Final, Self

from toapis_async.engine.journal.locks import LockHeld, create_private, hold
from toapis_async.engine.journal.records import CHARGED, SAVED, SELECT, State, disown_all, record_of
from toapis_async.engine.journal.resume import snapshot_of
from toapis_async.engine.journal.soundness import check_pages, check_values
from toapis_async.errors import JournalError, JournalLocked, UnreadableAnswer
from toapis_async.protocol.lenient import shorten

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from toapis_async.engine.journal.locks import Processes
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
    f"""
    ALTER TABLE submission ADD COLUMN owner TEXT;
    ALTER TABLE submission ADD COLUMN is_submitting INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE submission ADD COLUMN completed_at REAL;
    CREATE TABLE run (name TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
    UPDATE submission SET acknowledged_at = ended_at
        WHERE run IS NULL AND state = 'completed' AND acknowledged_at IS NULL AND {SAVED};
    """,  # noqa: S608  (a constant)
)
"""One script a version, each from the one before; `PRAGMA user_version` tells where a file stands."""
_IDENTITY: Final = (
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) "
    "FROM pragma_application_id, pragma_user_version"
)
_BINDING: Final = "SELECT name, value FROM fact WHERE name IN ('address', 'salt', 'account')"
_COUNTS_FILES: Final = 3
"""The version from which on every finished record says how many files it has."""


class JournalFile:
    """An open journal, held by this process alone; or in a folder, by several of them, which are its `processes`.
    Others may read it."""

    def __init__(
        self, connection: sqlite3.Connection, lock: sqlite3.Connection, processes: Processes | None = None
    ) -> None:
        self.connection = connection
        self._lock = lock
        self.processes = processes

    @property
    def owner(self) -> str | None:
        """The name of this process in a journal that others use, too."""
        return self.processes.name if self.processes is not None else None

    @classmethod
    def open(cls, path: Path, credentials: Credentials, *, same_account: bool) -> Self:
        """Open it, made if missing (for its owner's eyes only), locked, checked and brought up to date.

        Raises `JournalLocked`, or `JournalError` when it is not ours, damaged, newer than this library, another
        account's or at another address; nothing is changed then.
        """
        with usable(path):
            path = path.resolve()  # one file has one lock, by whatever name it is opened
            create(path)
            lock = _locked(path)
        try:
            connection = connected(path, credentials, same_account=same_account)
            try:
                with explained(path):
                    disown_all(connection)
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
            if self.processes is not None:
                self.processes.leave()


# ---------------------------------------------------------------------------------------------- opening


@contextlib.contextmanager
def usable(path: Path) -> Generator[None]:
    """The system's refusals of a path as `JournalError`."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name; a link that leads to itself
        reason = error.strerror if isinstance(error, OSError) else error
        raise JournalError(f"can't use the journal {path}: {reason}") from error


def connected(path: Path, credentials: Credentials, *, same_account: bool) -> sqlite3.Connection:
    """A connection to a journal that was checked and brought up to date. Raises `JournalError`."""
    with explained(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            version = check_ours(connection, path)
            check_pages(connection)
            connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
            _migrate(connection, version)
            check_values(connection)
            _bind(connection, path, credentials, same_account=same_account)
        except BaseException:
            connection.close()
            raise
    return connection


def create(path: Path) -> None:
    """Make the file with its owner's permissions only; what sqlite puts beside it gets the same."""
    create_private(path)
    create_private(lock_path(path))


def lock_path(path: Path) -> Path:
    """The sibling file whose lock keeps a second writer out, while readers of the journal itself may work."""
    return path.with_name(f"{path.name}.lock")


def _locked(path: Path) -> sqlite3.Connection:
    """The lock of a journal that one process uses at a time. Raises `JournalLocked`, `JournalError`."""
    try:
        return hold(lock_path(path))
    except LockHeld as held:
        way_out = ": wait for it to end, or take another journal" if held.pid is not None else ""
        raise JournalLocked(f"{held} is using the journal {path}{way_out}") from None


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """sqlite's errors in plain words."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter: sqlite's message quotes damaged bytes
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


def check_ours(db: sqlite3.Connection, path: Path) -> int:
    """The version of a journal's schema: 0 when nothing was written into it yet.

    Raises `JournalError` for a database that is no journal, or one that we are too old for. All is read by one
    statement: another process may be making the journal just now.
    """
    application_id: int
    version: int
    tables: int
    application_id, version, tables = db.execute(_IDENTITY).fetchone()
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise JournalError(f"{path} is a database of something else: take another path for the journal")
    if version > len(MIGRATIONS):
        raise JournalError(
            f"{path} was written by a newer version of this library (its schema is {version}, ours {len(MIGRATIONS)}): "
            "update toapis-async"
        )
    return version


def _migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring the schema up to date: a new file in one transaction, so that no reader meets it half made; an older one a
    version at a time."""
    if version == 0:
        _run_script(db, "".join(MIGRATIONS), len(MIGRATIONS))
        return
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        if number == _COUNTS_FILES:
            _count_files(db)
        _run_script(db, script, number)


def _run_script(db: sqlite3.Connection, script: str, version: int) -> None:
    db.executescript(
        f"BEGIN IMMEDIATE; {script} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}; COMMIT;"
    )


def _count_files(db: sqlite3.Connection) -> None:
    """Say of the records of the first version, which did not, how many files their answers name."""
    for row in db.execute(f"{SELECT} WHERE state = ? AND images IS NULL", (State.COMPLETED,)).fetchall():
        record = record_of(db, row)
        with contextlib.suppress(UnreadableAnswer):
            values = (len(snapshot_of(record).files), record.number)
            db.execute("UPDATE submission SET images = ? WHERE id = ?", values)


def is_of_account(db: sqlite3.Connection, credentials: Credentials, *, same_account: bool) -> bool:
    """Whether a journal is bound to this account at this address, or to nobody yet."""
    facts = dict(db.execute(_BINDING).fetchall())
    return (
        not facts or _mismatch(facts, _binding(credentials, facts.get("salt", "")), same_account=same_account) is None
    )


def _binding(credentials: Credentials, salt: str) -> dict[str, str]:
    return {"address": credentials.base_url, "salt": salt, "account": credentials.account(salt)}


def _mismatch(facts: dict[str, str], mine: dict[str, str], *, same_account: bool) -> str | None:
    """In which of its facts a journal is another's; None when it is ours."""
    if "address" in facts and facts["address"] != mine["address"]:
        return "address"
    if "account" in facts and facts["account"] != mine["account"] and not same_account:
        return "account"
    return None


def _bind(db: sqlite3.Connection, path: Path, credentials: Credentials, *, same_account: bool) -> None:
    """Bind a new journal to the account and its address; refuse another's."""
    facts = dict(db.execute(_BINDING).fetchall())
    if facts and not db.execute(f"{SELECT} WHERE {CHARGED} LIMIT 1").fetchone():
        facts = {"salt": facts["salt"]} if "salt" in facts else {}  # nothing was accepted: it may be anybody's
    mine = _binding(credentials, facts.get("salt") or credentials.new_salt())
    mismatch = _mismatch(facts, mine, same_account=same_account)
    if mismatch == "address":
        raise JournalError(
            f"the journal {path} belongs to {facts.get('address')}, not to {mine['address']}: its tasks are not known "
            "there; use the same address, or another journal"
        )
    if mismatch is not None:
        raise JournalError(
            f"the journal {path} was written with another API key: if that was this very account's (a rotated key), "
            "say so with --same-account or Journal(path, same_account=True); else take another journal"
        )
    if facts != mine:
        db.execute("BEGIN IMMEDIATE")  # all or none: a process that dies here must not leave half a binding
        db.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", mine.items())
        db.execute("COMMIT")
