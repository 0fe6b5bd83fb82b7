"""Names: of rows without a key, and of files. What comes from outside never becomes a path."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

MOST_NAME_BYTES: Final = 120
_KEPT_PUNCTUATION: Final = frozenset("-_.~ ")
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³]) *(\..*)?", re.IGNORECASE)
_LIKE_A_NUMBERED_FILE: Final = re.compile(r"-\d+$")
_UNSEEN: Final = re.compile("[\u034f\u17b4\u17b5\u180b-\u180f\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def digest(text: str | bytes) -> str:
    """Eight hex digits that tell two texts apart."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:8]


def slug(prompt: str, words: int = 5) -> str:
    """The first words of a prompt as a name: lower case, joined by hyphens."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _visible(prompt[:400])).lower())
    found = "".join(c if _is_letter(c) or c == "_" else " " for c in text).split()
    return _cut("-".join(found[:words]), 48).rstrip("-") or "image"


def row_key(prompt: str, row_digest: str, occurrence: int) -> str:
    """The key of a row that has none: it stays when other rows are inserted. `occurrence` counts equal rows from 1."""
    suffix = f".{occurrence}" if occurrence > 1 else ""
    return f"{slug(prompt)}~{row_digest}{suffix}"


def file_stem(key: str) -> str:
    """A file name, without extension, that is safe on every system.

    It is the key itself where that is safe. A name that had to be altered gets `~` and a hash, so that two keys never
    meet in one file; so does one that ends like the second image of another key (`kite-2`).
    """
    text = unicodedata.normalize("NFC", _visible(key))
    kept = "".join(c if _is_letter(c) or c in _KEPT_PUNCTUATION else "_" for c in text)
    stem = _cut(kept.strip(" ").lstrip(".").rstrip(". "), MOST_NAME_BYTES)
    if _RESERVED.fullmatch(stem):
        stem = f"_{stem}"  # a hash at the end would not help: Windows takes "con.x~…" for the device, too
    if stem != key or not stem or _LIKE_A_NUMBERED_FILE.search(stem):
        return hashed_stem(stem, key)
    return stem


def hashed_stem(stem: str, key: str) -> str:
    """`stem` made unmistakable: for a name that was altered, or that another key took in another case."""
    return f"{stem}~{digest(key)}"


def plain_stem(stem: str) -> str:
    """Another name for a file whose own name the file system can't hold: short, of letters and digits that all can."""
    return f"image~{digest(stem)}"


def _is_letter(c: str) -> bool:
    """Letters, digits, and the combining marks that Hindi, Tamil or Thai words are written with."""
    return c.isalnum() or unicodedata.category(c).startswith("M")


def _visible(text: str) -> str:
    """Without joiners and variation selectors: nobody sees or types them in a name."""
    return _UNSEEN.sub("", text)


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode("utf-8", "ignore")[:limit_bytes].decode("utf-8", "ignore")
