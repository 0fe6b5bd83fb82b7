"""Pictures small enough for an agent's host."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from attrs import frozen

from toapis_async.protocol.filetype import GIF, HEAD_BYTES, JPEG, PNG, WEBP, sniff

if TYPE_CHECKING:
    from PIL import Image

MOST_BYTES: Final = 150_000
"""Of a picture; base64 makes 200 kB of it."""
_SHOWN: Final = (PNG, JPEG, WEBP, GIF)  # what hosts and models take
_SIDES: Final = (1_024, 768, 512, 384, 256)


@frozen
class Preview:
    """A picture of at most `MOST_BYTES`."""

    content: bytes
    mime_type: str


def preview(content: bytes) -> Preview | None:
    """A picture as it is where that is small, else scaled down. None for a video, for what can't be read, and for a
    large picture without Pillow. Blocks."""
    kind = sniff(content[:HEAD_BYTES])
    if kind in _SHOWN and len(content) <= MOST_BYTES:
        return Preview(content, kind.mime_type)
    try:
        from toapis_async.display.thumbs import Unreadable, opened, scaled_down  # noqa: PLC0415  (needs Pillow, of an extra)
    except ImportError:
        return None
    try:
        with opened(io.BytesIO(content)) as image:
            for side in _SIDES:
                image = scaled_down(image, side)  # noqa: PLW2901  (each from the one before)
                made = _encoded(image)
                if len(made.content) <= MOST_BYTES:
                    return made
    except Unreadable:
        return None
    return None


def _encoded(small: Image.Image) -> Preview:
    """JPEG, which every host shows; WebP where the picture is transparent in places."""
    content = io.BytesIO()
    has_alpha = small.mode in {"RGBA", "LA"} and small.getchannel("A").getextrema() != (255, 255)
    kind = WEBP if has_alpha else JPEG
    small.convert("RGBA" if has_alpha else "RGB").save(content, "WEBP" if has_alpha else "JPEG", quality=82)
    return Preview(content.getvalue(), kind.mime_type)
