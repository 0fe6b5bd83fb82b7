"""Progress while work goes on: updates of one output in a notebook, a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

import anyio

from toapis_async.display.notebook import Notebook, in_notebook
from toapis_async.log import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from toapis_async.display.progress import Progress, Screen

LINE_S: Final = 5.0
LAST_DRAW_S: Final = 5.0
"""How long the last picture of a work that has ended may take."""


class Lines:
    """A line now and then on stderr, for logs."""

    every_s = LINE_S

    def __init__(self) -> None:
        self._line = ""

    async def draw(self, progress: Progress) -> None:
        line = "  ".join(progress.figures)
        if line != self._line:
            self._line = line
            sys.stderr.write(f"{line}\n")

    def close(self) -> None:
        pass


def open_screen() -> Screen:
    """What suits where this process runs."""
    if in_notebook():
        return Notebook()
    if sys.stderr.isatty():
        from toapis_async.display.terminal import Terminal  # noqa: PLC0415  (rich: for those who ask for it)

        return Terminal()
    return Lines()


async def shown(screen: Screen, progress: Callable[[], Progress], work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, and draw its progress meanwhile and at its end. A screen that fails is given up, not the work."""

    async def redraw() -> None:
        try:
            while True:
                await screen.draw(progress())
                await asyncio.sleep(screen.every_s)
        except Exception:
            logger.exception("progress can't be shown any more")

    drawing = asyncio.get_running_loop().create_task(redraw(), name="toapis-display")
    try:
        await work()
    finally:
        drawing.cancel()
        await asyncio.wait([drawing])
        with anyio.move_on_after(LAST_DRAW_S, shield=True):
            await _close(screen, progress())


async def _close(screen: Screen, progress: Progress) -> None:
    try:
        await screen.draw(progress)
    except Exception as error:
        logger.debug("the last progress was not shown: %s", error)
    finally:
        screen.close()
