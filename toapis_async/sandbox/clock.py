"""A clock that passes as time does and can be put forward; event loops that follow it wait by it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

MOST_S: Final = 10 * 365 * 86_400


class Clock:
    """Unix seconds, for `Sandbox(clock=…)`. The sandbox's loop follows it from its start on.

    Whatever waits on a following loop (a slow answer, the next attempt at an event) is woken when `advance` passes its
    time. What begins to wait after that counts from there.

    >>> clock = Clock()
    >>> before = clock()
    >>> clock.advance(3_600)
    >>> 3_600 <= clock() - before < 3_700
    True
    """

    def __init__(self) -> None:
        self._behind_s = time.time() - time.monotonic()
        # Where it stopped, if it did, and how far it was put forward: one value, since several threads read the time.
        self._state: tuple[float | None, float] = (None, 0.0)
        self._followers: dict[asyncio.AbstractEventLoop, None] = {}
        self.advanced_s: float = 0.0  #: by how many seconds it was put forward in all

    def __call__(self) -> float:
        return self._behind_s + self.loop_time()

    def loop_time(self) -> float:
        """Seconds as event loops count them."""
        stopped_s, ahead_s = self._state
        return (time.monotonic() if stopped_s is None else stopped_s) + ahead_s

    def advance(self, seconds: float) -> None:
        """Put it forward, and wake who waited for that. Raises `ValueError` for going back, or over ten years."""
        if not 0 <= seconds <= MOST_S:
            raise ValueError(f"a clock is put forward by a number of seconds from 0 to {MOST_S:,}, not by {seconds}")
        stopped_s, ahead_s = self._state
        self._state = (stopped_s, ahead_s + seconds)
        self.advanced_s += seconds
        for loop in tuple(self._followers):
            loop.call_soon_threadsafe(_wake)

    def stop(self) -> None:
        """Stand still but for `advance`."""
        self._state = (self.loop_time(), 0.0)

    def go(self) -> None:
        """Pass as time does again, from where it stands."""
        self._state = (None, self.loop_time() - time.monotonic())
        self.advance(0)

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop wait by this clock, for the rest of its life: its time must never go back.

        Raises `TypeError` for a loop that keeps its time to itself, as uvloop's does.
        """
        if not isinstance(loop, asyncio.BaseEventLoop):
            raise TypeError(f"{type(loop).__name__} can't be given a clock; asyncio's own event loop can")
        late_s = loop.time() - self.loop_time()
        loop.time = lambda: self.loop_time() + late_s  # type: ignore[method-assign]
        self._followers[loop] = None

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake a loop no more: it is about to be closed."""
        self._followers.pop(loop, None)


def _wake() -> None:
    """A loop that runs any callback reads its clock again."""
