"""A journal that several processes use at once: one file in a folder for each account. Everything here blocks.

Each process holds a lock file of its own name, and writes that name into what it submits. A process that is gone holds
its lock no more: what bears its name is then anybody's, and is taken over in one statement (`records.take_over`), so
that there is no moment in which it stands nowhere or in two places. sqlite's write lock makes look-then-write one step
for all processes; it is released, and what was half written undone, when its holder dies.

A journal file for each process, as the alternative, needs a lock of the folder around a search of all files for every
id of the caller's own, a rule for an id that stands in two files after a crash, and lets a run be taken up only in the
process that began it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from typing import TYPE_CHECKING, Final

from toapis_async.engine.journal.file import (
    JournalFile,
    check_ours,
    connected,
    create,
    explained,
    is_of_account,
    lock_path,
    usable,
)
from toapis_async.engine.journal.locks import LockHeld, Processes, create_private, hold, hold_shared
from toapis_async.errors import JournalError, JournalLocked

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.settings import Credentials

OPENING_S: Final = 30.0
"""How long a process waits for others that open a journal in the same folder, which takes each a part of a second."""
_ALONE_S: Final = 2.0  #: one that tries in vain to have a journal for itself keeps others out for a second
SUFFIX: Final = ".journal"


def open_in_folder(folder: Path, credentials: Credentials, *, same_account: bool) -> JournalFile:
    """Open the journal of this account in a folder, both made if missing (for their owner's eyes only).

    Raises `JournalLocked` when another process has the file for itself, and `JournalError` when the folder or a journal
    in it can't be used, or its lock can't be had in time.
    """
    with usable(folder):
        folder = folder.resolve()
        if folder.exists() and not folder.is_dir():
            raise JournalError(
                f"{folder} is a file: per_process=True takes a folder, in which processes share a journal"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_private(folder / "folder.lock")
    try:
        opening = hold(folder / "folder.lock", OPENING_S)
    except LockHeld as held:
        raise JournalError(
            f"{held} has been opening a journal in {folder} for {OPENING_S:g} s: see whether it was stopped"
        ) from None
    with contextlib.closing(opening), usable(folder):
        path = _journal_of(folder, credentials, same_account=same_account) or folder / f"{uuid.uuid4().hex}{SUFFIX}"
        create(path)
        return _opened(path, credentials, same_account=same_account)


def _opened(path: Path, credentials: Credentials, *, same_account: bool) -> JournalFile:
    try:
        lock = hold_shared(lock_path(path), _ALONE_S)
    except LockHeld as held:
        raise JournalLocked(f"{held} has the journal {path} for itself: open its folder there, too") from None
    try:
        connection = connected(path, credentials, same_account=same_account)
        try:
            connection.execute("PRAGMA busy_timeout = 0")  # the writer waits for other processes in steps of its own
            return JournalFile(connection, lock, Processes.join(path.parent))
        except BaseException:
            connection.close()
            raise
    except BaseException:
        lock.close()
        raise


def _journal_of(folder: Path, credentials: Credentials, *, same_account: bool) -> Path | None:
    """The journal of this account; None when there is none. Others' are read for whose they are, and left alone."""
    found = [
        path
        for path in sorted(folder.glob(f"*{SUFFIX}"))
        if path.is_file() and not path.is_symlink() and _is_ours(path, credentials, same_account=same_account)
    ]
    if len(found) > 1:
        raise JournalError(
            f"{folder} holds {len(found)} journals of this account ({', '.join(path.name for path in found[:3])}): "
            "leave one there, and open the others each by its own path"
        )
    return found[0] if found else None


def _is_ours(path: Path, credentials: Credentials, *, same_account: bool) -> bool:
    with explained(path), contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as db:
        db.execute("PRAGMA query_only = ON")
        is_new = check_ours(db, path) == 0  # made by a process that died at once
        return is_new or is_of_account(db, credentials, same_account=same_account)
