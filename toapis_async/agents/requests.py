"""From a tool's arguments to a request. What an agent sends is data: checked, and a path only inside the folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from unicodedata import category

from toapis_async.agents.folder import refused
from toapis_async.engine.fingerprint import fingerprint
from toapis_async.engine.uploads import MAX_BYTES
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.filetype import HEAD_BYTES, UPLOADABLE, UPLOADABLE_VIDEOS, sniff
from toapis_async.request import is_http_url, map_links, request_of

if TYPE_CHECKING:
    from toapis_async.agents.folder import Folder
    from toapis_async.request import Kind, Request

WITHHELD: Final = frozenset({"client_business_id", "callback_url"})
"""Fields that are the server's: the first makes a request known again, the other would send results elsewhere."""
MOST_FILE_BYTES: Final = max(MAX_BYTES.values())
REFERENCES: Final = (*UPLOADABLE, *UPLOADABLE_VIDEOS)
_LINKS: Final = ("data:", "asset://")


def request_from(folder: Folder, arguments: Mapping[str, Any], kind: Kind = "image") -> Request:
    """The request that arguments mean, with the contents of the files that they name. Blocks.

    Raises `InvalidRequest`.
    """
    for members in (arguments, arguments.get("metadata"), arguments.get("extra")):
        if isinstance(members, Mapping) and (withheld := WITHHELD.intersection(cast("Mapping[str, Any]", members))):
            raise InvalidRequest(f"{min(withheld)} is not for agents: the server gives its own", field=min(withheld))
    _check_text(arguments)
    return request_of(map_links(arguments, partial(_content, folder)), kind)


def _check_text(arguments: Mapping[str, Any]) -> None:
    prompt: object = arguments.get("prompt")
    text = prompt if isinstance(prompt, str) else ""
    odd = next((c for c in text if category(c) in {"Cc", "Cs"} and c not in "\t\n\r"), None)
    if odd is not None:
        raise InvalidRequest(f"prompt holds the control character U+{ord(odd):04X}: leave it out", field="prompt")


def _content(folder: Folder, where: str, value: Any) -> Any:
    """A link as it is; what is no link is the name of a file in the folder."""
    if not isinstance(value, str) or is_http_url(value) or value.startswith(_LINKS):
        return value
    try:
        return reference(folder, value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}", field=where.partition("[")[0]) from None


def reference(folder: Folder, name: str) -> bytes:
    """The content of a picture or video that the service takes. Raises `InvalidRequest` for any other file."""
    content = folder.read(name, MOST_FILE_BYTES)
    if sniff(content[:HEAD_BYTES]) not in REFERENCES:
        raise refused(name, "is neither a JPEG, PNG, WebP or GIF picture nor an MP4, WebM or MOV video")
    return content


async def sameness(request: Request) -> str:
    """What two requests for the same have in common: the digest of their fields, whatever id they are sent under."""
    return sameness_of((await fingerprint(request)).text)


def sameness_of(text: str) -> str:
    """The same of a request as a journal has it."""
    fields: dict[str, Any] = json.loads(text)
    fields.pop("client_business_id", None)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
