"""Rows as spreadsheets and data frames hold them, as plain fields: names in any letter case, `1.0` for 1, NaN for
nothing, UUIDs and dates as values, ratios that a spreadsheet took for times of day, lists and objects as text."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from math import isnan
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from attrs import fields as fields_of

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten
from toapis_async.request import LINK_LISTS, ImageRequest, VideoRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

RATIO_FIELDS = frozenset({"size", "aspect_ratio", "ratio"})
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::00)?\s*(?:([ap])\.?m\.?)?", re.IGNORECASE)
_NAMELESS = re.compile(r"\s*(?:unnamed: \d+)?", re.IGNORECASE)
_FIELDS: Final = (*fields_of(ImageRequest), *fields_of(VideoRequest))
_NUMBERS: Final = {a.name for a in _FIELDS if str(a.type) == "int | None"}
_FLAGS: Final = {a.name for a in _FIELDS if str(a.type).startswith("bool |")}
_OBJECTS: Final = ("metadata", "extra", "tools")
_WHOLE: Final = re.compile(r"([0-9]{1,18})(?:\.0*)?")  #: also as data frames write it: 1.0
_LIST_SEPARATORS: Final = re.compile(r"[;|]")


def is_nameless(column: str) -> bool:
    """Whether a column has no name: an empty one, or the one that pandas gives such columns."""
    return _NAMELESS.fullmatch(column) is not None


def column_name(name: object, known: Collection[str]) -> str:
    """The known column that `name` means, whatever its letter case; `name` itself as text when there is none."""
    text = str(name)
    if text in known:
        return text
    folded = folded_name(text)
    return next((column for column in known if folded_name(column) == folded), text)


@lru_cache(maxsize=1_000)
def folded_name(name: str) -> str:
    """What two names of one column have in common: "Reference Images" and "reference_images" are one."""
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()


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


def value_of_text(name: str, text: str, is_file: Callable[[str], bool] = lambda _: False) -> Any:
    """The value of a field that a sheet holds as text: a number, a truth, an object in JSON, or a list (in JSON, or
    with `;` or `|` between its items, else with blanks); any other text as it is. `is_file` says which texts name one
    file, whatever stands in them.

    Raises `ValueError` or `RecursionError` for what should be JSON and is not.
    """
    if name in _NUMBERS and (number := _WHOLE.fullmatch(text)):
        return int(number[1])
    if name in _FLAGS and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if name in _OBJECTS or (name in LINK_LISTS and text.startswith("[")):
        return json.loads(text)
    if name in LINK_LISTS:
        return [text] if is_file(text) else _items_of(text)
    return text


def _items_of(text: str) -> list[str]:
    if _LIST_SEPARATORS.search(text) is None:
        return text.split()
    return [item for part in _LIST_SEPARATORS.split(text) if (item := part.strip())]


def text_of_value(value: object) -> str:
    """What a sheet's cell shows a person, as text: 2 for 2.0, a day without its midnight, JSON for lists and objects,
    nothing for nothing. `value_of_text` reads it back."""
    if isinstance(value, timedelta):  # what a sheet makes of a ratio past 23:59, such as 32:9
        minutes = round(value.total_seconds() / 60)
        return f"{minutes // 60}:{minutes % 60:02}"
    if isinstance(value, datetime) and value.timetz() == time():
        return value.date().isoformat()
    value = plain_value(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return json.dumps(value, default=text_of_value) if isinstance(value, list | tuple | dict) else str(value)
