"""Links that their host refuses before their time, as the service gives them now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from toapis_async.errors import ToAPIsError
from toapis_async.task import GeneratedImage, GeneratedVideo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Link: TypeAlias = GeneratedImage | GeneratedVideo


class Renewal:
    """The links of a generation as the service gives them now: queried once, by the first whose link is refused."""

    def __init__(self, query: Callable[[], Awaitable[Sequence[Link]]]) -> None:
        self._query = query
        self._lock = asyncio.Lock()
        self._links: Sequence[Link] | None = None

    async def link(self, number: int, count: int) -> Link | None:
        """That of one of `count` files, numbered from 0; None when the service gives none, or another number."""
        async with self._lock:
            if self._links is None:
                try:
                    self._links = await self._query()
                except ToAPIsError:  # why the file can't be had is told already
                    self._links = ()
        return self._links[number] if len(self._links) == count else None
