"""A task as a short text, with which any process can go on watching it as it was: kind, ids, class and age."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Final, cast

from attrs import astuple, frozen

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.endpoints import ENDPOINTS
from toapis_async.request import check_task_id

if TYPE_CHECKING:
    from toapis_async.request import Kind

PREFIX: Final = "toapis1."
MOST_CHARACTERS: Final = 4096


@frozen
class Token:
    """What `TaskHandle.token()` holds."""

    kind: Kind
    task_id: str
    query_id: str  #: the id that the service is queried with
    client_business_id: str | None
    request_class: str | None
    submitted_at: float  #: Unix seconds
    age_factor: int  #: of `max_task_age_s`

    def __str__(self) -> str:
        text = json.dumps(astuple(self), separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_token(text: str) -> Token | None:
    """The token that a text is; None for a text that is none, such as a task's id. Raises `InvalidRequest` for one that
    was damaged."""
    if not text.startswith(PREFIX):
        return None
    encoded = text.removeprefix(PREFIX).strip()
    try:
        members = base64.urlsafe_b64decode(encoded[:MOST_CHARACTERS] + "=" * (-len(encoded) % 4))
        return _checked(json.loads(members))
    except (ValueError, TypeError, RecursionError):  # InvalidRequest is a ValueError
        raise InvalidRequest(
            "this token was cut or changed: attach the task's id instead, with kind= for a video", field="task_id"
        ) from None


def _checked(members: object) -> Token:
    kind, task_id, query_id, business_id, request_class, submitted_at, age_factor = cast("list[object]", members)
    if kind not in ENDPOINTS or type(age_factor) is not int or not 1 <= age_factor <= 1_000:
        raise ValueError
    if type(submitted_at) not in {int, float} or not math.isfinite(cast("float", submitted_at)):
        raise ValueError
    if not isinstance(request_class, str | None) or (request_class is not None and len(request_class) > 200):
        raise ValueError
    return Token(
        kind=kind,
        task_id=check_task_id(task_id),
        query_id=check_task_id(query_id),
        client_business_id=None if business_id is None else check_task_id(business_id),
        request_class=request_class,
        submitted_at=float(cast("float", submitted_at)),
        age_factor=age_factor,
    )
