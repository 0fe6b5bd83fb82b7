"""Batches: every row an item, in whatever order, with bounded appetite and clean ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import (
    Batch,
    BatchItem,
    ClientStateError,
    ContentRefused,
    DownloadFailed,
    Generation,
    ImageRequest,
    InvalidRequest,
    RateLimits,
    SessionClosed,
    Settings,
    SubmitUncertain,
    TaskFailed,
    ToAPIs,
)
from toapis_async.sandbox import Fault

from ..engine.kit import KEY, PNG, FakeService, Hold, answer, lost, refusal, served, task, turns, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FIVE_A_SECOND = RateLimits(submit_per_s=5, submit_burst=1, query_per_s=1e5, query_burst=1e5)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def client_of(service: FakeService, **settings: Any) -> ToAPIs:
    return ToAPIs(
        KEY, settings=Settings(**{"close_grace_s": 0, "poll_jitter": 0, "uncertain_submits": "raise", **settings})
    )


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def prompts(count: int) -> list[str]:
    return [f"kite {number}" for number in range(count)]


class Source:
    """An endless source that counts what is taken from it."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.taken = 0
        self._most = most

    def __iter__(self) -> Iterator[str]:
        while self.taken < self._most:
            self.taken += 1
            yield f"kite {self.taken}"


async def asynchronous(rows: list[Any], wait_s: float = 0) -> AsyncIterator[Any]:
    for row in rows:
        await asyncio.sleep(wait_s)
        yield row


# ------------------------------------------------------------------------------------------- order and items


@pytest.mark.looptime
async def test_items_come_as_they_complete_and_gather_sorts_them(service: FakeService) -> None:
    slow = answer(200, task("slow", "in_progress"))
    service.on_submit.extend([slow, answer(200, task("fast", "completed")), answer(200, task("faster", "completed"))])
    async with client_of(service) as client:
        batch = client.batch(prompts(3))
        order = []
        async for item in batch:
            order.append((item.index, item.ok))
            if len(order) == 2:
                service.on_query.append(answer(200, task("slow", "completed")))
        assert order == [(1, True), (2, True), (0, True)]
        gathered = await client.batch(prompts(5)).gather()
        assert [item.index for item in gathered] == [0, 1, 2, 3, 4]
        assert [item.request.prompt for item in gathered if item.request] == prompts(5)


@pytest.mark.looptime
@pytest.mark.parametrize(
    "source",
    [
        lambda rows: rows,
        tuple,
        iter,
        lambda rows: (row for row in rows),
        asynchronous,
        lambda rows: asynchronous(rows, 1),
    ],
    ids=["list", "tuple", "iterator", "generator", "async", "slow-async"],
)
async def test_any_iterable_is_a_source(service: FakeService, source: Any) -> None:
    rows = ["a prompt", {"prompt": "a mapping", "n": 2}, ImageRequest("a request")]
    async with client_of(service) as client:
        items = await client.batch(source(rows)).gather()
    assert [item.ok for item in items] == [True] * 3
    assert [seen.subject for seen in service.of("submit")] == ["a prompt", "a mapping", "a request"]


@pytest.mark.looptime
async def test_an_empty_source_ends_at_once(service: FakeService) -> None:
    async with client_of(service) as client:
        assert await client.batch([]).gather() == []


@pytest.mark.looptime
async def test_bad_rows_refusals_failures_and_uncertainty_are_items(service: FakeService) -> None:
    service.on_submit.extend([refusal(422, "content_policy_violation"), lost()])
    rows: list[Any] = [
        {"prompt": "refused", "client_business_id": "r"},
        {"prompt": "lost", "client_business_id": "l"},
        {"prompt": "kite [fail]", "client_business_id": "f"},
        "",
        {"promt": "misspelt"},
        {"prompt": "kite", "n": "2"},
        5,
        None,
        {"prompt": "good", "key": "mine", "client_business_id": "g"},
    ]
    async with client_of(service) as client:
        batch = client.batch(rows)
        items = await batch.gather()
        numbers = batch.statistics()
    kinds = [type(item.error) for item in items]
    assert kinds == [ContentRefused, SubmitUncertain, TaskFailed, *[InvalidRequest] * 5, type(None)]
    assert [item.client_business_id for item in items] == ["r", "l", "f", *[None] * 5, "g"]
    assert [item.task_id is None for item in items] == [True, True, False, *[True] * 5, False]
    assert [item.request is None for item in items] == [False] * 3 + [True] * 5 + [False]
    assert items[8].key == "mine"
    assert items[8].generation is not None
    assert (numbers.taken, numbers.done, numbers.failed, numbers.in_flight) == (9, 1, 8, 0)
    assert len(service.of("submit")) == 4


@pytest.mark.looptime
@pytest.mark.parametrize(
    "row", [{"prompt": "kite", "metadata": {1: "a", "b": 2}}, {1: 2, "prompt": "x"}, object(), b"x"]
)
async def test_an_odd_row_is_an_item_and_not_the_end_of_the_batch(service: FakeService, row: Any) -> None:
    async with client_of(service) as client:
        items = await client.batch([row, "good"]).gather()
    assert len(items) == 2
    assert items[1].ok


@pytest.mark.looptime
async def test_keys_name_the_rows_and_a_second_use_of_one_is_an_item(service: FakeService) -> None:
    rows: list[Any] = [{"prompt": "a", "name": "x"}, {"prompt": "b", "name": "x"}, {"prompt": "c"}, "d"]
    async with client_of(service) as client:
        items = await client.batch([{**row} if isinstance(row, dict) else row for row in rows], key="name").gather()
        assert next(item.key for item in items) == "x"
        assert [item.ok for item in items] == [True, False, False, False]
        by_function = await client.batch(["a", "b", "bad"], key=_own_or_bug).gather()
        assert [item.key for item in by_function][:2] == ["a", "b"]
        assert "ZeroDivisionError" in str(by_function[2].error)


def _own_or_bug(row: str) -> str:
    return row if row != "bad" else str(1 / 0)


@pytest.mark.looptime
async def test_misuse_raises(service: FakeService) -> None:
    async with client_of(service) as client:
        for source in ("one prompt", b"bytes", {"prompt": "one mapping"}, 5, ImageRequest("one request")):
            with pytest.raises(InvalidRequest, match="an iterable"):
                client.batch(source)  # type: ignore[arg-type]
        for wrong in (0, -1, True, 1.5, "2"):
            with pytest.raises(InvalidRequest, match="max_in_flight"):
                client.batch(["a"], max_in_flight=wrong)  # type: ignore[arg-type]
        batch = client.batch(["a"])
        with pytest.raises(ClientStateError, match="async for"):
            await anext(batch)
        await batch.gather()
        with pytest.raises(ClientStateError, match="once"):
            await batch.gather()
        with pytest.raises(StopAsyncIteration):
            await anext(batch)
        stopped = client.batch(["a"])
        stopped.stop()
        with pytest.raises(ClientStateError):
            await stopped.gather()
    assert len(service.of("submit")) == 1


# ------------------------------------------------------------------------------------------- appetite


@pytest.mark.looptime
async def test_generate_inside_the_loop_with_one_permit_does_not_deadlock(service: FakeService) -> None:
    async with client_of(service, max_in_flight=1) as client:
        done = 0
        async for item in client.batch(prompts(4)):
            assert item.ok
            await client.generate("beside it")
            done += 1
        assert done == 4
    assert len(service.tasks) == 8


@pytest.mark.looptime
async def test_a_slow_consumer_slows_the_source_down(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toapis_async.batch.batch.BUFFER_ITEMS", 5)
    source = Source()
    async with client_of(service, max_in_flight=3) as client:
        batch = client.batch(source)
        seen = 0
        async with batch:
            async for _ in batch:
                seen += 1
                await asyncio.sleep(1_000)
                assert source.taken <= seen + 5 + 3
                assert batch.statistics().waiting_for_consumer <= 5 + 3
                if seen == 20:
                    break
    assert source.taken <= 28


@pytest.mark.looptime
@pytest.mark.parametrize("most", [1, 4])
async def test_max_in_flight_of_a_batch_bounds_what_the_service_works_on(service: FakeService, most: int) -> None:
    async with client_of(service) as client:
        batch = client.batch(prompts(12), max_in_flight=most)
        taking = asyncio.create_task(batch.gather())
        highest = 0
        while not taking.done():
            highest = max(highest, client.statistics().in_flight)
            assert batch.statistics().in_flight <= most
            await asyncio.sleep(0.5)
        assert highest == most
        assert all(item.ok for item in taking.result())


async def test_the_sandbox_s_books_never_show_more_at_work_than_allowed() -> None:
    async with served({"service_time_s": 0.02}, max_in_flight=3) as (sandbox, client):
        items = await client.batch(prompts(15)).gather()
        assert all(item.ok for item in items)
        spans = [(entry.accepted_at, entry.finished_at or 0) for entry in sandbox.ledger]
        assert len(spans) == 15
        for start, _ in spans:
            assert sum(begun <= start < ended for begun, ended in spans) <= 3


@pytest.mark.looptime
async def test_a_batch_leaves_room_in_the_submit_queue_for_others(service: FakeService) -> None:
    service.latency_s = 1
    async with client_of(service, tier="default") as client, client.batch(Source(), max_in_flight=2_000) as batch:
        aiter(batch)
        await asyncio.sleep(15)
        begun_s = now_s()
        await client.submit("in a hurry")
        assert now_s() - begun_s < 30  # not behind thousands of rows
        assert client.statistics().waiting <= 64


# ------------------------------------------------------------------------------------------- leaving


@pytest.mark.looptime
@pytest.mark.parametrize("call", ["generate", "submit"])
async def test_a_single_submission_beside_a_batch_waits_at_most_two_turns_more_than_alone(
    service: FakeService, call: str
) -> None:
    async with client_of(service, limits=FIVE_A_SECOND) as client:
        batch = client.batch(f"row {number}" for number in range(500))
        items = asyncio.ensure_future(batch.gather())
        await asyncio.sleep(10.1)
        before = len(service.of("submit"))
        assert client.statistics().waiting >= 60  # rows that came before
        single = asyncio.ensure_future(getattr(client, call)("single"))
        await asyncio.sleep(0.6)  # three turns of the bucket
        sent = [seen.subject for seen in service.of("submit")[before:]]
        assert sent.index("single") <= 2
        await single
        await items


@pytest.mark.looptime
async def test_a_flood_of_single_submissions_does_not_starve_a_batch(service: FakeService) -> None:
    async with client_of(service, limits=FIVE_A_SECOND) as client:
        singles = [asyncio.ensure_future(client.submit(f"single {number}")) for number in range(90)]
        batch = client.batch([f"row {number}" for number in range(30)])
        items = await batch.gather()
        assert all(item.ok for item in items)
        await asyncio.gather(*singles)
    sent = [seen.subject.partition(" ")[0] for seen in service.of("submit")]
    assert all(sent[place : place + 30].count("row") >= 9 for place in range(1, 60))


@pytest.mark.looptime
async def test_leaving_through_async_with_sends_nothing_more_and_keeps_the_tasks(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(service, max_in_flight=4) as client:
        source = Source()
        async with client.batch(source) as batch:
            async for item in batch:
                assert item.ok
                break
        taken = source.taken
        sent = len(service.of("submit"))
        assert "left with" in caplog.text
        watched = client.statistics().in_flight
        assert len(client.unclaimed()) >= watched >= 1
        await asyncio.sleep(100)
        assert source.taken == taken
        assert len(service.of("submit")) == sent
        assert client.statistics().in_flight == 0  # watched to their ends
        assert "left with" in caplog.text


@pytest.mark.looptime
async def test_leaving_during_the_posts_loses_no_task(service: FakeService) -> None:
    service.latency_s = 3
    async with client_of(service) as client:
        async with client.batch(prompts(5)) as batch:
            aiter(batch)
            await asyncio.sleep(1)
        assert len(service.of("submit")) == 5
        await asyncio.sleep(5)
        sent = {seen.body["client_business_id"] for seen in service.of("submit")}
        assert set(client.unclaimed()) == sent
        assert client.statistics().in_flight == 5


@pytest.mark.looptime
@pytest.mark.parametrize("way", ["break", "error", "cancelled loop", "cancelled gather", "dropped iterator"])
async def test_a_consumer_that_leaves_pays_only_for_what_is_on_its_way_and_finds_it_unclaimed(
    service: FakeService, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    source = Source()

    async def consume(batch: Batch) -> None:
        if way == "cancelled gather":
            await batch.gather()
        if way == "dropped iterator":
            items = aiter(batch)
            await anext(items)
            return
        async for _ in batch:
            if way == "break":
                break
            if way == "error":
                raise LookupError

    async with client_of(service, max_in_flight=5) as client:
        batch = client.batch(source)
        left = weakref.ref(batch)
        consuming = asyncio.create_task(consume(batch))
        del batch
        while not service.tasks:  # noqa: ASYNC110  (virtual time)
            await asyncio.sleep(0.5)
        await asyncio.sleep(25)
        if way.startswith("cancelled"):
            consuming.cancel()
        with contextlib.suppress(LookupError, asyncio.CancelledError):
            await consuming
        del consuming
        await turns(20)
        paid = len(service.tasks)
        await asyncio.sleep(1_000)
        assert len(service.tasks) == paid <= source.taken
        assert "left with" in caplog.text
        assert len(client.unclaimed()) >= 5
        if way == "cancelled gather":  # nobody has any of its items
            assert len(client.unclaimed()) == paid > 5
        gc.collect()
        assert left() is None


@pytest.mark.looptime
async def test_a_time_out_of_one_item_is_no_leaving(service: FakeService) -> None:
    async with client_of(service) as client:
        items = aiter(client.batch(prompts(3)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await anext(items)
        assert [item.ok async for item in items] == [True] * 3


@pytest.mark.looptime
async def test_while_nobody_asks_only_a_buffer_of_rows_is_admitted(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toapis_async.batch.batch.BUFFER_ITEMS", 3)
    service.service_time_s = 500
    source = Source()
    async with client_of(service) as client:
        batch = client.batch(source, max_in_flight=50)
        aiter(batch)
        await asyncio.sleep(100)
        assert source.taken == 3
        assert (await anext(batch)).ok
        await batch.aclose()


@pytest.mark.looptime
async def test_the_clock_of_a_batch_stops_at_its_end(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client_of(service) as client:
        batch = client.batch(prompts(3))
        await batch.gather()
        ended = batch.statistics()
        monkeypatch.setattr("toapis_async.batch.batch.time", SimpleNamespace(monotonic=lambda: 1e9))
        assert batch.statistics() == ended


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__


@pytest.mark.looptime
@pytest.mark.parametrize("value", [10**5000, Unspeakable(), {"a": Unspeakable()}], ids=["huge", "mute", "mute inside"])
async def test_a_row_whose_reading_raises_is_an_item_and_no_end_of_the_batch(service: FakeService, value: Any) -> None:
    rows: list[Any] = [{"prompt": "kite", "n": value}, {"prompt": "kite", "metadata": value}, "kite"]
    async with client_of(service) as client:
        items = await client.batch(rows).gather()
    assert [item.ok for item in items] == [False, False, True]
    assert all(isinstance(item.error, InvalidRequest) for item in items[:2])


@pytest.mark.looptime
async def test_a_cancelled_consumer_can_come_back_for_the_rest(service: FakeService) -> None:
    async with client_of(service) as client:
        batch = client.batch(prompts(3))
        aiter(batch)
        taking = asyncio.create_task(anext(batch))
        await asyncio.sleep(1)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert [(await anext(batch)).ok for _ in range(3)] == [True] * 3


@pytest.mark.looptime
async def test_two_consumers_share_the_items(service: FakeService) -> None:
    async with client_of(service) as client:
        batch = client.batch(prompts(7))
        aiter(batch)

        async def consume() -> list[BatchItem]:
            found = []
            while True:
                try:
                    found.append(await anext(batch))
                except StopAsyncIteration:
                    return found

        one, two = await asyncio.gather(consume(), consume())
    assert sorted(item.index for item in one + two) == list(range(7))


@pytest.mark.looptime
async def test_closing_the_client_during_a_batch_ends_it_and_lists_what_runs(service: FakeService) -> None:
    service.on_submit.append(answer(200, task("done", "completed")))
    service.service_time_s = 1e6
    client = await client_of(service).start()
    batch = client.batch(prompts(5))
    got: list[BatchItem] = []

    async def consume() -> None:
        while True:
            got.append(await anext(batch))

    aiter(batch)
    consuming = asyncio.create_task(consume())
    await asyncio.sleep(1)
    await client.aclose()
    with pytest.raises(SessionClosed):
        await consuming
    assert [item.task_id for item in got] == ["done"]
    assert len(client.unclaimed()) == 4


@pytest.mark.looptime
async def test_a_batch_left_to_itself_lets_its_client_be_forgotten_afterwards(service: FakeService) -> None:
    async with client_of(service) as client:
        await client.batch(prompts(2)).gather()
        await turns()
        assert client._engine is not None
        assert client._engine.dependents == set()


# ------------------------------------------------------------------------------------------- failing sources


class SourceError(Exception):
    """The source's own."""


def failing(count: int) -> Iterator[str]:
    yield from prompts(count)
    raise SourceError("the file broke off")


async def failing_async(count: int) -> AsyncIterator[str]:
    for prompt in prompts(count):
        yield prompt
    raise SourceError("the file broke off")


@pytest.mark.looptime
@pytest.mark.parametrize("source", [failing, failing_async])
@pytest.mark.parametrize("count", [0, 3])
async def test_a_failing_source_raises_after_its_items(service: FakeService, source: Any, count: int) -> None:
    async with client_of(service) as client:
        batch = client.batch(source(count))
        aiter(batch)
        assert [(await anext(batch)).ok for _ in range(count)] == [True] * count
        for _ in range(2):
            with pytest.raises(SourceError):
                await anext(batch)


@pytest.mark.looptime
async def test_a_failing_source_that_nobody_waits_for_makes_no_noise(service: FakeService) -> None:
    async with client_of(service) as client:
        async for _ in client.batch(failing(3)):
            break
        await asyncio.sleep(100)
    gc.collect()


# ------------------------------------------------------------------------------------------- steering


@pytest.mark.looptime
async def test_pause_and_resume(service: FakeService) -> None:
    source = Source(10)
    async with client_of(service, max_in_flight=2) as client:
        batch = client.batch(source)
        taking = asyncio.create_task(batch.gather())
        await asyncio.sleep(1)
        batch.pause()
        await asyncio.sleep(500)
        paused_at = source.taken
        assert paused_at <= 4
        assert batch.statistics().in_flight == 0  # what ran has ended
        await asyncio.sleep(500)
        assert source.taken == paused_at
        batch.resume()
        assert len(await taking) == 10


@pytest.mark.looptime
@pytest.mark.parametrize("paused", [False, True])
async def test_stop_ends_the_iteration_after_what_runs(service: FakeService, paused: bool) -> None:
    source = Source()
    async with client_of(service, max_in_flight=3) as client:
        batch = client.batch(source)
        taking = asyncio.create_task(batch.gather())
        await asyncio.sleep(1)
        if paused:
            batch.pause()
            await asyncio.sleep(100)
        batch.stop()
        items = await taking
        assert len(items) == source.taken == len(service.tasks) == 3
        assert all(item.ok for item in items)
        assert repr(batch) == "<Batch 3 done, 0 failed, 0 in flight>"
        assert batch.statistics().elapsed_s >= 0


@pytest.mark.looptime
async def test_stop_while_the_buffer_is_full_ends_the_iteration(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toapis_async.batch.batch.BUFFER_ITEMS", 2)
    async with client_of(service, max_in_flight=2) as client:
        batch = client.batch(Source())
        aiter(batch)
        await asyncio.sleep(500)
        batch.stop()
        assert len([item async for item in _rest(batch)]) <= 4


async def _rest(batch: Any) -> AsyncIterator[BatchItem]:
    while True:
        try:
            yield await anext(batch)
        except StopAsyncIteration:
            return


@pytest.mark.looptime
async def test_stop_does_not_wait_for_a_source_that_is_silent(service: FakeService) -> None:
    more = asyncio.Event()
    ended: list[bool] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "kite"
            await more.wait()
            yield "one too many"
        finally:
            ended.append(True)

    async with client_of(service) as client:
        batch = client.batch(source())
        taking = asyncio.create_task(batch.gather())
        await asyncio.sleep(1)
        batch.stop()
        items = await asyncio.wait_for(taking, 100)
        assert len(items) == len(service.tasks) == 1
        assert ended == [True]


# ------------------------------------------------------------------------------------------- files


async def test_with_save_to_an_item_is_done_when_its_files_are_on_disk(tmp_path: Path) -> None:
    async with served() as (sandbox, client):
        rows: list[dict[str, Any]] = [{"prompt": "kite", "key": "a", "n": 2}, {"prompt": "boat", "key": "b/../c"}]
        items = await client.batch(rows, save_to=tmp_path / "out").gather()
        assert [path.name for path in items[0].files] == ["a-1.png", "a-2.png"]
        assert items[1].files[0].parent == tmp_path / "out"
        assert all(path.is_file() for item in items for path in item.files)
        assert sandbox.requests.count("file") == 3


@pytest.mark.usefixtures("impatient")
async def test_a_broken_download_is_an_item_with_its_generation_and_ids(tmp_path: Path) -> None:
    async with served(download_tries=2) as (sandbox, client):
        sandbox.faults.chance("file", Fault.BREAKS_OFF, 1)
        (item,) = await client.batch([{"prompt": "kite", "client_business_id": "mine"}], save_to=tmp_path).gather()
        assert not item.ok
        assert type(item.error) is DownloadFailed
        assert item.generation is not None
        assert (item.task_id, item.client_business_id) == (item.generation.task_id, "mine")
        assert listed(tmp_path) == []


async def test_rows_with_local_references_are_uploaded_and_a_bad_one_is_an_item(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    rows: list[dict[str, Any]] = [
        {"prompt": "kite", "reference_images": [tmp_path / "a.png"]},
        {"prompt": "kite", "reference_images": [tmp_path / "missing.png"]},
        {"prompt": "kite", "reference_images": [Path("nul\0.png")]},
    ]
    async with served() as (_, client):
        items = await client.batch(rows).gather()
        assert [item.ok for item in items] == [True, False, False]
        assert all(isinstance(item.error, InvalidRequest) for item in items[1:])


async def test_leaving_during_the_saves_leaves_no_partial_file(tmp_path: Path) -> None:
    async with served() as (sandbox, client):
        sandbox.faults.chance("file", Fault.SLOW, 1)
        async with client.batch(prompts(3), save_to=tmp_path) as batch:
            aiter(batch)
            await until(lambda: sandbox.requests.count("file"))
            assert batch.statistics().saving >= 1
        assert listed(tmp_path) == []


@pytest.mark.looptime
async def test_a_row_whose_task_outlives_patience_is_an_item(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service.service_time_s = 1e9
    async with client_of(service, max_task_age_s=60) as client:
        items = await client.batch(prompts(2)).gather()
    assert [type(item.error).__name__ for item in items] == ["TaskOverdue"] * 2
    assert all(item.task_id for item in items)


@pytest.mark.looptime
async def test_a_held_post_does_not_hold_the_other_rows(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(service) as client:
        batch = client.batch(prompts(3))
        items = aiter(batch)
        got = [await anext(items), await anext(batch)]
        assert sorted(item.index for item in got) == [1, 2]
        hold.answer(answer(200, task("late", "completed")))
        assert (await anext(batch)).task_id == "late"


# ------------------------------------------------------------------------------------------- what review found


@pytest.mark.looptime
async def test_a_batch_that_is_left_lists_rows_whose_ids_are_known_and_claims_none(service: FakeService) -> None:
    async with client_of(service) as client:
        async with client.batch(prompts(3)) as batch:
            aiter(batch)
            await until(lambda: len(service.tasks) == 3)
            await turns()
        running = batch.running()
        assert [(row.index, row.attempts) for row in running] == [(n, 1) for n in range(3)]
        assert {item.task_id for item in running} == set(service.tasks)
        assert {item.client_business_id for item in running} == set(client.unclaimed())


@pytest.mark.looptime
async def test_finished_images_that_nobody_read_are_listed_when_the_batch_is_left(service: FakeService) -> None:
    async with client_of(service) as client:
        async with client.batch(prompts(3)) as batch:
            aiter(batch)
            await until(lambda: batch.statistics().done == 3)
        assert len(set(client.unclaimed())) == 3


@pytest.mark.looptime
async def test_an_async_source_may_hold_a_task_group_and_a_time_out_across_its_rows(service: FakeService) -> None:
    async def source() -> AsyncIterator[str]:
        async with asyncio.timeout(1_000), asyncio.TaskGroup():
            yield "kite 1"
            await asyncio.sleep(1)
            yield "kite 2"

    async with client_of(service) as client:
        assert [item.ok for item in await client.batch(source()).gather()] == [True, True]


@pytest.mark.looptime
async def test_a_source_that_is_cancelled_from_within_fails_after_its_items(service: FakeService) -> None:
    async def source() -> AsyncIterator[str]:
        yield "kite"
        raise asyncio.CancelledError

    async with client_of(service) as client:
        batch = client.batch(source())
        items = aiter(batch)
        assert (await anext(items)).ok
        with pytest.raises(ClientStateError, match="cancelled from within"):
            await anext(items)


async def test_an_unexpected_error_of_one_row_is_its_own(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.service_time_s = 0.01
    async with client_of(service, first_poll_s=0.01, min_poll_interval_s=0.01) as client:

        async def save(generation: Generation, *_: object, **__: object) -> tuple[Path, ...]:
            if generation.task_id == "task_1":
                raise RuntimeError("can't start new thread")
            return ()

        batch = client.batch(prompts(3), save_to=".")
        vars(batch._engine)["downloads"].save = save
        items = await batch.gather()
    assert sorted(item.ok for item in items) == [False, True, True]
    assert "can't start new thread" in caplog.text


async def test_a_folder_that_cannot_be_used_is_told_before_anything_is_sent(
    service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    async with client_of(service) as client:
        with pytest.raises(InvalidRequest, match="nothing was sent"):
            await client.batch(prompts(2), save_to=tmp_path / "file").gather()
    assert not service.seen


@pytest.mark.looptime
async def test_closing_the_client_from_within_the_source_ends(service: FakeService) -> None:
    client = client_of(service)
    await client.start()

    async def source() -> AsyncIterator[str]:
        yield "kite"
        await client.aclose()

    with pytest.raises(SessionClosed):
        await client.batch(source()).gather()
    await client.aclose()
