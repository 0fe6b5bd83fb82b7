"""Small files of big pictures. The pictures came over the network: whatever is wrong with one is its own problem."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import struct
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeAlias

from attrs import frozen
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from collections.abc import Generator

StrPath: TypeAlias = "str | os.PathLike[str]"
LONGEST_SIDE: Final = 384
MAX_PIXELS: Final = 50_000_000
"""Past any picture the service makes (4k is 8.3 million); one of this size takes 200 MB while it is read."""
FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")
PNG_BEGINNING: Final = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_HEAD: Final = struct.Struct(">16xII")
_PALETTES: Final = {"1", "P", "PA"}  # scaled without smoothing unless converted first


class Unreadable(ValueError):
    """The file is no picture that can be shown; says why in a few words."""


@frozen
class Thumbnail:
    """What a picture measures, and whether there is a small file of it now."""

    width: int
    height: int
    made: bool


def kept(picture: StrPath, small: StrPath, changed_ns: int) -> Thumbnail | None:
    """The thumbnail that is there, and no older than its picture, which was changed then; None when there is none.
    Blocks for a moment."""
    try:
        found = os.stat(small)
        if found.st_mtime_ns < changed_ns or not found.st_size:
            return None
        return Thumbnail(*_measures(picture), made=True)
    except (OSError, Unreadable):
        return None


def thumbnail(picture: StrPath, small: StrPath) -> Thumbnail:
    """Write `small` unless one is there that is no older than `picture`. Blocks.

    Raises `Unreadable` for what is no whole picture or too big a one. A thumbnail that can't be written is not made.
    """
    with contextlib.suppress(OSError):  # `_read` tells what is the matter
        if (known := kept(picture, small, os.stat(picture).st_mtime_ns)) is not None:
            return known
    width, height, content = _read(picture)
    return Thumbnail(width, height, made=_write(Path(small), content))


def shrunk(picture: StrPath) -> bytes:
    """A small WebP of a picture. Blocks. Raises `Unreadable`."""
    return _read(picture)[2]


def _read(picture: StrPath) -> tuple[int, int, bytes]:
    content = io.BytesIO()
    with opened(picture) as image:
        width, height = image.size
        scaled_down(image, LONGEST_SIDE).save(content, "WEBP", quality=80)
    return width, height, content.getvalue()


def _measures(picture: StrPath) -> tuple[int, int]:
    """Width and height of a picture that was read before. A PNG tells them in its first bytes: a page of thousands of
    rows is then made in half the time."""
    with open(picture, "rb", buffering=0) as file:
        head = file.read(_PNG_HEAD.size)
    if head.startswith(PNG_BEGINNING) and len(head) == _PNG_HEAD.size:
        width, height = _PNG_HEAD.unpack(head)
        if 0 < width * height <= MAX_PIXELS:
            return width, height
    with opened(picture) as image:
        return image.size


@contextlib.contextmanager
def opened(picture: StrPath | IO[bytes]) -> Generator[Image.Image]:
    """A picture of at most `MAX_PIXELS`, not decoded yet. Raises `Unreadable`, also when that fails inside. Blocks."""
    try:
        with Image.open(picture, formats=FORMATS) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise Image.DecompressionBombError  # noqa: TRY301  (as Pillow says it of larger ones)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable(f"more than {MAX_PIXELS // 1_000_000} megapixels") from None
    except Exception:  # Pillow's readers raise nearly everything for broken files: SyntaxError, KeyError, zlib.error …
        raise Unreadable("broken, or no picture") from None


def scaled_down(image: Image.Image, longest_side: int) -> Image.Image:
    """A picture scaled down to so many pixels, upright."""
    small = image.convert("RGBA") if image.mode in _PALETTES else image
    small.thumbnail((longest_side, longest_side))
    return ImageOps.exif_transpose(small)


def _write(small: Path, content: bytes) -> bool:
    part = small.with_name(f".{secrets.token_hex(8)}.part")
    try:
        small.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            os.replace(part, small)
        finally:
            part.unlink(missing_ok=True)
    except OSError:  # no room, no right, too long a name: the page shows the picture itself
        return False
    return True
