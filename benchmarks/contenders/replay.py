"""The floor of a whole run: aiohttp sending a request at every moment when ours sent one, knowing all of them before.

So it has the same requests, the same concurrency and the same idle time, and nothing to decide.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp

from benchmarks.contenders.bare import BODY, HEADERS
from benchmarks.contenders.kit import Order, Returned, main


async def work(order: Order, returned: Returned) -> None:
    assert order.replay is not None
    moments: list[tuple[float, bool]] = json.loads(Path(order.replay).read_text())  # noqa: ASYNC240  (before the start)
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(limit=order.concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
        url = f"{order.url}/v1/images/generations"
        ids: list[str] = []
        under_way: set[asyncio.Task[None]] = set()

        async def send(number: int, is_submit: bool) -> None:
            if is_submit:
                async with session.post(url, json=BODY) as response:
                    ids.append((await response.json())["id"])
            else:
                async with session.get(f"{url}/{ids[number % len(ids)]}") as response:
                    await response.json()

        begin_s = loop.time() - moments[0][0]
        for number, (at_s, is_submit) in enumerate(moments):
            if begin_s + at_s > loop.time():
                await asyncio.sleep(begin_s + at_s - loop.time())
            task = loop.create_task(send(number, is_submit))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    returned.details["requests"] = len(moments)


if __name__ == "__main__":
    main(work)
