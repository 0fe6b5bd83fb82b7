"""Files inside HTML, where nothing serves them: small ones of pictures, and videos up to a size."""

from __future__ import annotations

import base64
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 5 * 2**20
"""A larger file is shown by its link: a notebook keeps all that is shown in it."""
_IMAGES: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif"}
_VIDEOS: Final = {".mp4": "mp4", ".webm": "webm", ".mov": "quicktime"}
_PICTURE_DATA: Final = tuple(f"data:image/{kind};base64," for kind in {*_IMAGES.values()})


def embedded(path: Path, *, is_video: bool) -> str | None:
    """A `data:` URL of a file, of a picture a small one where Pillow is there; None when it is gone, too large, or
    nothing that browsers show. Blocks."""
    kinds, kind = (_VIDEOS, "video") if is_video else (_IMAGES, "image")
    subtype = kinds.get(path.suffix.lower())
    try:
        if not is_video and find_spec("PIL") is not None:
            return _data("image/webp", _small(path))
        if subtype is None or path.stat().st_size > MAX_BYTES:
            return None
        return _data(f"{kind}/{subtype}", path.read_bytes())
    except (OSError, ValueError):
        return None


def is_picture_data(link: str) -> bool:
    """Whether a link is itself a picture that may be shown."""
    return len(link) <= MAX_BYTES and link.startswith(_PICTURE_DATA)


def _small(path: Path) -> bytes:
    from toapis_async.display.thumbs import shrunk  # noqa: PLC0415  (needs Pillow)

    return shrunk(path)


def _data(mime_type: str, content: bytes) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"
