"""An output of a notebook that is drawn anew. Plain HTML: no widgets, which a saved notebook would not show."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from toapis_async.display.html import block, gallery, progress_bar, words

if TYPE_CHECKING:
    from toapis_async.display.progress import Progress


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython  # noqa: PLC0415

    return getattr(get_ipython(), "kernel", None) is not None


class Notebook:
    """One output, made in the cell that is running now."""

    every_s: float = 1.0

    def __init__(self, drawn: str = "") -> None:
        self._ipython: Any = import_module("IPython.display")
        self._output = self._ipython.DisplayHandle()
        self._drawn = drawn or block(progress_bar(0, None))
        self._output.display(self._ipython.HTML(self._drawn))

    async def draw(self, progress: Progress) -> None:
        drawn = await asyncio.to_thread(html_of, progress)  # pictures are made small meanwhile
        if drawn != self._drawn:
            self._drawn = drawn
            self._output.update(self._ipython.HTML(drawn))

    def close(self) -> None:
        pass


def html_of(progress: Progress) -> str:
    """Progress as HTML. Blocks while pictures are made small."""
    figures = words("  ·  ".join(progress.figures))
    return block(progress_bar(progress.done, progress.total), figures, gallery(progress.tiles))
