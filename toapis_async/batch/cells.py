"""Rows as spreadsheets and data frames hold them, as plain fields: names in any letter case, `1.0` for 1, NaN for
nothing, UUIDs and dates as values, ratios that a spreadsheet took for times of day."""

from __future__ import annotations

import re
from datetime import date, time
from math import isnan
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

RATIO_FIELDS = frozenset({"size", "aspect_ratio", "ratio"})
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::00)?\s*(?:([ap])\.?m\.?)?", re.IGNORECASE)
_NAMELESS = re.compile(r"\s*(?:unnamed: \d+)?", re.IGNORECASE)


def is_nameless(column: str) -> bool:
    """Whether a column has no name: an empty one, or the one that pandas gives such columns."""
    return _NAMELESS.fullmatch(column) is not None


def column_name(name: object, known: Collection[str]) -> str:
    """The known column that `name` means, whatever its letter case; `name` itself as text when there is none."""
    text = str(name)
    folded = text.strip().casefold()
    return text if text in known else next((column for column in known if column.casefold() == folded), text)


def plain_fields(row: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields of a row by their known names, with plain values. Columns without a name and a value are left out.

    Raises `InvalidRequest` when two columns mean one field.
    """
    fields: dict[str, Any] = {}
    for given, cell in row.items():
        name, value = column_name(given, known), plain_value(cell)
        if name in fields:
            raise InvalidRequest(f"the row has {shorten(name, 40)!r} twice, in different letter cases", field=name)
        if value is None and is_nameless(name):
            continue
        fields[name] = size_of_time(value) if name in RATIO_FIELDS else value
    return fields


def plain_value(cell: object) -> Any:
    """A cell's value: whole floats and numpy's numbers as numbers of Python, NaN, NaT and NA as None, UUIDs, dates and
    times as text; all else as it is."""
    if getattr(cell, "ndim", None) == 0 and hasattr(cell, "item"):  # a number of numpy
        cell = cast("Any", cell).item()
    if type(cell).__name__ in {"NAType", "NaTType"} or (isinstance(cell, float) and isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if isinstance(cell, date | time):
        return cell.isoformat()
    return str(cell) if isinstance(cell, UUID) else cell


def size_of_time(size: object) -> object:
    """A ratio that a spreadsheet shows as a time of day (`16:09`, `3:04`, `4:09:00 PM`) as the ratio; all else as it
    is."""
    match = _TIME_OF_DAY.fullmatch(size.strip()) if isinstance(size, str) else None
    if match is None:
        return size
    width, height, half = int(match[1]), int(match[2]), (match[3] or "").lower()
    if half:
        width = width % 12 + (12 if half == "p" else 0)
    return f"{width}:{height}"
