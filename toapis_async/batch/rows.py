"""What a batch's source gives, made into rows: a request, a key that stays, and a file name that is safe."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from attrs import define

from toapis_async.batch.cells import plain_fields, plain_value
from toapis_async.engine.fingerprint import fingerprint
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten
from toapis_async.protocol.naming import file_stem, hashed_stem, row_key
from toapis_async.request import ROW_FIELDS, Request, request_of

if TYPE_CHECKING:
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.fingerprint import Fingerprint
    from toapis_async.engine.journal.records import Record
    from toapis_async.handle import TaskHandle
    from toapis_async.request import Kind

Source: TypeAlias = Iterable[Request | Mapping[str, Any] | str] | AsyncIterable[Request | Mapping[str, Any] | str]
KEY_COLUMN = "key"


@define(eq=False)
class Row:
    """One row of a batch on its way."""

    index: int
    key: str
    stem: str
    request: Request | None = None
    error: InvalidRequest | None = None  #: why it never became a request
    identity: Fingerprint | None = None  #: of the request
    given_key: str | None = None  #: the key, if it was given
    occurrence: int = 1  #: among the rows without a key that are equal
    client_business_id: str | None = None  #: once it is being submitted
    known_id: str | None = None  #: what an earlier pass of the run sent it as
    record: Record | None = None  #: what an earlier pass of the run left of it
    handle: TaskHandle | None = None
    entry: Entry | None = None  #: the task of the handle
    attempts: int = 0  #: how often it was submitted, earlier passes of the run included
    most_attempts: int = 1


class Reader(Protocol):
    """Makes rows of what a source gives."""

    async def read(self, raw: object) -> Row: ...
    def close(self) -> None: ...


class RowReader:
    """Reads rows in order: equal rows without a key are told apart by their occurrence, and keys must be unique."""

    def __init__(self, key: Callable[[Any], str] | str | None, kind: Kind = "image") -> None:
        self._key = key
        self._kind: Kind = kind  #: of rows that don't say
        self._index = 0

    @cached_property
    def _met(self) -> _Met:
        return _Met()

    def close(self) -> None:
        """Forget what was read."""
        self._met.close()

    async def read(self, raw: object) -> Row:
        """The next row. A bad one comes back with its error instead of a request."""
        index, self._index = self._index, self._index + 1
        key = f"row-{index + 1}"
        try:
            fields, given_key = self._split(raw)
            key = given_key or key
            request = request_of(fields, self._kind)
            identity = await fingerprint(request)
            occurrence = 1
            if given_key is None:
                occurrence = self._met.count(identity.digest)
                key = self._made_key(request, identity.digest, occurrence)
            else:
                self._check_new(given_key)
        except InvalidRequest as error:
            return Row(index, key, "", error=error)
        except Exception as error:  # of the row's own (a value whose repr raises, a number of 10,000 digits)
            return Row(index, key, "", error=_unreadable(error))
        self._met.add_key(key, index)
        return Row(index, key, self._stem(key), request, identity=identity, given_key=given_key, occurrence=occurrence)

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
        fields = plain_fields(cast("Mapping[str, Any]", raw), (column, *ROW_FIELDS))
        if self._key is not None and column not in fields:
            raise InvalidRequest(f"the row has no column {column!r}", field=column)
        # A column that is a field of the request as well (`client_business_id`) is left to it.
        given: object = fields.get(column) if column in ROW_FIELDS else fields.pop(column, None)
        return fields, None if given is None or given == "" else _checked_key(given)

    def _made_key(self, request: Request, digest: str, occurrence: int) -> str:
        # Eight of its digits, so that names stay short; in a large batch two digests may well begin alike.
        while self._met.place_of(key := row_key(request.prompt or request.model, digest[:8], occurrence)) is not None:
            occurrence += 1
        return key

    def _check_new(self, key: str) -> None:
        first = self._met.place_of(key)
        if first is not None:
            raise InvalidRequest(
                f"key {shorten(key, 60)!r} is the key of row {first + 1} already; keys are unique", field="key"
            )

    def _stem(self, key: str) -> str:
        stem = file_stem(key)
        while not self._met.add_stem(stem.casefold()):  # "Kite" and "kite" are one file on some disks
            stem = hashed_stem(stem, key)
        return stem


class _Met:
    """The keys, digests and file names of one pass: in a temporary database, which leaves memory when it grows."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE key (key TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID;"
            "CREATE TABLE digest (digest TEXT PRIMARY KEY, count INTEGER) WITHOUT ROWID;"
            "CREATE TABLE stem (stem TEXT PRIMARY KEY) WITHOUT ROWID;"
            "BEGIN;"
        )

    def close(self) -> None:
        self._db.close()

    def add_key(self, key: str, place: int) -> None:
        self._db.execute("INSERT INTO key VALUES (?, ?)", (key, place))

    def place_of(self, key: str) -> int | None:
        found: tuple[int] | None = self._db.execute("SELECT place FROM key WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def count(self, digest: str) -> int:
        """How often this digest was met, this time included."""
        counted: tuple[int] = self._db.execute(
            "INSERT INTO digest VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET count = count + 1 RETURNING count",
            (digest,),
        ).fetchone()
        return counted[0]

    def add_stem(self, stem: str) -> bool:
        """Whether it is new."""
        return self._db.execute("INSERT OR IGNORE INTO stem VALUES (?)", (stem,)).rowcount == 1


def _unreadable(error: Exception) -> InvalidRequest:
    try:
        reason = shorten(str(error), 100)
    except Exception:  # its text raises, too
        reason = "no reason can be told"
    unreadable = InvalidRequest(f"the row can't be read: {type(error).__name__}: {reason}")
    unreadable.__cause__ = error
    return unreadable


def _checked_key(given: object) -> str:
    key = plain_value(given)
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    if not isinstance(key, str) or not key:
        raise InvalidRequest(f"a key must be a non-empty text, not {shorten(repr(key), 60)}", field="key")
    try:
        key.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON may smuggle in
        raise InvalidRequest(f"key {shorten(ascii(key), 60)} is no valid Unicode text", field="key") from None
    return key
