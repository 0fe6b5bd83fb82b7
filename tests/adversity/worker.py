"""A worker of an application whose workers share a journal's folder, for the machine that kills:
`worker.py JOBS FOLDER JOURNALS BASE_URL WINDOW_S`. It does its jobs, again after each start, and saves what workers
that are gone have left, until the file `stop` is in FOLDER. Exit code 0 when all went well.

Jobs are orders under ids of the caller's own, which another worker has, too; single requests whose ids are minted, each
submitted by one process only, whatever becomes of it; and a batch's run, which any worker may be at.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from toapis_async import (
    Journal,
    JournalLocked,
    RateLimits,
    Settings,
    TaskHandle,
    TaskNotFound,
    ToAPIs,
    ToAPIsError,
)
from toapis_async.engine import recovery

recovery.TAKES_OVER_EVERY_S = 0.2  # type: ignore[misc]  # pyright: ignore[reportConstantRedefinition]
PAUSE_S = 0.05
TRIES = 200


async def work(jobs: dict[str, Any], folder: Path, journals: str, base_url: str, window_s: float) -> int:
    settings = Settings(
        limits=RateLimits(submit_per_s=500, submit_burst=300, query_per_s=500, query_burst=300),
        first_poll_s=0.05,
        min_poll_interval_s=0.05,
        reconcile_window_s=window_s,
        vanish_grace_s=window_s,
        read_timeout_s=2.0,
    )
    journal = Journal(folder / journals, per_process=True)
    images = folder / "images"
    async with ToAPIs(base_url=base_url, settings=settings, journal=journal) as client:
        saving = asyncio.create_task(save_recovered(client, folder, images))
        parts = [order(client, images, name) for name in jobs["orders"]]
        parts += [minted(client, folder, images, name) for name in jobs["minted"]]
        parts += [run(client, images, name, rows) for name, rows in jobs["runs"].items()]
        done = await asyncio.gather(*parts)
        if all(done):
            (folder / jobs["done"]).touch()
        recovered = await saving
    return 0 if all(done) and recovered else 1


async def order(client: ToAPIs, images: Path, name: str) -> bool:
    """One request under an id of its own, sent as often as it takes, as a load balancer would."""
    for _ in range(TRIES):
        try:
            generation = await client.generate({"prompt": f"order {name}", "client_business_id": f"order-{name}"})
            await generation.save(images)
        except ToAPIsError as error:
            sys.stderr.write(f"order {name}: {type(error).__name__}: {error}\n")
            await asyncio.sleep(PAUSE_S)
        else:
            return True
    return False


async def minted(client: ToAPIs, folder: Path, images: Path, name: str) -> bool:
    """One request without an id, unless a process was at it before: then it is left to `recovered()`."""
    try:
        (folder / f"minted-{name}").touch(exist_ok=False)
        generation = await client.generate(f"minted {name}")
        await generation.save(images)
    except (OSError, ToAPIsError) as error:
        sys.stderr.write(f"minted {name}: {type(error).__name__}: {error}\n")
    return True


async def run(client: ToAPIs, images: Path, name: str, rows: list[str]) -> bool:
    """A batch, gone on with until no row fails; another worker may be at it."""
    for _ in range(TRIES):
        try:
            items = await client.batch(rows, run=name, save_to=images).gather()
        except JournalLocked:
            await asyncio.sleep(PAUSE_S)
            continue
        if all(item.ok for item in items):
            return True
        sys.stderr.write(f"run {name}: {[str(item.error) for item in items if item.error]}\n")
        await asyncio.sleep(PAUSE_S)
    return False


async def save_recovered(client: ToAPIs, folder: Path, images: Path) -> bool:
    """Everything that is or comes into `recovered()`, until the driver says that it is over."""
    seen, saving = 0, list[asyncio.Task[bool]]()
    while not (folder / "stop").exists():
        handles = client.recovered()
        saving += [asyncio.create_task(recovered(handle, images)) for handle in handles[seen:]]
        seen = len(handles)
        await asyncio.sleep(PAUSE_S)
    return all(await asyncio.gather(*saving))


async def recovered(handle: TaskHandle, images: Path) -> bool:
    """What a process that is gone left, if the service ever took it."""
    for _ in range(TRIES):
        try:
            generation = await handle
            await generation.save(images)
        except TaskNotFound:
            return True
        except ToAPIsError as error:
            sys.stderr.write(f"recovered: {type(error).__name__}: {error}\n")
            await asyncio.sleep(PAUSE_S)
        else:
            return True
    return False


if __name__ == "__main__":
    jobs_file, out, name, address, window = sys.argv[1:]
    Path(out, "images").mkdir(exist_ok=True, parents=True)
    todo: dict[str, Any] = json.loads(Path(jobs_file).read_text("utf-8"))
    raise SystemExit(asyncio.run(work(todo, Path(out), name, address, float(window))))
