"""One watched task, and those who wait for it."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from toapis_async.events import TaskEnded
from toapis_async.protocol.compression import compress, decompress
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.lifecycle import failure_of
from toapis_async.protocol.wire import Unfinished, decode_task, with_id
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.errors import ToAPIsError
    from toapis_async.protocol.endpoints import Endpoint
    from toapis_async.protocol.polling.forecast import Forecast
    from toapis_async.protocol.wire import Seen
    from toapis_async.task import TaskSnapshot

Waiters: TypeAlias = "asyncio.Future[None] | list[asyncio.Future[None]] | None"
"""Most tasks have one waiter, and 100,000 lists for one each would weigh 10 MB."""


@define(eq=False, weakref_slot=False)
class Entry:
    """One watched task. Slotted and small: there may be 100,000. Only `engine.tasks` makes one, and ends it."""

    task_id: str
    query_id: str  #: the id the service is queried with: the task's own, or the client_business_id it was found by
    client_business_id: str | None
    endpoint: Endpoint
    since_s: float  #: loop time of the submission's answer, or of `attach`
    forecast: Forecast  #: of its request class; this and the next two are the schedule's
    status: TaskStatus | None = None  #: None until it was seen
    progress: int | None = None
    error: ToAPIsError | None = None  #: why it ended without an image: a failure, or the end of the watch
    ended: bool = False
    seen_s: float = 0.0
    polled_s: float = 0.0
    polls: int = 0
    failures: int = 0  #: polls in a row that got no usable answer
    claimed: TaskStatus | None = None  #: what the last poll's word claims of its end
    request_class: str | None = None
    without_files: int = 0  #: reports that it is completed, but named no file
    fallback: Endpoint | None = None  #: where else it may be found, for one attached without a kind
    on_end: Callable[[Entry], None] | None = None
    same_as: Entry | None = None  #: goes on for this one: both turned out to be of one task
    _latest: TaskSnapshot | bytes | None = field(default=None, init=False)
    _for_change: Waiters = field(default=None, init=False)
    _for_end: Waiters = field(default=None, init=False)

    def __lt__(self, other: Entry) -> bool:
        """Of two that are due at the same moment, the older comes first."""
        return self.since_s < other.since_s

    @classmethod
    def settled(cls, snapshot: TaskSnapshot, endpoint: Endpoint, forecast: Forecast) -> Entry:
        """The entry of a task that ended in an earlier session: it is not watched."""
        entry = cls.unread(snapshot.task_id, snapshot.client_business_id, endpoint, forecast)
        entry.update(snapshot)
        entry.error = failure_of(snapshot)
        return entry

    @classmethod
    def unread(cls, task_id: str, client_business_id: str | None, endpoint: Endpoint, forecast: Forecast) -> Entry:
        """The same, completed, before its answer was read."""
        status = TaskStatus.COMPLETED
        return cls(task_id, task_id, client_business_id, endpoint, 0.0, forecast, status, ended=True)

    @property
    def current(self) -> Entry:
        """The entry that is watched for this task: itself, unless another goes on for it."""
        entry = self
        while entry.same_as is not None:
            entry = entry.same_as
        return entry

    @property
    def snapshot(self) -> TaskSnapshot | None:
        """The task as it was last seen. Kept as the answer until it is read: a tenth of the memory, or less."""
        latest = self._latest
        if isinstance(latest, bytes):
            decoded = decode_task(Answer(200, {}, decompress(latest)), self.task_id, kind=self.endpoint.kind)
            self._latest = latest = with_id(decoded, self.task_id, self.client_business_id)
        return latest

    @property
    def has_own_id(self) -> bool:
        """Whether the task's own id is known; until then it goes by its client_business_id."""
        return self.task_id != self.client_business_id

    @property
    def has_snapshot(self) -> bool:
        """Whether an answer has shown it; a status alone may be what an earlier session knew."""
        return self._latest is not None

    def update(self, task: Seen, body: bytes | None = None, *, packed: bool = True) -> None:
        """This is how the task stands; `body` is the answer that said so, kept `packed` while the task is at work."""
        self.status, self.progress = task.status, task.progress
        self.claimed = None if isinstance(task, Unfinished) else task.claimed_status
        if not isinstance(task, Unfinished) and (body is None or task.status.is_final):
            self._latest = with_id(task, self.task_id, self.client_business_id)
        else:
            assert body is not None
            self._latest = compress(body) if packed else body

    def is_repeated_by(self, body: bytes) -> bool:
        """Whether an answer says what the last one said."""
        return isinstance(self._latest, bytes) and decompress(self._latest) == body

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

    def hand_over(self, successor: Entry) -> None:
        """Another entry goes on for this one: it ends unnoticed, and those who wait wait for the other."""
        self.same_as, self.ended = successor, True
        for waiter in _all(self._for_change):
            successor._for_change = _joined(successor._for_change, waiter)
        for waiter in _all(self._for_end):
            successor._for_end = _joined(successor._for_end, waiter)
        self._for_change = self._for_end = None

    def raise_error(self) -> None:
        """Each waiter gets an exception of its own: one shared object would collect everybody's traceback."""
        if self.error is not None:
            raise copy.copy(self.error) from self.error

    def end_event(self, at_s: float) -> TaskEnded:
        """The event of its end, with what the service said of it."""
        is_outcome = self.status is not None and self.status.is_final
        outcome = self.snapshot if is_outcome else None
        return TaskEnded(
            at_s,
            self.task_id,
            self.client_business_id,
            self.status if is_outcome else None,
            at_s - self.since_s,
            self.polls,
            reason=None if is_outcome else type(self.error).__name__,
            code=outcome.error.code if outcome is not None and outcome.error is not None else None,
            created_at=outcome.created_at if outcome is not None else None,
            completed_at=outcome.completed_at if outcome is not None else None,
            usage=outcome.usage if outcome is not None else None,
        )

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
