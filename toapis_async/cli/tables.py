"""Rows under a header: of CSV, and of sheets that were read into cells."""

from __future__ import annotations

import csv
import json
from typing import IO, TYPE_CHECKING, Any, Final

from attrs import frozen

from toapis_async.batch.cells import column_name, is_nameless, value_of_text
from toapis_async.batch.rows import KEY_COLUMN
from toapis_async.batch.sheets import SheetRow, opened_sheet
from toapis_async.cli.columns import COLUMNS
from toapis_async.cli.formats import SEPARATORS, texts
from toapis_async.cli.lines import Line
from toapis_async.cli.output import CliError
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from toapis_async.batch.sheets import SheetFormat
    from toapis_async.cli.columns import Columns

_TEXT_COLUMNS: Final = frozenset({KEY_COLUMN, "prompt"})


@frozen
class Table:
    """How the rows of one file are read."""

    columns: Columns
    is_file: Callable[[str], bool]
    separator: str = ","

    def lines(self, rows: Iterable[SheetRow], noun: str = "line") -> Iterator[Line]:
        """The rows under the header. Raises `CliError` for a bad header: no row is right or wrong under it."""
        header: list[str] | None = None
        for row in rows:
            if not row.problem and not any(cell.strip() for cell in row.cells):
                continue
            if header is not None:
                yield Line(row.number, problem=row.problem) if row.problem else self._line(header, row)
                continue
            header = [column_name(cell.strip(), COLUMNS) for cell in row.cells]
            while header and not header[-1]:  # of a sheet's empty columns
                header.pop()
            if problem := row.problem or self.columns.header_problem(header):
                raise CliError(f"{noun} {row.number}: {problem}")

    def _line(self, header: list[str], given: SheetRow) -> Line:
        row: dict[str, str] = {}
        cells = [cell.strip() for cell in given.cells]
        for place, cell in enumerate(cells):
            name = header[place] if place < len(header) else None
            if _is_empty(name, cell):
                continue
            if name is None:
                quoted = f": put text with {SEPARATORS[self.separator]} in quotes"
                problem = f"{len(cells)} cells under {len(header)} columns{quoted}"
                return Line(given.number, problem=problem)
            if is_nameless(name):
                problem = f"column {place + 1} has no name in the header, but holds {shorten(cell, 40)!r} here"
                return Line(given.number, problem=f"{problem}: name the column, or remove it")
            row[name] = cell
        try:
            fields, kept = self.columns.split(row)
            return Line(given.number, {name: self._value(name, cell) for name, cell in fields.items()}, kept=kept)
        except InvalidRequest as error:
            return Line(given.number, problem=str(error))

    def _value(self, name: str, cell: str) -> Any:
        try:
            return value_of_text(name, cell, self.is_file)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"column {name} is not JSON: {error}") from None


def _is_empty(name: str | None, cell: str) -> bool:
    return not cell or cell == "NaN" or (cell == "nan" and name not in _TEXT_COLUMNS)  # NaN: as pandas has it


def csv_rows(file: IO[str], separator: str) -> Iterator[SheetRow]:
    """The rows of a CSV file, by the numbers of their first lines. `strict`, or an unclosed quote would swallow the
    rest of the file."""
    undecodable: list[str] = []

    def decoded() -> Iterator[str]:
        for _, text, problem in texts(file):
            if problem:
                undecodable.append(problem)
            yield text

    reader = csv.reader(decoded(), delimiter=separator, strict=True)
    while True:
        number, cells, problem = reader.line_num + 1, list[str](), None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"not CSV: {error}"
        if undecodable:
            problem = undecodable[0]
            undecodable.clear()
        if number == 1 and len(cells) <= 2 and "".join(cells).lower().startswith("sep="):  # a word to Excel
            continue
        yield SheetRow(number, cells, problem)


def spool_sheet(source: Path, kind: SheetFormat, name: str, spool: Path) -> str | None:
    """Write the cells of a sheet into `spool`, which `spooled_rows` reads as often as needed; returns what the user
    should know."""
    with opened_sheet(source, kind, name) as sheet, spool.open("w", encoding="utf-8") as file:
        for row in sheet.rows:
            if row.problem or any(row.cells):
                file.write(json.dumps([row.number, row.cells, row.problem]) + "\n")
    return sheet.note


def spooled_rows(file: Iterable[str]) -> Iterator[SheetRow]:
    """The rows that `spool_sheet` wrote."""
    return (SheetRow(*json.loads(line)) for line in file)
