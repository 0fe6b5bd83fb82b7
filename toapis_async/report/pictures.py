"""A row's files as the page shows them: a link, a thumbnail if there is one, or what is the matter."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from attrs import frozen

from toapis_async.protocol.filetype import MIME_TYPES
from toapis_async.request import is_http_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from toapis_async.display.thumbs import Thumbnail
    from toapis_async.report.rows import ReportRow

_SAFE_IN_LINKS: Final = ":/?#[]@!$&'()*+,;=%~"
THUMBS: Final = "thumbs"
_WITH_THUMBNAILS: Final = {"image/png", "image/jpeg", "image/webp", "image/gif", "image/avif"}
_WORKERS: Final = min(4, os.cpu_count() or 1)
_ROWS_AHEAD: Final = 64
_LEAD_OUT: Final = re.compile(r"(^|/)\.\.(/|$)|[\\\0]")


@frozen
class Picture:
    """One file of a row, a picture or a video. Links are relative and percent-encoded."""

    name: str
    link: str | None = None  #: None when there is nothing to open
    thumb: str | None = None
    width: int | None = None
    height: int | None = None
    problem: str | None = None  #: why it can't be shown, in a few words
    is_video: bool | None = None  #: True or not known


_Kept: TypeAlias = "Callable[[str, str, int], Thumbnail | None]"
_Made: TypeAlias = "Callable[[str, str], Thumbnail]"
_Found: TypeAlias = "list[Picture | Future[Picture]]"


class Pictures:
    """Inspects the files of one folder, with Pillow when it is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thumbs = _thumbnails()

    @property
    def have_thumbnails(self) -> bool:
        return self._thumbs is not None

    def of(self, rows: Iterable[ReportRow]) -> Iterator[tuple[ReportRow, list[Picture], list[Picture]]]:
        """Every row with its pictures and its references, in order; thumbnails are made in threads, a few rows
        ahead."""
        pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="thumbnails")
        try:
            ahead: deque[tuple[ReportRow, _Found]] = deque()
            for row in rows:
                found = [self.known(file) or pool.submit(self.made, file) for file in row.files]
                ahead.append((row, found))
                if len(ahead) > _ROWS_AHEAD:
                    yield self._resolved(*ahead.popleft())
            while ahead:
                yield self._resolved(*ahead.popleft())
        finally:  # `rows` may raise to end it: what was begun is finished, and no more
            pool.shutdown(cancel_futures=True)

    def known(self, file: str) -> Picture | None:
        """One file, whatever it is; None when its thumbnail has to be made. Blocks for as long as looking it up takes:
        a page of thousands of rows that has its thumbnails needs no threads."""
        name = file.rstrip("/").rpartition("/")[2]
        if not _stays_inside(file):
            return Picture(name, problem="outside the folder")
        path, small = self._paths(file)
        try:
            found = os.stat(path)
            if not stat.S_ISREG(found.st_mode):
                return Picture(name, problem="no file")
        except (OSError, ValueError):
            return Picture(name, problem="missing")
        mime_type = MIME_TYPES.get(os.path.splitext(name)[1].lower(), "")
        if self._thumbs is None or (mime_type and mime_type not in _WITH_THUMBNAILS):  # the browser may know it
            return Picture(name, _link(file), is_video=mime_type.startswith("video/") or None)
        seen = self._thumbs[0](path, small, found.st_mtime_ns)
        return None if seen is None else _seen(file, seen)

    def _resolved(self, row: ReportRow, found: _Found) -> tuple[ReportRow, list[Picture], list[Picture]]:
        pictures = [each if isinstance(each, Picture) else each.result() for each in found]
        return row, pictures, [self._reference(text) for text in row.references]

    def _reference(self, text: str) -> Picture:
        """A link as it is: the page asks nothing of any network, so it is there to be followed, not shown."""
        if is_http_url(text):
            return Picture(text, quote(text, safe=_SAFE_IN_LINKS))
        name = text.rpartition("/")[2]
        if not _stays_inside(text) or not os.path.isfile(f"{self._folder}/{text}"):
            return Picture(name, problem="missing")
        return Picture(name, _link(text), thumb=_link(text))

    def inspect(self, file: str) -> Picture:
        """One file, whatever it is. Blocks."""
        return self.known(file) or self.made(file)

    def made(self, file: str) -> Picture:
        """A picture whose thumbnail is made now. Blocks."""
        assert self._thumbs is not None
        try:
            return _seen(file, self._thumbs[1](*self._paths(file)))
        except ValueError as problem:
            return Picture(file.rpartition("/")[2], _link(file), problem=str(problem))

    def _paths(self, file: str) -> tuple[str, str]:
        """The paths of a picture and of its thumbnail."""
        return f"{self._folder}/{file}", f"{self._folder}/{_thumb_of(file)}"


class Thumbnails:
    """Makes the thumbnails of a folder's pictures as they arrive, so that the page need not; none without Pillow."""

    def __init__(self, folder: Path) -> None:
        self._pictures = Pictures(folder)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")

    def make(self, files: Iterable[str]) -> None:
        """Make those of some files, named as a row names them, when there is time."""
        if self._pictures.have_thumbnails:
            for file in files:
                with suppress(RuntimeError):  # closed already: the page makes the rest
                    self._pool.submit(self._pictures.inspect, file)

    async def aclose(self) -> None:
        """End the one that is being made, and make no more: the page makes the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._pool.shutdown)


def _thumb_of(file: str) -> str:
    return f"{THUMBS}/{file}.webp"


def _seen(file: str, seen: Thumbnail) -> Picture:
    thumb = _link(_thumb_of(file)) if seen.made else None
    return Picture(file.rpartition("/")[2], _link(file), thumb, seen.width, seen.height)


def _thumbnails() -> tuple[_Kept, _Made] | None:
    try:
        from toapis_async.display.thumbs import kept, thumbnail  # noqa: PLC0415  (needs Pillow)
    except ImportError:
        return None
    return kept, thumbnail


def _stays_inside(file: str) -> bool:
    parts = file.split("/")
    return any(part not in {"", "."} for part in parts) and bool(parts[0]) and not _LEAD_OUT.search(file)


def _link(file: str) -> str:
    # Every byte but the plainest is encoded: `#` and `?` end a path, and `a:b` would be a scheme.
    return quote(os.fsencode(file), safe="/~")
