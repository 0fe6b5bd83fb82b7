"""Every task that is watched, and the only place where one ends.

The poller (and, later, webhooks) report what they see; the first outcome wins. An entry is dropped here at its
outcome, so a client that lives for months does not grow; the handles that are still held keep theirs.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from attrs import define, field

from toapis_async.errors import SessionClosed, TaskFailed, TaskNotFound, TaskOverdue
from toapis_async.events import TaskChanged, TaskEnded
from toapis_async.models import TaskError, TaskSnapshot, TaskStatus
from toapis_async.protocol.lifecycle import may_become
from toapis_async.protocol.wire import with_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toapis_async.errors import ToAPIsError
    from toapis_async.events import Event
    from toapis_async.protocol.forecast import Forecast


@define(eq=False)
class Entry:
    """One watched task. Slotted and small: there may be 100,000."""

    task_id: str
    asked_id: str  #: the id the service is asked with; after `find` the client_business_id, known to work
    client_business_id: str | None
    since_s: float  #: loop time of the submission's answer, or of `attach`
    forecast: Forecast  #: of its request class; this and the next two are the schedule's
    snapshot: TaskSnapshot | None = None
    error: ToAPIsError | None = None  #: why it ended without an image: a failure, or the end of the watch
    ended: bool = False
    looked_s: float = 0.0
    percent: int | None = None
    looks: int = 0
    failures: int = 0  #: looks in a row that got no usable answer
    missing_since_s: float | None = None
    on_end: Callable[[Entry], None] | None = None
    _changed: asyncio.Future[None] | None = field(default=None, init=False)
    _at_end: asyncio.Future[None] | None = field(default=None, init=False)

    @property
    def status(self) -> TaskStatus | None:
        return self.snapshot.status if self.snapshot else None

    @property
    def progress(self) -> int | None:
        return self.snapshot.progress if self.snapshot else None

    async def wait_change(self) -> None:
        """Until the next change. The future is made for the first waiter, shared by all and resolved with a value:
        each waits behind a shield of its own, so one that is cancelled disturbs no other."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    async def wait_end(self) -> None:
        """Until the watch ends; not woken by mere progress."""
        if self.ended:
            return
        if self._at_end is None:
            self._at_end = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._at_end)

    def raise_error(self) -> None:
        """Each waiter gets an exception of its own: one shared object would collect everybody's traceback."""
        if self.error is not None:
            raise copy.copy(self.error) from self.error

    def notify(self) -> None:
        """Wake those who wait for a change and, at the end, for the end."""
        changed, self._changed = self._changed, None
        for waiting in (changed, self._at_end if self.ended else None):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)


class Registry:
    """id -> entry, for every task that is watched."""

    def __init__(self, emit: Callable[[Event], None], now_s: Callable[[], float]) -> None:
        self._entries: dict[str, Entry] = {}
        self._emit = emit
        self._now_s = now_s
        self._closed = False
        self.completed = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def get(self, task_id: str) -> Entry | None:
        return self._entries.get(task_id)

    def add(self, entry: Entry) -> Entry:
        """Watch a task; one that is watched already keeps its entry.

        Race: an answer that was on the loop already when the client closed comes here afterwards. Nobody looks at its
        task any more, so its watch ends at once.
        """
        entry = self._entries.setdefault(entry.task_id, entry)
        if self._closed:
            self._close(entry)
        return entry

    def saw(self, entry: Entry, snapshot: TaskSnapshot) -> None:
        """A look, or an event, showed the task. A final state ends it; what is older than known is ignored."""
        entry.missing_since_s = None
        if entry.ended or not may_become(entry.status, snapshot.status):
            return
        before = entry.snapshot
        entry.snapshot = snapshot = with_id(snapshot, entry.task_id, entry.client_business_id)
        if snapshot.status.is_final:
            self._end(entry, _failure(snapshot))
        elif before is None or (before.status, before.progress) != (snapshot.status, snapshot.progress):
            self._emit(TaskChanged(entry.task_id, snapshot.status, snapshot.progress))
            entry.notify()

    def overdue(self, entry: Entry, max_age_s: float) -> None:
        """End the watch of a task that is unfinished after `max_age_s`."""
        error = TaskOverdue(
            f"task {entry.task_id} is unfinished after {max_age_s:g} s; it may still finish: attach it later",
            task_id=entry.task_id,
        )
        self._end(entry, error)

    def missing(self, entry: Entry, error: TaskNotFound, grace_s: float) -> None:
        """The service says it knows no such task. One that was never seen ends at once; one that was may be on a
        replica that lags, so its watch ends only when it stays away for `grace_s`."""
        now_s = self._now_s()
        if entry.missing_since_s is None:
            entry.missing_since_s = now_s
        if entry.snapshot is None or now_s - entry.missing_since_s >= grace_s:
            self._end(entry, error)

    def close(self) -> None:
        """End every watch with `SessionClosed`."""
        self._closed = True
        for entry in self:
            self._close(entry)

    def _close(self, entry: Entry) -> None:
        error = SessionClosed(
            f"the client was closed while task {entry.task_id} was running; it still runs: attach it again",
            task_ids=(entry.task_id,),
            client_business_ids=(entry.client_business_id,) if entry.client_business_id else (),
        )
        self._end(entry, error)

    def _end(self, entry: Entry, error: ToAPIsError | None) -> None:
        """The one place where a task ends: first outcome wins, everyone who waits is told."""
        if entry.ended:
            return
        entry.ended = True
        entry.error = error.concerning(entry.task_id, entry.client_business_id) if error else None
        self._entries.pop(entry.task_id, None)
        status = entry.status if entry.status and entry.status.is_final else None
        self.completed += status is TaskStatus.COMPLETED
        self.failed += status is TaskStatus.FAILED
        age_s = self._now_s() - entry.since_s
        self._emit(TaskEnded(entry.task_id, status, age_s, entry.looks, None if status else type(error).__name__))
        on_end, entry.on_end = entry.on_end, None
        if on_end is not None:
            on_end(entry)
        entry.notify()


def _failure(snapshot: TaskSnapshot) -> TaskFailed | None:
    if snapshot.status is not TaskStatus.FAILED:
        return None
    error = snapshot.error or TaskError("", "the service gave no reason")
    return TaskFailed(
        error.message,
        task_id=snapshot.task_id,
        client_business_id=snapshot.client_business_id,
        code=error.code,
        billing=snapshot.billing,
    )
