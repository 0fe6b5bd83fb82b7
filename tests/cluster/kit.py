"""A fast service, and clusters small enough for a test."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from distributed import LocalCluster

from toapis_async import Settings
from toapis_async.batch.rows import RowReader
from toapis_async.parts import Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SPEED = 50.0
KEY = "sk-cluster-0123456789"
_local_cluster: Any = LocalCluster


def quick(**changes: Any) -> Settings:
    """The client's waits in the sandbox's time."""
    waits = {"first_poll_s": 5 / SPEED, "min_poll_interval_s": 5 / SPEED, "reconcile_window_s": 1.0, "tier": "svip"}
    return Settings(**{**waits, **changes})


def kites(number: int) -> list[dict[str, str]]:
    return [{"key": f"kite-{n}", "prompt": f"a kite, number {n}"} for n in range(number)]


@asynccontextmanager
async def small_cluster(workers: int = 2, *, processes: bool = False) -> AsyncIterator[Any]:
    """A scheduler and its workers: all in this process, unless they are to be killed."""
    async with _local_cluster(
        n_workers=workers, threads_per_worker=1, processes=processes, asynchronous=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


async def part_of(rows: list[Any], **options: Any) -> Part:
    """One part of all rows."""
    reader = RowReader("key")
    try:
        return Part(0, tuple([await reader.read(row) for row in rows]), **options)
    finally:
        reader.close()
