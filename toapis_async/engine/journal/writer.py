"""The journal as the engine uses it: one thread that writes, with everything that has gathered in one commit.

A submission waits for the commit that holds its intent, and for no other. What comes later (task ids, final states,
files) is written without waiting: a process that dies before it finds it out again from the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import frozen

from toapis_async.engine.journal import records as journal_records
from toapis_async.engine.journal.file import JournalFile, usable
from toapis_async.engine.journal.folder import open_in_folder
from toapis_async.engine.journal.port import TakenMeanwhile
from toapis_async.engine.threads import in_thread
from toapis_async.errors import JournalError, JournalLocked, SessionClosed
from toapis_async.log import logger
from toapis_async.protocol.links import LINK_LIFE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from toapis_async.engine.journal.locks import LockHeld
    from toapis_async.engine.journal.records import End, Intent, Record
    from toapis_async.settings import Credentials, Journal
    from toapis_async.task import Billing

T = TypeVar("T")
WRITE_LOCK_S: Final = 10.0
"""How long a commit waits for those of other processes, which take milliseconds each."""
_STEP_S: Final = 0.002  #: between two tries to begin a commit
NOTES_S: Final = 0.05
"""How long what nobody waits for waits for more of it, in a journal that processes share."""
_PAUSE_S: Final = 0.02  #: between two looks at what another process holds; those for a submission grow
RUN_END_S: Final = 5.0
"""How long to wait for a run that has just ended in another process: that is noted without anybody waiting there, which
takes a busy disk a while."""
RELEASE_S: Final = 900.0
"""How long to wait for another process that is submitting under the same id. With the default settings a submission
takes less."""
MOST_KEPT: Final = 100_000
"""Notes kept while the disk refuses them. Beyond that the oldest are dropped: a later process then queries the
service for what they said."""
_ITS_OWN_FAULT: Final = (
    ValueError,
    OverflowError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


@frozen(eq=False)
class _Item:
    """One thing to do in the thread; without a future nobody waits, and it is tried again when a commit fails."""

    act: Callable[[sqlite3.Connection], object]
    done: asyncio.Future[Any] | None = None


class JournalWriter:
    """An open journal. Opened before the engine, closed after it."""

    def __init__(self, file: JournalFile, name: str) -> None:
        self._file = file
        self._owner = file.owner
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._closed = False
        self._kept: list[_Item] = []
        self._thread = threading.Thread(target=self._work, name="toapis-journal", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, journal: Journal, credentials: Credentials) -> JournalWriter:
        """Open it, or raise `JournalLocked` or `JournalError`."""

        opened: list[JournalFile] = []

        def opening() -> None:
            with usable(journal.path):
                is_shared = journal.per_process or journal.path.is_dir()
            open_file = open_in_folder if is_shared else JournalFile.open
            opened.append(open_file(journal.path, credentials, same_account=journal.same_account))

        try:
            await in_thread(opening)
            return cls(opened[0], str(journal.path))
        except BaseException:
            for file in opened:  # cancelled meanwhile: the lock must not stay
                file.close()
            raise

    # -------------------------------------------------------------------------------------- writing

    async def intend(self, intent: Intent) -> None:
        """Returns once the intent is durable. Raises `JournalError`, and then nothing may be sent."""
        now_s = time.time()
        await self._do(lambda db: journal_records.put_intent(db, intent, now_s, self._owner))

    async def confirm(self, intent: Intent) -> None:
        """Returns at once: while this process has the journal, nobody takes its submissions over."""

    def accepted(self, client_business_id: str, task_id: str, query_id: str) -> None:
        """The service has taken it; `query_id` is the id by which it is known to be found."""
        now_s = time.time()
        self._note(lambda db: journal_records.put_accepted(db, client_business_id, task_id, query_id, now_s))

    def ended(self, client_business_id: str, end: End) -> None:
        """Its final state, or that it was not taken."""
        now_s = time.time()
        self._note(lambda db: journal_records.put_end(db, client_business_id, end, now_s, self._owner))

    def billed(self, client_business_id: str, billing: Billing) -> None:
        """A newer bill of a task that ended."""
        self._note(lambda db: journal_records.put_bill(db, client_business_id, billing))

    def saved(self, client_business_id: str, names: Sequence[str | None]) -> None:
        """Names of its files on disk, in the images' order; None for one that is not there."""
        now_s, kept = time.time(), tuple(names)
        self._note(lambda db: journal_records.put_files(db, client_business_id, kept, now_s))

    def lost(self, client_business_id: str) -> None:
        """Its links are dead, and none of its files could be had."""
        now_s = time.time()
        self._note(lambda db: journal_records.put_lost(db, client_business_id, now_s))

    def acknowledged(self, client_business_id: str) -> None:
        """Its result is in good hands: it need not be given again."""
        now_s = time.time()
        self._note(lambda db: journal_records.put_acknowledged(db, client_business_id, now_s))

    # -------------------------------------------------------------------------------------- beside other processes

    @property
    def is_shared(self) -> bool:
        """Whether other processes may use it, too."""
        return self._owner is not None

    async def hold(self, client_business_id: str) -> None:
        """Returns once an intent that was left in doubt is this process's to look up. Raises `TakenMeanwhile`."""

        def act(db: sqlite3.Connection) -> bool:
            is_free = self._submitter_of(db, client_business_id) is None
            return is_free and journal_records.hold_intent(db, client_business_id, self._owner)

        if self.is_shared and not await self._do(act):
            raise TakenMeanwhile("another process is looking it up")

    def left(self, client_business_id: str) -> None:
        """Its submission ended in doubt: any process may look it up."""
        if self.is_shared:
            self._note(lambda db: journal_records.leave_intent(db, client_business_id, self._owner))

    async def released(self, client_business_id: str) -> bool:
        """Returns once no other process is submitting it: False at once, or True after a wait. Raises `JournalLocked`
        when that takes longer than a submission can."""
        if not self.is_shared:
            return False
        until_s, pause_s = self._loop.time() + RELEASE_S, _PAUSE_S
        while (held := await self._do(lambda db: self._submitter_of(db, client_business_id))) is not None:
            if self._loop.time() >= until_s:
                raise JournalLocked(
                    f"{held} has been submitting {client_business_id!r} for {RELEASE_S:g} s: see whether it was "
                    "stopped; nothing was sent here"
                )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)
        return pause_s > _PAUSE_S

    def _submitter_of(self, db: sqlite3.Connection, client_business_id: str) -> LockHeld | None:
        """The other process that is submitting it. In the thread."""
        name = journal_records.submitter_of(db, client_business_id)
        return None if name == self._owner else self._alive(name)

    def _alive(self, name: str | None) -> LockHeld | None:
        return None if self._file.processes is None else self._file.processes.holder(name)

    def _is_alive(self, name: str) -> bool:
        return self._alive(name) is not None

    async def begin_run(self, name: str) -> None:
        """Returns once the run is this process's. Raises `JournalLocked` while it is going on in another."""
        owner = self._owner
        if owner is None:
            return

        def act(db: sqlite3.Connection) -> LockHeld | None:
            other = journal_records.run_owner(db, name)
            held = None if other == owner else self._alive(other)
            if held is None:
                journal_records.put_run(db, name, owner)
            return held

        until_s = self._loop.time() + RUN_END_S
        while (held := await self._do(act)) is not None:
            if self._loop.time() >= until_s:
                raise JournalLocked(
                    f"the run {name!r} is going on in {held}: wait for it to end there, or take another name"
                )
            await asyncio.sleep(_PAUSE_S)

    def end_run(self, name: str) -> None:
        """The run may go on in any process."""
        if (owner := self._owner) is not None:
            self._note(lambda db: journal_records.end_run(db, name, owner))

    # -------------------------------------------------------------------------------------- reading

    async def of_row(self, run: str, key: str | None, digest: str, occurrence: int) -> Record | None:
        """What is known of a batch's row from this run's earlier passes."""
        return await self._do(lambda db: journal_records.record_of_row(db, run, key, digest, occurrence))

    async def of_id(self, client_business_id: str) -> Record | None:
        """What is known of a submission."""
        return await self._do(lambda db: journal_records.record_of_id(db, client_business_id))

    async def paid(self, run: str | None, *, unsaved: bool = False) -> AsyncIterator[Record]:
        """The rows of a run (None: everything in the journal) that the service has charged, or may have, in the order
        they were sent; with `unsaved`, those that may have images which are not on disk. A page at a time, however many
        they are."""
        after = 0
        while page := await self.paid_page(run, after, unsaved=unsaved):
            for record in page:
                yield record
            after = page[-1].number

    async def paid_page(self, run: str | None, after: int, *, unsaved: bool = False) -> tuple[Record, ...]:
        """The next few of `paid`, after the record of this number."""
        return await self._do(partial(journal_records.paid, run=run, after=after, unsaved=unsaved))

    async def fact(self, name: str, value: str) -> str:
        """What was written down under this name first: `value`, unless there was something already."""
        return await self._do(partial(journal_records.put_fact, name=name, value=value))

    async def recoverable(self) -> tuple[tuple[Record, ...], int]:
        """The plain submissions that are unfinished, or finished within the life of their links with nobody having
        their result: the newest, without their answers; and how many there are in all. Beside other processes, those
        of the ones that are gone, which are this one's from then on."""
        since_s, owner = time.time() - LINK_LIFE.total_seconds(), self._owner
        if owner is None:
            return await self._do(partial(journal_records.recoverable, since_s=since_s))
        return await self._do(lambda db: journal_records.take_over(db, since_s, owner, self._is_alive))

    # -------------------------------------------------------------------------------------- the thread

    async def flush(self) -> None:
        """Returns once everything called for so far was tried, and whoever waits for it has its result or error."""
        with contextlib.suppress(JournalError, SessionClosed):
            await self._do(lambda _: None)

    async def aclose(self) -> None:
        """Write what is left, and free the journal for other processes."""
        self.forget()
        await in_thread(self._thread.join)

    def forget(self) -> None:
        """The same without waiting. May be called in any thread."""
        if not self._closed:
            self._closed = True
            self._items.put(None)

    async def _do(self, act: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise SessionClosed("the client was closed before this was sent")
        done: asyncio.Future[T] = self._loop.create_future()
        self._items.put(_Item(act, done))
        return await done

    def _note(self, act: Callable[[sqlite3.Connection], object]) -> None:
        if not self._closed:
            self._items.put(_Item(act))

    def _work(self) -> None:
        """The thread: all that has gathered meanwhile, in one commit, until `None` comes."""
        more = True
        try:
            while more:
                group = self._gathered()
                more = None not in group
                self._commit([item for item in group if item is not None])
        finally:
            self._file.close()

    def _gathered(self) -> list[_Item | None]:
        """What there is to commit. Beside other processes, notes wait a moment for more of them, or for somebody who
        waits: each commit holds up theirs."""
        group: list[_Item | None] = []
        item = self._items.get()
        until_s = time.monotonic() + (NOTES_S if self.is_shared else 0.0)
        while True:
            group.append(item)
            if item is None:
                break
            if item.done is not None:
                until_s = 0.0
            try:
                item = self._items.get(timeout=max(until_s - time.monotonic(), 0.0))
            except queue.Empty:
                break
        return group

    def _commit(self, items: list[_Item]) -> None:
        group = [*self._kept, *items]
        db = self._file.connection
        try:
            # What nobody waits for goes to the disk with the next intent: what a power loss takes of it is found out
            # again from the service, as after the death of a process. Others hold the lock for less time so.
            is_awaited = any(item.done is not None for item in group)
            db.execute(f"PRAGMA synchronous = {'FULL' if is_awaited else 'NORMAL'}")
            self._begin(db)
            results = [self._done(item, db) for item in group]
            db.execute("COMMIT")
        except Exception as error:  # the disk is full, read-only or broken; or a bug, which must not end the thread
            with contextlib.suppress(sqlite3.Error):  # a disk that is broken; it must not end the thread
                if db.in_transaction:
                    db.execute("ROLLBACK")
            self._failed(group, error)
        else:
            self._kept = []
            self._resolve_waiting(group, results)

    def _begin(self, db: sqlite3.Connection) -> None:
        """Begin a commit. Beside other processes it is tried in short steps for a bounded time: sqlite's own are long,
        so that one of many that write at once could come too late each time."""
        until_s = time.monotonic() + WRITE_LOCK_S
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not self.is_shared or error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until_s:
                    raise
                time.sleep(_STEP_S)
            else:
                return

    def _done(self, item: _Item, db: sqlite3.Connection) -> object:
        """One item's result. A value that sqlite can't take is its own fault, and must not hold up the others."""
        try:
            return item.act(db)
        except journal_records.SentAlready as error:
            return TakenMeanwhile(str(error))
        except JournalError as error:  # whether another process lives can't be told
            return error
        except _ITS_OWN_FAULT as error:
            logger.error("the journal %s can't hold this: %s", self._name, error)
            return JournalError(f"the journal {self._name} can't hold this: {error}; nothing was sent")

    def _failed(self, group: list[_Item], error: Exception) -> None:
        """Whoever waits gets the error; what nobody waits for is kept for the next commit."""
        if not self._kept:
            logger.error("the journal %s can't be written: %s", self._name, error)
        self._kept = [item for item in group if item.done is None][-MOST_KEPT:]
        waiting = [item for item in group if item.done is not None]
        self._resolve_waiting(waiting, [self._failure(error) for _ in waiting])

    def _failure(self, error: Exception) -> JournalError:
        """One for each who waits: the ids of its submission are added to it later."""
        is_busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        reason = f"another process has been writing for {WRITE_LOCK_S:g} s (was it stopped?)" if is_busy else error
        failure = JournalError(f"the journal {self._name} can't be written: {reason}; nothing was sent")
        failure.__cause__ = error
        return failure

    def _resolve_waiting(self, group: list[_Item], results: Sequence[object]) -> None:
        resolved = [(item.done, result) for item, result in zip(group, results, strict=True) if item.done is not None]
        if resolved:
            try:
                self._loop.call_soon_threadsafe(_resolve, resolved)
            except RuntimeError:  # the loop was closed: nobody waits any more
                return


def _resolve(resolved: list[tuple[asyncio.Future[Any], object]]) -> None:
    for done, result in resolved:
        if done.done():  # its caller was cancelled
            continue
        if isinstance(result, JournalError):
            done.set_exception(result)
        else:
            done.set_result(result)
