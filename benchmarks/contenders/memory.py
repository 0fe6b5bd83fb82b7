"""What a `client.generate()` in flight weighs, its caller's task included: bytes, and objects that the garbage
collector tracks, each after many were submitted and their answers are gone.

Measured with tracemalloc, which counts what Python allocates and no allocator's slack. The least that any poller needs
is measured here too, in the same way, and how long a full collection takes.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import time
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.contenders.kit import Order, Returned, main
from benchmarks.library import open_client

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from toapis_async import ToAPIs

ONCE = 500
"""Submissions under way at once; what is under way is gone when the weight is taken."""
COLLECTED = 8_000
"""Tasks in flight when a full collection is timed."""


class Slot:
    """The least that a poller keeps of a task."""

    __slots__ = ("due_s", "future", "polls", "task_id")

    def __init__(self, task_id: str, future: asyncio.Future[None] | None) -> None:
        self.task_id, self.future, self.due_s, self.polls = task_id, future, 0.0, 0


async def work(order: Order, returned: Returned) -> None:
    details = returned.details
    details["collection_ms"], details["tracked"] = await collection(order)
    gc.disable()  # of 100,000 objects that stay, each full collection would visit all again
    details["least"] = least_bytes(order.count)
    tracemalloc.start(1)
    async with open_client(order) as client:
        first = await begin(client, ONCE)  # connections and caches are no task's weight
        before = weight()
        waiting = await begin(client, order.count - ONCE)
        details["generate"] = (weight() - before) / len(waiting) - 8  # the list of tasks is ours
        details["top"] = top_lines(len(waiting))
        await end(first + waiting)
    tracemalloc.stop()


async def collection(order: Order) -> tuple[float, float]:
    """Milliseconds of CPU that the quickest of five full collections took with 8,000 in flight, and the tracked objects
    of each."""
    count = min(COLLECTED, order.count)
    async with open_client(replace(order, count=count + ONCE)) as client:
        first = await begin(client, ONCE)
        gc.collect()
        before = len(gc.get_objects())
        waiting = await begin(client, count)
        gc.collect()
        tracked = (len(gc.get_objects()) - before) / count
        took_s = min(timed_collection() for _ in range(5))
        await end(first + waiting)
    return 1e3 * took_s, tracked


def timed_collection() -> float:
    began_s = time.thread_time()
    gc.collect()
    return time.thread_time() - began_s


async def begin(client: ToAPIs, count: int) -> list[asyncio.Task[object]]:
    """So many calls of `generate`, submitted."""
    waiting: list[asyncio.Task[object]] = []
    before = client.statistics().accepted
    while len(waiting) < count:
        some = min(ONCE, count - len(waiting))
        waiting += [asyncio.create_task(generate(client)) for _ in range(some)]
        while client.statistics().accepted < before + len(waiting):  # noqa: ASYNC110  (a listener would weigh, too)
            await asyncio.sleep(0.01)
    return waiting


def generate(client: ToAPIs) -> Coroutine[None, None, object]:
    return client.generate("a lighthouse")


async def end(waiting: list[asyncio.Task[object]]) -> None:
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def weight() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def least_bytes(count: int) -> float:
    """Bytes of: a task id, a slotted object, a heap entry and a Future."""
    loop = asyncio.get_running_loop()
    tracemalloc.start(1)
    before = weight()
    heap: list[tuple[float, int, Slot]] = []
    for number in range(count):
        slot = Slot(f"task_img_{number:026d}", loop.create_future())
        heapq.heappush(heap, (float(number), number, slot))
    bytes_each = (weight() - before) / count
    tracemalloc.stop()
    return bytes_each


def top_lines(count: int) -> list[str]:
    """Where the memory was allocated: bytes per task, file and line."""
    lines = tracemalloc.take_snapshot().statistics("lineno")[:16]
    return [f"{line.size / count:.0f} {'/'.join(str(line.traceback[0]).split('/')[-3:])}" for line in lines]


if __name__ == "__main__":
    main(work)
