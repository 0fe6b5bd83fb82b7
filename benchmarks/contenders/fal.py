"""fal-client, against its own protocol: submit, status every `interval_s`, then the result."""

from __future__ import annotations

import fal_client.client  # type: ignore[import-not-found]
from fal_client import AsyncClient

from benchmarks.contenders.kit import Order, Returned, begin_all, main


async def work(order: Order, returned: Returned) -> None:
    fal_client.client.QUEUE_URL_FORMAT = f"{order.url}/"  # its own default is https://queue.fal.run/
    client = AsyncClient(key="bench")

    async def generate() -> None:
        handle = await client.submit("bench/app", arguments={"prompt": "a lighthouse"})
        await handle.get(interval=order.interval_s)
        returned.done(handle.request_id)

    await begin_all(order, returned, generate)


if __name__ == "__main__":
    main(work)
