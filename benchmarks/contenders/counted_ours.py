"""The library, counted: submissions, lives of three polls, and longer ones: the difference is what a poll takes."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.contenders.bare import POLLS
from benchmarks.contenders.counted import WARM, stretch
from benchmarks.contenders.kit import Order, Returned, finish_after, main
from benchmarks.library import open_client

MORE_POLLS = 5
NEVER_S = 86_400.0


async def work(order: Order, returned: Returned) -> None:
    async with open_client(replace(order, interval_s=NEVER_S, count=WARM + order.count)) as client:
        await stretch(order.count, lambda: client.submit("a lighthouse"))
    async with open_client(order) as client:
        for polls in (POLLS, POLLS + MORE_POLLS):
            finish_after(order, polls)
            await stretch(order.count, lambda: client.generate("a lighthouse"))


if __name__ == "__main__":
    main(work)
