"""The library's requests alone: submissions and single questions, so many at once. Its poller has nothing to do."""

from __future__ import annotations

import asyncio

from benchmarks.contenders.kit import Order, Returned, main
from benchmarks.library import open_client


async def work(order: Order, returned: Returned) -> None:
    async with open_client(order) as client:
        ids: list[str] = []
        posts, looks = iter(range(order.count)), iter(range(order.looks))

        async def submit() -> None:
            for _ in posts:
                handle = await client.submit("a lighthouse")
                ids.append(handle.task_id)

        async def look() -> None:
            for number in looks:
                await client.status(ids[number % len(ids)])

        await asyncio.gather(*(submit() for _ in range(order.concurrency)))
        await asyncio.gather(*(look() for _ in range(order.concurrency)))
    returned.details["requests"] = order.count + order.looks


if __name__ == "__main__":
    main(work)
