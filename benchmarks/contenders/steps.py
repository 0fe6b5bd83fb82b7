"""The longest step of the event loop while a client watches many tasks that are all due at once, as after a suspended
laptop or an outage: attached tasks, through the public API, the garbage collector off."""

from __future__ import annotations

import asyncio
import gc
import time
from asyncio import events

from benchmarks.contenders.kit import Order, Returned, main
from benchmarks.library import open_client

WATCHED_FOR_S = 4.0


class Steps:
    """Times every callback of the loop (thread CPU)."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.count = 0
        self._run = vars(events.Handle)["_run"]

    def __enter__(self) -> Steps:
        run = self._run

        def timed(handle: asyncio.Handle) -> None:
            began_s = time.thread_time()
            run(handle)
            self.longest_s = max(self.longest_s, time.thread_time() - began_s)
            self.count += 1

        setattr(events.Handle, "_run", timed)  # noqa: B010  (not a name that is typed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(events.Handle, "_run", self._run)  # noqa: B010


async def work(order: Order, returned: Returned) -> None:
    gc.disable()
    async with open_client(order) as client:
        for number in range(order.count):
            client.attach(f"task_img_{number:026d}")
        with Steps() as steps:
            await asyncio.sleep(WATCHED_FOR_S)
        returned.details["longest_ms"] = 1e3 * steps.longest_s
        returned.details["steps"] = steps.count
        returned.details["polls"] = client.statistics().polls


if __name__ == "__main__":
    main(work)
