"""What most people write: gather, a semaphore, and a sleep loop per task."""

from __future__ import annotations

import asyncio

import aiohttp

from benchmarks.contenders.bare import BODY, HEADERS
from benchmarks.contenders.kit import Order, Returned, begin_all, main


async def work(order: Order, returned: Returned) -> None:
    semaphore = asyncio.Semaphore(order.count)  # all in flight at once, as with every other contender
    connector = aiohttp.TCPConnector(limit=order.concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
        url = f"{order.url}/v1/images/generations"

        async def generate() -> None:
            async with semaphore:
                task_id = await submit(session, url)
                await wait(session, f"{url}/{task_id}", order.interval_s)
                returned.done(task_id)

        await begin_all(order, returned, generate)


async def submit(session: aiohttp.ClientSession, url: str) -> str:
    while True:
        async with session.post(url, json=BODY) as response:
            if response.status == 429:
                await asyncio.sleep(float(response.headers["Retry-After"]))
                continue
            response.raise_for_status()
            task: dict[str, str] = await response.json()
            return task["id"]


async def wait(session: aiohttp.ClientSession, url: str, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        async with session.get(url) as response:
            if response.status == 429:
                continue
            response.raise_for_status()
            task = await response.json()
            if task["status"] == "completed":
                return


if __name__ == "__main__":
    main(work)
