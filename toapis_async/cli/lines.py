"""Rows of a prompt file: JSON lines and plain lines (`tables` has those with a header), and their local files."""

from __future__ import annotations

import errno
import json
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from attrs import evolve, field, frozen

from toapis_async.batch.cells import plain_fields
from toapis_async.cli.columns import COLUMNS, unknown_column
from toapis_async.cli.formats import texts
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten
from toapis_async.request import map_links

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toapis_async.cli.columns import Columns

MOST_NAME_CHARACTERS: Final = 100  #: of a file, in messages


@frozen
class Line:
    """One row and the number of its (first) line, or what is wrong with it."""

    number: int
    row: Any = None
    problem: str | None = None
    kept: Mapping[str, Any] = field(factory=dict[str, Any])  #: columns that go into results.jsonl


def plain_lines(file: IO[str]) -> Iterator[Line]:
    for number, text, problem in texts(file):
        if text.strip():
            yield Line(number, text.strip(), problem)


def json_lines(file: IO[str], columns: Columns) -> Iterator[Line]:
    for number, text, problem in texts(file):
        if text.strip():
            yield Line(number, problem=problem) if problem else _json_line(number, text, columns)


def _json_line(number: int, text: str, columns: Columns) -> Line:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        return Line(number, problem=f"not JSON: {error.msg} in column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Line(number, problem=f"not JSON: {error}")
    if isinstance(row, str) and columns.template is None:
        return Line(number, row)
    if not isinstance(row, dict):
        return Line(number, problem='a row is {"prompt": "…", …} or a prompt in quotes')
    try:
        given, kept = columns.split(cast("dict[str, Any]", row))
        row_fields = plain_fields(given, COLUMNS)
    except InvalidRequest as error:
        return Line(number, problem=str(error))
    unknown = next((name for name in row_fields if name not in COLUMNS), None)
    problem = None if unknown is None else unknown_column(unknown)
    return Line(number, row_fields, kept=kept) if problem is None else Line(number, problem=problem)


def with_files(line: Line, folder: Path) -> Line:
    """The line with the names of local reference images made into paths, which must stay inside the prompt file's
    folder: a prompt file from elsewhere shall not send pictures from all over the disk."""
    row = line.row
    if isinstance(row, str):
        return line
    try:
        return evolve(line, row=map_links(row, partial(_file_inside, folder)))
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


def is_file(folder: Path, name: str) -> bool:
    """Whether there is a file of this name, whatever the text is."""
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):
        return False
