"""The floor: aiohttp sending so many requests at so many at once, and reading their JSON. No task is watched."""

from __future__ import annotations

import asyncio

import aiohttp

from benchmarks.contenders.kit import Order, Returned, main

HEADERS = {"Authorization": "Bearer sk-bench", "Accept": "application/json"}
BODY = {"model": "gpt-image-2-vip", "prompt": "a lighthouse"}


async def work(order: Order, returned: Returned) -> None:
    connector = aiohttp.TCPConnector(limit=order.concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
        url = f"{order.url}/v1/images/generations"
        ids: list[str] = []
        posts, polls = iter(range(order.count)), iter(range(order.polls))

        async def submit() -> None:
            for _ in posts:
                async with session.post(url, json=BODY) as response:
                    ids.append((await response.json())["id"])

        async def poll() -> None:
            for number in polls:
                async with session.get(f"{url}/{ids[number % len(ids)]}") as response:
                    await response.json()

        await asyncio.gather(*(submit() for _ in range(order.concurrency)))
        await asyncio.gather(*(poll() for _ in range(order.concurrency)))
    returned.details["requests"] = order.count + order.polls


if __name__ == "__main__":
    main(work)
