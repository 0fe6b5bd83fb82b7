"""Turns shared by the processes of one machine and user: a small file under a lock, and the machine's own clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import fields

from toapis_async.engine.shared.port import STORE_TIMEOUT_S, StoreLost
from toapis_async.errors import ClientStateError
from toapis_async.protocol.leasing import MOST_MEMBERS, State, lease

if TYPE_CHECKING:
    from toapis_async.protocol.leasing import Ask, Grant
    from toapis_async.protocol.tiers import Category

VERSION: Final = 1
_MAX_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 4_096
"""What is written is filled up to whole blocks, so that the file's size hardly ever changes."""
_FIRST_SLEEP_S, _LONGEST_SLEEP_S = 0.0005, 0.005
_NUMBERS: Final = tuple(each.name for each in fields(State) if each.name != "members")
_WHOLE: Final = {"sureness", "epoch"}


class HostStore:
    """A file for each bucket. It is opened anew for each lease, so that nothing is inherited by a fork, and a file that
    was removed is noticed. Between taking the lock and releasing it nothing is awaited."""

    kind = "host"

    def __init__(self, folder: Path, identity: str, lease_s: float) -> None:
        self.lease_s = lease_s
        self._paths: dict[Category, Path] = {
            "submit": folder / f"limits-{identity}-submit.json",
            "query": folder / f"limits-{identity}-query.json",
        }
        self._boot = _boot_id()

    @classmethod
    def open(cls, identity: str, lease_s: float) -> HostStore:
        """Raises `ClientStateError` when the folder or the file can't be used, or can't be trusted."""
        if sys.platform == "win32":
            raise ClientStateError("shared='host' needs file locks, which this system has not: share through Redis")
        folder = _folder()
        try:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise ClientStateError(
                    f"shared='host': {folder} must be a folder that only this user may enter (mode 700): see whose "
                    "it is, and remove it"
                )
            store = cls(folder, identity, lease_s)
            for path in store._paths.values():
                os.close(_opened(path))
        except OSError as error:
            raise ClientStateError(f"shared='host': can't use {folder}: {error.strerror or error}") from error
        except StoreLost as error:
            raise ClientStateError(f"shared='host': {error}") from None
        return store

    async def lease(self, category: Category, ask: Ask) -> Grant:
        """See `Store`. Raises `StoreLost` also when another process holds the lock and does not go on."""
        try:
            file = await _locked(self._paths[category])
        except OSError as error:
            raise _lost(error, unchanged=True) from error
        try:
            state, grant = lease(self._read(file), ask, time.monotonic())
            self._write(file, state)
        except OSError as error:
            raise _lost(error, unchanged=False) from error
        finally:
            os.close(file)  # and with it the lock
        return grant

    async def aclose(self) -> None:
        """Nothing is held between leases."""

    def _read(self, file: int) -> State | None:
        """What the file holds; None when that is of before the machine's last start, or unreadable."""
        try:
            content: Any = json.loads(os.pread(file, _MAX_BYTES, 0))
            if content["version"] != VERSION or content["boot"] != self._boot:
                return None
            return _state_of(content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _write(self, file: int, state: State) -> None:
        text = json.dumps({"version": VERSION, "boot": self._boot, **_values_of(state)})
        content = text.encode().ljust(-(-len(text) // _BLOCK_BYTES) * _BLOCK_BYTES)
        os.pwrite(file, content, 0)
        if os.fstat(file).st_size > len(content):
            os.ftruncate(file, len(content))


async def _locked(path: Path) -> int:
    """The file, open and locked. A lock that is taken is tried again, with short sleeps between."""
    deadline_s, sleep_s = time.monotonic() + STORE_TIMEOUT_S, _FIRST_SLEEP_S
    while time.monotonic() <= deadline_s:
        file = _opened(path)
        try:
            # One that was removed before it was locked is not the others' any more.
            if _lock(file) and os.fstat(file).st_nlink:
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        await asyncio.sleep(sleep_s)
        sleep_s = min(2 * sleep_s, _LONGEST_SLEEP_S)
    raise StoreLost("another process holds the lock and does not go on", unchanged=True)


def _opened(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(file)
        raise StoreLost(f"{path} is not a file of this user's alone: remove it", unchanged=True)
    return file


def _folder() -> Path:
    """`$XDG_RUNTIME_DIR/toapis-<uid>` where that is this user's own, else `/tmp/toapis-<uid>`."""
    user = os.geteuid()
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    with contextlib.suppress(OSError, ValueError):
        if runtime.is_absolute() and runtime.is_dir() and runtime.stat().st_uid == user:
            return runtime / f"toapis-{user}"
    return Path("/tmp") / f"toapis-{user}"  # noqa: S108  (one for all processes; its owner and mode are checked)


def _boot_id() -> str:
    """Which start of the machine this is: its monotonic clock begins anew with each."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def _lock(file: int) -> bool:
    """Whether the lock was to be had."""
    import fcntl  # noqa: PLC0415  (not on Windows)

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lost(error: OSError, *, unchanged: bool) -> StoreLost:
    return StoreLost(error.strerror or type(error).__name__, unchanged=unchanged)


def _values_of(state: State) -> dict[str, object]:
    return {name: getattr(state, name) for name in (*_NUMBERS, "members")}


def _state_of(values: dict[str, Any]) -> State:
    """A state as it was written. Raises `ValueError` and its like for anything else."""
    numbers = {name: int(values[name]) if name in _WHOLE else float(values[name]) for name in _NUMBERS}
    given = cast("dict[str, object]", values["members"])
    members = {member: float(cast("float", seen_s)) for member, seen_s in given.items()}
    if not all(map(math.isfinite, (*numbers.values(), *members.values()))) or len(members) > MOST_MEMBERS:
        raise ValueError("not a state")
    if numbers["burst"] < 1 or numbers["per_s"] <= 0 or not 0 < numbers["pace"] <= 1:
        raise ValueError("not a state")
    return State(**numbers, members=members)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
