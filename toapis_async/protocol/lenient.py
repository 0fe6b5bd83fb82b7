"""Reading what the service wrote without believing it: one HTTP answer, its JSON, and single values out of it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from attrs import define, field

from toapis_async.errors import UnreadableAnswer
from toapis_async.scrub import scrub

if TYPE_CHECKING:
    from collections.abc import Mapping

JsonObject: TypeAlias = dict[str, Any]

MAX_MESSAGE_CHARACTERS = 300
_NAMES = (str, int)
_IDS = ("id", "task_id")
_NUMERIC = (str, int, float)  # made once: `str | int | float` in a function builds a new union at every call
_MOST_DIGITS = 30
_LAST_MOMENT_UNIX_S = 253_370_764_800.0  # the year 9999: leaves room for a link's life after it


_UNREAD: Final = object()
_DECODER: Final = json.JSONDecoder()


@define
class Answer:
    """One HTTP answer, read to its end; headers by names in lower case. `sent`: how often the request went out."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: int = 1

    _json: object = field(default=_UNREAD, init=False, repr=False, eq=False)

    @property
    def json(self) -> object:
        """The JSON value of the body, read once; None for what is none."""
        if self._json is _UNREAD:
            self._json = json_of(self.body)
        return self._json


def json_of(body: bytes) -> object:
    """The JSON value of a body; None for what is none."""
    try:
        # What begins like this is UTF-8 to `json.loads`, too: of UTF-16 and UTF-32, one of the two bytes is 0.
        if body.startswith(b'{"'):
            text = body.decode("utf-8", "surrogatepass")
            value, end = _DECODER.raw_decode(text)
            if end == len(text):
                return value
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def as_object(value: object) -> JsonObject | None:
    """The value when it is a JSON object."""
    return cast("JsonObject", value) if isinstance(value, dict) else None


def task_object(body: JsonObject) -> JsonObject:
    """The task in an answer's body: the body itself, or what it wraps in `data`, as other gateways do [field]."""
    if (data := body.get("data")) is None:
        return body
    inner = as_object(data) or _only_task(data)
    if inner is None or any(read_text(body.get(name)) for name in _IDS):
        return body
    has_id = any(read_text(inner.get(name)) for name in _IDS)
    has_status, has_outer_status = (read_text_or_none(part.get("status")) is not None for part in (inner, body))
    return inner if (has_id and has_status) or ((has_id or has_status) and not has_outer_status) else body


def _only_task(value: object) -> JsonObject | None:
    """The task that a list holds alone; None for files of a result."""
    members = cast("list[object]", value) if isinstance(value, list) else []
    task = as_object(members[0]) if len(members) == 1 else None
    return task if task is not None and "status" in task and not task.keys().isdisjoint(_IDS) else None


def read_object(answer: Answer) -> JsonObject:
    members = as_object(answer.json)
    if members is not None:
        return members
    reason = ""
    body: object = None
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
    if reason:  # raised out here, so that the reader's error, which holds the body, is no context of ours
        what = "truncated or not JSON" if answer.body else "an empty answer"
        if answer.body.lstrip().startswith(b"<"):
            what = "an HTML page: is the base URL (TOAPIS_BASE_URL) right?"
        raise unreadable(answer, f"{what} ({reason})", "$")
    raise unreadable(answer, f"expected an object, got {type(body).__name__}", "$")


def unreadable(answer: Answer, message: str, place: str) -> UnreadableAnswer:
    text = shorten(answer.body[:4096].decode("utf-8", "replace"))
    return UnreadableAnswer(shorten(message), status=answer.status, place=shorten(place), text=text)


def read_text(value: object, _: object = None) -> str:
    return str(value) if isinstance(value, _NAMES) and not isinstance(value, bool) else ""


def read_text_or_none(value: object, _: object = None) -> str | None:
    return value if isinstance(value, str) and value else None


def read_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, _NUMERIC):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_progress(value: object, _: object = None) -> int | None:
    if type(value) is int and 0 <= value <= 100:
        return value
    number = read_number(value.strip().removesuffix("%") if isinstance(value, str) else value)
    return None if number is None else int(min(max(number, 0), 100))


def read_moment(value: object, _: object = None) -> datetime | None:
    seconds = read_number(value)
    if not seconds or not 0 < seconds < _LAST_MOMENT_UNIX_S:  # the service writes 0 for "not yet"
        return None
    return datetime.fromtimestamp(seconds, UTC)


def read_decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, _NUMERIC):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    # Written out, a number of 1e999999999 takes a gigabyte.
    return number if number.is_finite() and abs(number.adjusted()) <= _MOST_DIGITS else None


def read_code(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, _NAMES):
        return ""
    return shorten(str(value), 100)


def shorten(text: str, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """One line for people: keys taken out, white space folded, control characters (terminal escapes) dropped, cut at
    `limit`."""
    line = " ".join("".join(c for c in scrub(text[: 8 * limit]) if c.isprintable() or c.isspace()).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
