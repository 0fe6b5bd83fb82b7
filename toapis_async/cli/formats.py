"""The format of a prompt file: as stated, else by its name, else by its first line. Files that would be misread are
refused, since every line taken for a prompt by mistake is paid for."""

from __future__ import annotations

import csv
import difflib
import json
import shlex
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal, cast

from toapis_async.batch.rows import KEY_COLUMN
from toapis_async.cli.output import CliError
from toapis_async.protocol.lenient import shorten
from toapis_async.request import ROW_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

Format = Literal["jsonl", "txt", "csv"]
COLUMNS: Final = (KEY_COLUMN, *ROW_FIELDS)
_BY_SUFFIX: Final[dict[str, Format]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "txt", ".csv": "csv"}
_SEPARATORS: Final = {"\t": "tabs", ";": "semicolons"}
_LOOKED_AT_BYTES: Final = 1_024


def format_of(path: Path, given: str | None, source: str) -> Format:
    """The format of the file at `path`, which the user calls `source` (`-` for stdin)."""
    name = "the input" if source == "-" else source
    with path.open("rb") as file:
        if b"\0" in file.read(_LOOKED_AT_BYTES):
            raise CliError(f"{name} is no text in UTF-8 but a binary file (or UTF-16)")
    with opened_text(path) as file:
        first = next((text.strip() for _, text, _ in texts(file) if text.strip()), "")
    suffix = Path(source).suffix.lower()
    stated = cast("Format | None", given) or _BY_SUFFIX.get(suffix)
    if stated in {None, "csv"}:
        _refuse_separators(first, name)
    found = stated or _sniffed(first)
    literal = given is not None or suffix == ".txt"  # whoever says text means it: `[cinematic] a kite` is a prompt
    if not literal and (first.startswith("[") or (found == "txt" and _is_json(first, suffix))):
        raise CliError(_not_row_by_row(first, source, name))
    return found


def opened_text(path: Path) -> IO[str]:
    """A file as UTF-8, for `texts`."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def texts(file: IO[str]) -> Iterator[tuple[int, str, str | None]]:
    """Number, text and problem of every line of `opened_text`. A line ends in LF, CR LF or CR: a file with CR alone, as
    Excel for Mac writes it, would else be one long prompt."""
    for number, text in enumerate(file, 1):
        try:
            text.encode()
        except UnicodeEncodeError as error:  # a byte that is no UTF-8 was decoded to half a surrogate pair
            byte, place = ord(text[error.start]) & 0xFF, error.start + 1
            problem = f"not UTF-8 (byte 0x{byte:02x} in place {place}): save the file as UTF-8"
            yield number, text.encode("utf-8", "replace").decode(), problem
        else:
            yield number, text, None


def unknown_column(name: str) -> str:
    """The problem of a name that is no column of a row, with the nearest that is."""
    near = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(COLUMNS)}"
    return f"unknown field {shorten(name, 40)!r}: {hint} (`extra`, an object, sends any field unchecked)"


def _refuse_separators(first: str, name: str) -> None:
    for mark, word in _SEPARATORS.items():
        if _is_header(first, mark):
            raise CliError(f"the columns of {name} are separated by {word}: use commas")


def _is_json(first: str, suffix: str) -> bool:
    """Whether lines that are no JSON one by one seem to be JSON together."""
    return first == "{" or (suffix == ".json" and first != "")


def _not_row_by_row(first: str, source: str, name: str) -> str:
    what, program = ("begins like a JSON array", "'.[]'") if first.startswith("[") else ("is not JSON row by row", ".")
    file = "" if source == "-" else f" {shlex.quote(source)}"
    return f"{name} {what}: make it one row a line (jq -c {program}{file}), or --format txt takes each line as a prompt"


def _sniffed(first: str) -> Format:
    """JSON lines if the first line is an object or a text in JSON, CSV if it is a header; else plain lines."""
    if _is_header(first, ","):
        return "csv"
    try:
        return "jsonl" if isinstance(json.loads(first), dict | str) else "txt"
    except (ValueError, RecursionError):
        return "txt"


def _is_header(line: str, mark: str) -> bool:
    """Whether a line is two or more columns that are known (in whatever case), the prompt among them."""
    try:
        cells = [cell.strip().lower() for cell in next(csv.reader([line], delimiter=mark), list[str]())]
    except csv.Error:
        return False
    return len(cells) > 1 and "prompt" in cells and all(not cell or cell in COLUMNS for cell in cells)
