"""One part of a run, for whichever engine runs many: rows that pickle in, `BatchItem`s out.

`parts_of` makes parts of a run's rows, in one place; `work` does one, anywhere. Ids are derived from the rows, so that
a part may be done again, by another process on another machine: what was sent before is looked up, not paid for again.
`toapis_async.dask` does all of this on a Dask cluster; `docs/cluster.md` shows Ray and Slurm.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from attrs import evolve, field, frozen

from toapis_async.batch.batch import Batch
from toapis_async.batch.item import BatchItem, item_of
from toapis_async.batch.options import BatchOptions
from toapis_async.batch.part_run import PartRun, name_of
from toapis_async.batch.rows import Row, RowReader
from toapis_async.batch.source import next_of, rows_of_frame
from toapis_async.client import ToAPIs
from toapis_async.engine.threads import in_thread
from toapis_async.errors import InvalidRequest, ToAPIsError
from toapis_async.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Iterable
    from os import PathLike

    from toapis_async.batch.part_run import Memory
    from toapis_async.batch.rows import Source
    from toapis_async.engine.core import Engine
    from toapis_async.request import Kind
    from toapis_async.settings import Journal

__all__ = ["Part", "PartOptions", "aclose", "parts_of", "work"]

Each: TypeAlias = Callable[[BatchItem], Any]
"""What is done with an item where it was made: a function (run in a thread) or a coroutine function."""
EACH_AT_ONCE = 8


@frozen(kw_only=True, eq=False)
class PartOptions:
    """What every part of a run is done with. All of it pickles."""

    run: str
    save_to: Any = None
    retry_failed: bool = False
    attempts: int = 1
    embed: bool = False
    each: Each | None = None
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    settings: Settings | None = None
    journal: str | PathLike[str] | Journal | None = None

    def of_batch(self) -> BatchOptions:
        """The same for the batch that a part is."""
        return BatchOptions(
            save_to=self.save_to,
            run=self.run,
            retry_failed=self.retry_failed,
            attempts=self.attempts,
            embed=self.embed,
        )


@frozen(eq=False)
class Part:
    """Some rows of a run. Made by `parts_of`."""

    number: int  #: from 0
    rows: tuple[Row, ...] = field(repr=False)
    options: PartOptions | None = field(default=None, repr=False)
    redone: bool = False
    """Whether an earlier worker may have sent rows of it moments ago. Set it on a part that is handed out again."""

    def again(self) -> Part:
        """The same part, to be handed out again after its worker died."""
        return evolve(self, redone=True)


async def parts_of(
    rows: Source,
    *,
    run: str,
    key: Callable[[Any], str] | str | None = None,
    part_rows: int = 25,
    kind: Kind = "image",
    save_to: Any = None,
    retry_failed: bool = False,
    attempts: int = 1,
    embed: bool = False,
    each: Each | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    settings: Settings | None = None,
    journal: str | PathLike[str] | Journal | None = None,
) -> AsyncGenerator[Part]:
    """The parts of a run, `part_rows` rows each, made as the rows are read; the arguments are those of `ToAPIs` and of
    its `batch()`, and of `toapis_async.dask.bulk`.

    All parts of a run must be made in one place and in the same order each time when rows have no key: equal rows are
    told apart by how many came before. Without an `api_key` each worker reads its own environment.
    """
    options = PartOptions(
        run=checked_run(run),
        save_to=save_to,
        retry_failed=retry_failed,
        attempts=attempts,
        embed=embed,
        each=each,
        api_key=api_key,
        base_url=base_url,
        settings=settings,
        journal=journal,
    )
    async for part in read_parts(rows, key=key, kind=kind, part_rows=part_rows):
        yield evolve(part, options=options)


def checked_run(run: object) -> str:
    """The name of a run, or `InvalidRequest`."""
    if not isinstance(run, str) or not run:
        raise InvalidRequest("run must be the name of the run, a text that is not empty", field="run")
    return run


def read_parts(
    rows: Source, *, key: Callable[[Any], str] | str | None, kind: Kind, part_rows: int
) -> AsyncGenerator[Part]:
    """Rows made into parts, as they are read. Raises `InvalidRequest` at once for what can't be."""
    if type(part_rows) is not int or part_rows < 1:
        raise InvalidRequest(f"part_rows must be a whole number from 1, not {part_rows!r}", field="part_rows")
    return _read_parts(rows, key, kind, part_rows)


async def _read_parts(
    rows: Source, key: Callable[[Any], str] | str | None, kind: Kind, part_rows: int
) -> AsyncGenerator[Part]:
    reader, number, gathered = RowReader(key, kind), 0, list[Any]()
    try:
        async for raw in iterated(rows):
            gathered.append(await reader.read(raw))
            if len(gathered) == part_rows:
                yield Part(number, tuple(gathered))
                number, gathered = number + 1, []
        if gathered:
            yield Part(number, tuple(gathered))
    finally:
        reader.close()


async def iterated(rows: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    """The rows of any source; an ordinary iterator is stepped on the loop."""
    source = rows_of_frame(rows)
    iterator = aiter(source) if hasattr(source, "__aiter__") else iter(source)
    while True:
        try:
            row = await next_of(iterator)
        except StopAsyncIteration:
            return
        yield row


class _OwnMemory:
    """Of a journal that other workers may not have written to: it proves nothing. A row is looked up before it is sent,
    and through the whole window when an earlier worker of this part has just died, or the look-ups of other rows show
    that one was at work."""

    is_complete = False

    def __init__(self, *, redone: bool) -> None:
        self._was_met = redone

    async def looked_up(self, *, was_found: bool) -> bool:
        self._was_met = self._was_met or was_found
        return self._was_met


class _Given:
    """Reads rows that were read before."""

    async def read(self, raw: object) -> Row:
        assert isinstance(raw, Row)
        return evolve(raw)  # a part may be done again in this process

    def close(self) -> None:
        """Nothing is kept."""


async def items_of(engine: Engine, part: Part, options: PartOptions, memory: Memory) -> list[BatchItem]:
    """Do a part on an open engine: an item for each of its rows, as they complete."""
    of_batch = options.of_batch()
    run = PartRun(engine, of_batch, memory)
    items: list[BatchItem] = []
    finishing = _Each(options.each)
    rows: Any = iter(part.rows)
    async with Batch(engine, rows, of_batch, of_run=run, reader=_Given()) as batch, asyncio.TaskGroup() as group:
        async for item in batch:
            group.create_task(finishing.take(item, items))
    ended = {item.index for item in items}
    # An account that is empty, or a key that is no good: the rows behind it would meet the same, and were not sent.
    return items + [item_of(row, error=batch.stopped_by) for row in part.rows if row.index not in ended]


def row_names(run: str, part: Part) -> list[str]:
    """What the rows of a part are known by; those that never became a request are known to nobody."""
    return [name_of(run, row) for row in part.rows if row.identity is not None]


class _Each:
    """What is done with items where they were made, a few at once."""

    def __init__(self, each: Each | None) -> None:
        self._each = each
        self._turns = asyncio.Semaphore(EACH_AT_ONCE)

    async def take(self, item: BatchItem, items: list[BatchItem]) -> None:
        if self._each is None or not item.ok:
            items.append(item)
            return
        async with self._turns:
            try:
                if inspect.iscoroutinefunction(self._each):
                    result = await self._each(item)
                else:
                    result = await in_thread(self._each, item)
            except Exception as error:  # the caller's own: the row is paid for, and is not sent again
                failure = ToAPIsError(f"each raised {type(error).__name__}: {error}")
                failure.concerning(item.task_id, item.client_business_id)
                items.append(evolve(item, ok=False, error=failure))
            else:
                items.append(evolve(item, result=result))


# ---------------------------------------------------------------------------------------------- one process


class _Clients:
    """The clients of one loop in this process, one for each way to make it."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._made: dict[object, asyncio.Future[ToAPIs]] = {}

    async def of(self, options: PartOptions) -> ToAPIs:
        settings = options.settings or Settings()
        name = (options.api_key, options.base_url, repr(options.journal), settings)
        if name not in self._made or (self._made[name].done() and self._made[name].exception()):
            self._made[name] = asyncio.ensure_future(self._open(options, settings))
        return await asyncio.shield(self._made[name])

    async def _open(self, options: PartOptions, settings: Settings) -> ToAPIs:
        journal = options.journal
        if journal is None:
            folder = tempfile.TemporaryDirectory(prefix="toapis-")
            self._stack.callback(folder.cleanup)
            journal = Path(folder.name) / "journal"
        client = ToAPIs(options.api_key, base_url=options.base_url, settings=settings, journal=journal)
        return await self._stack.enter_async_context(client)

    async def aclose(self) -> None:
        await self._stack.aclose()


_clients: dict[asyncio.AbstractEventLoop, _Clients] = {}


async def work(part: Part) -> list[BatchItem]:
    """Do one part: an item for each of its rows. The first part in a process opens a client on the running loop, which
    the next ones use; `aclose` closes it.

    Without a journal that all workers share, each row is looked up by its id before it is sent. Raises what opening a
    client does (`ClientStateError` without a key, `JournalError`); everything else is in the items.
    """
    if part.options is None:
        raise InvalidRequest("a part that parts_of() made is needed")
    clients = _clients.setdefault(asyncio.get_running_loop(), _Clients())
    client = await clients.of(part.options)
    engine = client._open_engine()  # pyright: ignore[reportPrivateUsage]
    return await items_of(engine, part, part.options, _OwnMemory(redone=part.redone))


async def aclose() -> None:
    """Close the clients that `work` opened on this loop."""
    clients = _clients.pop(asyncio.get_running_loop(), None)
    if clients is not None:
        with anyio.CancelScope(shield=True):
            await clients.aclose()
