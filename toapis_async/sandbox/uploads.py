"""Uploads: reading one from a multipart body, and knowing an image or a video by its first bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import BodyPartReader, web

if TYPE_CHECKING:
    from collections.abc import Callable

MIME_TYPES: Final = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mov": "video/quicktime",
}
"""By the extension of a file's name."""
NO_FILE: Final = "No file was uploaded: send multipart/form-data with a field named file"
_STILL_BRANDS: Final = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")


class UploadRefusedError(Exception):
    """The upload is not stored; its text is the service's own."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was taken."""

    upload_id: str
    name: str
    mime_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class UploadKind:
    """What one of the two upload endpoints takes."""

    most_bytes: int
    """Published as "10MB" and "50MB": the strict reading is the one a client can rely on, so more is refused here."""
    extension_of: Callable[[bytes], str | None]
    unsupported: str
    too_large: str

    def checked(self, data: bytes, number: int, now: float) -> Upload:
        """An upload from its bytes; raises `UploadRefusedError`. `number` keeps equal files apart."""
        if len(data) > self.most_bytes:
            raise UploadRefusedError(self.too_large)
        extension = self.extension_of(data)
        if extension is None:
            raise UploadRefusedError(self.unsupported)
        short = hashlib.blake2b(data, digest_size=4, salt=number.to_bytes(8)).hexdigest()
        return Upload(f"upload_{short}", f"{int(now)}_{short}.{extension}", MIME_TYPES[extension], data)


def image_type(data: bytes) -> str | None:
    """The extension by magic bytes, whatever the headers claim; `None` when it is no supported image."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def video_type(data: bytes) -> str | None:
    """The same for videos."""
    if data[4:8] == b"ftyp" and data[8:12] not in _STILL_BRANDS:
        return "mov" if data[8:12] == b"qt  " else "mp4"
    if data.startswith(b"\x1a\x45\xdf\xa3") and b"webm" in data[:64]:
        return "webm"
    return None


IMAGES: Final = UploadKind(
    10_000_000,
    image_type,
    "Unsupported image type. Allowed: JPEG, PNG, WebP, GIF",
    "Image too large. Maximum size is 10MB",
)
VIDEOS: Final = UploadKind(
    50_000_000,
    video_type,
    "Unsupported or invalid video file. Allowed: MP4, WebM, MOV",
    "Video too large. Maximum size is 50MB",
)


async def read_file_field(request: web.Request, most_bytes: int) -> bytes:
    """The bytes of the multipart field `file`, at most one more than allowed; raises `UploadRefusedError` when there
    is none.

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
                found = await _read_bounded(part, most_bytes)
    except ValueError as error:
        # What aiohttp raises for a body that is no multipart after all, or that ends within a part.
        raise UploadRefusedError(NO_FILE) from error
    if found is None:
        raise UploadRefusedError(NO_FILE)
    return found


async def _read_bounded(part: BodyPartReader, most_bytes: int) -> bytes:
    """At most one byte more than the limit, which is enough to be refused for it."""
    kept = bytearray()
    while chunk := await part.read_chunk(65_536):
        kept += chunk[: most_bytes + 1 - len(kept)]
    return bytes(kept)


async def read_form(request: web.Request) -> list[tuple[str, str]]:
    """The text parts of a multipart body; raises `UploadRefusedError` for a file, or a body that is no multipart."""
    parts: list[tuple[str, str]] = []
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                continue
            if part.filename is not None:
                raise UploadRefusedError(f"{part.name} must be a URL: upload the file first")
            parts.append((part.name, (await _read_bounded(part, 1_000_000)).decode("utf-8", "replace")))
    except ValueError as error:
        raise UploadRefusedError("the body is no multipart/form-data") from error
    return parts
