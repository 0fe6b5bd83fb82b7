"""aiohttp alone, counted: POSTs, GETs, and the four requests of a life."""

from __future__ import annotations

from benchmarks.contenders.bare import POLLS, get, life, post, session_of
from benchmarks.contenders.counted import stretch
from benchmarks.contenders.kit import Order, Returned, finish_after, main


async def work(order: Order, returned: Returned) -> None:
    async with session_of(order) as session:
        known = await post(session, order.url)
        await stretch(order.count, lambda: post(session, order.url))
        await stretch(order.count, lambda: get(session, order.url, known))
        finish_after(order, POLLS)
        await stretch(order.count, lambda: life(session, order.url))


if __name__ == "__main__":
    main(work)
