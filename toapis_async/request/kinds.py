"""A request of either kind, from whatever says which."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, cast

from toapis_async.errors import InvalidRequest
from toapis_async.request.base import Kind, Request, short
from toapis_async.request.image import ImageRequest
from toapis_async.request.video import VideoRequest

REQUESTS: Final[Mapping[Kind, type[Request]]] = MappingProxyType({"image": ImageRequest, "video": VideoRequest})


ROW_FIELDS: Final = tuple(dict.fromkeys(("kind", *ImageRequest.field_names, *VideoRequest.field_names)))
"""What a row of a file may hold, of either kind."""


def request_of(source: Request | Mapping[str, Any] | str, kind: Kind = "image", **changes: Any) -> Request:
    """A request from a prompt, a mapping of fields, or another request; `changes` go over it.

    A mapping's own member `kind` goes before `kind`, as a request does. Raises `InvalidRequest`.
    """
    if isinstance(source, Request):
        return type(source).of(source, **changes)
    if isinstance(source, Mapping):
        fields = dict(source)
        named: object = fields.pop("kind", None)
        kind = cast("Kind", named) if named not in (None, "") else kind
        source = fields
    if not isinstance(kind, str) or kind not in REQUESTS:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"kind is 'image' or 'video', not {short(kind)}", field="kind")
    made = REQUESTS[kind]
    if isinstance(source, Mapping):  # an empty cell in a column of the other kind's is none
        others = set(ROW_FIELDS).difference(made.field_names)
        source = {name: value for name, value in source.items() if value is not None or name not in others}
    return made.of(source, **changes)
