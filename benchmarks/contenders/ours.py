"""The library, used as its README shows."""

from __future__ import annotations

from benchmarks.contenders.kit import Order, Returned, begin_all, main
from benchmarks.library import open_client


async def work(order: Order, returned: Returned) -> None:
    async with open_client(order) as client:

        async def generate() -> None:
            generation = await client.generate("a lighthouse")
            returned.done(generation.task_id)

        await begin_all(order, returned, generate)


if __name__ == "__main__":
    main(work)
