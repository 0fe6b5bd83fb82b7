"""Lock files: each is held by one process, and free again when that ends in whatever way. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
import uuid
from typing import TYPE_CHECKING, Final, Self

from toapis_async.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FIRST_LOCKED_BYTE: Final = 0x40000000
_LOCKED_BYTES: Final = 512
"""Where sqlite keeps the locks of a database file."""
_DATABASE: Final = b"SQLite format 3\0"
_IS_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_NAME: Final = re.compile("[0-9a-f]{32}")
_SUFFIX: Final = ".process.lock"
_PAUSE_S: Final = 0.02  #: between two tries of a lock that is held


class LockHeld(Exception):
    """Another holds this lock; `pid` is that process, if it can be told."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(pid)
        self.pid = pid

    def __str__(self) -> str:
        return f"process {self.pid}" if self.pid is not None else "another process"


def create_private(path: Path) -> None:
    """Make a file for its owner's eyes only, unless it is there."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def hold(path: Path, within_s: float = 0.0) -> sqlite3.Connection:
    """Hold the write lock of a lock file, with our pid readable in it, for as long as the connection lives.

    Raises `LockHeld` when it is still another's after `within_s` seconds, and `JournalError` when it can't be locked.
    sqlite's own locks end with the process however it ends, on every system. Race: between writing the pid and taking
    the lock again another process may come first; it then holds the lock, and ours is refused.
    """
    return _tried(_hold, path, within_s)


def hold_shared(path: Path, within_s: float = 0.0) -> sqlite3.Connection:
    """Hold the read lock of a lock file: others may hold it likewise, and none may `hold` it.

    Raises as `hold` does.
    """
    return _tried(_hold_shared, path, within_s)


def _tried(act: Callable[[Path], sqlite3.Connection], path: Path, within_s: float) -> sqlite3.Connection:
    until_s = time.monotonic() + within_s
    while True:
        try:
            return act(path)
        except LockHeld:
            if time.monotonic() >= until_s:
                raise
        time.sleep(_PAUSE_S)


def _hold(path: Path) -> sqlite3.Connection:
    lock = _connected(path)
    try:
        lock.execute("PRAGMA synchronous = OFF")
        lock.execute("BEGIN IMMEDIATE")
        lock.execute("PRAGMA busy_timeout = 1000")  # for one who is reading the pid just now
        lock.execute("CREATE TABLE IF NOT EXISTS holder (pid INTEGER)")
        lock.execute("DELETE FROM holder")
        lock.execute("INSERT INTO holder VALUES (?)", (os.getpid(),))
        lock.execute("COMMIT")
        lock.execute("PRAGMA busy_timeout = 0")
        lock.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in _IS_BUSY:
            lock.close()
            raise JournalError(f"can't lock the journal {_journal_of(path)}: {error}") from error
        pid = _pid_in(lock)
        lock.close()
        raise LockHeld(pid) from None
    except sqlite3.DatabaseError as error:
        lock.close()
        if _emptied(path):
            return _hold(path)
        raise JournalError(
            f"{path} is not the lock of a journal ({error}): remove it if no other process is at work"
        ) from error
    return lock


def _hold_shared(path: Path) -> sqlite3.Connection:
    try:
        with contextlib.closing(_connected(path)) as probe:
            probe.execute("BEGIN IMMEDIATE")  # busy while another holds it alone; that keeps no reader out
            lock = _connected(path)
            lock.execute("BEGIN")
            lock.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return lock
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) in _IS_BUSY:
            with contextlib.closing(_connected(path)) as probe:
                raise LockHeld(_pid_in(probe)) from None
        if not isinstance(error, sqlite3.OperationalError) and _emptied(path):
            return _hold_shared(path)
        raise JournalError(f"can't lock the journal {_journal_of(path)}: {error}") from error


def _connected(path: Path) -> sqlite3.Connection:
    try:
        address = f"{path.absolute().as_uri()}?mode=rw"  # never made here: one that was removed is nobody's
        return sqlite3.connect(address, uri=True, isolation_level=None, timeout=0, check_same_thread=False)
    except sqlite3.OperationalError as error:  # another user's, or a folder
        raise JournalError(f"can't lock the journal {_journal_of(path)}: {error}") from error


def _journal_of(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(".lock"))


def _pid_in(lock: sqlite3.Connection) -> int | None:
    """The pid that a lock file names; None when it names none, or is being written."""
    with contextlib.suppress(sqlite3.Error):
        if lock.in_transaction:
            lock.execute("ROLLBACK")
        found = lock.execute("SELECT pid FROM holder").fetchone()
        return found[0] if found is not None and isinstance(found[0], int) else None
    return None


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


class Processes:
    """The processes that use a folder's journal. Each has a name that is never used again, and a lock file of that
    name, which it holds while it lives."""

    def __init__(self, folder: Path, name: str, lock: sqlite3.Connection) -> None:
        self.name = name  #: of this process; another client in it has another name
        self._folder = folder
        self._lock = lock

    @classmethod
    def join(cls, folder: Path) -> Self:
        """Add this process, and clear away the lock files of those that are gone. Only for who holds the folder's lock:
        a file that was made and not locked yet would pass for that of one that is gone."""
        name = uuid.uuid4().hex
        path = folder / f"{name}{_SUFFIX}"
        create_private(path)
        joined = cls(folder, name, hold(path))
        for other in folder.glob(f"*{_SUFFIX}"):
            gone = other.name.removesuffix(_SUFFIX)
            if _NAME.fullmatch(gone) and gone != name and not joined.is_alive(gone):
                other.unlink(missing_ok=True)
        return joined

    def is_alive(self, name: str | None) -> bool:
        """Whether a process lives. Raises `JournalError` when that can't be told."""
        return self.holder(name) is not None

    def holder(self, name: str | None) -> LockHeld | None:
        """Who holds the lock of that name, in the words of a message; None when nobody does."""
        if name is None or not _NAME.fullmatch(name):  # never a path of somebody else's making
            return None
        path = self._folder / f"{name}{_SUFFIX}"
        if not path.is_file():
            return None
        try:
            hold(path).close()
        except LockHeld as held:
            return held
        except JournalError:
            if not path.is_file():  # it ended, and took its file along, just now
                return None
            raise
        return None

    def leave(self) -> None:
        """This process is done: what it left is anybody's."""
        self._lock.close()
        (self._folder / f"{self.name}{_SUFFIX}").unlink(missing_ok=True)
