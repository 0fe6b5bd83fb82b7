"""Many requests at once, each an item with its result or its error."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sized
from typing import TYPE_CHECKING, Final, Self

from toapis_async.batch.attempts import Attempts
from toapis_async.batch.funds import Funds
from toapis_async.batch.item import BatchItem, BatchStatistics, RunningRow, item_of, running_row
from toapis_async.batch.rows import Row, RowReader
from toapis_async.batch.run import Run
from toapis_async.batch.source import cancellations, next_of, rows_of_frame
from toapis_async.batch.view import BatchView
from toapis_async.errors import (
    BudgetExceeded,
    ClientStateError,
    DownloadFailed,
    InvalidRequest,
    SessionClosed,
    TaskFailed,
    ToAPIsError,
)
from toapis_async.log import logger
from toapis_async.protocol.results import without_data
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from toapis_async.batch.options import BatchOptions
    from toapis_async.batch.rows import Reader, Source
    from toapis_async.engine.core import Engine
    from toapis_async.models import Generation

BUFFER_ITEMS: Final = 100
"""Finished items that may wait for a slow consumer before no more rows are taken from the source; and rows that are
admitted while no consumer waits for an item, since a frame or a traceback may keep the iterator of one that left."""
SUBMITTING_ROWS: Final = 64
"""Rows that may be on their way to the service at once. More would only lengthen the queue for the submit bucket,
in which a single `generate` beside the batch has to wait its turn."""


class Batch:
    """One pass over a source of requests. Iterate for items as they complete, or `await gather()` for input order.

    A bad row, a failed task and a broken download are items with `ok=False`. What raises is a call that can't be right
    (`InvalidRequest`), and a source that itself fails: its error comes after the items of what it gave before. Single
    use. Leaving early (see `aclose`) sends nothing more; what the service works on stays watched by the client.

    The source is read on the event loop and only as fast as rows can be sent; a slow consumer slows it down.
    """

    def __init__(
        self,
        engine: Engine,
        source: Source,
        options: BatchOptions,
        *,
        of_run: Run | None = None,
        reader: Reader | None = None,
    ) -> None:
        """`of_run` and `reader` take the places of the usual ones where a batch is a part of a larger run."""
        source = rows_of_frame(source)
        if isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable | AsyncIterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest("a batch takes an iterable of requests, mappings or prompts, not a single one")
        self._engine = engine
        self._of_run = of_run or Run(engine, options)
        self._source = source
        self._reader: Reader = reader or RowReader(options.key, options.kind)
        self._permits = asyncio.Semaphore(options.max_in_flight or engine.settings.max_in_flight)
        self._submitting = asyncio.Semaphore(SUBMITTING_ROWS)
        self._running = asyncio.Event()
        self._running.set()
        self._stopped = self._left = False
        self.stopped_by: ToAPIsError | None = None
        """A 401 or 402, after which no more rows are admitted: each would meet the same."""
        self._attempts = Attempts(engine.bills)
        self._total = len(source) if isinstance(source, Sized) else None
        self._funds = Funds(engine, self._of_run.budget, self._total)
        self._finished: deque[BatchItem] = deque()
        self._news = asyncio.Event()  # an item was finished, or everything was
        self._room = asyncio.Event()  # the consumer has taken an item, or no more rows are wanted
        self._open: dict[int, Row] = {}  # taken from the source, and not ended yet
        self._feeder: asyncio.Task[None] | None = None
        self._source_error: Exception | None = None
        self._main: asyncio.Task[None] | None = None
        self._started_s = self._ended_s = 0.0
        self._view = BatchView(self.statistics, is_wanted=options.progress)
        self._waiting = 0  # consumers that wait for an item
        self._admitted_ahead = 0  # rows admitted since a consumer last waited for an item
        self._taken = self._in_flight = self._saving = self._done = self._failed = 0

    # -------------------------------------------------------------------------------------- consuming

    def __aiter__(self) -> AsyncIterator[BatchItem]:
        if self._main is not None:
            raise ClientStateError("a batch can be iterated once: make another with client.batch(…)")
        if self._stopped:
            raise ClientStateError("the batch was stopped before it began: make another with client.batch(…)")
        self._of_run.begin()
        self._started_s = time.monotonic()
        self._main = asyncio.get_running_loop().create_task(self._view.during(self._run), name="toapis-batch")
        self._engine.dependents.add(self)
        self._main.add_done_callback(self._ended)
        return _Items(self)

    async def __anext__(self) -> BatchItem:
        """The next item to end. Raises `StopAsyncIteration` after the last, and what the source raised."""
        if self._main is None:
            raise ClientStateError("iterate over a batch with `async for item in batch`")
        self._waiting += 1
        self._admitted_ahead = 0
        self._room.set()
        try:
            while not self._finished:
                if self._main.cancelled():
                    raise SessionClosed("the batch was closed while it ran")
                if self._main.done():
                    self._main.result()  # raises what the source raised
                    raise StopAsyncIteration
                self._news.clear()
                await self._news.wait()
        finally:
            self._waiting -= 1
        self._room.set()
        return self._finished.popleft()

    async def gather(self) -> list[BatchItem]:
        """All items, in the order of the source. When it is cancelled, or the source raises, the batch is left as by
        `aclose`: items that had ended count as not read."""
        items, ended = aiter(self), list[BatchItem]()
        try:
            async for item in items:
                ended.append(item)
        except BaseException:
            self._finished.extendleft(reversed(ended))
            self.leave()
            raise
        return sorted(ended, key=lambda item: item.index)

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
        self._attempts.stop()
        if self._feeder is not None:
            self._feeder.cancel()

    async def aclose(self) -> None:
        """Leave at once: rows that wait for a turn are withdrawn. What the service works on, or has been sent, stays
        watched and paid for; its ids are in the client's `unclaimed()`. Leaving the iteration in any other way
        (`break`, an error, cancellation) does the same."""
        self.leave()
        if self._main is not None:
            await asyncio.wait([self._main])

    def leave(self) -> None:
        """The same without waiting for the end."""
        self.stop()
        if self._main is None or self._left:
            return
        self._left = True
        if self._main.done():
            self._leave_behind()
            return
        if self._open or self._finished:
            logger.warning(
                "batch left with %d rows still running and %d finished items not read",
                len(self._open),
                len(self._finished),
            )
        self._main.cancel()

    def leave_unless_awaited(self) -> None:
        """The same, unless another consumer waits for an item."""
        if not self._waiting:
            self.leave()

    def statistics(self) -> BatchStatistics:
        """A snapshot of the counters."""
        return BatchStatistics(
            taken=self._taken,
            in_flight=self._in_flight,
            saving=self._saving,
            done=self._done,
            failed=self._failed,
            waiting_for_consumer=len(self._finished),
            total=self._total,
            elapsed_s=(self._ended_s or time.monotonic()) - self._started_s if self._started_s else 0.0,
            credits_spent=self._of_run.budget.spent,
            images=self._of_run.budget.images,
        )

    def running(self) -> tuple[RunningRow, ...]:
        """The rows that were taken from the source and have not ended, also after the batch was left."""
        return tuple(running_row(row) for row in self._open.values())

    def _ipython_display_(self) -> None:
        self._view.display()

    def _repr_html_(self) -> str:
        return self._view.html()

    def __repr__(self) -> str:
        return f"<Batch {self._done} done, {self._failed} failed, {self._in_flight} in flight>"

    # -------------------------------------------------------------------------------------- running

    async def _run(self) -> None:
        """Feed rows in while the task group carries them to their ends."""
        await self._of_run.claim()
        await self._of_run.count_earlier()
        await self._of_run.prepare_places()  # now, not after the first task is paid for
        async with asyncio.TaskGroup() as beside:
            querying = beside.create_task(self._funds.query_balance(self._of_run.name))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._of_run.fetch_ahead())
                self._feeder = group.create_task(self._feed(group))
                if self._stopped:
                    self._feeder.cancel()
            querying.cancel()  # the end waits for no balance
        if self._source_error is not None:
            raise self._source_error

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        """Admit rows while there is room. The source is stepped in this one task from its first row to its last, so
        that it may hold task groups, time-outs and context variables; `stop` cancels it, also while it is silent."""
        rows = aiter(self._source) if isinstance(self._source, AsyncIterable) else iter(self._source)
        while await self._may_admit():
            try:
                raw = await next_of(rows)
            except StopAsyncIteration:
                self._submitting.release()
                self._permits.release()  # rows that are submitted anew want them
                return
            except asyncio.CancelledError:
                if self._stopped or cancellations() > 0:
                    raise
                self._source_error = ClientStateError("the batch's source was cancelled from within")
                return
            except Exception as error:  # the source's own: raised to the consumer after the items
                self._source_error = error
                return
            row = await self._reader.read(raw)
            self._taken += 1
            self._funds.row_read(row.request)
            self._count_admitted()
            self._open[row.index] = row
            group.create_task(self._process(row))

    def _count_admitted(self) -> None:
        self._admitted_ahead += 1
        self._in_flight += 1

    async def _may_admit(self) -> bool:
        """Wait for permits and for room in the buffer; False when no more rows are wanted."""
        await self._permits.acquire()
        await self._submitting.acquire()
        while not self._stopped:
            is_far_ahead = not self._waiting and self._admitted_ahead >= BUFFER_ITEMS
            if is_far_ahead or len(self._finished) + self._saving >= BUFFER_ITEMS:
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
            self._saving += 1
            try:
                files = await self._of_run.save(row, generation)
                generation = without_data(generation) if files else generation
            finally:
                self._saving -= 1
        except ToAPIsError as caught:
            error = caught
            files = caught.files if isinstance(caught, DownloadFailed) else ()
            if self.stopped_by is None and self._of_run.meets_all(row, error):
                self.stopped_by = self._of_run.budget.closed_by = error
                self.stop()
        except Exception as caught:  # a bug, or the system's; it must not end the other rows
            logger.exception("row %s ended unexpectedly", row.key)
            error = ToAPIsError(f"unexpected {type(caught).__name__}: {caught}")
            error.__cause__ = caught
        self._of_run.ended(row)
        self._funds.row_ended()
        del self._open[row.index]
        self._done += error is None
        self._failed += error is not None
        self._view.note(item := item_of(row, generation, files, error))
        self._finished.append(item)
        self._news.set()

    async def _generate(self, row: Row) -> Generation:
        """Submit and await, anew while the task fails for nothing and attempts are left."""
        failure: TaskFailed | None = None
        while True:
            try:
                return await self._attempt(row, failure)
            except TaskFailed as error:
                failure = error
            except BudgetExceeded as error:
                if failure is None:
                    raise
                failure.add_note(f"not submitted anew: {error}")
                raise failure from None
            if not await self._attempts.another(row, failure, self._may_admit):
                raise failure
            self._count_admitted()

    async def _attempt(self, row: Row, failure: TaskFailed | None) -> Generation:
        """One of them; both permits are given back as soon as their part is over, never at consumption."""
        try:
            try:
                if row.request is None:
                    assert row.error is not None
                    raise row.error
                take = self._of_run.take if failure is None else self._of_run.take_anew
                row.handle = await take(row, row.request)
            finally:
                self._submitting.release()
            return await row.handle
        finally:
            self._in_flight -= 1
            self._permits.release()

    def _ended(self, main: asyncio.Task[None]) -> None:
        self._ended_s = time.monotonic()
        self._engine.dependents.discard(self)
        if self._left:
            self._leave_behind()
        self._of_run.end()
        self._reader.close()
        self._news.set()
        if not main.cancelled():
            main.exception()  # marks it retrieved: a consumer that left does not come back for it

    def _leave_behind(self) -> None:
        """List what was paid for and nobody got: accepted rows that were running or saving, and unread images."""
        handles = [row.handle for row in self._open.values() if row.handle is not None]
        running = [handle.client_business_id for handle in handles if handle.status is not TaskStatus.FAILED]
        unread = [item.client_business_id for item in self._finished if item.generation and not item.files]
        for business_id in (*running, *unread):
            if business_id is not None:
                self._engine.unclaimed.leave(business_id)


class _Items(AsyncIterator[BatchItem]):
    """A batch's iterator. When it was used and is dropped before the end (`break`, an error in the loop's body, a
    cancelled consumer), the batch is left; a time-out around one `anext` leaves nothing."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._was_used = False

    async def __anext__(self) -> BatchItem:
        self._was_used = True
        return await self._batch.__anext__()

    def __del__(self) -> None:
        if self._was_used and not self._loop.is_closed():  # perhaps in another thread, or in the middle of anything
            self._loop.call_soon_threadsafe(self._batch.leave_unless_awaited)
