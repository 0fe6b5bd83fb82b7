"""Undoes the `Content-Encoding` of a body. Labels are sometimes wrong, so the body itself decides."""

from __future__ import annotations

import zlib
from typing import Final

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def decoded(body: bytes, label: str, most_bytes: int) -> bytes:
    """The decoded body, or one byte more than `most_bytes` of it when it is longer; as it is when it is not what the
    `Content-Encoding` in `label` says. Gzip is undone without a label, too: no JSON begins as it does."""
    if body.startswith(_GZIP_MAGIC):
        formats: tuple[int, ...] = (_GZIP,)
    elif "deflate" in label.lower():
        formats = (_ZLIB, _RAW)
    else:
        return body
    for wbits in formats:
        decompressor = zlib.decompressobj(wbits)
        try:
            return decompressor.decompress(body, most_bytes + 1)
        except zlib.error:
            continue
    return body
