"""One file on its way down, over all attempts at it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from attrs import define

from toapis_async.errors import DownloadFailed
from toapis_async.protocol.links import LINK_LIFE, is_data

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from toapis_async.engine.part import Part
    from toapis_async.engine.renewal import Link

_FRESH: Final = timedelta(minutes=10)
"""A link younger than this may be refused because its file is not there yet."""
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Passing(Exception):
    """An attempt failed in a way that another may not.

    `wait_s` is what the host asked for; `jitter` the back-off's: without any, the eight tries of the default take a
    minute.
    """

    def __init__(self, reason: str, wait_s: float | None = None, *, jitter: float = 0.5) -> None:
        super().__init__(reason)
        self.wait_s: float = wait_s or 0.0
        self.jitter: float = jitter


@define
class RemoteFile:
    """One file over all attempts at it: what came so far, and what it takes to go on from there."""

    url: str
    born_at: datetime | None  #: when its task was completed, by the service's clock
    expires_at: datetime | None
    known_since: float | None  #: when that was written down here, in Unix seconds of this machine's clock
    part: Part
    limit_name: str  #: the setting that bounds it
    renew: Callable[[str], Awaitable[Link | None]]  #: another link than this one, if the service gives one now
    total_bytes: int | None = None
    validator: str = ""
    attempts: int = 0
    is_refused: bool = False  #: by its host, the last time: the link may have died before its time
    renewals: int = 0

    @property
    def link(self) -> str:
        """The link as errors quote it."""
        return f"{self.url[:40]}…" if is_data(self.url) else self.url

    def range_headers(self) -> dict[str, str]:
        """What asks for the rest of a file that broke off."""
        have_bytes = self.part.size_bytes
        if not 0 < have_bytes < (self.total_bytes or 0):
            return {}
        return {"Range": f"bytes={have_bytes}-", **({"If-Range": self.validator} if self.validator else {})}

    def begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """Take an answer for what follows the bytes that came, or for the whole file, of `length` bytes."""
        span = _CONTENT_RANGE.match(headers.get("Content-Range", "")) if status == 206 else None
        first = int(span[1]) if span else 0
        total_bytes = (int(span[2]) if span[2] != "*" else None) if span else length
        etag = headers.get("ETag", "W/")
        validator = headers.get("Last-Modified", "") if etag.startswith("W/") else etag
        state = (first, total_bytes, validator)
        if first == 0 or state != (self.part.size_bytes, self.total_bytes, self.validator):
            self.part.restart()
            self.total_bytes, self.validator = total_bytes, validator
            if first != 0:
                raise Passing("the host sent another part of the file than it was asked for")
        if (self.total_bytes or 0) > self.part.limit_bytes:
            raise self.too_large()

    async def renewed(self) -> bool:
        """Whether the service gives another link than the one that was refused; then that is what is fetched."""
        link = await self.renew(self.url) if self.is_refused else None
        if link is None:
            return False
        self.renewals += 1
        self.is_refused = False
        self.url, self.expires_at, self.known_since = link.url, link.expires_at, None
        self.part.restart()
        self.total_bytes, self.validator = None, ""
        return True

    def too_large(self) -> DownloadFailed:
        return DownloadFailed(f"the file is larger than {self.limit_name}={self.part.limit_bytes}", url=self.link)

    def is_over(self, answered: datetime | None) -> bool:
        """Whether the link's life is certainly over: by the host's clock, and else by the time that passed here."""
        expires_at = self.expires_at or (self.born_at and self.born_at + LINK_LIFE)
        if answered is not None and expires_at is not None:
            return answered >= expires_at
        return self.known_since is not None and time.time() - self.known_since >= LINK_LIFE.total_seconds()

    def is_fresh(self, answered: datetime | None) -> bool:
        """Whether the file may not be there yet. A clock here that contradicts the link's times isn't believed."""
        born_at = self.born_at or (self.expires_at and self.expires_at - LINK_LIFE)
        if born_at is None:
            return True
        age = (answered or datetime.now(UTC)) - born_at
        return age < _FRESH or (answered is None and age > LINK_LIFE)
