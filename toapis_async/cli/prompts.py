"""Prompt files: JSON lines, plain lines or CSV, read as a stream, as often as needed.

A row is what `client.batch` takes: a mapping of request fields (with an optional `key`), or a prompt. Reference images
may be local files; they are looked for beside the prompt file.
"""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from attrs import field, fields, frozen

from toapis_async.batch.cells import column_name, is_nameless, plain_fields
from toapis_async.batch.rows import KEY_COLUMN, RowReader
from toapis_async.cli.formats import COLUMNS, Format, format_of, opened_text, texts, unknown_column
from toapis_async.cli.output import CliError, in_cli_terms
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.budget import PriceClass
from toapis_async.protocol.lenient import shorten
from toapis_async.protocol.wording import count
from toapis_async.request import LINK_LISTS, ImageRequest, VideoRequest, map_links

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping

    from toapis_async.cli.output import Output
    from toapis_async.request import Kind, Request


MOST_SHOWN: Final = 50
_OBJECTS: Final = ("metadata", "extra", "tools")
_FIELDS: Final = (*fields(ImageRequest), *fields(VideoRequest))
_NUMBERS: Final = {a.name for a in _FIELDS if str(a.type) == "int | None"}
_FLAGS: Final = {a.name for a in _FIELDS if str(a.type).startswith("bool |")}
_WHOLE: Final = re.compile(r"([0-9]{1,18})(?:\.0*)?")  #: also as data frames write it: 1.0
MOST_NAME_CHARACTERS: Final = 100  #: of a file, in messages


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
    kinds: Collection[Kind] = field(factory=set["Kind"])  #: of the rows


@frozen
class PromptFile:
    """A prompt file that can be read more than once."""

    path: Path
    format: Format
    folder: Path = field()
    """Where local reference images are looked for."""

    def lines(self) -> Iterator[Line]:
        """Every row, in order; blank lines are none."""
        with opened_text(self.path) as file:
            if self.format == "csv":
                parsed = _csv_lines(file, self.folder)
            else:
                parsed = _json_lines(file) if self.format == "jsonl" else _plain_lines(file)
            for line in parsed:
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
            hint = ' (a name with blanks is written ["my kite.png"])' if self.format == "csv" else ""
            return f"{missing[0]}, nor is it an http(s) URL{hint}", None
        return None, read.request


async def checked(out: Output, prompts: PromptFile) -> Checked:
    """What a file holds; raises `CliError` when there is nothing in it that may be sent."""
    found = await prompts.check()
    for line in found.problems:
        out.error(f"line {line.number}: {line.problem}")
    if found.bad > len(found.problems):
        out.error(f"… and {found.bad - len(found.problems):,} more")
    if found.bad:
        raise CliError(f"{found.bad:,} of {count(found.rows, 'row')} can't be right; nothing was sent")
    if not found.rows:
        raise CliError("there is no prompt in the input")
    return found


@contextmanager
def opened(source: str, given_format: str | None = None) -> Generator[PromptFile]:
    """The prompt file at a path, or `-` for stdin. What can be read only once (a pipe) is spooled."""
    path = Path(source)
    if source != "-" and path.is_file():
        yield PromptFile(path, format_of(path, given_format, source), path.parent)
        return
    with tempfile.TemporaryDirectory(prefix="toapis-prompts-") as folder:
        copy = Path(folder) / "prompts"
        with copy.open("wb") as spool, nullcontext(sys.stdin.buffer) if source == "-" else path.open("rb") as pipe:
            shutil.copyfileobj(pipe, spool)
        yield PromptFile(copy, format_of(copy, given_format, source), Path())


def prompt_from_stdin() -> str:
    """All of standard input, as one prompt. Raises `CliError` when there is none."""
    try:
        prompt = sys.stdin.buffer.read().decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise CliError("the prompt on standard input is not UTF-8") from None
    if not prompt:
        raise CliError("there is no prompt on standard input")
    return prompt


def _plain_lines(file: IO[str]) -> Iterator[Line]:
    for number, text, problem in texts(file):
        if text.strip():
            yield Line(number, text.strip(), problem)


def _json_lines(file: IO[str]) -> Iterator[Line]:
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
    try:
        row_fields = plain_fields(cast("dict[str, Any]", row), COLUMNS)
    except InvalidRequest as error:
        return Line(number, problem=str(error))
    unknown = next((name for name in row_fields if name not in COLUMNS), None)
    return Line(number, row_fields) if unknown is None else Line(number, problem=unknown_column(unknown))


def _csv_lines(file: IO[str], folder: Path) -> Iterator[Line]:
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
            header = [column_name(cell.strip(), COLUMNS) for cell in cells]
            if problem := problem or _header_problem(header):
                raise CliError(f"line {number}: {problem}")
        else:
            yield Line(number, problem=problem) if problem else _csv_line(number, header, cells, folder)


def _header_problem(header: list[str]) -> str | None:
    for place, name in enumerate(header):
        if name not in COLUMNS and not is_nameless(name):
            return f"the header: {unknown_column(name)}"
        if name in header[:place] and not is_nameless(name):
            return f"the header has {name!r} twice"
    return None if "prompt" in header else "the header has no column 'prompt'"


def _csv_line(number: int, header: list[str], cells: list[str], folder: Path) -> Line:
    row: dict[str, Any] = {}
    for place, cell in enumerate(map(str.strip, cells)):
        name = header[place] if place < len(header) else None
        if not cell or cell == "NaN" or (cell == "nan" and name not in {KEY_COLUMN, "prompt"}):  # NaN: as pandas has it
            continue
        if name is None:
            problem = f"{len(cells)} cells under {len(header)} columns: put text with commas in quotes"
            return Line(number, problem=problem)
        if is_nameless(name):
            problem = f"column {place + 1} has no name in the header, but holds {shorten(cell, 40)!r} here"
            return Line(number, problem=f"{problem}: name the column, or remove it")
        try:
            row[name] = _value(name, cell, folder)
        except (ValueError, RecursionError) as error:
            return Line(number, problem=f"column {name} is not JSON: {error}")
    return Line(number, row)


def _value(name: str, cell: str, folder: Path) -> Any:
    if name in _NUMBERS and (number := _WHOLE.fullmatch(cell)):
        return int(number[1])
    if name in _FLAGS and cell.lower() in {"true", "false"}:
        return cell.lower() == "true"
    if name in _OBJECTS or (name in LINK_LISTS and cell.startswith("[")):
        return json.loads(cell)
    if name in LINK_LISTS:
        return [cell] if _is_file(folder / cell) else cell.split()
    return cell


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _with_files(line: Line, folder: Path) -> Line:
    """The line with the names of local reference images made into paths, which must stay inside the prompt file's
    folder: a prompt file from elsewhere shall not send pictures from all over the disk."""
    row = line.row
    if isinstance(row, str):
        return line
    try:
        return Line(line.number, map_links(row, partial(_file_inside, folder)))
    except InvalidRequest as error:
        return Line(line.number, problem=str(error))


def _file_inside(folder: Path, where: str, text: Any) -> Any:
    try:
        return _inside(reference(text, folder), folder)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where.partition('[')[0]}: {error}") from None


def _inside(found: Any, folder: Path) -> Any:
    if isinstance(found, Path) and not found.resolve().is_relative_to(folder.resolve()):
        outside = shorten(str(found), MOST_NAME_CHARACTERS)
        raise InvalidRequest(f"{outside} is outside the prompt file's folder: copy it there")
    return found


def reference(text: Any, folder: Path) -> Any:
    """A reference image as the user wrote it: a URL, and what is no text, unchanged; else the `Path` of a file.

    Raises `InvalidRequest` for a text that can't be the name of a file.
    """
    if not isinstance(text, str) or "://" in text or text.startswith("data:"):
        return text
    name, path = repr(shorten(text, MOST_NAME_CHARACTERS)), folder / text
    try:
        if text.startswith("~") and not path.is_file():
            path = Path(text).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # `check` names it
    except RuntimeError:
        raise InvalidRequest(f"there is no file {name}, nor such a home folder") from None
    except OSError as error:  # links that lead in a circle, a folder that may not be read, too long a name
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidRequest(
                f"{name} is too long for the name of a file ({len(text):,} characters); base64 is not accepted: "
                "give the name of the file"
            ) from None
        raise InvalidRequest(f"can't use the file {name}: {error.strerror}") from None
    except ValueError:
        raise InvalidRequest(f"{name} is no name of a file: a character of it can't be in one") from None
    return path
