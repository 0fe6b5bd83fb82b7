"""What outlives a sandbox: tasks, uploads and ports, in memory or in a folder.

The folder holds one sqlite file and the uploads. A submission is committed before it is answered, so a
process that is killed with its sandbox inside loses nothing that was acknowledged. `synchronous=OFF`: the file system
keeps what a killed process wrote; only a power cut could lose it, and that is not worth an fsync for every
task of a stand-in.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from toapis_async.sandbox.faults import Fault
from toapis_async.sandbox.jobs import RefusedError
from toapis_async.sandbox.tasks import Failure, Task
from toapis_async.sandbox.validation import GENERATIONS
from toapis_async.sandbox.video_validation import understand

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from toapis_async.sandbox.jobs import JsonObject

T = TypeVar("T")

_FILE = "sandbox.sqlite3"
_APPLICATION_ID = 0x544F4150
_VERSION = 1
_SCHEMA = """
BEGIN;
CREATE TABLE task (number INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL UNIQUE, doc TEXT NOT NULL);
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
COMMIT;
"""
_UPSERT = "INSERT INTO task (task_id, doc) VALUES (?, ?) ON CONFLICT (task_id) DO UPDATE SET doc = excluded.doc"


class StateDirError(RuntimeError):
    """The folder can't be used: another sandbox has it open, or what is in it is not ours."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store knew when it was opened."""

    tasks: tuple[Task, ...] = ()
    ports: tuple[int, int] = (0, 0)


class Store(Protocol):
    """Where tasks and uploads are kept."""

    async def open(self) -> Kept:
        """Open it and say what it knew."""
        ...

    async def save_task(self, task: Task) -> None:
        """Keep a task; returns once it is committed."""
        ...

    def note_task(self, task: Task) -> None:
        """Keep a task that changed, with the next commit."""
        ...

    async def save_ports(self, ports: tuple[int, int]) -> None:
        """Keep the ports, so that links and origins stay when the folder is opened again."""
        ...

    async def save_upload(self, name: str, data: bytes) -> None:
        """Keep an upload."""
        ...

    async def read_upload(self, name: str) -> bytes | None:
        """An upload's bytes, or `None` if there is none of this name."""
        ...

    async def aclose(self) -> None:
        """Commit what was noted and let go of everything."""
        ...


class MemoryStore:
    """Keeps uploads while the sandbox lives; tasks are the service's own memory."""

    def __init__(self) -> None:
        self._uploads: dict[str, bytes] = {}

    async def open(self) -> Kept:
        return Kept()

    async def save_task(self, task: Task) -> None:
        pass

    def note_task(self, task: Task) -> None:
        pass

    async def save_ports(self, ports: tuple[int, int]) -> None:
        pass

    async def save_upload(self, name: str, data: bytes) -> None:
        self._uploads[name] = data

    async def read_upload(self, name: str) -> bytes | None:
        return self._uploads.get(name)

    async def aclose(self) -> None:
        self._uploads.clear()


class FolderStore:
    """Keeps everything in a folder, through one thread that owns the sqlite connection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="toapis-sandbox-store")
        self._connection: sqlite3.Connection | None = None
        self._rows: list[tuple[str, str]] = []
        self._queued = 0
        self._written = 0
        self._writing = asyncio.Lock()

    async def open(self) -> Kept:
        return await self._in_thread(self._open)

    async def save_task(self, task: Task) -> None:
        self.note_task(task)
        await self._commit(self._queued)

    def note_task(self, task: Task) -> None:
        self._rows.append((task.task_id, _document(task)))
        self._queued += 1

    async def save_ports(self, ports: tuple[int, int]) -> None:
        await self._in_thread(lambda: self._write_ports(ports))

    async def save_upload(self, name: str, data: bytes) -> None:
        await self._in_thread(lambda: self._write_upload(name, data))

    async def read_upload(self, name: str) -> bytes | None:
        return await self._in_thread(lambda: self._read_upload(name))

    async def aclose(self) -> None:
        try:
            if self._connection is not None:
                await self._commit(self._queued)
                await self._in_thread(self._connection.close)
        finally:
            self._connection = None
            self._thread.shutdown(wait=False)

    async def _commit(self, number: int) -> None:
        """Group commit: whoever gets the lock writes for all who wait, and these find their rows written."""
        async with self._writing:
            if self._written >= number:
                return
            rows, self._rows = self._rows, []
            until = self._queued
            await self._in_thread(lambda: self._write_rows(rows))
            self._written = until

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # What follows runs in the thread.

    def _open(self) -> Kept:
        try:
            (self._folder / "uploads").mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = self._connected()
            return self._known()
        except (sqlite3.DatabaseError, RefusedError) as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            raise StateDirError(_description(error, self._folder)) from error

    def _connected(self) -> sqlite3.Connection:
        path = self._folder / _FILE
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        with ExitStack() as closing_on_failure:
            closing_on_failure.callback(connection.close)
            # Exclusive: two sandboxes on one folder would each keep books of their own.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = OFF")
            self._prepare(connection)
            closing_on_failure.pop_all()
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        owner, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        if (owner, version) == (0, 0) and not _pragma(connection, "schema_version"):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        elif owner != _APPLICATION_ID:
            raise StateDirError(f"{self._folder / _FILE} is not a sandbox's file")
        elif version != _VERSION:
            raise StateDirError(f"{self._folder / _FILE} was written by another version of the sandbox")
        else:
            # Takes the lock now: a second sandbox is refused at its start, not at its first task.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript("BEGIN IMMEDIATE; COMMIT;")

    def _known(self) -> Kept:
        connection = self._opened()
        rows = connection.execute("SELECT doc FROM task ORDER BY number").fetchall()
        ports = connection.execute("SELECT value FROM fact WHERE name = 'ports'").fetchone()
        api, files = cast("list[int]", json.loads(ports[0])) if ports else (0, 0)
        return Kept(tuple(_task(doc) for (doc,) in rows), (api, files))

    def _write_rows(self, rows: list[tuple[str, str]]) -> None:
        connection = self._opened()
        connection.execute("BEGIN")
        connection.executemany(_UPSERT, rows)
        connection.execute("COMMIT")

    def _write_ports(self, ports: tuple[int, int]) -> None:
        self._opened().execute("INSERT OR REPLACE INTO fact VALUES ('ports', ?)", (json.dumps(ports),))

    def _write_upload(self, name: str, data: bytes) -> None:
        target = self._folder / "uploads" / name
        partial = target.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(target)

    def _read_upload(self, name: str) -> bytes | None:
        try:
            return (self._folder / "uploads" / name).read_bytes()
        except FileNotFoundError:
            return None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the sandbox's store is not open")
        return self._connection


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return cast("int", connection.execute(f"PRAGMA {name}").fetchone()[0])


def _description(error: sqlite3.DatabaseError | RefusedError, folder: Path) -> str:
    if isinstance(error, RefusedError):
        return f"{folder / _FILE} holds a task that this version of the sandbox refuses: {error}"
    if "locked" in str(error):
        return f"another sandbox has {folder} open"
    return f"{folder / _FILE} can't be read: {error}"


def _document(task: Task) -> str:
    """A task as JSON. Settlements are left out: they follow from the rest and the time."""
    return json.dumps(
        {
            "task_id": task.task_id,
            "user": task.user,
            "key_id": task.key_id,
            "path": task.job.path,
            "body": task.job.body,
            "accepted_at": task.accepted_at,
            "starts_at": task.starts_at,
            "finishes_at": task.finishes_at,
            "visible_at": task.visible_at,
            "files_live_s": task.files_live_s,
            "credits": task.credits,
            "settle_after_s": task.settle_after_s,
            "failure": None if task.failure is None else [task.failure.code, task.failure.message],
            "traits": sorted(task.traits),
            "vanished": task.vanished,
        }
    )


def _task(document: str) -> Task:
    fields = cast("JsonObject", json.loads(document))
    failure = cast("list[str] | None", fields["failure"])
    vanished = cast("str | None", fields["vanished"])
    return Task(
        task_id=cast("str", fields["task_id"]),
        user=cast("str", fields["user"]),
        key_id=cast("str", fields["key_id"]),
        job=understand(fields["body"], str(fields.get("path", GENERATIONS))),
        accepted_at=cast("float", fields["accepted_at"]),
        starts_at=cast("float", fields["starts_at"]),
        finishes_at=cast("float", fields["finishes_at"]),
        visible_at=cast("float", fields["visible_at"]),
        files_live_s=cast("float", fields["files_live_s"]),
        credits=cast("float", fields["credits"]),
        settle_after_s=cast("float", fields.get("settle_after_s", 0.0)),
        failure=None if failure is None else Failure(*failure),
        traits=frozenset(Fault(name) for name in cast("list[str]", fields["traits"])),
        vanished=None if vanished is None else Fault(vanished),
    )
