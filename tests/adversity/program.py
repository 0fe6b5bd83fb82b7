"""A small program on the library, for the machine that kills: a batch with a run, single requests with ids of their
own, and single requests whose ids are minted, of which only the journal knows what became of them.
`program.py FILE FOLDER BASE_URL WINDOW_S`; exit code 0 when every image is on disk. Standard output says how many
submissions an earlier process left."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from toapis_async import (
    ImageRequest,
    JournalError,
    RateLimits,
    Settings,
    TaskHandle,
    TaskNotFound,
    ToAPIs,
    ToAPIsError,
)
from toapis_async.batch.item import BatchItem

SINGLES = 2
MINTED = 3


def main(file: Path, folder: Path, base_url: str, window_s: float) -> int:
    try:
        folder.mkdir(exist_ok=True)
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        return asyncio.run(every_image(rows, folder, base_url, window_s))
    except (OSError, ToAPIsError) as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, JournalError) else 1


async def every_image(rows: list[dict[str, Any]], folder: Path, base_url: str, window_s: float) -> int:
    settings = Settings(
        limits=RateLimits(submit_per_s=500, submit_burst=300, query_per_s=500, query_burst=300),
        first_poll_s=0.05,
        min_poll_interval_s=0.05,
        reconcile_window_s=window_s,
        vanish_grace_s=window_s,
        read_timeout_s=2.0,
    )
    images = folder / "images"
    items: list[BatchItem | bool] = []
    async with ToAPIs(base_url=base_url, settings=settings, journal=folder / "journal.sqlite") as client:
        left = client.recovered()
        sys.stdout.write(f"recovered {len(left)}\n")
        singles = [asyncio.ensure_future(recovered(handle, images)) for handle in left]
        singles += [asyncio.ensure_future(single(client, images, number)) for number in range(SINGLES)]
        singles += [asyncio.ensure_future(minted(client, folder, images))]
        async with client.batch(rows, run="1", save_to=images) as batch:
            items += [item async for item in batch]
        items += await asyncio.gather(*singles)
    for item in items:
        if isinstance(item, BatchItem) and not item.ok:
            sys.stderr.write(f"{item.key}: {item.error}\n")
    return 0 if all(item if isinstance(item, bool) else item.ok for item in items) else 1


async def single(client: ToAPIs, images: Path, number: int) -> bool:
    """One request whose id is the caller's own, so that the journal knows it again."""
    request = ImageRequest(f"single {number}", client_business_id=f"single-{number}")
    try:
        generation = await client.generate(request)
        await generation.save(images)
    except ToAPIsError as error:
        sys.stderr.write(f"single {number}: {error}\n")
        return False
    return True


async def minted(client: ToAPIs, folder: Path, images: Path) -> bool:
    """Requests without an id, one after the other. Each is submitted by one process only, whatever becomes of it."""
    try:
        for number in range(MINTED):
            mark = folder / f"minted-{number}"
            if not mark.exists():
                mark.touch(exist_ok=False)
                generation = await client.generate(f"minted {number}")
                await generation.save(images)
    except (OSError, ToAPIsError) as error:
        sys.stderr.write(f"minted: {error}\n")
        return False
    return True


async def recovered(handle: TaskHandle, images: Path) -> bool:
    """What an earlier process left, if the service ever took it."""
    try:
        generation = await handle
        await generation.save(images)
    except TaskNotFound:
        return True
    except ToAPIsError as error:
        sys.stderr.write(f"recovered: {error}\n")
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
