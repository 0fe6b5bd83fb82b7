"""Sheets that are no text: the rows of an Excel workbook or a Parquet file, as a person would read their cells.

The only place that imports openpyxl and pyarrow, each when it is needed.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from contextlib import ExitStack, closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import frozen

from toapis_async.batch.cells import text_of_value
from toapis_async.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

SheetFormat: TypeAlias = Literal["xlsx", "parquet"]
MAX_UNPACKED_BYTES: Final = 2_000_000_000
"""Of a workbook, which is a zip archive: a few kilobytes may unpack to terabytes."""
_PARQUET_ROWS: Final = 1_000  #: read at once


@frozen
class SheetRow:
    """A row's cells as text, and what is wrong with one of them."""

    number: int  #: as the sheet counts, from 1
    cells: list[str]
    problem: str | None = None


@frozen
class Sheet:
    """The rows of a sheet, the header first, and what its reader should know."""

    rows: Iterator[SheetRow]
    note: str | None = None


def opened_sheet(path: Path, kind: SheetFormat, name: str) -> AbstractContextManager[Sheet]:
    """The sheet at `path`, which the user calls `name`. Blocks, as its rows do.

    Raises `InvalidRequest` when its reader is not installed, and for what is no such file.
    """
    return _opened_workbook(path, name) if kind == "xlsx" else _opened_parquet(path, name)


@contextmanager
def _opened_workbook(path: Path, name: str) -> Generator[Sheet]:
    try:
        openpyxl: Any = import_module("openpyxl")
    except ImportError:
        raise InvalidRequest(
            f"{name}: reading Excel workbooks needs openpyxl: pip install 'toapis-async[excel]' (or save it as .csv)"
        ) from None
    with ExitStack() as stack:
        try:
            _check_size(path)
            file = stack.enter_context(path.open("rb"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what a workbook has besides cells
                # Twice: a cell has its formula in one, and the value that was last computed in the other.
                values, formulas = (
                    stack.enter_context(closing(openpyxl.load_workbook(file, read_only=True, data_only=data_only)))
                    for data_only in (True, False)
                )
            sheets = values.worksheets[0], formulas.worksheets[0]
        except Exception as error:  # openpyxl raises nearly everything for broken files: KeyError, ParseError, OSError
            raise InvalidRequest(f"{name} can't be read as an Excel workbook (.xlsx): {error}") from None
        titles = [sheet.title for sheet in values.worksheets]
        note = f"{name}: reading the first of {len(titles)} sheets, {titles[0]!r}" if len(titles) > 1 else None
        yield Sheet(_workbook_rows(name, sheets), note)


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked_bytes = sum(member.file_size for member in archive.infolist())
    if unpacked_bytes > MAX_UNPACKED_BYTES:
        raise ValueError(f"it unpacks to {unpacked_bytes:,} bytes, which is too much: save it as .csv")


def _workbook_rows(name: str, sheets: tuple[Any, Any]) -> Iterator[SheetRow]:
    try:
        for sheet in sheets:
            sheet.reset_dimensions()  # what the file says of them is often wrong
        for number, pair in enumerate(zip(*(sheet.iter_rows() for sheet in sheets), strict=True), 1):
            yield _workbook_row(number, *pair)
    except (KeyError, ValueError, SyntaxError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidRequest(f"{name} can't be read as an Excel workbook (.xlsx): {error}") from None


def _workbook_row(number: int, values: tuple[Any, ...], formulas: tuple[Any, ...]) -> SheetRow:
    problem = None
    for value, formula in zip(values, formulas, strict=True):
        if value.data_type == "e":
            problem = problem or f"cell {value.coordinate} holds the error {value.value}"
        elif value.value is None and formula.data_type == "f":
            problem = problem or (
                f"cell {formula.coordinate} holds a formula that was never computed: open the file in a spreadsheet "
                "program and save it"
            )
    return SheetRow(number, [text_of_value(cell.value) for cell in values], problem)


@contextmanager
def _opened_parquet(path: Path, name: str) -> Generator[Sheet]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise InvalidRequest(
            f"{name}: reading Parquet files needs pyarrow: pip install pyarrow (or save it as .csv)"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these
        raise InvalidRequest(f"{name} can't be read as a Parquet file: {error}") from None
    with file:
        yield Sheet(_parquet_rows(name, file))


def _parquet_rows(name: str, file: Any) -> Iterator[SheetRow]:
    yield SheetRow(1, list(file.schema_arrow.names))
    number = 1
    try:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            columns = [column.to_pylist() for column in batch.columns]
            for cells in zip(*columns, strict=True):
                number += 1
                yield SheetRow(number, [text_of_value(cell) for cell in cells])
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{name} can't be read as a Parquet file: {error}") from None
