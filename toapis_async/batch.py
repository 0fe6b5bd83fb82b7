"""Many requests at once, each an item with its result or its error."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import frozen

from toapis_async.errors import ClientStateError, InvalidRequest, SessionClosed, ToAPIsError
from toapis_async.log import logger
from toapis_async.models import BatchItem
from toapis_async.rows import Row, RowReader, rows_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from os import PathLike
    from types import TracebackType

    from toapis_async.engine.core import Engine
    from toapis_async.handle import TaskHandle
    from toapis_async.models import Generation
    from toapis_async.request import ImageRequest
    from toapis_async.rows import Source

BUFFER_ITEMS: Final = 1_000
"""Finished items that may wait for a slow consumer before no more rows are taken from the source."""
SUBMITTING_ROWS: Final = 64
"""Rows that may be on their way to the service at once. More would only lengthen the queue for the submit bucket,
in which a single `generate` beside the batch has to wait its turn."""


@frozen
class BatchStatistics:
    """A batch at one moment."""

    taken: int  #: rows taken from the source
    in_flight: int  #: rows being submitted or worked on by the service
    saving: int  #: rows whose files are being fetched
    done: int  #: rows that ended well
    failed: int  #: rows that ended with an error
    waiting_for_consumer: int
    elapsed_s: float


class Batch:
    """One pass over a source of requests. Iterate for items as they complete, or `await gather()` for input order.

    A bad row, a failed task and a broken download are items with `ok=False`; only misuse raises, and a source that
    itself fails (its error is raised after the items of what it gave before). Single use. Leave early through
    `async with`: nothing more is sent, and what the service works on stays watched by the client.

    The source is read on the event loop and only as fast as rows can be sent; a slow consumer slows it down.
    """

    def __init__(
        self,
        engine: Engine,
        submit: Callable[[ImageRequest], Awaitable[TaskHandle]],
        source: Source,
        *,
        key: Callable[[Any], str] | str | None,
        save_to: str | PathLike[str] | None,
        max_in_flight: int,
    ) -> None:
        if isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable | AsyncIterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest("a batch takes an iterable of requests, mappings or prompts, not a single one")
        if type(max_in_flight) is not int or max_in_flight < 1:
            raise InvalidRequest(f"max_in_flight must be a whole number from 1, not {max_in_flight!r}")
        self._engine = engine
        self._submit = submit
        self._source = source
        self._reader = RowReader(key)
        self._save_to = Path(save_to) if save_to is not None else None
        self._permits = asyncio.Semaphore(max_in_flight)
        self._submitting = asyncio.Semaphore(SUBMITTING_ROWS)
        self._running = asyncio.Event()
        self._running.set()
        self._stopped = False
        self._finished: deque[BatchItem] = deque()
        self._news = asyncio.Event()  # an item was finished, or everything was
        self._room = asyncio.Event()  # the consumer has taken an item, or no more rows are wanted
        self._stopping = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._started_s = 0.0
        self._taken = self._in_flight = self._saving = self._done = self._failed = 0

    # -------------------------------------------------------------------------------------- consuming

    def __aiter__(self) -> AsyncIterator[BatchItem]:
        if self._main is not None or self._stopped:
            raise ClientStateError("a batch can be iterated once: make another with client.batch(…)")
        self._started_s = time.monotonic()
        self._main = asyncio.get_running_loop().create_task(self._run(), name="toapis-batch")
        self._engine.dependents.add(self)
        self._main.add_done_callback(self._ended)
        return self

    async def __anext__(self) -> BatchItem:
        if self._main is None:
            raise ClientStateError("iterate over a batch with `async for item in batch`")
        while not self._finished:
            if self._main.cancelled():
                raise SessionClosed("the batch was closed while it ran")
            if self._main.done():
                self._main.result()  # raises what the source raised
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        self._room.set()
        return self._finished.popleft()

    async def gather(self) -> list[BatchItem]:
        """All items, in the order of the source."""
        return sorted([item async for item in self], key=lambda item: item.index)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -------------------------------------------------------------------------------------- steering

    def pause(self) -> None:
        """Admit no more rows until `resume`; what runs goes on."""
        self._running.clear()

    def resume(self) -> None:
        """Go on admitting rows."""
        self._running.set()

    def stop(self) -> None:
        """Admit no more rows at all; iteration ends when what runs has ended."""
        self._stopped = True
        self._stopping.set()
        self._running.set()
        self._room.set()

    async def aclose(self) -> None:
        """Leave at once. What the service works on stays watched, and paid for; its ids are in the client's
        `unclaimed()`."""
        self.stop()
        main = self._main
        if main is None or main.done():
            return
        if self._in_flight or self._finished:
            logger.warning(
                "batch left with %d rows still running and %d finished items not read",
                self._in_flight,
                len(self._finished),
            )
        main.cancel()
        await asyncio.wait([main])

    def statistics(self) -> BatchStatistics:
        """A snapshot of the counters."""
        return BatchStatistics(
            taken=self._taken,
            in_flight=self._in_flight,
            saving=self._saving,
            done=self._done,
            failed=self._failed,
            waiting_for_consumer=len(self._finished),
            elapsed_s=time.monotonic() - self._started_s if self._started_s else 0.0,
        )

    def __repr__(self) -> str:
        return f"<Batch {self._done} done, {self._failed} failed, {self._in_flight} in flight>"

    # -------------------------------------------------------------------------------------- running

    async def _run(self) -> None:
        """Admit rows while there is room; the task group waits for their ends."""
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group, aclosing(rows_of(self._source)) as source:
            while await self._may_admit():
                try:
                    raw = await self._next_of(source)
                except StopAsyncIteration:
                    break
                except Exception as error:  # the source's own: raised to the consumer after the items
                    failure = error
                    break
                row = await self._reader.read(raw)
                self._taken += 1
                self._in_flight += 1
                group.create_task(self._process(row))
        if failure is not None:
            raise failure

    async def _next_of(self, source: AsyncIterator[object]) -> object:
        """What the source gives next. A `stop` does not wait for an asynchronous source that is silent."""
        if not isinstance(self._source, AsyncIterable):
            return await anext(source)
        reading = asyncio.ensure_future(anext(source))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            raise StopAsyncIteration
        finally:
            stopping.cancel()
            if not reading.done():  # a source that is being read can't be closed
                reading.cancel()
                await asyncio.wait([reading])
                if not reading.cancelled():
                    reading.exception()  # marks it retrieved: nobody wants it any more

    async def _may_admit(self) -> bool:
        """Wait for permits and for room in the buffer; False when no more rows are wanted."""
        await self._permits.acquire()
        await self._submitting.acquire()
        while not self._stopped:
            if len(self._finished) + self._saving >= BUFFER_ITEMS:
                self._room.clear()
                await self._room.wait()
            elif not self._running.is_set():
                await self._running.wait()
            else:
                return True
        return False

    async def _process(self, row: Row) -> None:
        """One row from its request to its item."""
        generation: Generation | None = None
        files: tuple[Path, ...] = ()
        error: ToAPIsError | None = None
        try:
            generation = await self._generate(row)
            if self._save_to is not None:
                files = await self._save(row, generation, self._save_to)
        except ToAPIsError as caught:
            error = caught
        ids = row.handle or error
        self._finish(
            BatchItem(
                index=row.index,
                key=row.key,
                request=row.request,
                ok=error is None,
                generation=generation,
                files=files,
                error=error,
                task_id=ids.task_id if ids else None,
                client_business_id=ids.client_business_id if ids else None,
            )
        )

    async def _generate(self, row: Row) -> Generation:
        """Submit and await; both permits are given back as soon as their part is over, never at consumption."""
        try:
            try:
                if row.request is None:
                    assert row.error is not None
                    raise row.error
                row.handle = await self._submit(row.request)
            finally:
                self._submitting.release()
            return await row.handle
        except asyncio.CancelledError:
            if row.handle is not None and row.handle.client_business_id is not None:
                self._engine.submitter.unclaimed.append(row.handle.client_business_id)
            raise
        finally:
            self._in_flight -= 1
            self._permits.release()

    async def _save(self, row: Row, generation: Generation, folder: Path) -> tuple[Path, ...]:
        self._saving += 1
        try:
            return await self._engine.downloads.save(generation, folder, row.stem)
        finally:
            self._saving -= 1

    def _finish(self, item: BatchItem) -> None:
        self._done += item.ok
        self._failed += not item.ok
        self._finished.append(item)
        self._news.set()

    def _ended(self, main: asyncio.Task[None]) -> None:
        self._engine.dependents.discard(self)
        self._news.set()
        if not main.cancelled():
            main.exception()  # marks it retrieved: a consumer that left does not come back for it
