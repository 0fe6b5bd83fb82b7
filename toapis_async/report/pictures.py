"""A row's files as the page shows them: a link, a thumbnail if there is one, or what is the matter."""

from __future__ import annotations

import asyncio
import os
import stat
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from attrs import frozen

from toapis_async.protocol.filetype import MIME_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from toapis_async.display.thumbs import Thumbnail
    from toapis_async.report.rows import ReportRow

THUMBS: Final = "thumbs"
_WITH_THUMBNAILS: Final = {"image/png", "image/jpeg", "image/webp", "image/gif", "image/avif"}
_WORKERS: Final = min(4, os.cpu_count() or 1)
_ROWS_AHEAD: Final = 64


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


class Pictures:
    """Inspects the files of one folder, with Pillow when it is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thumbnail = _thumbnailer()

    @property
    def have_thumbnails(self) -> bool:
        return self._thumbnail is not None

    def of(self, rows: Iterable[ReportRow]) -> Iterator[tuple[ReportRow, list[Picture]]]:
        """Every row with its pictures, in order; thumbnails are made in threads, a few rows ahead."""
        pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="thumbnails")
        try:
            ahead: deque[tuple[ReportRow, list[Future[Picture]]]] = deque()
            for row in rows:
                ahead.append((row, [pool.submit(self.inspect, file) for file in row.files]))
                if len(ahead) > _ROWS_AHEAD:
                    yield _resolved(*ahead.popleft())
            while ahead:
                yield _resolved(*ahead.popleft())
        finally:  # `rows` may raise to end it: what was begun is finished, and no more
            pool.shutdown(cancel_futures=True)

    def inspect(self, file: str) -> Picture:
        """One file, whatever it is. Blocks."""
        name = PurePosixPath(file).name
        if not _stays_inside(file):
            return Picture(name, problem="outside the folder")
        path = self._folder / file
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return Picture(name, problem="no file")
        except (OSError, ValueError):
            return Picture(name, problem="missing")
        mime_type = MIME_TYPES.get(path.suffix.lower(), "")
        if self._thumbnail is None or (mime_type and mime_type not in _WITH_THUMBNAILS):  # the browser may know it
            return Picture(name, _link(file), is_video=mime_type.startswith("video/") or None)
        small = f"{THUMBS}/{file}.webp"
        try:
            seen = self._thumbnail(path, self._folder / small)
        except ValueError as problem:
            return Picture(name, _link(file), problem=str(problem))
        return Picture(name, _link(file), _link(small) if seen.made else None, seen.width, seen.height)


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


def _resolved(row: ReportRow, pictures: list[Future[Picture]]) -> tuple[ReportRow, list[Picture]]:
    return row, [picture.result() for picture in pictures]


def _thumbnailer() -> Callable[[Path, Path], Thumbnail] | None:
    try:
        from toapis_async.display.thumbs import thumbnail  # noqa: PLC0415  (needs Pillow)
    except ImportError:
        return None
    return thumbnail


def _stays_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(file) & {"\\", "\0"}


def _link(file: str) -> str:
    # Every byte but the plainest is encoded: `#` and `?` end a path, and `a:b` would be a scheme.
    return quote(os.fsencode(file), safe="/~")
