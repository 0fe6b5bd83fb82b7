"""The floor of a life: aiohttp sending its four requests one after the other. Nothing is decided."""

from __future__ import annotations

from benchmarks.contenders.bare import life, session_of
from benchmarks.contenders.kit import Order, Returned, begin_all, main


async def work(order: Order, returned: Returned) -> None:
    async with session_of(order) as session:

        async def one() -> None:
            returned.done(await life(session, order.url))

        await begin_all(order, returned, one)


if __name__ == "__main__":
    main(work)
