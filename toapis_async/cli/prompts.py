"""Prompt files: JSON lines, plain lines or CSV, read as a stream, as often as needed.

A row is what `client.batch` takes: a mapping of request fields (with an optional `key`), or a prompt. Reference images
may be local files; they are looked for beside the prompt file.
"""

from __future__ import annotations

import asyncio
import csv
import json
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from attrs import field, frozen

from toapis_async.batch.rows import RowReader
from toapis_async.cli.formats import COLUMNS, Format, format_of, texts, unknown_column
from toapis_async.cli.output import CliError
from toapis_async.cli.terms import in_cli_terms
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.budget import PriceClass

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from toapis_async.request import ImageRequest

MOST_SHOWN: Final = 50
_LISTS: Final = ("reference_images", "image_urls")
_OBJECTS: Final = ("metadata", "extra")


@frozen
class Line:
    """One row and the number of its (first) line, or what is wrong with it."""

    number: int
    row: Any = None
    problem: str | None = None


@frozen
class Checked:
    """What the first pass over a file found."""

    rows: int
    problems: tuple[Line, ...]  #: the first few
    bad: int
    classes: Mapping[PriceClass, int] = field(factory=dict["PriceClass", int])  #: how many rows of each


@frozen
class PromptFile:
    """A prompt file that can be read more than once."""

    path: Path
    format: Format
    folder: Path = field()
    """Where local reference images are looked for."""

    def lines(self) -> Iterator[Line]:
        """Every row, in order; blank lines are none."""
        with self.path.open("rb") as file:
            parse = {"jsonl": _json_lines, "txt": _plain_lines, "csv": _csv_lines}[self.format]
            for line in parse(file):
                yield line if line.problem else _with_files(line, self.folder)

    def rows(self) -> Iterator[Any]:
        """The rows of a file that was checked."""
        for line in self.lines():
            if line.problem:
                raise InvalidRequest(f"line {line.number}: {line.problem}; the file was changed meanwhile")
            yield line.row

    async def check(self) -> Checked:
        """Make a request of every row, send none, and collect what is wrong."""
        problems: list[Line] = []
        classes: Counter[PriceClass] = Counter()
        rows = bad = 0
        with closing(RowReader(None)) as reader:
            for rows, line in enumerate(self.lines(), 1):
                problem, request = (line.problem, None) if line.problem else await _read(reader, line.row)
                if request is not None:
                    classes[PriceClass.of(request.body())] += 1
                if problem:
                    bad += 1
                    if bad <= MOST_SHOWN:
                        problems.append(Line(line.number, problem=problem))
                if rows % 1_000 == 0:
                    await asyncio.sleep(0)  # lets Ctrl-C in
        return Checked(rows, tuple(problems), bad, classes)


@contextmanager
def opened(source: str, given_format: str | None = None) -> Generator[PromptFile]:
    """The prompt file at a path, or `-` for stdin. What can be read only once (a pipe) is spooled."""
    path = Path(source)
    if source != "-" and path.is_file():
        yield PromptFile(path, format_of(path, given_format, source), path.parent)
        return
    with tempfile.NamedTemporaryFile(prefix="toapis-prompts-") as spool:
        if source == "-":
            shutil.copyfileobj(sys.stdin.buffer, spool)
        else:
            with path.open("rb") as pipe:
                shutil.copyfileobj(pipe, spool)
        spool.flush()
        copy = Path(spool.name)
        yield PromptFile(copy, format_of(copy, given_format, source), Path())


async def _read(reader: RowReader, row: Any) -> tuple[str | None, ImageRequest | None]:
    """What is wrong with a row, and its request."""
    read = await reader.read(row)
    if read.error is not None:
        return in_cli_terms(str(read.error)), None
    assert read.request is not None
    for place, reference in enumerate(read.request.reference_images):
        if isinstance(reference, Path) and not reference.is_file():
            return f"reference_images[{place}]: there is no file {reference} (nor is it an http(s) URL)", None
    return None, read.request


def _plain_lines(file: IO[bytes]) -> Iterator[Line]:
    for number, text, problem in texts(file):
        if text.strip():
            yield Line(number, text.strip(), problem)


def _json_lines(file: IO[bytes]) -> Iterator[Line]:
    for number, text, problem in texts(file):
        if text.strip():
            yield Line(number, problem=problem) if problem else _json_line(number, text)


def _json_line(number: int, text: str) -> Line:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        return Line(number, problem=f"not JSON: {error.msg} in column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Line(number, problem=f"not JSON: {error}")
    if isinstance(row, str):
        return Line(number, row)
    if not isinstance(row, dict):
        return Line(number, problem='a row is {"prompt": "…", …} or a prompt in quotes')
    fields = cast("dict[str, Any]", row)
    unknown = next((name for name in fields if name not in COLUMNS), None)
    return Line(number, fields) if unknown is None else Line(number, problem=unknown_column(unknown))


def _csv_lines(file: IO[bytes]) -> Iterator[Line]:
    """Rows by the names in the header. `strict`, or an unclosed quote would swallow the rest of the file.

    Raises `CliError` for a bad header: no row is right or wrong under it.
    """
    undecodable: list[str] = []

    def decoded() -> Iterator[str]:
        for _, text, problem in texts(file):
            if problem:
                undecodable.append(problem)
            yield text

    reader = csv.reader(decoded(), strict=True)
    header: list[str] | None = None
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
        if not problem and not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [name.strip() for name in cells]
            if problem := problem or _header_problem(header):
                raise CliError(f"line {number}: {problem}")
        else:
            yield Line(number, problem=problem) if problem else _csv_line(number, header, cells)


def _header_problem(header: list[str]) -> str | None:
    for place, name in enumerate(header):
        if name not in COLUMNS:
            return f"the header: {unknown_column(name)}"
        if name in header[:place]:
            return f"the header has {name!r} twice"
    return None if "prompt" in header else "the header has no column 'prompt'"


def _csv_line(number: int, header: list[str], cells: list[str]) -> Line:
    if len(cells) > len(header):
        return Line(number, problem=f"{len(cells)} cells under {len(header)} columns: put text with commas in quotes")
    row: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        try:
            if cell.strip():
                row[name] = _value(name, cell.strip())
        except (ValueError, RecursionError) as error:
            return Line(number, problem=f"column {name} is not JSON: {error}")
    return Line(number, row)


def _value(name: str, cell: str) -> Any:
    if name == "n" and cell.isascii() and cell.isdigit():
        return int(cell)
    if name in _OBJECTS or (name in _LISTS and cell.startswith("[")):
        return json.loads(cell)
    return cell.split() if name in _LISTS else cell


def _with_files(line: Line, folder: Path) -> Line:
    """The line with the names of local reference images made into paths, which must stay inside the prompt file's
    folder: a prompt file from elsewhere shall not send pictures from all over the disk."""
    row = line.row
    if isinstance(row, str):
        return line
    for name in _LISTS:
        if isinstance(row.get(name), list):
            row[name] = [reference(item, folder) for item in row[name]]
            for item in row[name]:
                if isinstance(item, Path) and not item.resolve().is_relative_to(folder.resolve()):
                    return Line(
                        line.number, problem=f"{name}: {item} is outside the prompt file's folder: copy it there"
                    )
    return line


def reference(text: Any, folder: Path) -> Any:
    """A reference image as the user wrote it: URLs and texts that can't be paths unchanged, others as a `Path`."""
    if not isinstance(text, str) or "://" in text or text.startswith("data:") or len(text) > 2048:
        return text
    return folder / Path(text).expanduser()
