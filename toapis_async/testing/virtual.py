"""Virtual time: a test's event loop and the sandbox's share a clock, which jumps while both have nothing to do.

A jump while an answer is on its way would let time-outs fire that never would in life, so it has to be certain that
none is. Each loop's selector tells: a loop that waits in it, with no event to fetch and no thread at work for it, does
nothing until its next timer. Bytes over loopback are with the other side, ready to be fetched, when they are sent.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from contextlib import ExitStack, contextmanager
from datetime import datetime, tzinfo
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import anyio.to_thread

from toapis_async import receivers, webhooks
from toapis_async.engine import downloads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from toapis_async.sandbox import Clock

_GRACE_S = 0.001
"""Real time for what only the operating system knows of: a subprocess, a database, a thread that is nobody's."""
_BLOCKED_S = 0.05

Events = list[tuple[selectors.SelectorKey, int]]


class Restful:
    """Tells whether a loop rests: it waits in its selector, no event is there, and no thread works for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.due_s: float | None = None
        """When its next timer is due by its own time, as of its last wait."""
        self.jobs: int = 0
        self.selector: selectors.BaseSelector = selector_of(loop)
        self.wait: Callable[[float | None], Events] = self.selector.select
        self._loop = loop
        self._run = loop.run_in_executor
        self._waits = False
        self._rounds = 0
        self._ready = select.poll()
        self._ready.register(self.selector.fileno(), select.POLLIN)  # type: ignore[attr-defined]
        self.selector.select = self.select  # type: ignore[method-assign]
        loop.run_in_executor = self._counted  # type: ignore[assignment,method-assign]

    def let_go(self) -> None:
        """The loop is as it was before."""
        self.selector.select = self.wait  # type: ignore[assignment,method-assign]
        self._loop.run_in_executor = self._run  # type: ignore[method-assign]

    def select(self, timeout: float | None = None) -> Events:
        """What the loop calls instead of its selector's."""
        self.due_s = None if timeout is None else self._loop.time() + timeout
        self._rounds += 1
        self._waits = timeout is None or timeout > 0
        try:
            return self.wait(timeout)
        finally:
            self._waits = False

    @property
    def rests(self) -> bool:
        """Whether the loop rests now. Called by another thread."""
        rounds = self._rounds
        idle = self._waits and not self.jobs and not self._ready.poll(0)
        return idle and self._waits and self._rounds == rounds  # it has not come and gone while we asked

    @property
    def left_s(self) -> float | None:
        """Until its next timer."""
        return None if self.due_s is None else self.due_s - self._loop.time()

    def _counted(self, executor: Any, act: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        job = self._run(executor, act, *args)
        self.jobs += 1
        job.add_done_callback(self._done)
        return job

    def _done(self, _: asyncio.Future[Any]) -> None:
        self.jobs -= 1


class _Jumping(Restful):
    """A loop whose waits are jumps of the clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, other: Restful) -> None:
        super().__init__(loop)
        self._clock = clock
        self._other = other
        self._threads = anyio.to_thread.current_default_thread_limiter()

    def select(self, timeout: float | None = None) -> Events:
        while True:
            ready = self.wait(0)
            if ready or (timeout is not None and timeout <= 0):
                return ready
            resting = self._all_rest()
            if ready := self.wait(_GRACE_S):  # also what came just before the other's rest
                return ready
            if not resting or not self._all_rest():
                continue
            waits = [wait_s for wait_s in (timeout, self._other.left_s) if wait_s is not None]
            if waits:
                self._clock.advance(max(0.0, min(waits)))
                return []
            if ready := self.wait(_BLOCKED_S):
                return ready

    def _all_rest(self) -> bool:
        return not self.jobs and not self._threads.borrowed_tokens and self._other.rests


class VirtualTime:
    """The virtual time of one test; entered within it again, it goes on."""

    def __init__(self, clock: Clock, sandbox: Restful) -> None:
        self._clock = clock
        self._sandbox = sandbox
        self._inside: asyncio.AbstractEventLoop | None = None
        self._stack = ExitStack()

    @contextmanager
    def entered(self) -> Generator[None]:
        """Until its end, the running loop and the sandbox wait for nothing."""
        loop = asyncio.get_running_loop()
        if self._inside is loop:
            yield
            return
        if self._inside is not None:
            raise RuntimeError("virtual time holds in one event loop at a time")
        with ExitStack() as stack:
            jumping = _Jumping(loop, self._clock, self._sandbox)
            stack.callback(jumping.let_go)
            self._clock.stop()
            stack.callback(self._clock.go)
            self._clock.follow(loop)
            stack.callback(self._clock.forget, loop)
            for module, name, instead in _wall_clocks(self._clock):
                stack.enter_context(mock.patch.object(module, name, instead))
            self._inside = loop
            stack.callback(setattr, self, "_inside", None)
            self._stack = stack.pop_all()
        try:
            yield
        finally:
            self.end()

    def end(self) -> None:
        """End it; also of a test that left its client open, and whose loop is gone."""
        self._stack.close()


def _wall_clocks(clock: Clock) -> list[tuple[object, str, object]]:
    """Where the client looks at the time of day: at the age of an event, and whether a link has expired."""

    class Now(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(clock(), tz)

    wall = SimpleNamespace(time=clock)
    return [(webhooks, "time", wall), (receivers, "time", wall), (downloads, "datetime", Now)]


def selector_of(loop: asyncio.AbstractEventLoop) -> selectors.BaseSelector:
    """A loop's selector, or `TypeError` for one that has none to be asked."""
    selector = getattr(loop, "_selector", None)
    if selector is None or not hasattr(selector, "fileno"):
        raise TypeError(
            f"virtual time needs asyncio's own event loop (with epoll or kqueue), not {type(loop).__name__}"
        )
    return cast("selectors.BaseSelector", selector)
