"""Pieces of HTML for notebooks. Prompts, links and the service's words are a stranger's text: all of it is escaped, and
only http(s) links and embedded pictures are loaded."""

from __future__ import annotations

from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from attrs import frozen

from toapis_async.display.embedding import embedded, is_picture_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MOST_PICTURES: Final = 24
"""Pictures in one output; each may take some 30 kB of the notebook."""
MOST_CHARACTERS: Final = 200
_ROW: Final = "display:flex;flex-wrap:wrap;gap:8px;align-items:flex-start"
_WORDS: Final = "font-size:12px;overflow-wrap:anywhere"
_SIDE_PX, _SIDE_OF_MANY_PX = 280, 150


@frozen
class Media:
    """One image or video: where it is on disk, if it was saved, and its link."""

    link: str
    path: Path | None = None
    is_video: bool = False

    @cached_property
    def source(self) -> str | None:
        """What a browser loads: the file itself if it is on disk, else what the link leads to. Blocks at first."""
        source = embedded(self.path, is_video=self.is_video) if self.path is not None else None
        if source is None and (is_web_link(self.link) or (not self.is_video and is_picture_data(self.link))):
            source = self.link
        return source


@frozen
class Tile:
    """What belongs together, under one caption."""

    caption: str
    media: Sequence[Media] = ()
    problem: str = ""


class File(Protocol):
    """What is known of an image or video: `GeneratedImage`, `GeneratedVideo`."""

    @property
    def url(self) -> str: ...


def tile(files: Sequence[File], paths: Sequence[Path], *, caption: str = "", problem: str = "") -> Tile:
    """A tile of a generation's files; `paths` are where all of them are on disk, or empty."""
    known: Sequence[Path | None] = paths if len(paths) == len(files) else [None] * len(files)
    media = [
        Media(file.url, path, is_video=hasattr(file, "last_frame_url")) for file, path in zip(files, known, strict=True)
    ]
    return Tile(caption, media, problem)


def words(text: str) -> str:
    """A stranger's text, cut to a length that can be shown."""
    return escape(text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…")


def is_web_link(link: str) -> bool:
    """Whether a browser may be sent there."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and link.isprintable() and " " not in link


def gallery(tiles: Iterable[Tile], most: int = MOST_PICTURES) -> str:
    """The tiles side by side, with at most so many images and videos; how many are left out is said."""
    shown: list[str] = []
    left_out = 0
    tiles = tuple(tiles)
    side_px = _SIDE_PX if len(tiles) == 1 else _SIDE_OF_MANY_PX
    for tile in tiles:
        media = tile.media[: max(most, 0)]
        left_out += len(tile.media) - len(media)
        most -= len(media)
        if media or not tile.media:
            shown.append(_tile(tile, media, side_px))
    more = f'<div style="{_WORDS}">and {left_out:,} more</div>' if left_out else ""
    return f'<div style="{_ROW}">{"".join(shown)}{more}</div>' if shown or more else ""


def progress_bar(done: int, total: int | None) -> str:
    """A bar; without a total one that says nothing."""
    value = f' value="{done}" max="{max(total, 1)}"' if total is not None else ""
    return f'<progress{value} style="width:100%;max-width:480px"></progress>'


def block(*parts: str) -> str:
    """Parts below each other."""
    return f'<div class="toapis">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'


def _tile(tile: Tile, media: Sequence[Media], side_px: int) -> str:
    width = f"max-width:{side_px * max(len(media), 1)}px"
    problem = f'<div style="{_WORDS};{width};color:#b3261e">{words(tile.problem)}</div>' if tile.problem else ""
    caption = f'<div style="{_WORDS};{width}">{words(tile.caption)}</div>' if tile.caption else ""
    pictures = "".join(_shown(each, tile.caption, side_px) for each in media)
    return f'<div><div style="{_ROW}">{pictures}</div>{problem}{caption}</div>'


def _shown(media: Media, caption: str, side_px: int) -> str:
    link = media.link if is_web_link(media.link) else None
    if media.source is None:
        where = media.path.name if media.path is not None else "a file without a link that can be shown"
        return f'<div style="{_WORDS}">{words(where)}</div>'
    style = f"max-width:{side_px}px;max-height:{side_px}px;border-radius:4px;display:block"
    attributes = f'style="{style}" src="{escape(media.source)}"'
    if media.is_video:
        return f'<video controls preload="metadata" {attributes}></video>'
    image = f'<img alt="{words(caption)}" loading="lazy" referrerpolicy="no-referrer" {attributes}>'
    return image if link is None else f'<a href="{escape(link)}" target="_blank" rel="noopener noreferrer">{image}</a>'
