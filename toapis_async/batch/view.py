"""What a batch shows of itself: a bar, its figures, and the pictures that came last."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from toapis_async.display.html import MOST_PICTURES, Tile, tile
from toapis_async.display.notebook import Notebook, html_of, in_notebook
from toapis_async.display.progress import Progress, Screen
from toapis_async.display.screens import open_screen, shown
from toapis_async.protocol.wording import amount, duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from toapis_async.batch.item import BatchItem, BatchStatistics

MOST_SCREENS: Final = 3
"""Outputs of one batch that are kept up to date: those that were shown last."""


class BatchView:
    """Keeps nothing of the rows unless they may be looked at."""

    every_s: float = Notebook.every_s

    def __init__(self, statistics: Callable[[], BatchStatistics], *, is_wanted: bool) -> None:
        self._statistics = statistics
        self._is_wanted = is_wanted
        self._is_seen = is_wanted or in_notebook()
        self._screens: deque[Screen] = deque(maxlen=MOST_SCREENS)
        self._newest: deque[Tile] = deque(maxlen=MOST_PICTURES)

    def note(self, item: BatchItem) -> None:
        """A row has ended."""
        if self._is_seen:
            self._newest.appendleft(tile_of(item))

    async def during(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the batch; on screen, if that was asked for, or it is displayed in a notebook."""
        if self._is_wanted and not self._screens:
            screen = open_screen()
            self.every_s = screen.every_s
            self._screens.append(screen)
        if self._is_seen:
            await shown(self, self.progress, work)
        else:
            await work()

    def display(self) -> None:
        """Show how it stands in the cell that is running now, and what comes later, too. Outside of notebooks it raises
        `NotImplementedError`, which IPython takes for another way to be found."""
        if not in_notebook():
            raise NotImplementedError
        self._screens.append(Notebook(self.html()))

    def html(self) -> str:
        """How it stands. Blocks while pictures are made small."""
        return html_of(self.progress())

    async def draw(self, progress: Progress) -> None:
        """Bring every screen up to date."""
        for screen in tuple(self._screens):
            await screen.draw(progress)

    def close(self) -> None:
        """Leave the last state on every screen."""
        for screen in self._screens:
            screen.close()

    def progress(self) -> Progress:
        """How it stands."""
        now = self._statistics()
        total = now.total
        figures = [
            f"{now.done:,} done" if total is None else f"{now.done:,}/{total:,} done",
            f"{now.failed:,} failed",
            f"{now.in_flight + now.saving:,} in flight",
            f"{duration(now.elapsed_s, whole=True)} elapsed",
        ]
        if now.left_s is not None and total is not None and now.ended < total:
            figures.append(f"{duration(now.left_s, whole=True)} left")
        if now.credits_spent:
            figures.append(f"{amount(now.credits_spent)} credits")
        return Progress(now.ended, total, tuple(figures), tuple(self._newest))


def tile_of(item: BatchItem) -> Tile:
    """A row's pictures, those on disk from there, or what went wrong."""
    prompt = item.request.prompt if item.request is not None else None
    files = item.generation.files if item.generation else ()
    return tile(files, item.files, caption=prompt or item.key, problem=str(item.error) if item.error else "")
