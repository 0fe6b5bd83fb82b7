"""A batch over a source that has no end of its own, read as fast as the batch takes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.contenders.kit import Order, Returned, main
from benchmarks.library import open_client

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_FLIGHT = 1_000


async def work(order: Order, returned: Returned) -> None:
    ends_s = time.monotonic() + order.most_s

    def rows() -> Iterator[str]:
        for number in range(order.count):
            if time.monotonic() > ends_s:
                return
            yield f"a lighthouse, seen from ship {number}"

    done = 0
    run = "size" if order.journal else None
    async with open_client(order) as client, client.batch(rows(), max_in_flight=IN_FLIGHT, run=run) as batch:
        async for item in batch:
            done += item.ok
            if not item.ok and len(returned.errors) < 10:
                returned.errors.append(str(item.error))
    returned.details["done"] = done


if __name__ == "__main__":
    main(work)
