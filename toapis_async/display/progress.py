"""Work at one moment, and where it can be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from toapis_async.display.html import Tile


@frozen
class Progress:
    """Work at one moment."""

    done: int
    total: int | None  #: None when nobody knows
    figures: tuple[str, ...]
    tiles: tuple[Tile, ...] = ()  #: what came of it, the newest first; for notebooks


class Screen(Protocol):
    """Where progress is drawn, every so many seconds."""

    every_s: float

    async def draw(self, progress: Progress) -> None: ...
    def close(self) -> None: ...
