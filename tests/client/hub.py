"""Processes that share ends, without a process or a Redis: clients of one test, and what carries their messages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from toapis_async import RateLimits, Settings, ToAPIs
from toapis_async.engine.core import Engine
from toapis_async.engine.shared.port import Outgoing, StoreLost

from ..engine.kit import KEY, turns
from .events import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

A_LOT = RateLimits(submit_per_s=1e4, submit_burst=1e4, query_per_s=1e4, query_burst=1e4)


class Hub:
    """The channel of all clients of a test. It can be stopped, and loses everything then."""

    def __init__(self) -> None:
        self.is_up = True
        self.on_epoch: Callable[[], None] = lambda: None
        self.published: list[bytes] = []
        self.store: dict[str, bytes] = {}
        self.asked: list[str] = []
        self._queues: set[asyncio.Queue[bytes | None]] = set()

    def put(self, message: bytes) -> None:
        """A message comes to every client."""
        for queue in self._queues:
            queue.put_nowait(message)

    def stop(self) -> None:
        self.is_up = False
        self.store.clear()
        for queue in self._queues:
            queue.put_nowait(None)

    def start(self) -> None:
        self.is_up = True

    def _check(self) -> None:
        if not self.is_up:
            raise StoreLost("stopped by the test")

    # ------------------------------------------------------------------------- what a client uses

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        await asyncio.sleep(0)
        self._check()
        for each in outgoing:
            self.published.append(each.message)
            if each.keep_as is not None:
                self.store[each.keep_as] = each.message
            self.put(each.message)

    async def kept(self, task_ids: Sequence[str]) -> Sequence[bytes | None]:
        await asyncio.sleep(0)
        self._check()
        self.asked += task_ids
        return [self.store.get(task_id) for task_id in task_ids]

    async def messages(self) -> AsyncGenerator[bytes | None, None]:
        await asyncio.sleep(0)
        self._check()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield None
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._queues.discard(queue)
        raise StoreLost("stopped by the test")


class Worker(ToAPIs):
    """A client that shares ends through a hub."""

    def __init__(self, hub: Hub, **settings: Any) -> None:
        values = {"close_grace_s": 0, "webhook_secrets": SECRET, "limits": A_LOT, **settings}
        super().__init__(KEY, settings=Settings(**values))
        self._hub = hub

    async def _opened(self) -> Engine:
        engine = Engine(self._credentials, self._settings, ends_channel=self._hub)
        await turns()
        return engine
