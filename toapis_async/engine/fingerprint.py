"""What makes two requests the same: the fields that were given, and the contents of the files among them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from toapis_async.engine.threads import in_thread
from toapis_async.engine.uploads import read_local
from toapis_async.errors import InvalidRequest
from toapis_async.request import files_in

if TYPE_CHECKING:
    from toapis_async.request import Request


@frozen
class Fingerprint:
    """A request's identity."""

    digest: str  #: SHA-256 of the text, in hex
    text: str  #: the given fields as JSON; a local file is the hash of its content


async def fingerprint(request: Request) -> Fingerprint:
    """The identity of a request; its local files are read and hashed in a worker thread."""
    if files_in(request.given()):
        return await in_thread(_fingerprint, request)
    return _fingerprint(request)


def _fingerprint(request: Request) -> Fingerprint:
    text = json.dumps(request.given(), sort_keys=True, default=_plain)
    return Fingerprint(hashlib.sha256(text.encode()).hexdigest(), text)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"content": hashlib.sha256(value).hexdigest()}
    if isinstance(value, Path):
        try:
            return {"content": hashlib.sha256(read_local(value)).hexdigest()}
        except InvalidRequest:
            return {"path": str(value)}  # the upload will say what is wrong with it
    raise TypeError(type(value).__name__)
