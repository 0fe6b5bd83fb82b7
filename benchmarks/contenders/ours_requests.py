"""The library's requests alone: submissions and single queries, so many at once. Its poller has nothing to do."""

from __future__ import annotations

import asyncio

from benchmarks.contenders.kit import Order, Returned, main
from benchmarks.library import open_client


async def work(order: Order, returned: Returned) -> None:
    async with open_client(order) as client:
        ids: list[str] = []
        posts, polls = iter(range(order.count)), iter(range(order.polls))

        async def submit() -> None:
            for _ in posts:
                handle = await client.submit("a lighthouse")
                ids.append(handle.task_id)

        async def poll() -> None:
            for number in polls:
                await client.status(ids[number % len(ids)])

        await asyncio.gather(*(submit() for _ in range(order.concurrency)))
        await asyncio.gather(*(poll() for _ in range(order.concurrency)))
    returned.details["requests"] = order.count + order.polls


if __name__ == "__main__":
    main(work)
