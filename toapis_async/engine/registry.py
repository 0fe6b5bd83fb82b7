"""Every task that is watched, and the only place where one ends.

The poller (and, later, webhooks) report what they see; the first outcome wins. An entry is dropped here at its
outcome, so a client that lives for months does not grow; the handles that are still held keep theirs.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from toapis_async.errors import SessionClosed, TaskFailed, TaskNotFound, TaskOverdue
from toapis_async.events import TaskChanged, TaskEnded
from toapis_async.protocol.compression import compress, decompress
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.lifecycle import may_become
from toapis_async.protocol.wire import decode_task, with_id
from toapis_async.task import TaskError, TaskSnapshot, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toapis_async.errors import ToAPIsError, UnreadableAnswer
    from toapis_async.events import Event
    from toapis_async.protocol.polling.forecast import Forecast


Waiters: TypeAlias = "asyncio.Future[None] | list[asyncio.Future[None]] | None"
"""Most tasks have one waiter, and 100,000 lists for one each would weigh 10 MB."""


@define(eq=False, weakref_slot=False)
class Entry:
    """One watched task. Slotted and small: there may be 100,000."""

    task_id: str
    asked_id: str  #: the id the service is asked with; after `find` the client_business_id, known to work
    client_business_id: str | None
    since_s: float  #: loop time of the submission's answer, or of `attach`
    forecast: Forecast  #: of its request class; this and the next two are the schedule's
    status: TaskStatus | None = None  #: None until it was seen
    progress: int | None = None
    error: ToAPIsError | None = None  #: why it ended without an image: a failure, or the end of the watch
    ended: bool = False
    seen_s: float = 0.0
    polled_s: float = 0.0
    looks: int = 0
    failures: int = 0  #: looks in a row that got no usable answer
    on_end: Callable[[Entry], None] | None = None
    _shown: TaskSnapshot | bytes | None = field(default=None, init=False)
    _for_change: Waiters = field(default=None, init=False)
    _for_end: Waiters = field(default=None, init=False)

    def __lt__(self, other: Entry) -> bool:
        """Of two that are due at the same moment, the older comes first."""
        return self.since_s < other.since_s

    @property
    def snapshot(self) -> TaskSnapshot | None:
        """The task as it was last seen. Kept as the compressed answer until it is read: a twentieth of the memory."""
        shown = self._shown
        if isinstance(shown, bytes):
            decoded = decode_task(Answer(200, {}, decompress(shown)), self.task_id)
            self._shown = shown = with_id(decoded, self.task_id, self.client_business_id)
        return shown

    def show(self, snapshot: TaskSnapshot, body: bytes | None = None) -> None:
        """This is how the task stands; `body` is the answer that said so."""
        self.status, self.progress = snapshot.status, snapshot.progress
        if body is None or snapshot.status.is_final:
            self._shown = with_id(snapshot, self.task_id, self.client_business_id)
        else:
            self._shown = compress(body)

    @property
    def is_shown(self) -> bool:
        """Whether an answer has shown it; a status alone may be what an earlier session knew."""
        return self._shown is not None

    def is_shown_by(self, body: bytes) -> bool:
        """Whether an answer says what the last one said."""
        return isinstance(self._shown, bytes) and decompress(self._shown) == body

    def waiter_for_change(self) -> asyncio.Future[None]:
        """A future that is resolved at the next change. Whoever awaits it must `leave` it afterwards."""
        waiter = _new_waiter()
        self._for_change = _joined(self._for_change, waiter)
        return waiter

    def waiter_for_end(self) -> asyncio.Future[None]:
        """The same, resolved only when the watch ends: mere progress wakes nobody. It must not have ended yet."""
        waiter = _new_waiter()
        self._for_end = _joined(self._for_end, waiter)
        return waiter

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """This waiter was served, or its task was cancelled."""
        self._for_change = _left(self._for_change, waiter)
        self._for_end = _left(self._for_end, waiter)

    def raise_error(self) -> None:
        """Each waiter gets an exception of its own: one shared object would collect everybody's traceback."""
        if self.error is not None:
            raise copy.copy(self.error) from self.error

    def notify(self) -> None:
        """Wake those who wait for a change and, at the end, for the end."""
        for waiters in (self._for_change, self._for_end if self.ended else None):
            for waiter in _all(waiters):
                if not waiter.done():
                    waiter.set_result(None)


def _new_waiter() -> asyncio.Future[None]:
    # Each waiter has a future of its own, so that one that is cancelled disturbs no other; one future for all, behind
    # shields, and coroutines that wait here instead of at the caller, would take twice the memory.
    return asyncio.get_running_loop().create_future()


def _all(waiters: Waiters) -> list[asyncio.Future[None]]:
    if waiters is None:
        return []
    return waiters if isinstance(waiters, list) else [waiters]


def _joined(waiters: Waiters, waiter: asyncio.Future[None]) -> Waiters:
    return waiter if waiters is None else [*_all(waiters), waiter]


def _left(waiters: Waiters, leaver: asyncio.Future[None]) -> Waiters:
    remaining = [waiter for waiter in _all(waiters) if waiter is not leaver]
    return remaining if len(remaining) > 1 else next(iter(remaining), None)


class Registry:
    """id -> entry, for every task that is watched."""

    def __init__(
        self,
        emit: Callable[[Event], None],
        now_s: Callable[[], float],
        keep: Callable[[Entry], None] | None = None,
    ) -> None:
        """`keep` is told of every end, before anyone who waits."""
        self._keep = keep
        self._entries: dict[str, Entry] = {}
        self._emit = emit
        self._now_s = now_s
        self._missing_since_s: dict[Entry, float] = {}  # here, since few ever are
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
        watched = self._entries.setdefault(entry.task_id, entry)
        # One that was attached by its task id learns here whose budget and which record its end is about.
        watched.client_business_id = watched.client_business_id or entry.client_business_id
        if self._closed:
            self._close(watched)
        return watched

    def saw(self, entry: Entry, snapshot: TaskSnapshot, body: bytes | None = None) -> None:
        """A look (whose answer was `body`), or an event, showed the task. A final state ends it; what is older than
        known is ignored."""
        self.found(entry)
        if entry.ended or not may_become(entry.status, snapshot.status):
            return
        self._name_by_task_id(entry, snapshot)
        before = (entry.status, entry.progress) if entry.is_shown else None
        entry.show(snapshot, body)
        if snapshot.status.is_final:
            self._end(entry, task_failure(snapshot, entry.task_id, entry.client_business_id))
        elif before != (snapshot.status, snapshot.progress):
            self._emit(TaskChanged(entry.task_id, snapshot.status, snapshot.progress))
            entry.notify()

    def _name_by_task_id(self, entry: Entry, snapshot: TaskSnapshot) -> None:
        """A task that was attached by its client_business_id gets its own id once the service has told it."""
        by_business_id = snapshot.client_business_id == entry.task_id != snapshot.task_id
        if by_business_id and snapshot.task_id not in self._entries:
            self._entries[snapshot.task_id] = self._entries.pop(entry.task_id)
            entry.client_business_id, entry.task_id = entry.task_id, snapshot.task_id

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
        since_s = self._missing_since_s.setdefault(entry, now_s)
        if entry.status is None or now_s - since_s >= grace_s:
            self._end(entry, error)

    def found(self, entry: Entry) -> None:
        """The service knows the task (again)."""
        self._missing_since_s.pop(entry, None)

    def unreadable(self, entry: Entry, error: UnreadableAnswer) -> None:
        """The task is completed, but nobody can read where its images are."""
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
        self.found(entry)
        status = entry.status if entry.status and entry.status.is_final else None
        self.completed += status is TaskStatus.COMPLETED
        self.failed += status is TaskStatus.FAILED
        age_s = self._now_s() - entry.since_s
        self._emit(TaskEnded(entry.task_id, status, age_s, entry.looks, None if status else type(error).__name__))
        if self._keep is not None:
            self._keep(entry)
        on_end, entry.on_end = entry.on_end, None
        if on_end is not None:
            on_end(entry)
        entry.notify()


def task_failure(snapshot: TaskSnapshot, task_id: str, client_business_id: str | None) -> TaskFailed | None:
    """The error of a failed task; None for any other."""
    if snapshot.status is not TaskStatus.FAILED:
        return None
    error = snapshot.error or TaskError("", "the service gave no reason")
    return TaskFailed(
        error.message,
        task_id=task_id,
        client_business_id=client_business_id or snapshot.client_business_id,
        code=error.code,
        billing=snapshot.billing,
    )
