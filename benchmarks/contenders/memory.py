"""What a task in flight weighs: bytes per task after many were submitted and their answers are gone.

Measured with tracemalloc, which counts what Python allocates and no allocator's slack. The
least that any poller needs is measured here too, in the same way.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import tracemalloc
from typing import TYPE_CHECKING

from benchmarks.contenders.kit import Order, Returned, gather, main
from benchmarks.library import open_client

if TYPE_CHECKING:
    from toapis_async import TaskHandle, ToAPIs

ONCE = 500
"""Submissions under way at once; their frames are gone when the weight is taken."""


class Slot:
    """The least that a poller keeps of a task."""

    __slots__ = ("due_s", "future", "polls", "task_id")

    def __init__(self, task_id: str, future: asyncio.Future[None] | None) -> None:
        self.task_id, self.future, self.due_s, self.polls = task_id, future, 0.0, 0


async def work(order: Order, returned: Returned) -> None:
    details = returned.details
    gc.disable()  # of 100,000 objects that stay, each full collection would visit all again
    details["least"] = least_bytes(order.count)
    tracemalloc.start(1)
    async with open_client(order) as client:
        await submit(client, ONCE, returned)  # connections and caches are no task's weight
        before = weight()
        count = order.count - ONCE
        handles = await submit(client, count, returned)
        with_handles = weight()
        details["top"] = top_lines(count)
        details["handles"] = (with_handles - before) / count
        ids = [handle.task_id for handle in handles]  # keep the texts that the entries share
        handles.clear()
        details["alone"] = (weight() - before) / count - 8  # the list of ids is ours
        handles = [client.attach(task_id) for task_id in ids]
        ids.clear()
        before_tasks = weight()
        waiting = [asyncio.create_task(wait(handle)) for handle in handles]
        handles.clear()
        await asyncio.sleep(0.1)
        details["with_task"] = details["alone"] + (weight() - before_tasks) / count
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    tracemalloc.stop()


async def submit(client: ToAPIs, count: int, returned: Returned) -> list[TaskHandle]:
    handles: list[TaskHandle] = []

    async def one() -> None:
        handles.append(await client.submit("a lighthouse"))

    for begin in range(0, count, ONCE):
        await gather(returned, [one() for _ in range(min(ONCE, count - begin))])
    return handles


async def wait(handle: TaskHandle) -> None:
    await handle


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
