"""A run on Dask: what users of `bulk` see, with a real scheduler and workers in this process."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client

from toapis_async import BatchItem, BudgetExceeded, ClientStateError, InvalidRequest, Journal, Settings
from toapis_async.dask import bulk
from toapis_async.sandbox import Sandbox

from .kit import KEY, SPEED, kites, quick, small_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    async with Sandbox(speed=SPEED, tier="svip") as sandbox:
        monkeypatch.setenv("TOAPIS_API_KEY", KEY)
        monkeypatch.setenv("TOAPIS_BASE_URL", sandbox.base_url)
        yield sandbox


async def done(cluster: Any, folder: Path, rows: Any = None, **options: Any) -> dict[str, BatchItem]:
    """A whole pass, its items by their keys."""
    how = {"run": "spring", "key": "key", "settings": quick(), "journal": folder / "journal", "part_rows": 4, **options}
    async with bulk(kites(10) if rows is None else rows, cluster=cluster, **how) as job:
        return {item.key: item async for item in job}


async def test_a_run_gives_an_item_for_each_row_and_its_files_are_on_disk(sandbox: Sandbox, tmp_path: Path) -> None:
    async with small_cluster() as cluster:
        items = await done(cluster, tmp_path, save_to=tmp_path / "out")
    assert sorted(items) == sorted(row["key"] for row in kites(10))
    assert all(item.ok and item.files[0].is_file() for item in items.values())
    assert items["kite-3"].request is not None
    assert items["kite-3"].request.prompt == "a kite, number 3"
    assert len(sandbox.ledger.entries) == 10


@pytest.mark.parametrize("kind", ["bag", "data frame"])
async def test_rows_may_be_a_collection_of_dasks_own(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    rows: Any
    if kind == "bag":
        rows = importlib.import_module("dask.bag").from_sequence(kites(6), npartitions=3)
    else:
        frame = importlib.import_module("pandas").DataFrame(kites(6))
        rows = importlib.import_module("dask.dataframe").from_pandas(frame, npartitions=3)
    async with small_cluster() as cluster:
        items = await done(cluster, tmp_path, rows=rows)
    assert sorted(items) == sorted(row["key"] for row in kites(6))
    assert all(item.ok for item in items.values())
    assert {item.request.prompt for item in items.values() if item.request} == {row["prompt"] for row in kites(6)}
    assert len(sandbox.ledger.entries) == 6


async def test_the_same_call_again_pays_for_nothing_and_sends_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    async with small_cluster() as cluster:
        first = await done(cluster, tmp_path, save_to=tmp_path / "out")
        posts = sandbox.requests.counts["submit"]
        again = await done(cluster, tmp_path, save_to=tmp_path / "out")
    assert {key: item.files for key, item in again.items()} == {key: item.files for key, item in first.items()}
    assert sandbox.requests.counts["submit"] == posts == 10


async def test_a_journal_that_was_lost_costs_a_look_up_for_each_row_and_no_second_picture(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    async with small_cluster() as cluster:
        await done(cluster, tmp_path)
        again = await done(cluster, tmp_path, journal=tmp_path / "another", rows=kites(12))
    assert sum(item.ok for item in again.values()) == 12
    assert len(sandbox.ledger.entries) == 12
    assert sandbox.ledger.paid_twice() == ()


async def test_each_is_called_on_the_worker_and_what_it_raises_sends_nothing_again(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    def each(item: BatchItem) -> str:
        if item.key == "kite-2":
            raise ValueError("no room for thumbnails")
        return f"thumb of {item.key}"

    async with small_cluster() as cluster:
        items = await done(cluster, tmp_path, each=each)
        assert items["kite-1"].result == "thumb of kite-1"
        assert not items["kite-2"].ok
        assert "no room for thumbnails" in str(items["kite-2"].error)
        again = await done(cluster, tmp_path, each=_name)
    assert again["kite-2"].result == "kite-2"
    assert len(sandbox.ledger.entries) == 10


def _name(item: BatchItem) -> str:
    return item.key


async def test_a_row_that_is_none_is_an_item_and_the_others_go_on(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [*kites(3), {"key": "bad", "prompt": ""}, {"key": "kite-1", "prompt": "again"}]
    how: dict[str, Any] = {"run": "r", "key": "key", "settings": quick(), "journal": tmp_path / "j"}
    async with small_cluster() as cluster, bulk(rows, cluster=cluster, **how) as job:
        items = [item async for item in job]
    assert sorted((item.index, item.ok) for item in items) == [(0, True), (1, True), (2, True), (3, False), (4, False)]
    assert all(isinstance(item.error, InvalidRequest) for item in items if not item.ok)
    assert (job.statistics().done, job.statistics().failed) == (3, 2)


async def test_two_drivers_of_one_run_at_once_are_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    how: dict[str, Any] = {"run": "spring", "settings": quick(), "journal": tmp_path / "j"}
    async with small_cluster() as cluster, bulk(["a kite"], cluster=cluster, **how):
        with pytest.raises(ClientStateError, match="is going on already"):
            async with bulk(["a kite"], cluster=cluster, **how):
                pass


@pytest.mark.parametrize("is_asynchronous", [True, False])
async def test_a_client_of_dasks_own_will_do(sandbox: Sandbox, tmp_path: Path, is_asynchronous: bool) -> None:
    make: Any = partial(Client, asynchronous=is_asynchronous, set_as_default=False)
    async with small_cluster(1) as cluster:
        address = cluster.scheduler_address
        client = make(address) if is_asynchronous else await asyncio.to_thread(make, address)
        items = await done(client, tmp_path, kites(2))
        assert all(item.ok for item in items.values())
        await client.close() if is_asynchronous else await asyncio.to_thread(client.close)
        with pytest.raises(InvalidRequest, match="closed"):
            await done(client, tmp_path)


async def test_a_worker_without_a_key_is_told_of_before_anything_is_read(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOAPIS_API_KEY")
    async with small_cluster() as cluster:
        with pytest.raises(ClientStateError, match="no API key"):
            await done(cluster, tmp_path)
        assert len(await done(cluster, tmp_path, api_key=KEY)) == 10


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"settings": Settings(on_event=lambda _: None)}, "on_event"),
        ({"settings": Settings(on_event=list[object]().append)}, "on_event"),
        ({"run": ""}, "run"),
        ({"part_rows": 0}, "part_rows"),
        ({"attempts": 0}, "attempts"),
        ({"journal": Journal("j", per_process=True)}, "journal"),
        ({"each": threading.Lock().__enter__}, "each"),
    ],
)
async def test_what_cant_be_is_refused_by_its_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bulk(["a kite"], **{"run": "spring", **options})
    assert caught.value.field == field


def test_without_dask_the_import_says_which_extra_is_missing() -> None:
    code = "import sys; sys.modules['distributed'] = None; import toapis_async.dask"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert "pip install 'toapis-async[dask]'" in ran.stderr.splitlines()[-1]


async def test_a_budget_holds_over_all_workers_and_passes(sandbox: Sandbox, tmp_path: Path) -> None:
    how: dict[str, Any] = {"settings": quick(prices={"gpt-image-2-vip": 2}), "part_rows": 4, "budget_credits": 6}
    async with small_cluster() as cluster:
        for _ in range(2):
            items = await done(cluster, tmp_path, **how)
            assert sorted(item.index for item in items.values()) == list(range(10))
            assert {item.key for item in items.values() if item.ok} == {"kite-0", "kite-1", "kite-2"}
            assert sum(isinstance(item.error, BudgetExceeded) for item in items.values()) == 7
    assert len(sandbox.ledger.entries) == 3


async def test_a_cap_of_images_holds_and_files_say_how_they_were_made(sandbox: Sandbox, tmp_path: Path) -> None:
    async with small_cluster() as cluster:
        for _ in range(2):
            items = await done(cluster, tmp_path, max_images=3, save_to=tmp_path / "out", embed=True)
            good = [item for item in items.values() if item.ok]
            assert {item.key for item in good} == {"kite-0", "kite-1", "kite-2"}
            assert sum(isinstance(item.error, BudgetExceeded) for item in items.values()) == 7
            assert all(b"a kite, number" in item.files[0].read_bytes() for item in good)
    assert len(sandbox.ledger.entries) == 3


async def test_a_budget_asks_the_workers_for_the_services_prices(sandbox: Sandbox, tmp_path: Path) -> None:
    async with small_cluster() as cluster:
        items = await done(cluster, tmp_path, budget_credits=3)
    assert 1 <= sum(item.ok for item in items.values()) < 10
    assert sum(entry.paid for entry in sandbox.ledger.entries) <= 3


async def test_a_run_that_is_stopped_sends_no_more_and_the_same_call_goes_on(sandbox: Sandbox, tmp_path: Path) -> None:
    how: dict[str, Any] = {"run": "spring", "key": "key", "journal": tmp_path / "j", "part_rows": 2}
    settings = quick(max_in_flight=6)
    async with small_cluster() as cluster:
        async with bulk(kites(40), cluster=cluster, settings=settings, **how) as job:
            seen = 0
            async for item in job:
                assert item.ok
                seen += 1
                now = job.statistics()
                assert now.left_s == pytest.approx((40 - now.done) / now.rows_per_s)
                if seen == 3:
                    job.stop()
        sent = len(sandbox.ledger.entries)
        assert 3 <= sent == seen < 40
        items = await done(cluster, tmp_path, kites(40), journal=tmp_path / "j")
    assert len(items) == len(sandbox.ledger.entries) == 40
    assert sandbox.ledger.paid_twice() == ()


async def test_a_slow_consumer_slows_the_source_down(sandbox: Sandbox, tmp_path: Path) -> None:
    read = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal read
        for row in kites(1_000):
            read += 1
            yield row

    how: dict[str, Any] = {"run": "spring", "key": "key", "journal": tmp_path / "j", "part_rows": 5}
    settings = quick(max_in_flight=20)
    async with small_cluster() as cluster, bulk(rows(), cluster=cluster, settings=settings, **how) as job:
        async for _ in job:
            assert job.statistics().left_s is None  # of a generator nobody knows the length
            await asyncio.sleep(2)
            break
    assert read <= 5 + 20 + 100 + 20
