"""Rows, pictures, and what stands in a page that was written."""

from __future__ import annotations

import json
import re
import struct
import zlib
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from PIL import Image

from toapis_async.report import ReportRow

if TYPE_CHECKING:
    from pathlib import Path

START = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><img src=x onerror='window.pwned = 1'>",
    "<!-- <script> \u2028 \u2029 ]]> & &lt; \"' `${window.pwned = 1}` {{ 7 * 7 }}",
    "javascript:window.pwned=1",
)
NAMES = (
    "a b.png",
    "a~b.png",
    "50%.png",
    "%41.png",
    "a#b.png",
    "a?b.png",
    "a:b.png",
    "it's.png",
    '"q".png',
    "凧 🪁.png",
    "&amp;.png",
)


def row(index: int = 0, **changes: Any) -> ReportRow:
    fields: dict[str, Any] = {"key": f"row-{index}", "status": "done", "prompt": f"prompt {index}"}
    return ReportRow(index=index, **(fields | changes))


def timed(index: int, begin_s: float, service_s: float | None, **changes: Any) -> ReportRow:
    """A row that was submitted `begin_s` after the start and, unless it still runs, took `service_s`."""
    submitted = START + timedelta(seconds=begin_s)
    ended = None if service_s is None else submitted + timedelta(seconds=service_s)
    return row(
        index, **({"submitted_at": submitted, "completed_at": ended, "service_s": service_s, "model": "m"} | changes)
    )


def draw(path: Path, width: int = 40, height: int = 30, mode: str = "RGB") -> str:
    """A picture at `path`; returns the path below its folder's folder, as a row names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height), 77).save(path)
    return f"{path.parent.name}/{path.name}"


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its few bytes hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


class Elements(HTMLParser):
    """The elements of a page, and the text of its scripts and styles, as a browser would see them."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data


def rows_of(page: Path) -> list[dict[str, Any]]:
    """The rows that a page carries."""
    (data,) = (text for text in Elements(page).texts["script"] if text.startswith("["))
    found: list[dict[str, Any]] = json.loads(data)
    return found


def pictures_of(page: Path) -> list[dict[str, Any]]:
    return [picture for record in rows_of(page) for picture in record["pictures"]]


def words_of(page: Path) -> str:
    """The page's text without scripts and styles, roughly as people read it."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())
