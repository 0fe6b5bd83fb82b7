"""What a batch reads its rows from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from toapis_async.batch.cells import column_name, value_of_text
from toapis_async.request import ROW_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class _Frame:
    """A data frame's rows as mappings, made as they are read."""

    def __init__(self, frame: Any, rows: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._frame = frame
        self._rows = rows

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return ({name: _value(name, cell) for name, cell in row.items()} for row in self._rows())


def rows_of_frame(source: Any) -> Any:
    """The rows of a data frame (pandas, Polars, PyArrow and those like them), which by itself gives its columns' names;
    any other source as it is."""
    if isinstance(source, (Mapping, type)):
        return cast("Any", source)
    if hasattr(source, "iter_rows") and hasattr(source, "columns"):  # Polars
        return _Frame(source, lambda: source.iter_rows(named=True))
    if hasattr(source, "itertuples") and hasattr(source, "columns"):  # pandas
        names = [str(name) for name in source.columns]
        return _Frame(
            source, lambda: (dict(zip(names, row, strict=True)) for row in source.itertuples(index=False, name=None))
        )
    if hasattr(source, "to_batches") and hasattr(source, "column_names"):  # PyArrow
        return _Frame(source, lambda: (row for batch in source.to_batches() for row in batch.to_pylist()))
    return source


def _value(name: str, cell: Any) -> Any:
    """A cell whose text means a number, a list or an object, as that; all else as it is, for the request to judge."""
    if not isinstance(cell, str):
        return cell
    try:
        return value_of_text(column_name(name, ROW_FIELDS), cell.strip())
    except (ValueError, RecursionError):
        return cell


async def next_of(rows: AsyncIterator[Any] | Iterator[Any]) -> object:
    """The next row. Raises `StopAsyncIteration` after the last, whichever kind of iterator it is."""
    if isinstance(rows, AsyncIterator):
        return await anext(rows)
    try:
        return next(rows)
    except StopIteration:
        raise StopAsyncIteration from None


def cancellations() -> int:
    """How many cancellations of the running task are not answered yet."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
