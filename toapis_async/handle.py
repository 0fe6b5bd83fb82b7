"""One task, as its user holds it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NoReturn, TypeVar

from attrs import evolve

from toapis_async.display.html import block, gallery, progress_bar, tile, words
from toapis_async.errors import ClientStateError, InvalidRequest, WaitTimeout
from toapis_async.models import Generation
from toapis_async.protocol.token import Token
from toapis_async.task import GeneratedImage, GeneratedVideo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping

    from toapis_async.engine.entry import Entry
    from toapis_async.models import Saver
    from toapis_async.request import Kind
    from toapis_async.task import TaskSnapshot, TaskStatus

F = TypeVar("F", GeneratedImage, GeneratedVideo)


class TaskHandle:
    """A task the service has taken. `await handle` gives its `Generation`; any number of waiters cost what one costs.

    A handle keeps its task's outcome for as long as it is held, also after the client has let go of the task.
    """

    __slots__ = ("_asked", "_begun", "_loop", "_saver")

    def __init__(
        self, entry: Entry, saver: Saver, loop: asyncio.AbstractEventLoop, asked: Mapping[str, object] | None = None
    ) -> None:
        self._asked = asked
        self._begun = entry
        self._saver = saver
        self._loop = loop

    @property
    def _entry(self) -> Entry:
        return self._begun.current

    @property
    def task_id(self) -> str:
        return self._entry.task_id

    @property
    def client_business_id(self) -> str | None:
        return self._entry.client_business_id or (self.snapshot.client_business_id if self.snapshot else None)

    @property
    def kind(self) -> Kind:
        """`"image"` or `"video"`; of a task attached without a kind, the one it is queried as until it is found."""
        return self._entry.endpoint.kind

    def token(self) -> str:
        """A short text that `client.attach` takes, in any process: it goes on with the right kind and age."""
        entry = self._entry
        token = Token(
            kind=self.kind,
            task_id=entry.task_id,
            query_id=entry.query_id,
            client_business_id=self.client_business_id,
            request_class=entry.request_class,
            submitted_at=round(time.time() - (self._loop.time() - entry.since_s), 3),
            age_factor=entry.endpoint.age_factor,
        )
        return str(token)

    @property
    def snapshot(self) -> TaskSnapshot | None:
        """The task as it was last seen; None for an attached task that was not polled yet."""
        return self._entry.snapshot

    @property
    def status(self) -> TaskStatus | None:
        return self._entry.status

    @property
    def progress(self) -> int | None:
        """0 to 100, as the service last said; None while it said nothing."""
        return self._entry.progress

    @property
    def done(self) -> bool:
        """Whether watching has ended, with an image or without."""
        return self._entry.ended

    def __await__(self) -> Generator[object, None, Generation]:
        return self.result().__await__()

    async def result(self, timeout_s: float | None = None) -> Generation:
        """The finished generation.

        Raises `TaskFailed`; `TaskOverdue`, `TaskNotFound` or `SessionClosed` when watching ended without an outcome;
        and `WaitTimeout` after `timeout_s`, which detaches from the task: it still runs and is still paid for.
        """
        self._check_loop()
        if timeout_s is not None:
            return await self._result_within(timeout_s)
        if not self._entry.ended:
            waiter = self._entry.waiter_for_end()
            try:
                await waiter
            finally:
                self._entry.leave(waiter)
        self._entry.raise_error()
        assert self._entry.snapshot is not None
        return generation_of(self._entry.snapshot, self._saver, self._asked)

    async def updates(self) -> AsyncIterator[TaskSnapshot]:
        """The current state, then every newer one as it is seen, ending with the final one, also when that is a
        failure. A slow reader sees the latest, not each. Raises only when watching itself ends."""
        self._check_loop()
        shown: TaskSnapshot | None = None
        while True:
            snapshot = self._entry.snapshot
            if snapshot is not None and snapshot != shown:
                shown = snapshot
                yield snapshot
                continue  # it may have changed again while the reader worked
            if self._entry.ended:
                if shown is None or not shown.status.is_final:
                    self._entry.raise_error()
                return
            waiter = self._entry.waiter_for_change()
            try:
                await waiter
            finally:
                self._entry.leave(waiter)

    async def _result_within(self, timeout_s: float) -> Generation:
        patience = patience_of(timeout_s)
        try:
            async with patience:
                return await self.result()
        except TimeoutError:
            if not patience.expired():
                raise
            if self._entry.ended:  # in the very tick of the time-out: what is known beats impatience
                return await self.result()
            raise WaitTimeout(
                f"task {self.task_id} was not finished within {timeout_s:g} s; "
                "it still runs and is still paid for: await the handle again, or attach its id later",
                task_id=self.task_id,
                client_business_id=self.client_business_id,
                token=self.token(),
            ) from None

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise ClientStateError("this handle belongs to another event loop: make a client in each loop")

    def acknowledge(self) -> None:
        """The result is in good hands: the journal need not give it again (`client.recovered()`). Saving it through
        the client does the same."""
        self._saver.acknowledge(self.client_business_id)

    def __reduce__(self) -> NoReturn:
        raise ClientStateError(
            "a handle can't be pickled or copied: handle.token() is a text that client.attach takes in any process"
        )

    def _repr_html_(self) -> str:
        """Its state, for notebooks, and its pictures when it has any."""
        snapshot = self.snapshot
        bar = "" if self.done else progress_bar(self.progress or 0, None if self.progress is None else 100)
        pictures = gallery([tile(snapshot.files, ())]) if snapshot is not None and snapshot.files else ""
        problem = f": {snapshot.error.message}" if snapshot is not None and snapshot.error is not None else ""
        return block(bar, pictures, words(f"{self.task_id} · {self._state}{problem}"))

    @property
    def _state(self) -> str:
        progress = f" {self.progress}%" if self.progress is not None else ""
        return f"{self.status or 'not seen yet'}{progress}"

    def __repr__(self) -> str:
        return f"<TaskHandle {self.task_id} {self._state}>"


class StoredHandle(TaskHandle):
    """A task that finished in an earlier session: its answer is read from the journal when it is first awaited, and
    `snapshot` is None until then."""

    __slots__ = ("_read",)

    def __init__(
        self, entry: Entry, saver: Saver, loop: asyncio.AbstractEventLoop, read: Callable[[Entry], Awaitable[None]]
    ) -> None:
        super().__init__(entry, saver, loop)
        self._read = read

    async def result(self, timeout_s: float | None = None) -> Generation:
        """The finished generation. Raises `JournalError` when the journal holds it no more."""
        await self._load()
        return await super().result(timeout_s)

    async def updates(self) -> AsyncIterator[TaskSnapshot]:
        """The final state."""
        await self._load()
        assert self._entry.snapshot is not None
        yield self._entry.snapshot

    async def _load(self) -> None:
        self._check_loop()
        if not self._entry.has_snapshot:
            await self._read(self._entry)


def generation_of(snapshot: TaskSnapshot, saver: Saver, asked: Mapping[str, object] | None = None) -> Generation:
    """A completed snapshot as the user's value."""
    return Generation(
        task_id=snapshot.task_id,
        client_business_id=snapshot.client_business_id,
        model=snapshot.model,
        images=_absolute(snapshot.images, saver),
        videos=_absolute(snapshot.videos, saver),
        created_at=snapshot.created_at,
        completed_at=snapshot.completed_at,
        billing=snapshot.billing,
        usage=snapshot.usage,
        raw=snapshot.raw,
        saver=saver,  # pyright: ignore[reportCallIssue]  (attrs takes the underscore off)
        asked=asked,  # pyright: ignore[reportCallIssue]
    )


def patience_of(timeout_s: object) -> asyncio.Timeout:
    """A time-out of so many seconds, from 0. Raises `InvalidRequest` for what is no such number."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s >= 0:  # NaN never ends
        raise InvalidRequest(f"timeout_s must be a number of seconds from 0, not {timeout_s!r}", field="timeout_s")
    return asyncio.timeout(timeout_s)


def wait_timeout(timeout_s: float, handle: TaskHandle | None, business_id: str) -> WaitTimeout:
    """The error of a caller who waited for so many seconds; without a handle, for the submission."""
    if handle is not None:
        what = f"task {handle.task_id} was not finished within {timeout_s:g} s; it still runs and is still paid for"
    else:
        what = (
            f"not submitted within {timeout_s:g} s; if its POST was under way it may still be taken and paid for: "
            f"client.find({business_id!r}) tells"
        )
    task_id, token = (handle.task_id, handle.token()) if handle is not None else (None, None)
    return WaitTimeout(what, task_id=task_id, client_business_id=business_id, token=token)


def _absolute(files: tuple[F, ...], saver: Saver) -> tuple[F, ...]:
    """A link without a host is on the API's own [field]."""
    if not any(file.url.startswith("/") for file in files):
        return files
    return tuple(evolve(file, url=saver.absolute(file.url)) for file in files)
