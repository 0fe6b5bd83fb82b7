"""The format of a prompt file: as stated, else by its name, else by its first line. Files that would be misread are
refused, since every line taken for a prompt by mistake is paid for."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal

from toapis_async.cli.columns import Columns
from toapis_async.cli.output import CliError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toapis_async.batch.sheets import SheetFormat
Format = Literal["jsonl", "txt", "csv", "xlsx", "parquet"]
SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
_BY_SUFFIX: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".parquet": "parquet",
}
_SHEET_FORMATS: Final[dict[str, SheetFormat]] = {"xlsx": "xlsx", "parquet": "parquet"}
_SHEETS: Final[dict[bytes, SheetFormat]] = {b"PK\x03\x04": "xlsx", b"PAR1": "parquet"}
"""By what such files begin with."""
_MARKS: Final = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""Encodings by their byte order mark; UTF-8 has none, or its own."""
_OTHER_SHEETS: Final = frozenset({".xls", ".xlsb", ".ods", ".numbers"})
_LOOKED_AT_BYTES: Final = 1_024


def sheet_format(path: Path, given: Format | None, source: str) -> SheetFormat | None:
    """Which sheet the file at `path` is, as stated, else by how it begins; None for text."""
    if given is not None:
        return _SHEET_FORMATS.get(given)
    with path.open("rb") as file:
        head = file.read(4)
    if Path(source).suffix.lower() in _OTHER_SHEETS:
        raise CliError(f"{source} is a sheet of a kind that is not read: save it as .xlsx or .csv")
    return _SHEETS.get(head)


def encoding_of(path: Path, name: str) -> str:
    """The encoding of a text by its mark: UTF-8 or UTF-16. Raises `CliError` for what is no text."""
    with path.open("rb") as file:
        head = file.read(_LOOKED_AT_BYTES)
    found = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), "UTF-8")
    if found == "UTF-32" or (found == "UTF-8" and b"\0" in head):
        raise CliError(f"{name} is no text in UTF-8 (or UTF-16 with its mark) but a binary file: save it as UTF-8")
    return found


def text_format(path: Path, given: Format | None, source: str, columns: Columns) -> tuple[Format, str]:
    """The format of the text at `path`, which the user calls `source` (`-` for stdin), and what separates its
    columns."""
    name = "the input" if source == "-" else source
    with opened_text(path) as file:
        lines = (text.strip("\r\n ") for _, text, _ in texts(file) if text.strip())
        first = next(lines, "")
        header = next(lines, "") if first.lower().startswith("sep=") else first
    suffix = Path(source).suffix.lower()
    stated = given or _BY_SUFFIX.get(suffix)
    if stated == "txt" and given is None and _is_header(header, "\t", columns):
        stated = "csv"  # as Excel saves "Unicode text"
    found = stated if stated in {"jsonl", "txt", "csv"} else _sniffed(header, columns)
    if found == "txt" and stated in _SHEET_FORMATS:  # a web page or an error message under a sheet's name
        raise CliError(f"{name} is no {suffix} file, nor a table (as text: --format txt)")
    literal = given is not None or suffix == ".txt"  # whoever says text means it: `[cinematic] a kite` is a prompt
    if not literal and (first.startswith("[") or (found == "txt" and _is_json(first, suffix))):
        raise CliError(_not_row_by_row(first, source, name))
    if found == "txt" and columns != Columns():
        raise CliError(f"{name} is plain text, a prompt a line: there are no columns to use (--format csv?)")
    return found, separator_of(header, columns) if found == "csv" else ","


def separator_of(header: str, columns: Columns) -> str:
    """What separates the columns of a header: that under which most of them are known, else most in number."""

    def fit(mark: str) -> tuple[int, int]:
        cells = _cells(header, mark)
        return sum(columns.is_known(cell) for cell in cells), len(cells)

    return max(SEPARATORS, key=fit)


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


def _is_json(first: str, suffix: str) -> bool:
    """Whether lines that are no JSON one by one seem to be JSON together."""
    return first == "{" or (suffix == ".json" and first != "")


def _not_row_by_row(first: str, source: str, name: str) -> str:
    what, program = ("begins like a JSON array", "'.[]'") if first.startswith("[") else ("is not JSON row by row", ".")
    file = "" if source == "-" else f" {shlex.quote(source)}"
    return f"{name} {what}: make it one row a line (jq -c {program}{file}), or --format txt takes each line as a prompt"


def _sniffed(first: str, columns: Columns) -> Format:
    """JSON lines if the first line is an object or a text in JSON, CSV if it is a header; else plain lines."""
    if any(_is_header(first, mark, columns) for mark in SEPARATORS):
        return "csv"
    try:
        return "jsonl" if isinstance(json.loads(first), dict | str) else "txt"
    except (ValueError, RecursionError):
        return "txt"


def _is_header(line: str, mark: str, columns: Columns) -> bool:
    """Whether a line is two or more columns that are known (in whatever case), and what makes prompts is among them."""
    cells = _cells(line, mark)
    return len(cells) > 1 and columns.header_problem(cells) is None


def _cells(line: str, mark: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=mark), list[str]())]
    except csv.Error:
        return []
