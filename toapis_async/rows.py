"""What a batch's source gives, made into rows: a request, a key that stays, and a file name that is safe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import anyio.to_thread
from attrs import define

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten
from toapis_async.protocol.naming import digest, file_stem, hashed_stem, row_key
from toapis_async.request import FIELD_NAMES, ImageRequest

if TYPE_CHECKING:
    from toapis_async.handle import TaskHandle

Source: TypeAlias = (
    Iterable[ImageRequest | Mapping[str, Any] | str] | AsyncIterable[ImageRequest | Mapping[str, Any] | str]
)
KEY_COLUMN = "key"


@define(eq=False)
class Row:
    """One row of a batch on its way."""

    index: int
    key: str
    stem: str
    request: ImageRequest | None = None
    error: InvalidRequest | None = None  #: why it never became a request
    client_business_id: str | None = None  #: once it is being submitted
    handle: TaskHandle | None = None


class RowReader:
    """Reads rows in order: equal rows without a key are told apart by their occurrence, and keys must be unique."""

    def __init__(self, key: Callable[[Any], str] | str | None) -> None:
        self._key = key
        self._index = 0
        self._rows_by_key: dict[str, int] = {}
        self._occurrences: dict[str, int] = {}
        self._stems: set[str] = set()

    async def read(self, raw: object) -> Row:
        """The next row. A bad one comes back with its error instead of a request."""
        index, self._index = self._index, self._index + 1
        key = f"row-{index + 1}"
        try:
            fields, given_key = self._split(raw)
            key = given_key or key
            request = ImageRequest.of(fields)
            key = given_key or await self._made_key(request)
            self._check_new(key)
        except InvalidRequest as error:
            return Row(index, key, "", error=error)
        self._rows_by_key[key] = index
        return Row(index, key, self._stem(key), request)

    def _split(self, raw: Any) -> tuple[Any, str | None]:
        """A row without its key, and the key."""
        if callable(self._key):
            try:
                key = self._key(raw)
            except Exception as error:
                raise InvalidRequest(
                    f"the key function raised {type(error).__name__}: {shorten(str(error), 100)}", field="key"
                ) from error
            return raw, _checked_key(key)
        column = self._key or KEY_COLUMN
        if not isinstance(raw, Mapping):
            if self._key is not None:
                raise InvalidRequest(f"a row that is no mapping has no column {column!r}", field=column)
            return raw, None
        fields = dict(cast("Mapping[str, Any]", raw))
        if self._key is not None and column not in fields:
            raise InvalidRequest(f"the row has no column {column!r}", field=column)
        # A column that is a field of the request as well (`client_business_id`) is left to it.
        given: object = fields.get(column) if column in FIELD_NAMES else fields.pop(column, None)
        return fields, None if given is None or given == "" else _checked_key(given)

    async def _made_key(self, request: ImageRequest) -> str:
        if any(isinstance(item, Path) for item in request.reference_images):
            row_digest = await anyio.to_thread.run_sync(_digest, request)
        else:
            row_digest = _digest(request)
        occurrence = self._occurrences[row_digest] = self._occurrences.get(row_digest, 0) + 1
        return row_key(request.prompt, row_digest, occurrence)

    def _check_new(self, key: str) -> None:
        first = self._rows_by_key.get(key)
        if first is not None:
            raise InvalidRequest(
                f"key {shorten(key, 60)!r} is the key of row {first + 1} already; keys are unique", field="key"
            )

    def _stem(self, key: str) -> str:
        stem = file_stem(key)
        while stem.casefold() in self._stems:  # "Kite" and "kite" are one file on some disks
            stem = hashed_stem(stem, key)
        self._stems.add(stem.casefold())
        return stem


def _checked_key(key: object) -> str:
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    if not isinstance(key, str) or not key:
        raise InvalidRequest(f"a key must be a non-empty text, not {shorten(repr(key), 60)}", field="key")
    return key


def _digest(request: ImageRequest) -> str:
    """Eight hex digits of the given fields; local files count by their content. Reads files: blocks."""

    def plain(value: object) -> object:
        if isinstance(value, bytes):
            return {"content": hashlib.sha256(value).hexdigest()}
        if isinstance(value, Path):
            try:
                with value.open("rb") as file:
                    return {"content": hashlib.file_digest(file, "sha256").hexdigest()}
            except (OSError, ValueError):  # ValueError: a NUL in the name
                return {"path": str(value)}  # the upload will say what is wrong with it
        raise TypeError(type(value).__name__)

    return digest(json.dumps(request.given(), sort_keys=True, default=plain))
