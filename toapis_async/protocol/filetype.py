"""What kind of picture some bytes are: by their first bytes, never by a name or a header."""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen
class FileType:
    """A picture format: its usual extension (with the dot) and MIME type."""

    extension: str
    mime_type: str


PNG: Final = FileType(".png", "image/png")
JPEG: Final = FileType(".jpg", "image/jpeg")
WEBP: Final = FileType(".webp", "image/webp")
GIF: Final = FileType(".gif", "image/gif")
AVIF: Final = FileType(".avif", "image/avif")

UPLOADABLE: Final = (JPEG, PNG, WEBP, GIF)
"""What the service takes as a reference [docs]."""

ENDS_EXACTLY: Final = (PNG, WEBP)
"""Of these, `looks_whole` is sure: PNG has a chunk for its end, WebP says its length."""

_PNG_END: Final = b"IEND\xaeB`\x82"

HEAD_BYTES: Final = 16
"""As much as `sniff` needs."""


def sniff(head: bytes) -> FileType | None:
    """The format of a file that begins with `head` (at least `HEAD_BYTES` of it); None when it is none we know."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head[4:12] == b"ftypavif":
        return AVIF
    return None


def looks_whole(kind: FileType, head: bytes, tail: bytes, size_bytes: int) -> bool:
    """Whether a file ends as its format ends. `tail`: its last 64 bytes.

    Sure for `ENDS_EXACTLY`. A guess for JPEG and GIF, and not even one for AVIF: for bodies whose length nobody told.
    """
    if kind is PNG:
        return _PNG_END in tail
    if kind is JPEG:
        return b"\xff\xd9" in tail
    if kind is WEBP:
        return size_bytes >= 8 + int.from_bytes(head[4:8], "little")
    if kind is GIF:
        return tail.rstrip(b"\0").endswith(b";")
    return True
