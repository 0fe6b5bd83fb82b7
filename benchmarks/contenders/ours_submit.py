"""The library submitting as fast as it lets itself; nobody waits for the tasks."""

from __future__ import annotations

from benchmarks.contenders.kit import Order, Returned, gather, main
from benchmarks.library import open_client


async def work(order: Order, returned: Returned) -> None:
    async with open_client(order) as client:

        async def submit() -> None:
            returned.done((await client.submit("a lighthouse")).task_id)

        await gather(returned, [submit() for _ in range(order.count)])


if __name__ == "__main__":
    main(work)
