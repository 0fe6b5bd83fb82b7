"""Time-outs of many requests by one timer."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Watchdog:
    """Cancels requests that take longer than `most_s` seconds in all, or hear nothing for `silence_s`.

    Both are the same for every request, so that one timer is enough: it is set for the first moment at which one can
    be late, and looks at all of them then. Timers of each request's own, put off with every piece of its answer, take
    an eighth of a poll's CPU.
    """

    def __init__(self, most_s: float, silence_s: float) -> None:
        self._most_s = most_s
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._watched: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> Watch:
        """A watch of a request of the running task, as a context manager around it."""
        return Watch(self, self._loop)

    def add(self, watch: Watch) -> None:
        self._watched.add(watch)
        if self._timer is None:
            self._look_at(watch.began_s + min(self._most_s, self._silence_s))

    def remove(self, watch: Watch) -> None:
        self._watched.discard(watch)

    def stop(self) -> None:
        """Leave those that are still watched alone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, at_s: float) -> None:
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        """End those that are late, and look again when the next can be: one that is not sent yet may be silent from now
        on."""
        self._timer = None
        now_s = self._loop.time()
        next_s = math.inf
        for watch in self._watched:
            late_s = min(watch.began_s + self._most_s, watch.heard_s + self._silence_s)
            if late_s <= now_s:
                watch.end()
            else:
                next_s = min(next_s, late_s, now_s + self._silence_s)
        if next_s < math.inf:
            self._look_at(next_s)


class Watch:
    """One request. Raises `TimeoutError` at its end when the watchdog cancelled it and nobody else did: it is decided
    as by `asyncio.timeout`."""

    __slots__ = ("_cancelling", "_is_late", "_task", "_watchdog", "began_s", "heard_s")

    def __init__(self, watchdog: Watchdog, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task(loop)
        assert task is not None
        self._watchdog = watchdog
        self._task = task
        self._cancelling = task.cancelling()
        self._is_late = False
        self.began_s: float = loop.time()
        self.heard_s: float = math.inf  #: when it was sent, or the latest piece of its answer came

    def end(self) -> None:
        """It is late."""
        if not self._is_late:
            self._is_late = True
            self._task.cancel()

    def __enter__(self) -> Watch:
        self._watchdog.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.remove(self)
        if self._is_late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from None
