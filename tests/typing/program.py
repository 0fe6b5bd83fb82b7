"""What a user writes who has both checkers in their strict modes: nothing here may be an error. It is not run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from toapis_async import (
    BatchItem,
    Generation,
    ImageFields,
    ImageRequest,
    ImageRow,
    RunningRow,
    Settings,
    SubmitUncertain,
    TaskFailed,
    TaskHandle,
    ToAPIs,
    ToAPIsError,
    VideoRequest,
)
from toapis_async.events import Event, TaskEnded
from toapis_async.telemetry import instrument


async def single(client: ToAPIs) -> Path:
    generation = await client.generate("a red kite", size="16:9", quality="high", n=2, resolution="2k")
    assert_type(generation, Generation)
    (first, *_) = await generation.save("pictures")
    return first


async def by_handle(client: ToAPIs) -> list[str]:
    handle = await client.submit(VideoRequest("a boat", model="seedance-2"))
    assert_type(handle, TaskHandle)
    async for snapshot in handle.updates():
        print(snapshot.status, snapshot.progress)  # noqa: T201
    generation = await handle
    return [file.url for file in generation.files]


async def many(client: ToAPIs, look: ImageFields) -> dict[str, str]:
    links: dict[str, str] = {}
    rows = [ImageRequest(f"kite {number}", **look) for number in range(10)]
    async with client.batch(rows, save_to=Path("out"), progress=True) as batch:
        async for item in batch:
            assert_type(item, BatchItem)
            if item.ok:
                links[item.key] = item.generation.images[0].url
            elif isinstance(item.error, TaskFailed):
                links[item.key] = item.error.task_id
        assert_type(batch.running(), tuple[RunningRow, ...])
    return links


async def mappings(client: ToAPIs, look: ImageFields) -> list[BatchItem]:
    rows: list[ImageRow] = [{"key": "a", "prompt": "a kite", "quality": "low"}, {"prompt": "another"}]
    await client.generate("a kite", **look)
    return await client.batch(rows, key="key").gather()


async def careful(client: ToAPIs) -> TaskHandle | None:
    try:
        return await client.submit({"prompt": "a red kite", "size": "1:1"})
    except SubmitUncertain as error:
        return await client.find(error.client_business_id)
    except ToAPIsError as error:
        print(error.task_id, error.client_business_id)  # noqa: T201
        return None


def listen(event: Event) -> None:
    if isinstance(event, TaskEnded) and event.completed_at is not None:
        print(event.task_id, event.completed_at.isoformat())  # noqa: T201


async def main() -> None:
    client = ToAPIs(settings=Settings(on_event=listen))
    instrument(client)
    client.add_listener(listen)
    async with client:
        print(await single(client), await by_handle(client), client.statistics().in_flight)  # noqa: T201
        print(await many(client, {"size": "4:3", "quality": "low"}), await careful(client))  # noqa: T201
