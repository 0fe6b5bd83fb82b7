"""What images and videos have in common as requests, and all that the engine needs to know of one.

request.kind               "image" or "video"
request.given()            what was asked for, as a mapping: its digest, and what a journal keeps; `request_of`
                           takes it back
request.given_business_id  the caller's own id, wherever the service would read it
request.body()             what is sent, under the names that the model's page lists; local files still stand in it
request.local_files()      those files, in order; `with_links(body, links)` puts the links of their uploads there
request.route              which of the kind's endpoints it goes to: `protocol.endpoints.endpoint_of(request)`
request.poll_class         the class of requests whose service times are learned together
request.is_off_peak        whether the service may take two days over it
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Concatenate, Final, Literal, ParamSpec, Self, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

from toapis_async.errors import InvalidRequest

Kind: TypeAlias = Literal["image", "video"]
Route: TypeAlias = Literal["generations", "edits", "remix", "extend"]
Reference: TypeAlias = str | Path | bytes
"""A file to work from: a public http(s) URL, or a local file (`Path` or `bytes`) that is uploaded at submit."""

LINK_FIELDS: Final = ("mask_url", "image", "url")
LINK_LISTS: Final = (
    *("reference_images", "image_urls", "video_list"),
    *("image_with_roles", "video_with_roles", "audio_with_roles"),
)
"""Fields in which links stand, alone and in lists, as they are or as members of objects."""
_LINK_MEMBERS: Final = frozenset({"url", "image_url", "video_url"})
_TIME_OF_DAY = re.compile(r"0[0-9]:[0-9]{1,2}|[0-9]{1,2}:0[0-9]|[0-9]{1,2}:[0-9]{2}:[0-9]{2}")
MAX_LINK_CHARACTERS = 2048  #: text that is no link and longer than this is taken for base64
P = ParamSpec("P")
S = TypeVar("S", bound="Request")


class Request:
    """A request for images or for a video. Its fields are the caller's; what is `None` is not sent."""

    __slots__ = ()

    kind: ClassVar[Kind]
    prompt: str | None
    model: str
    _given: Mapping[str, Any]  #: what `given` returns a copy of, made once: all that follows asks it
    field_names: ClassVar[tuple[str, ...]] = ()
    required: ClassVar[Mapping[str, str]] = {}  #: what can't be left out, and what it says

    def __init__(self, *args: Any, **fields: Any) -> None:
        raise NotImplementedError

    @classmethod
    def of(cls, source: Self | Mapping[str, Any] | str, **changes: Any) -> Self:
        """A request from a prompt, a mapping of fields, or another request; `changes` go over it."""
        if isinstance(source, cls):
            return cls(**{**source.as_named(), **changes}) if changes else source
        if isinstance(source, str):
            return cls(source, **changes)
        if not isinstance(source, Mapping):
            raise InvalidRequest(
                f"a request is an {cls.__name__}, a mapping of its fields or a prompt, not {type(source).__name__}"
            )
        named = {str(name): value for name, value in {**source, **changes}.items()}
        if named.pop("kind", cls.kind) != cls.kind:
            raise InvalidRequest(
                f"this is no request for {cls.kind}s: its kind is {short(source['kind'])}", field="kind"
            )
        for name in named:
            if name not in cls.field_names:
                raise unknown_field(name, cls.field_names)
        return cls(**named)

    def given(self) -> dict[str, Any]:
        """The fields that were given, by name."""
        return dict(self._given)

    def as_named(self) -> dict[str, Any]:
        """The same under the names that the caller used."""
        return self.given()

    def body(self) -> dict[str, Any]:
        """The fields as they are sent; local files still stand in them as `Path` or `bytes`."""
        raise NotImplementedError

    @property
    def route(self) -> Route:
        """Which of the endpoints of its kind it goes to."""
        return "generations"

    @property
    def video_id(self) -> str | None:
        """The video that is made anew or longer; None for a new one, and for images."""
        return None

    @property
    def poll_class(self) -> str:
        """The class of requests that take about as long."""
        raise NotImplementedError

    @property
    def is_off_peak(self) -> bool:
        """Whether the service was told to take its time, up to 48 hours [docs]."""
        return False

    @property
    def given_business_id(self) -> str | None:
        """The caller's own id, wherever the service would read it (`metadata` too [docs])."""
        extra: Mapping[str, object] = self._given.get("extra", {})
        given = extra.get("client_business_id", self._given.get("client_business_id"))
        if given is not None:
            return check_task_id(given, "client_business_id")
        metadata = extra.get("metadata", self._given.get("metadata"))
        inner = cast("Mapping[str, object]", metadata).get("client_business_id") if isinstance(metadata, dict) else None
        # One that is no id is left alone: the service prefers ours, at the top level.
        return check_task_id(inner, "client_business_id") if isinstance(inner, str) and inner else None

    def local_files(self) -> tuple[Path | bytes, ...]:
        """The local files that are sent, in the order in which they stand in the body."""
        return files_in(self.body())


_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""Most values: known by their type, for a tenth of what asking whether they are a `Mapping` takes."""
_EMPTY: Final[tuple[object, ...]] = ((), {})
"""Values that are the same as none."""


def given_of(names: Sequence[str], values: Sequence[object]) -> dict[str, Any]:
    """The fields that have a value."""
    pairs = zip(names, values, strict=True)
    return {name: value for name, value in pairs if value is not None and (value or value not in _EMPTY)}


def body_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request (`Request.given()`, or what a journal kept of it) as they count: `extra` over the
    others."""
    fields = dict(given)
    extra: Mapping[str, Any] = fields.pop("extra", None) or {}
    return {**fields, **extra}


def with_links(body: Mapping[str, Any], links: Sequence[str]) -> dict[str, Any]:
    """The body with the links of uploads in the places of its local files, in the order of `local_files`."""
    rest = iter(links)
    return {name: _linked(value, rest) for name, value in body.items()}


def files_in(fields: Mapping[str, Any]) -> tuple[Path | bytes, ...]:
    """The local files among fields, in order, wherever they stand."""
    found: list[Path | bytes] = []
    _find_files(fields.values(), found)
    return tuple(found)


def _find_files(values: Iterable[object], found: list[Path | bytes]) -> None:
    for value in values:
        if type(value) in _SCALARS:
            continue
        if isinstance(value, Path | bytes):
            found.append(value)
        elif isinstance(value, Mapping):
            _find_files(cast("Mapping[str, object]", value).values(), found)
        elif isinstance(value, list | tuple):
            _find_files(cast("Sequence[object]", value), found)


def _linked(value: object, links: Iterator[str]) -> object:
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Path | bytes):
        return next(links)
    if isinstance(value, Mapping):
        return {name: _linked(member, links) for name, member in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_linked(item, links) for item in cast("Sequence[object]", value)]
    return value


def map_links(fields: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Fields, as a row of a file has them, with `change(where, value)` in the place of every value where a link may
    stand. `where` names the place for people: `image_with_roles[0].url`. What has another form than it should is left
    alone: the request will say so."""
    mapped = dict(fields)
    for name in LINK_FIELDS:
        if mapped.get(name) is not None:
            mapped[name] = change(name, mapped[name])
    for name in LINK_LISTS:
        if isinstance(mapped.get(name), list | tuple):
            mapped[name] = [_mapped(f"{name}[{place}]", item, change) for place, item in enumerate(mapped[name])]
    return mapped


def _mapped(where: str, item: object, change: Callable[[str, Any], Any]) -> object:
    if not isinstance(item, Mapping):
        return change(where, item)
    members = cast("Mapping[str, object]", item)
    return {
        name: change(f"{where}.{name}", value) if name in _LINK_MEMBERS and value is not None else value
        for name, value in members.items()
    }


# ------------------------------------------------------------------------------------------------ names


def checks_names(init: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """An `__init__` that answers a misspelt keyword with `InvalidRequest` and the nearest name, not a `TypeError`."""

    @functools.wraps(init)
    def checked(self: S, /, *args: P.args, **named: P.kwargs) -> None:
        for name in named:
            if name not in self.field_names:
                raise unknown_field(name, self.field_names)
        for name, hint in self.required.items():
            if name not in named and not (args and name == "prompt"):
                raise InvalidRequest(f"{name} is missing: {hint}", field=name)
        init(self, *args, **named)

    return checked


def unknown_field(name: str, known: Sequence[str]) -> InvalidRequest:
    """The error for a keyword or a column we don't know, with the nearest name we do."""
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return InvalidRequest(f"unknown field {short(name)}: {hint} (extra={{…}} sends any field unchecked)", field=name)


def check_task_id(task_id: object, name: str = "task_id") -> str:
    """An id that can stand as one segment of a URL, or `InvalidRequest`."""
    if not isinstance(task_id, str) or not task_id.strip() or task_id in {".", ".."}:
        raise InvalidRequest(f"{name} must be a non-empty text, not {short(task_id)}", field=name)
    if len(task_id) > 512 or not task_id.isprintable():
        raise InvalidRequest(f"{name} must be printable and at most 512 characters long", field=name)
    return task_id


# ------------------------------------------------------------------------------------------------ values


def short(value: object) -> str:
    """The repr of a value, at most 42 characters long."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:39] + "…")
    try:
        return repr(value)[:40]
    except Exception:  # a repr of the caller's, or an int of thousands of digits
        return f"a {type(value).__name__}"


def is_mapping(value: object) -> bool:
    """Whether a value is a mapping (`isinstance` alone leaves its members' types unknown)."""
    return isinstance(value, Mapping)


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_A_HOST = re.compile(r"\s")


def is_http_url(text: str) -> bool:
    """Whether a text is an absolute http or https URL with a host, and one that somebody can fetch."""
    try:
        parts = urlsplit(text)
        can_be_reached = parts.port != 0 and not _NOT_IN_A_HOST.search(parts.netloc)
    except ValueError:  # no port, or no host
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and can_be_reached and not _CONTROL.search(text)


def json_object(name: str, value: object) -> dict[str, Any] | None:
    """A deep copy of a mapping that the caller can't change, of exactly what will be sent; None for None."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{name} must be a mapping, not {type(value).__name__}", field=name)
    try:
        return cast(
            "dict[str, Any]",
            json.loads(json.dumps(dict(cast("Mapping[str, Any]", value)), allow_nan=False)),
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name} can't be sent as JSON: {str(error)[:80]}", field=name) from None


def json_with_files(name: str, value: object) -> Any:
    """The same for any value in which local files may stand."""
    try:
        return _copied(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name} can't be sent as JSON: {str(error)[:80]}", field=name) from None


def _copied(value: object) -> Any:
    if isinstance(value, Path | bytes):
        return value
    if isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        if odd := next((key for key in members if not isinstance(key, str)), None):
            raise TypeError(f"names must be text, not {short(odd)}")
        return {key: _copied(member) for key, member in members.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in cast("Sequence[object]", value)]
    return json.loads(json.dumps(value, allow_nan=False))


# ------------------------------------------------------------------------------------------------ generic checks


def check_types(request: Request, *, texts: Sequence[str] = (), numbers: Sequence[str] = ()) -> None:
    """Refuse what no model could take: a text that is none, a number that is no int (`True`, "1" and 1.0 are not)."""
    for name in texts:
        value: object = getattr(request, name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"{name} must be text, not {short(value)}", field=name)
    for name in numbers:
        number: object = getattr(request, name)
        if number is not None and type(number) is not int:
            raise InvalidRequest(f"{name} must be a whole number, as an int, not {short(number)}", field=name)


def check_flags(request: Request, names: Sequence[str]) -> None:
    """Refuse a flag that is no bool."""
    for name in names:
        value: object = getattr(request, name)
        if value is not None and not isinstance(value, bool):
            raise InvalidRequest(f"{name} must be True or False, not {short(value)}", field=name)


def check_callback(callback_url: str | None) -> None:
    """Refuse a `callback_url` that nothing can be posted to."""
    if callback_url is not None and not is_http_url(callback_url):
        raise InvalidRequest(f"callback_url must be an http(s) URL, not {short(callback_url)}", field="callback_url")


def check_ratio_of_a_sheet(name: str, value: str | None) -> None:
    """Refuse a ratio that a spreadsheet turned into a time of day: it would be another ratio, and be paid for."""
    if value is not None and _TIME_OF_DAY.fullmatch(value):
        width, height = (part.lstrip("0") or "0" for part in value.split(":")[:2])
        raise InvalidRequest(
            f"{name}={value!r} looks like a time of day that a spreadsheet made of {width}:{height}: write "
            f"{width}:{height}, and format the column as text; {anyway(name)}",
            field=name,
        )


def check_link(where: str, name: str, value: object) -> None:
    """Refuse a text that is neither a URL nor what else the service takes for one (`asset://…`, `data:…`)."""
    if not isinstance(value, str) or is_http_url(value) or re.match(r"asset://.|data:.", value):
        return
    if len(value) > MAX_LINK_CHARACTERS:
        problem = f"{where} looks like base64: pass the file as Path(…) or bytes"
    else:
        problem = f"{where}={short(value)} is not an http(s) URL; for a local file pass Path(…) or bytes"
    raise InvalidRequest(f"{problem}, and it is uploaded for you", field=name)


def anyway(name: str) -> str:
    """The way past a check, in words."""
    return f"extra={{{name.partition('.')[0]!r}: …}} sends it unchecked"
