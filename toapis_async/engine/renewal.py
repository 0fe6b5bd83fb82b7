"""Links that their host refuses before their time, as the service gives them now."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from toapis_async.errors import ToAPIsError
from toapis_async.task import GeneratedImage, GeneratedVideo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Link: TypeAlias = GeneratedImage | GeneratedVideo


SAME_FOR_S: Final = 1.0
"""How long the service is not queried again after it gave a link that was refused."""


class Renewal:
    """The links of a generation as the service gives them now: queried by the first whose link is refused, and anew by
    one for which that link was refused, too."""

    def __init__(self, query: Callable[[], Awaitable[Sequence[Link]]]) -> None:
        self._query = query
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._links: Sequence[Link] = ()
        self._same_until_s = -math.inf

    async def link(self, number: int, count: int, refused_url: str) -> Link | None:
        """That of one of `count` files, numbered from 0; None when the service gives none, another number, or the one
        that was refused."""
        async with self._lock:
            link = self._given(number, count, refused_url)
            if link is None and self._loop.time() >= self._same_until_s:
                with suppress(ToAPIsError):  # why the file can't be had is told already
                    self._links = await self._query()
                link = self._given(number, count, refused_url)
                if link is None:
                    self._same_until_s = self._loop.time() + SAME_FOR_S
            return link

    def _given(self, number: int, count: int, refused_url: str) -> Link | None:
        link = self._links[number] if len(self._links) == count else None
        return link if link is not None and link.url != refused_url else None
