"""replicate, against its own protocol."""

from __future__ import annotations

from replicate.client import Client  # type: ignore[import-not-found]

from benchmarks.contenders.kit import Order, Returned, begin_all, main


async def work(order: Order, returned: Returned) -> None:
    client = Client(api_token="bench", base_url=order.url)  # noqa: S106  (no password)
    client.poll_interval = order.interval_s

    async def generate() -> None:
        prediction = await client.predictions.async_create(version="1", input={"prompt": "a lighthouse"})
        await prediction.async_wait()
        returned.done(prediction.id)

    await begin_all(order, returned, generate)


if __name__ == "__main__":
    main(work)
