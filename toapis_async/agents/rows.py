"""The rows of a batch: prompts inline, or a file of the folder in any format that `toapis batch` reads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from toapis_async.agents.requests import request_from
from toapis_async.agents.schemas import MOST_ROWS
from toapis_async.cli.output import CliError
from toapis_async.cli.prompts import opened
from toapis_async.errors import InvalidRequest
from toapis_async.request import map_links

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from toapis_async.agents.folder import Folder
    from toapis_async.cli.lines import Line
    from toapis_async.request import Request

MOST_BATCH_BYTES: Final = 10_000_000
MOST_PROBLEMS: Final = 10


def requests_from(folder: Folder, prompts: Sequence[Any] | None, file: str | None) -> list[tuple[str | None, Request]]:
    """The requests of a batch with the keys of their rows; all of them are checked here. Blocks.

    Raises `InvalidRequest`, which names the rows.
    """
    if (prompts is None) == (file is None):
        raise InvalidRequest("a batch takes either prompts or a file", field="prompts")
    rows = list(enumerate(prompts, 1)) if prompts is not None else list(_rows_of_file(folder, cast("str", file)))
    if not 1 <= len(rows) <= MOST_ROWS:
        raise InvalidRequest(f"a batch has 1 to {MOST_ROWS:,} rows, not {len(rows):,}", field="prompts")
    found: list[tuple[str | None, Request]] = []
    problems: list[str] = []
    for number, row in rows:
        try:
            found.append(_request(folder, row))
        except InvalidRequest as error:
            problems.append(f"row {number}: {error}")
    if problems:
        more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise InvalidRequest(f"{'; '.join(problems[:MOST_PROBLEMS])}{more}; nothing was sent", field="prompts")
    return found


def _request(folder: Folder, row: Any) -> tuple[str | None, Request]:
    if not isinstance(row, dict):
        return None, request_from(folder, {"prompt": row})
    fields = dict(cast("Mapping[str, Any]", row))
    key = fields.pop("key", None)
    if key is not None and (not isinstance(key, str | int) or not 0 < len(str(key)) <= 100):
        raise InvalidRequest("key must be a text of 1 to 100 characters", field="key")
    return None if key is None else str(key), request_from(folder, fields)


def _rows_of_file(folder: Folder, name: str) -> Iterator[tuple[int, Any]]:
    """The rows of a file with the numbers of their lines. It is read once, through the folder, and parsed from a copy:
    the parser may follow no link."""
    content = folder.read(name, MOST_BATCH_BYTES)
    with tempfile.TemporaryDirectory(prefix="toapis-rows-") as temporary:
        copy = Path(temporary) / f"rows{Path(name).suffix.lower()[:10]}"
        copy.write_bytes(content)
        try:
            with opened(str(copy)) as rows:
                for line in rows.lines():
                    yield line.number, _named(_checked(line), copy.parent)
        except (CliError, InvalidRequest) as error:
            told = str(error).replace(str(copy), name).replace(f"{copy.parent}/", "")
            raise InvalidRequest(told, field="file") from None


def _checked(line: Line) -> Any:
    if line.problem:
        raise InvalidRequest(f"line {line.number}: {line.problem}; nothing was sent", field="file")
    return line.row


def _named(row: Any, parent: Path) -> Any:
    """A row whose files are names again, to be read through the folder."""
    if not isinstance(row, dict):
        return row

    def name(_: str, value: Any) -> Any:
        return str(value.relative_to(parent)) if isinstance(value, Path) else value

    return map_links(cast("dict[str, Any]", row), name)
