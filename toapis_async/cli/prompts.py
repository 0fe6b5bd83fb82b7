"""Prompt files: JSON lines, plain lines, CSV and sheets, read as a stream, as often as needed.

A row is what `client.batch` takes: a mapping of request fields (with an optional `key`), or a prompt. Reference images
may be local files; they are looked for beside the prompt file.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from toapis_async.batch.rows import RowReader
from toapis_async.cli.columns import Columns
from toapis_async.cli.formats import SEPARATORS, encoding_of, opened_text, sheet_format, text_format
from toapis_async.cli.lines import MOST_NAME_CHARACTERS, Line, is_file, json_lines, plain_lines, with_files
from toapis_async.cli.output import CliError, in_cli_terms
from toapis_async.cli.tables import Table, csv_rows, spool_sheet, spooled_rows
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.budget import PriceClass
from toapis_async.protocol.lenient import shorten
from toapis_async.protocol.wording import count
from toapis_async.request import map_links

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping

    from toapis_async.cli.formats import Format
    from toapis_async.cli.output import Output
    from toapis_async.request import Kind, Request


MOST_SHOWN: Final = 50


@frozen
class Checked:
    """What the first pass over a file found."""

    rows: int
    problems: tuple[Line, ...]  #: the first few
    bad: int
    classes: Mapping[PriceClass, int] = field(factory=dict["PriceClass", int])  #: how many rows of each
    kinds: Collection[Kind] = field(factory=set["Kind"])  #: of the rows


@frozen
class PromptFile:
    """A prompt file that can be read more than once."""

    path: Path  #: as it is read: of a sheet, its cells
    format: Format
    folder: Path  #: where local reference images are looked for
    columns: Columns = field(factory=Columns)
    separator: str = ","
    notes: tuple[str, ...] = ()  #: what the user should know of how it is read

    @property
    def noun(self) -> str:
        """What the number of a row counts."""
        return "row" if self.is_sheet else "line"

    @property
    def is_sheet(self) -> bool:
        return self.format in {"xlsx", "parquet"}

    def lines(self) -> Iterator[Line]:
        """Every row, in order; blank lines are none."""
        with opened_text(self.path) as file:
            if self.format == "jsonl":
                parsed = json_lines(file, self.columns)
            elif self.format == "txt":
                parsed = plain_lines(file)
            else:
                table = Table(self.columns, partial(is_file, self.folder), self.separator)
                rows = spooled_rows(file) if self.is_sheet else csv_rows(file, self.separator)
                parsed = table.lines(rows, self.noun)
            for line in parsed:
                yield line if line.problem else with_files(line, self.folder)

    def checked_lines(self) -> Iterator[Line]:
        """The rows of a file that was checked."""
        for line in self.lines():
            if line.problem:
                raise InvalidRequest(f"{self.noun} {line.number}: {line.problem}; the file was changed meanwhile")
            yield line

    def rows(self) -> Iterator[Any]:
        """The same as a batch takes them."""
        return (line.row for line in self.checked_lines())

    async def check(self) -> Checked:
        """Make a request of every row, send none, and collect what is wrong."""
        problems: list[Line] = []
        classes: Counter[PriceClass] = Counter()
        kinds: set[Kind] = set()
        rows = bad = 0
        with closing(RowReader(None)) as reader:
            for rows, line in enumerate(self.lines(), 1):
                problem, request = (line.problem, None) if line.problem else await self._read(reader, line.row)
                if request is not None:
                    classes[PriceClass.of(request.body())] += 1
                    kinds.add(request.kind)
                if problem:
                    bad += 1
                    if bad <= MOST_SHOWN:
                        problems.append(Line(line.number, problem=problem))
                if rows % 1_000 == 0:
                    await asyncio.sleep(0)  # lets Ctrl-C in
        return Checked(rows, tuple(problems), bad, classes, kinds)

    async def _read(self, reader: RowReader, row: Any) -> tuple[str | None, Request | None]:
        """What is wrong with a row, and its request."""
        read = await reader.read(row)
        if read.error is not None:
            return in_cli_terms(str(read.error)), None
        assert read.request is not None
        missing: list[str] = []

        def note(where: str, item: Any) -> Any:
            if isinstance(item, Path) and not item.is_file():
                missing.append(f"{where}: there is no file {shorten(str(item), MOST_NAME_CHARACTERS)}")
            return item

        map_links(read.request.as_named(), note)
        if missing:
            has_cells = self.format not in {"jsonl", "txt"}
            hint = ' (a name with blanks is written ["my kite.png"])' if has_cells else ""
            return f"{missing[0]}, nor is it an http(s) URL{hint}", None
        return None, read.request


async def checked(out: Output, prompts: PromptFile) -> Checked:
    """What a file holds; raises `CliError` when there is nothing in it that may be sent."""
    for note in prompts.notes:
        out.note(note)
    found = await prompts.check()
    for line in found.problems:
        out.error(f"{prompts.noun} {line.number}: {line.problem}")
    if found.bad > len(found.problems):
        out.error(f"… and {found.bad - len(found.problems):,} more")
    if found.bad:
        raise CliError(f"{found.bad:,} of {count(found.rows, 'row')} can't be right; nothing was sent")
    if not found.rows:
        raise CliError("there is no prompt in the input")
    return found


@contextmanager
def opened(source: str, given: Format | None = None, columns: Columns | None = None) -> Generator[PromptFile]:
    """The prompt file at a path, or `-` for stdin. What can be read only once (a pipe), or is no text in UTF-8, is
    spooled. Raises `CliError` and `InvalidRequest` for what can't be read, or would be misread."""
    path, name, columns = Path(source), "the input" if source == "-" else source, columns or Columns()
    with ExitStack() as stack:
        spools = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toapis-prompts-")))
        folder = path.parent
        if source == "-" or not path.is_file():
            path, folder = _spooled(source, spools / "prompts"), Path()
        if (sheet := sheet_format(path, given, source)) is not None:
            note = spool_sheet(path, sheet, name, spools / "cells")
            yield PromptFile(spools / "cells", sheet, folder, columns, notes=(note,) if note else ())
            return
        encoding = encoding_of(path, name)
        if encoding != "UTF-8":
            path = _transcoded(path, encoding, name, spools / "text")
        format_, separator = text_format(path, given, source, columns)
        told = [f"{SEPARATORS[separator]} between columns"] if separator != "," else []
        told += [encoding] if encoding != "UTF-8" else []
        notes = (f"{name} is read with {', '.join(told)}",) if told else ()
        yield PromptFile(path, format_, folder, columns, separator, notes)


def _spooled(source: str, spool: Path) -> Path:
    with spool.open("wb") as copy, nullcontext(sys.stdin.buffer) if source == "-" else open(source, "rb") as pipe:
        shutil.copyfileobj(pipe, copy)
    return spool


def _transcoded(path: Path, encoding: str, name: str, spool: Path) -> Path:
    try:
        with path.open(encoding=encoding, newline="") as text, spool.open("w", encoding="utf-8", newline="") as copy:
            shutil.copyfileobj(text, copy)
    except UnicodeError as error:
        raise CliError(f"{name} begins as {encoding}, but is none: {error}; save it as UTF-8") from None
    return spool


def prompt_from_stdin() -> str:
    """All of standard input, as one prompt. Raises `CliError` when there is none."""
    try:
        prompt = sys.stdin.buffer.read().decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise CliError("the prompt on standard input is not UTF-8") from None
    if not prompt:
        raise CliError("there is no prompt on standard input")
    return prompt
