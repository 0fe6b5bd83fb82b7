"""Uploads: reading one from a multipart body, and knowing an image by its first bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from aiohttp import BodyPartReader, web

from toapis_async.sandbox.catalogue import UPLOAD_LIMIT_BYTES

EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/gif": "gif"}
MIME_TYPES: Final = {extension: mime_type for mime_type, extension in EXTENSIONS.items()}

UNSUPPORTED: Final = "Unsupported image type. Allowed: JPEG, PNG, WebP, GIF"
TOO_LARGE: Final = "Image too large. Maximum size is 10MB"
NO_FILE: Final = "No file was uploaded: send multipart/form-data with a field named file"


class UploadRefusedError(Exception):
    """The upload is not stored; its text is the service's own."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that was taken."""

    upload_id: str
    name: str
    mime_type: str
    data: bytes


def image_type(data: bytes) -> str | None:
    """The mime type by magic bytes, whatever the headers claim; `None` when it is no supported image."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def checked(data: bytes, number: int, now: float) -> Upload:
    """An upload from its bytes; raises `UploadRefusedError`. `number` keeps equal files apart."""
    if len(data) > UPLOAD_LIMIT_BYTES:
        raise UploadRefusedError(TOO_LARGE)
    mime_type = image_type(data)
    if mime_type is None:
        raise UploadRefusedError(UNSUPPORTED)
    short = hashlib.blake2b(data, digest_size=4, salt=number.to_bytes(8)).hexdigest()
    return Upload(f"upload_{short}", f"{int(now)}_{short}.{EXTENSIONS[mime_type]}", mime_type, data)


async def read_file_field(request: web.Request) -> bytes:
    """The bytes of the multipart field `file`; raises `UploadRefusedError` when there is none or it is too
    large.

    The whole body is read even when it is refused: an answer in the middle of a body that is still being sent
    can reach the client as a reset connection instead.
    """
    if request.content_type != "multipart/form-data":
        await request.read()
        raise UploadRefusedError(NO_FILE)
    found: bytes | None = None
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "file":
                found = await _read_bounded(part)
    except ValueError as error:
        # what aiohttp raises for a body that is no multipart after all, or that ends within a part.
        raise UploadRefusedError(NO_FILE) from error
    if found is None:
        raise UploadRefusedError(NO_FILE)
    return found


async def _read_bounded(part: BodyPartReader) -> bytes:
    """At most one byte more than the limit, which is enough to be refused for it."""
    kept = bytearray()
    while chunk := await part.read_chunk(65_536):
        kept += chunk[: UPLOAD_LIMIT_BYTES + 1 - len(kept)]
    return bytes(kept)
