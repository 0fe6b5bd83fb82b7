"""`bulk`: the driver of a run on a Dask cluster."""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
import time
from collections import deque
from collections.abc import Sized
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import evolve, fields
from distributed.protocol import pickle as dask_pickle

from toapis_async.batch.item import BatchStatistics, item_of
from toapis_async.batch.source import rows_of_frame
from toapis_async.dask.plugins import Recipe
from toapis_async.dask.purse import Purse
from toapis_async.dask.session import ClusterSession
from toapis_async.errors import (
    AuthenticationFailed,
    ClientStateError,
    InsufficientQuota,
    InvalidRequest,
    SessionClosed,
    ToAPIsError,
)
from toapis_async.parts import Each, PartOptions, checked_run, read_parts
from toapis_async.protocol.budget import Budget, Prices
from toapis_async.settings import Journal, Settings, checked_budget, checked_images

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from decimal import Decimal
    from os import PathLike
    from types import TracebackType

    from distributed import Client
    from distributed.deploy.cluster import Cluster

    from toapis_async.batch.item import BatchItem
    from toapis_async.batch.rows import Row, Source
    from toapis_async.parts import Part
    from toapis_async.request import Kind

BUFFER_ITEMS: Final = 100
"""Finished items that may wait for a slow consumer before no more rows are read."""


_pickle: Any = dask_pickle


def bulk(
    rows: Source,
    *,
    run: str,
    key: Callable[[Any], str] | str | None = None,
    cluster: str | Cluster | Client | None = None,
    save_to: Any = None,
    part_rows: int = 25,
    retry_failed: bool = False,
    attempts: int = 1,
    budget_credits: float | Decimal | None = None,
    max_images: int | None = None,
    embed: bool = False,
    api_key: str | None = None,
    base_url: str | None = None,
    settings: Settings | None = None,
    journal: str | PathLike[str] | Journal | None = None,
    each: Each | None = None,
    fresh: bool = False,
    kind: Kind = "image",
) -> Bulk:
    """A run over many rows on a Dask cluster, which may lose any of its machines. See `Bulk`.

    `cluster` is None (processes of this machine, started now and ended afterwards), a scheduler's address, a Dask
    `Cluster` or a `Client`. `rows` may also be a Dask bag or data frame. `run`, `key`, `save_to`,
    `retry_failed`, `attempts`, `budget_credits`, `max_images`, `embed` and `kind` are those of `ToAPIs.batch`;
    `save_to` is a place that every worker reaches: a folder on a shared disk, or an object store.

    `each(item)` is called on the worker, in a thread (or awaited, a coroutine function), with every item that is ok;
    what it returns is the item's `result`. It is called at least once for a row: again when a worker dies, or when the
    run is called again. What it raises makes the item not ok, and never sends the row again.

    `journal` is a path on the scheduler's machine (default: a file for this run in its user's state folder); a network
    disk is refused, and `Journal(path, same_account=True)` accepts one of a key that was rotated since. Without an
    `api_key` each worker reads its own environment. `fresh` says that this run was never at work before: else, when its
    journal is new, each row is looked up by its id before it is sent.

    Raises `InvalidRequest` for what can't be, and what can't be pickled, by its name.
    """
    if journal is not None and not isinstance(journal, Journal):
        journal = Journal(os.fspath(journal))
    if journal is not None and journal.per_process:
        raise InvalidRequest("a run has one journal, beside the scheduler: per_process is not for it", field="journal")
    settings = _picklable(settings or Settings())
    try:
        _pickle.dumps(each)
    except Exception as error:
        raise InvalidRequest(f"each can't be sent to a worker: {error}", field="each") from error
    options = PartOptions(
        run=checked_run(run),
        save_to=save_to,
        retry_failed=retry_failed,
        attempts=attempts,
        embed=embed,
        each=each,
    )
    options.of_batch()  # raises
    recipe = Recipe(
        session=secrets.token_hex(4), options=options, settings=settings, api_key=api_key, base_url=base_url
    )
    return Bulk(
        rows,
        recipe,
        cluster=cluster,
        key=key,
        kind=kind,
        part_rows=part_rows,
        journal=journal,
        fresh=fresh,
        most_credits=checked_budget(budget_credits),
        most_images=checked_images(max_images),
    )


def _picklable(settings: Settings) -> Settings:
    """The settings, each of whose fields can be sent to a worker."""
    for listener in settings.on_event:
        if hasattr(listener, "__self__"):
            raise InvalidRequest(
                f"Settings(on_event=…) can't be sent to a worker: {listener!r} belongs to an object of this process; "
                "give a function of a module",
                field="on_event",
            )
    for each in fields(type(settings)):
        try:
            pickle.dumps(getattr(settings, each.name))
        except Exception as error:
            raise InvalidRequest(
                f"Settings({each.name}=…) can't be sent to a worker: {error}", field=each.name
            ) from error
    return settings


class Bulk:
    """One pass over a run. `async with` it, then iterate for items as their parts complete.

    The same call again takes a run up after whatever happened to it: what was paid for is not paid for again. A row
    that fails is an item with `ok=False`; what raises is misuse, a source that fails, and a cluster that can't go on.
    """

    def __init__(
        self,
        rows: Source,
        recipe: Recipe,
        *,
        cluster: str | Cluster | Client | None,
        key: Callable[[Any], str] | str | None,
        kind: Kind,
        part_rows: int,
        journal: Journal | None,
        fresh: bool,
        most_credits: Decimal | None,
        most_images: int | None,
    ) -> None:
        self._recipe = recipe
        self._run = recipe.options.run
        self._session = ClusterSession(recipe, cluster, journal=journal, fresh=fresh)
        self._parts = read_parts(self._session.rows_of(rows), key=key, kind=kind, part_rows=part_rows)
        self._part_rows = part_rows
        self._total = _length(rows)
        self._is_open = False
        self._main: asyncio.Task[None] | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._stopped = False
        self.stopped_by: ToAPIsError | None = None
        """A 401 or 402, after which no more rows are handed out: each would meet the same."""
        options = recipe.options
        budget = Budget(Prices(recipe.settings.prices), most_credits=most_credits, most_images=most_images)
        self._purse = Purse(budget, options.run, retry_failed=options.retry_failed)
        self._finished: deque[BatchItem] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._taken = self._out = self._done = self._failed = 0
        self._started_s = self._ended_s = 0.0

    # -------------------------------------------------------------------------------------- lifetime

    async def __aenter__(self) -> Self:
        if self._is_open:
            raise ClientStateError("a run on a cluster is entered once: call bulk(…) again")
        self._is_open = True
        await self._session.open()
        try:
            await self._purse.count_earlier(self._session.paid_earlier())
        except BaseException:
            await self._session.aclose()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave: nothing more is sent. What the service works on stays paid for; the same call takes it up."""
        self.stop()
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
        await self._session.aclose()

    # -------------------------------------------------------------------------------------- consuming

    def __aiter__(self) -> AsyncIterator[BatchItem]:
        if not self._is_open:
            raise ClientStateError("enter a run on a cluster first: async with bulk(…) as job")
        if self._main is not None:
            raise ClientStateError("a run on a cluster can be iterated once: call bulk(…) again")
        self._started_s = time.monotonic()
        self._main = asyncio.create_task(self._go(), name="toapis-bulk")
        return self

    async def __anext__(self) -> BatchItem:
        """The next item. Raises `StopAsyncIteration` after the last, and what the source or the cluster raised."""
        if self._main is None:
            raise ClientStateError("iterate over a run with `async for item in job`")
        while not self._finished:
            if self._main.cancelled():
                raise SessionClosed("the run was left while it was at work")
            if self._main.done():
                _reraise(self._main)
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        self._room.set()
        return self._finished.popleft()

    def stop(self) -> None:
        """Send no more rows; iteration ends when what was sent has ended."""
        if self._stopped:
            return
        self._stopped = True
        if self._feeder is not None:
            self._feeder.cancel()
        if self._main is not None and not self._main.done():
            self._stopping = asyncio.create_task(self._session.stop(), name="toapis-stop")

    def statistics(self) -> BatchStatistics:
        """A snapshot of the counters."""
        return BatchStatistics(
            taken=self._taken,
            in_flight=self._out,
            saving=0,
            done=self._done,
            failed=self._failed,
            waiting_for_consumer=len(self._finished),
            total=self._total,
            elapsed_s=(self._ended_s or time.monotonic()) - self._started_s if self._started_s else 0.0,
            credits_spent=self._purse.budget.spent,
            images=self._purse.budget.images,
        )

    def __repr__(self) -> str:
        return f"<Bulk {self._run!r}: {self._done} done, {self._failed} failed, {self._out} out>"

    # -------------------------------------------------------------------------------------- running

    async def _go(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._feeder = group.create_task(self._feed(group))
                if self._stopped:
                    self._feeder.cancel()
        finally:
            self._ended_s = time.monotonic()
            self._news.set()

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        async with aclosing(self._parts) as parts:
            async for part in parts:
                await self._has_room(len(part.rows))
                self._taken += len(part.rows)
                rows = part.rows
                while rows:
                    fit, refused, rows = await self._purse.admit(rows, self._session.prices)
                    for row, error in refused:
                        self._note(row, item_of(row, error=error))
                    if fit:
                        self._out += len(fit)
                        group.create_task(self._carry(evolve(part, rows=tuple(fit))))

    async def _has_room(self, rows: int) -> None:
        """Wait until fewer rows are out than the service may work on at once, and the consumer keeps up."""
        most_out = max(self._recipe.settings.max_in_flight, rows)
        while self._out + rows > most_out or len(self._finished) >= BUFFER_ITEMS:
            self._room.clear()
            await self._room.wait()

    async def _carry(self, part: Part) -> None:
        """A part from its rows to its items."""
        rows = {row.index: row for row in part.rows}
        for item in await self._session.do(part, f"rows {part.rows[0].index}..{part.rows[-1].index}"):
            row = rows[item.index]
            self._note(row, evolve(item, request=row.request))
        self._out -= len(part.rows)
        self._room.set()

    def _note(self, row: Row, item: BatchItem) -> None:
        self._purse.ended(row, item)
        if self._stopped and isinstance(item.error, SessionClosed):
            return  # it was not sent
        self._done += item.ok
        self._failed += not item.ok
        self._finished.append(item)
        self._news.set()
        if isinstance(item.error, AuthenticationFailed | InsufficientQuota) and item.task_id is None:
            self.stopped_by = self.stopped_by or item.error
            self.stop()


def _length(rows: Any) -> int | None:
    """How many rows there are, where that is known without counting them: of a collection of Dask's it is not."""
    source = rows_of_frame(rows)
    return len(source) if isinstance(source, Sized) and not hasattr(rows, "to_delayed") else None


def _reraise(main: asyncio.Task[None]) -> None:
    """Raise what ended the run, if anything did; of several, the first."""
    error: Any = main.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if error is not None:
        raise error
