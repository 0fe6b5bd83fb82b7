"""What an earlier pass of a run left running or unfetched is seen to first, wherever its rows stand now."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from tests.engine.kit import until
from toapis_async import Settings, ToAPIs
from toapis_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KEY = "sk-ahead"


def client_of(sandbox: Sandbox, folder: Path, **changes: Any) -> ToAPIs:
    settings = Settings(
        tier="svip", first_poll_s=0.02, min_poll_interval_s=0.02, reconcile_window_s=0.3, close_grace_s=0.1, **changes
    )
    return ToAPIs(KEY, base_url=sandbox.base_url, settings=settings, journal=folder / "journal.sqlite")


def images(folder: Path, key: str = "") -> list[str]:
    return [path.name for path in folder.glob(f"{key}*.png")]


async def leave_running(sandbox: Sandbox, folder: Path, rows: list[str]) -> None:
    """A pass that ends when all rows are sent and none is done."""
    async with client_of(sandbox, folder) as client, client.batch(rows, save_to=folder, run="r") as batch:
        reading = asyncio.ensure_future(anext(aiter(batch)))
        await until(lambda: len(sandbox.ledger) == len(rows))
        reading.cancel()
        await asyncio.wait([reading])


async def test_rows_that_are_gone_from_the_source_still_get_their_images(tmp_path: Path) -> None:
    async with Sandbox(speed=100, tier="svip", service_time_s=10) as sandbox:
        await leave_running(sandbox, tmp_path, ["kept", "gone"])
        async with client_of(sandbox, tmp_path) as client:
            items = await client.batch(["kept"], save_to=tmp_path, run="r").gather()
        assert [item.ok for item in items] == [True]
        assert len(images(tmp_path)) == 2
        assert sandbox.requests.count("submit") == 2


async def test_rows_at_the_end_of_a_long_source_are_watched_before_new_ones_are_sent(tmp_path: Path) -> None:
    async with Sandbox(speed=100, tier="svip", service_time_s=10) as sandbox:
        await leave_running(sandbox, tmp_path, ["early"])
        async with client_of(sandbox, tmp_path) as client:
            rows = [*(f"new {number}" for number in range(6)), "early"]
            order: list[str] = []
            async for item in client.batch(rows, save_to=tmp_path, run="r", max_in_flight=1):
                assert item.request is not None
                order.append(str(item.request.prompt))
                if len(order) == 4:
                    assert images(tmp_path, "early")
            assert set(order) == set(rows)
        assert sandbox.ledger.paid_twice() == ()
        assert len(sandbox.ledger) == 7
        assert len(images(tmp_path)) == 7


async def test_an_intent_that_was_accepted_is_found_ahead_of_its_row(tmp_path: Path) -> None:
    async with Sandbox(speed=100, tier="svip", service_time_s=10) as sandbox:
        sandbox.faults.script("submit", Fault.LOST_ANSWER)
        async with client_of(sandbox, tmp_path, uncertain_submits="raise") as client:
            batch = client.batch(["lost"], save_to=tmp_path, run="r")
            reading = asyncio.ensure_future(batch.gather())
            await until(lambda: len(sandbox.ledger) == 1)
            reading.cancel()
            await asyncio.wait([reading])
            await batch.aclose()
        async with client_of(sandbox, tmp_path) as client:
            assert await client.batch([], save_to=tmp_path, run="r").gather() == []
        assert len(images(tmp_path, "lost")) == 1
        assert sandbox.requests.count("submit") == 1


async def test_a_failure_ahead_is_told_by_its_row_and_ends_nothing_else(tmp_path: Path) -> None:
    async with Sandbox(speed=100, tier="svip", service_time_s=10) as sandbox:
        await leave_running(sandbox, tmp_path, ["one [fail]", "two"])
        async with client_of(sandbox, tmp_path) as client:
            items = await client.batch(["one [fail]", "two"], save_to=tmp_path, run="r").gather()
        assert [type(item.error).__name__ for item in items] == ["TaskFailed", "NoneType"]
        assert sandbox.requests.count("submit") == 2


async def test_rows_that_still_run_hold_up_no_new_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(tier="svip", service_time_s=math.inf) as sandbox:
        await leave_running(sandbox, tmp_path, ["one", "two"])
        monkeypatch.setattr("toapis_async.batch.batch.SUBMITTING_ROWS", 1)
        async with client_of(sandbox, tmp_path) as client:
            batch = client.batch(["one", "two", "new"], save_to=tmp_path, run="r")
            reading = asyncio.ensure_future(batch.gather())
            await until(lambda: len(sandbox.ledger) == 3)
            for entry in sandbox.ledger:
                sandbox.finish(entry.task_id)
            assert [item.ok for item in await reading] == [True] * 3
        assert len(images(tmp_path)) == 3
        assert sandbox.requests.count("submit") == 3
        assert client.statistics().saved_files == 3  # each image is fetched once
