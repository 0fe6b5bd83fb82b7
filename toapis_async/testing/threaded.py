"""A sandbox in a thread of its own, so that a test of any kind can use it: plain, asyncio's or anyio's."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from toapis_async.testing.virtual import Restful, VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from toapis_async.sandbox import Clock, FaultPlan, Ledger, RequestLog, Sandbox, Webhooks

T = TypeVar("T")
_START_S = 10.0


class ThreadedSandbox:
    """What the fixture `toapis_sandbox` is. Use it from the test's thread; nothing here may be called in another's loop
    than that thread's.

    `faults`, `ledger`, `requests` and `webhooks` are those of `toapis_async.sandbox.Sandbox`; what is read or called
    through them is done on the sandbox's own loop.
    """

    faults: FaultPlan
    ledger: Ledger
    requests: RequestLog
    webhooks: Webhooks

    def __init__(self, sandbox: Sandbox, clock: Clock) -> None:
        self.clock = clock
        """The sandbox's time: `clock()` in Unix seconds, `clock.advance(30)`."""
        self._sandbox = sandbox
        self._begun_s = clock()
        self._stop = asyncio.Event()
        self._running: Future[asyncio.AbstractEventLoop] = Future()
        self._virtual: VirtualTime | None = None
        self._thread = threading.Thread(target=self._run, name="toapis-sandbox", daemon=True)
        for name in ("faults", "ledger", "requests", "webhooks"):
            setattr(self, name, _OnLoop(getattr(sandbox, name), self._on_loop))

    @property
    def base_url(self) -> str:
        """The API's origin, for `ToAPIs(base_url=…)`."""
        return self._sandbox.base_url

    @property
    def files_url(self) -> str:
        """The origin of pictures and uploads."""
        return self._sandbox.files_url

    @property
    def elapsed_s(self) -> float:
        """Seconds by the sandbox's clock since the test began. In a test with virtual time, only those by which that
        was put forward: a slow machine gives the same number."""
        return self.clock() - self._begun_s if self._virtual is None else self.clock.advanced_s

    def finish(self, task_id: str) -> None:
        """Complete a task now. Raises `KeyError` for an unknown task, `ValueError` for one that has ended."""
        self._on_loop(lambda: self._sandbox.finish(task_id))

    def fail(self, task_id: str, code: str = "generation_failed", message: str = "the service failed") -> None:
        """Fail a task now and refund it. Raises like `finish`."""
        self._on_loop(lambda: self._sandbox.fail(task_id, code, message))

    @contextmanager
    def virtual_time(self) -> Generator[None]:
        """Within it, the running event loop and the sandbox share a clock that jumps to the next timer whenever there
        is nothing else to do: waiting takes no time, and takes exactly as long as it says by `elapsed_s`.

        Raises `RuntimeError` outside an event loop, `TypeError` in one that keeps its time to itself (uvloop's).
        """
        if self._virtual is None:
            loop = self._running.result()
            self._virtual = VirtualTime(self.clock, self._on_loop(lambda: Restful(loop)))
        with self._virtual.entered():
            yield

    def start(self) -> None:
        """Start the thread, and wait until the sandbox listens. Raises what `Sandbox.start` does."""
        self._thread.start()
        self._running.result(_START_S)

    def close(self) -> None:
        """Close the sandbox and end its thread."""
        if self._virtual is not None:
            self._virtual.end()
        self._running.result().call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __repr__(self) -> str:
        return f"<ThreadedSandbox: {self._sandbox!r}>"

    def _run(self) -> None:
        # asyncio's own loop, whatever the process has set as its policy: its selector tells when it rests.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            await self._sandbox.start()
        except BaseException as error:
            # start() raises it, in the thread that wants the sandbox.
            self._running.set_exception(error)
            return
        try:
            self._running.set_result(asyncio.get_running_loop())
            await self._stop.wait()
        finally:
            await self._sandbox.aclose()

    def _on_loop(self, act: Callable[[], T]) -> T:
        async def acted() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self._running.result()).result()


class _OnLoop:
    """Stands for an object that lives on the sandbox's loop. Containers come as copies, coroutines as awaitables."""

    def __init__(self, target: object, on_loop: Callable[[Callable[[], Any]], Any]) -> None:
        self._target = target
        self._on_loop = on_loop

    def __getattr__(self, name: str) -> Any:
        value = self._on_loop(lambda: _apart(getattr(self._target, name)))
        return self._calling(value) if inspect.ismethod(value) else value

    def __len__(self) -> int:
        return cast("int", self._on_loop(lambda: len(self._target)))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._on_loop(lambda: list(self._target)))  # type: ignore[call-overload]

    def __repr__(self) -> str:
        return cast("str", self._on_loop(lambda: repr(self._target)))

    def _calling(self, method: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(method):
            raise TypeError(f"{method.__name__} can't be awaited from a test: it would wait for the test's own loop")

        def called(*args: Any, **named: Any) -> Any:
            return self._on_loop(lambda: _apart(method(*args, **named)))

        return called


def _apart(value: Any) -> Any:
    is_container = isinstance(value, list | dict | set | deque)
    return copy.copy(cast("object", value)) if is_container else value
