"""runwayml, against its own protocol, as shipped: it polls every 6 s, give or take 1.5, compressed as the server is."""

from __future__ import annotations

from runwayml import AsyncRunwayML  # type: ignore[import-not-found]
from runwayml.lib import polling  # type: ignore[import-not-found]

from benchmarks.contenders.kit import Order, Returned, begin_all, main


async def work(order: Order, returned: Returned) -> None:
    polling.POLL_TIME, polling.POLL_JITTER = 6 * order.interval_s / 5, 3 * order.interval_s / 5
    async with AsyncRunwayML(api_key="bench", base_url=order.url) as client:

        async def generate() -> None:
            task = await client.text_to_image.create(model="gen4_image", prompt_text="a lighthouse", ratio="1024:1024")
            await task.wait_for_task_output()
            returned.done(task.id)

        await begin_all(order, returned, generate)


if __name__ == "__main__":
    main(work)
