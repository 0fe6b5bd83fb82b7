"""A bar and its figures in a terminal, by rich."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from toapis_async.display.progress import Progress


def stderr_console() -> Console:
    """Where live displays are drawn. Nothing there may read markup into what it shows: `[bold]` in a prompt is text."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, force_terminal=True)


def wrapped(figures: Iterable[str], width: int) -> list[str]:
    """The figures joined into as few lines of at most `width` columns as possible; no figure is split."""
    lines: list[str] = []
    for figure in figures:
        if lines and cell_len(lines[-1]) + 2 + cell_len(figure) <= width:
            lines[-1] += f"  {figure}"
        else:
            lines.append(figure)
    return lines


class Terminal:
    """Drawn at the bottom; what the program prints goes above it, and the last state stays."""

    every_s: float = 0.2

    def __init__(self) -> None:
        self._console = stderr_console()
        # What is printed may be meant for a file: only what goes to this terminal is led around the bar.
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
        self._live.start()

    async def draw(self, progress: Progress) -> None:
        self._live.update(self._drawn(progress), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _drawn(self, progress: Progress) -> RenderableType:
        width = self._console.width - 1
        figures = Text("\n".join(wrapped(progress.figures, width)), no_wrap=True)
        bar = ProgressBar(total=progress.total, completed=progress.done, width=width, pulse=progress.total is None)
        return Group(Padding(bar), figures)  # a bar alone ends no line
