"""One task, many waiters: what they cost, what they get, and when a task is let go."""

from __future__ import annotations

import asyncio
import gc
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import (
    ClientStateError,
    Generation,
    SessionClosed,
    Settings,
    TaskFailed,
    TaskNotFound,
    TaskOverdue,
    TaskStatus,
    ToAPIs,
    WaitTimeout,
)
from toapis_async.engine.entry import Entry
from toapis_async.events import TaskEnded, TaskPolled
from toapis_async.sandbox import Fault

from .kit import KEY, UNLIMITED, FakeService, Hold, answer, refusal, served, task, turns, until

if TYPE_CHECKING:
    from toapis_async import TaskHandle
    from toapis_async.events import Event


def now_s() -> float:
    return asyncio.get_running_loop().time()


def client_of(service: FakeService, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, settings=Settings(**{"close_grace_s": 0, **settings}))


async def collected(handle: TaskHandle) -> list[tuple[TaskStatus, int | None]]:
    return [(snapshot.status, snapshot.progress) async for snapshot in handle.updates()]


# ------------------------------------------------------------------------------------------- waiters


@pytest.mark.looptime
@pytest.mark.parametrize("waiters", [1, 10])
async def test_ten_waiters_cost_the_gets_of_one(service: FakeService, waiters: int) -> None:
    service.service_time_s = 60
    async with client_of(service, poll_jitter=0) as client:
        handle = await client.submit("kite")
        reading = asyncio.create_task(collected(handle))
        outcomes = await asyncio.gather(*(handle.result() for _ in range(waiters)))
        assert len({id(outcome.images) for outcome in outcomes}) == 1
        assert (await reading)[-1][0] is TaskStatus.COMPLETED
        assert client.statistics().polls == len(service.of("query")) <= 12


async def test_ten_waiters_over_sockets_cost_the_gets_of_one() -> None:
    async with served({"service_time_s": float("inf")}) as (sandbox, client):
        handle = await client.submit("kite")
        waiting = [asyncio.ensure_future(handle.result()) for _ in range(10)]
        await until(lambda: sandbox.requests.by_task[handle.task_id] >= 2)
        asked, seen = sandbox.requests.by_task[handle.task_id], client.statistics().polls
        sandbox.finish(handle.task_id)
        await asyncio.gather(*waiting)
        assert sandbox.requests.by_task[handle.task_id] <= asked + 2
        assert sandbox.requests.by_task[handle.task_id] == client.statistics().polls >= seen


@pytest.mark.looptime
async def test_killing_a_waiter_disturbs_no_other(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        waiting = [asyncio.create_task(handle.result()) for _ in range(5)]
        reading = [asyncio.create_task(collected(handle)) for _ in range(2)]
        await asyncio.sleep(1)
        for victim in (waiting[0], waiting[3], reading[0]):
            victim.cancel()
        with pytest.raises(WaitTimeout):
            await handle.result(timeout_s=1)
        await asyncio.wait([*waiting, *reading])
        assert [doing.cancelled() for doing in waiting] == [True, False, False, True, False]
        assert reading[0].cancelled()
        assert reading[1].result()[-1][0] is TaskStatus.COMPLETED
        assert all(isinstance(waiting[place].result(), Generation) for place in (1, 2, 4))


@pytest.mark.looptime
async def test_killing_every_waiter_leaves_the_task_watched(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(60)
        assert handle.done
        assert handle.status is TaskStatus.COMPLETED
        assert (await handle).task_id == handle.task_id


@pytest.mark.looptime
async def test_every_waiter_gets_an_exception_object_of_its_own(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit({"prompt": "kite [fail]", "client_business_id": "mine"})
        errors = await asyncio.gather(*(handle.result() for _ in range(10)), return_exceptions=True)
        for _ in range(3):
            with pytest.raises(TaskFailed) as late:
                await handle
            errors.append(late.value)
    assert len({id(error) for error in errors}) == 13
    stored = {id(error.__cause__) for error in errors if isinstance(error, TaskFailed)}
    assert len(stored) == 1
    for error in errors:
        assert isinstance(error, TaskFailed)
        assert (error.task_id, error.client_business_id) == (handle.task_id, "mine")
        assert (error.code, error.message) == ("bad", "no luck")
        assert error.__cause__ is not None
        assert error.__cause__.__traceback__ is None  # nobody's frames are kept alive by the handle
        assert len(traceback.extract_tb(error.__traceback__)) < 20
        assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


@pytest.mark.looptime
async def test_a_waiter_s_time_out_detaches_with_the_ids_and_the_task_goes_on(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        with pytest.raises(WaitTimeout, match="still paid for") as caught:
            await handle.result(timeout_s=3)
        assert now_s() == 3
        assert (caught.value.task_id, caught.value.client_business_id) == (handle.task_id, "mine")
        assert isinstance(caught.value, TimeoutError)
        await handle


@pytest.mark.looptime
async def test_a_time_out_of_the_caller_s_own_is_not_taken_for_ours(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(2):
                await handle.result(timeout_s=4)
        assert type(caught.value) is TimeoutError
        with pytest.raises(WaitTimeout):
            async with asyncio.timeout(4):
                await handle.result(timeout_s=2)


@pytest.mark.looptime
async def test_a_finished_task_is_no_time_out_even_without_patience(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        await handle
        assert (await handle.result(timeout_s=0)).task_id == handle.task_id


@pytest.mark.looptime
@pytest.mark.parametrize("end_first", [False, True])
async def test_a_task_that_ends_in_the_tick_of_the_time_out_is_never_called_unfinished(
    service: FakeService, end_first: bool
) -> None:
    hold = Hold()
    service.on_query.append(hold)
    async with client_of(service) as client:
        handle = await client.submit("kite")
        await hold.reached.wait()
        loop = asyncio.get_running_loop()

        async def wait() -> None:
            try:
                await handle.result(timeout_s=100 - now_s())
            except WaitTimeout:
                assert not handle.done

        def end() -> None:
            hold.answer(answer(200, task("task_1", "completed")))

        if end_first:
            loop.call_at(100, end)
        waiting = asyncio.create_task(wait())
        await turns()
        if not end_first:
            loop.call_at(100, end)
        await waiting
        await handle


async def test_a_handle_belongs_to_its_loop(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")

        async def elsewhere() -> None:
            with pytest.raises(ClientStateError, match="another event loop"):
                await handle
            with pytest.raises(ClientStateError, match="another event loop"):
                await collected(handle)

        await asyncio.to_thread(asyncio.run, elsewhere())


# ------------------------------------------------------------------------------------------- updates


@pytest.mark.looptime
@pytest.mark.parametrize(("prompt", "last"), [("kite", TaskStatus.COMPLETED), ("kite [fail]", TaskStatus.FAILED)])
async def test_updates_start_with_the_current_state_and_end_with_the_final_one(
    service: FakeService, prompt: str, last: TaskStatus
) -> None:
    async with client_of(service) as client:
        handle = await client.submit(prompt)
        assert handle.status is TaskStatus.QUEUED
        statuses = [status for status, _ in await collected(handle)]
        assert statuses == [TaskStatus.QUEUED, TaskStatus.IN_PROGRESS, last]
        assert [status for status, _ in await collected(handle)] == [last]  # and for a late reader, just the end


@pytest.mark.looptime
async def test_a_slow_reader_of_updates_sees_the_latest_not_each(service: FakeService) -> None:
    service.on_query.extend(answer(200, task("task_1", "in_progress", progress=n)) for n in (10, 20, 30, 40, 50))
    service.on_query.append(answer(200, task("task_1", "completed")))
    async with client_of(service) as client:
        handle = await client.submit("kite")
        seen: list[int | None] = []
        async for snapshot in handle.updates():
            seen.append(snapshot.progress)
            if snapshot.progress == 10:
                while handle.progress != 40:  # noqa: ASYNC110  (virtual time)
                    await asyncio.sleep(0.5)
            elif snapshot.progress == 40:
                await asyncio.sleep(3_000)
        assert seen == [None, 10, 40, None]


@pytest.mark.looptime
async def test_updates_of_an_attached_task_wait_for_its_first_look(service: FakeService) -> None:
    service.on_query.append(answer(200, task("t", "completed")))
    async with client_of(service) as client:
        handle = client.attach("t")
        assert (handle.snapshot, handle.status, handle.progress) == (None, None, None)
        assert "not seen yet" in repr(handle)
        assert [status for status, _ in await collected(handle)] == [TaskStatus.COMPLETED]
        assert now_s() == 0


@pytest.mark.looptime
async def test_updates_raise_when_watching_itself_ends(service: FakeService) -> None:
    service.service_time_s = 1e9
    async with client_of(service, max_task_age_s=20) as client:
        handle = await client.submit("kite")
        updates = handle.updates()
        assert [(await anext(updates)).status for _ in range(2)] == [TaskStatus.QUEUED, TaskStatus.IN_PROGRESS]
        with pytest.raises(TaskOverdue) as caught:
            await anext(updates)
        assert caught.value.task_id == handle.task_id


@pytest.mark.looptime
async def test_leaving_updates_early_disturbs_nobody(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        updates = handle.updates()
        async for _ in updates:
            break
        await handle


@pytest.mark.looptime
async def test_a_late_queued_after_in_progress_is_passed_over(service: FakeService, events: list[Event]) -> None:
    words = ["processing", "queued", "submitted", "something new", "pending", "completed"]
    service.on_query.extend(answer(200, task("task_1", word)) for word in words)
    async with client_of(service, on_event=events.append) as client:
        handle = await client.submit("kite")
        raw = [snapshot.raw_status async for snapshot in handle.updates()]
    assert raw in (["queued", "processing", "completed"], ["queued", "processing", "something new", "completed"])
    changes = [event.status for event in events if isinstance(event, TaskPolled)]
    assert TaskStatus.QUEUED not in changes[1:]
    assert [event.status for event in events if isinstance(event, TaskEnded)] == [TaskStatus.COMPLETED]


@pytest.mark.looptime
async def test_an_answer_under_another_id_is_still_the_task_that_was_asked_for(service: FakeService) -> None:
    service.on_query.extend([answer(200, task("another", "in_progress")), answer(200, task("another", "completed"))])
    async with client_of(service) as client:
        handle = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        seen = [snapshot async for snapshot in handle.updates()]
        generation = await handle
    assert {snapshot.task_id for snapshot in seen} == {"task_1"}
    assert (generation.task_id, generation.client_business_id) == ("task_1", "mine")
    assert {seen.subject for seen in service.of("query")} == {"task_1"}


# ------------------------------------------------------------------------------------------- attach and find


@pytest.mark.looptime
async def test_attaching_twice_shares_the_watch(service: FakeService) -> None:
    async with client_of(service) as client:
        submitted = await client.submit("kite")
        one, two = client.attach(submitted.task_id), client.attach(submitted.task_id)
        assert client.statistics().in_flight == 1
        assert (await one).images == (await two).images == (await submitted).images
        assert len(service.of("query")) == 2


@pytest.mark.looptime
async def test_attaching_after_the_end_asks_anew(service: FakeService) -> None:
    async with client_of(service) as client:
        first = await client.submit("kite")
        await first
        asked = len(service.of("query"))
        again = client.attach(first.task_id)
        assert again.snapshot is None
        await again
        assert len(service.of("query")) == asked + 1


@pytest.mark.looptime
async def test_attaching_an_unknown_task_says_so_at_the_first_look(service: FakeService) -> None:
    async with client_of(service) as client:
        with pytest.raises(TaskNotFound) as caught:
            await client.attach("nobody's")
        assert now_s() == 0
        assert caught.value.task_id == "nobody's"
        assert client.statistics().in_flight == 0


@pytest.mark.looptime
async def test_a_task_is_found_and_attached_by_its_client_business_id(service: FakeService) -> None:
    async with client_of(service) as client:
        await client.submit({"prompt": "kite", "client_business_id": "mine"})
    async with client_of(service) as client:
        found = await client.find("mine")
        assert found is not None
        assert (found.task_id, found.client_business_id, found.status) == ("task_1", "mine", TaskStatus.IN_PROGRESS)
        attached = client.attach("mine")
        assert (await found).images == (await attached).images
        assert await client.find("mine") is not None
        assert {seen.subject for seen in service.of("query")} == {"mine"}  # the id that is known to work


@pytest.mark.looptime
async def test_finding_a_task_that_is_watched_already_shares_the_watch(service: FakeService) -> None:
    async with client_of(service) as client:
        submitted = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        found = await client.find("mine")
        assert found is not None
        assert client.statistics().in_flight == 1
        assert (await found).images == (await submitted).images


@pytest.mark.looptime
@pytest.mark.parametrize(
    "unknown", [refusal(404, "task_not_found"), refusal(404, 404), answer(400, {"message": "task_not_exist"})]
)
async def test_find_gives_none_for_an_id_nobody_used(service: FakeService, unknown: Any) -> None:
    service.on_query.append(unknown)
    async with client_of(service) as client:
        assert await client.find("nobody's") is None
        assert client.statistics().in_flight == 0


@pytest.mark.looptime
async def test_find_gives_a_finished_task_without_watching_it(service: FakeService) -> None:
    service.on_query.append(answer(200, {"task_id": "t", "status": "completed", "url": "https://x/y.png"}))
    async with client_of(service) as client:
        found = await client.find("mine")
        assert found is not None
        assert (found.done, found.client_business_id, found.task_id) == (True, "mine", "t")
        assert (await found).images[0].url == "https://x/y.png"
        assert client.statistics().in_flight == 0
    assert len(service.of("query")) == 1


# ------------------------------------------------------------------------------------------- vanished


@pytest.mark.looptime
@pytest.mark.parametrize("form", [refusal(404, "task_not_found"), answer(400, {"message": "task_not_exist"})])
async def test_a_task_that_vanishes_is_an_error_only_after_the_grace(service: FakeService, form: Any) -> None:
    service.on_query.extend([answer(200, task("task_1", "in_progress")), *[form] * 1_000])
    async with client_of(service, vanish_grace_s=30) as client:
        handle = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        with pytest.raises(TaskNotFound) as caught:
            await handle
        first_missing_s = service.queries("task_1")[1]
        assert now_s() - first_missing_s >= 30
        assert (caught.value.task_id, caught.value.client_business_id) == ("task_1", "mine")
        assert client.statistics().in_flight == 0


@pytest.mark.looptime
async def test_a_task_that_comes_back_within_the_grace_is_as_if_it_had_never_gone(service: FakeService) -> None:
    gone = refusal(404, "task_not_found")
    there = answer(200, task("task_1", "in_progress"))
    service.on_query.extend([there, *[gone, there] * 8, gone, answer(200, task("task_1", "completed"))])
    async with client_of(service, vanish_grace_s=30, poll_jitter=0) as client:
        await (await client.submit("kite"))
    assert len(service.of("query")) == 19


async def test_a_task_that_is_unknown_by_the_id_it_was_given_is_found_by_ours(service: FakeService) -> None:
    service.on_submit.append(answer(200, {"id": "resource_9", "status": "queued", "progress": 0}))
    async with client_of(service, vanish_grace_s=30) as client:
        submitting = asyncio.ensure_future(client.generate({"prompt": "kite", "client_business_id": "mine"}))
        await until(lambda: service.of("submit"))
        service.accept({"prompt": "kite", "client_business_id": "mine"})
        generation = await submitting
    assert generation.client_business_id == "mine"
    assert len(service.of("submit")) == 1
    assert len(service.queries("resource_9")) == 1


async def test_a_vanished_task_of_the_sandbox_ends_its_watch_and_gives_the_permit_back() -> None:
    async with served({"service_time_s": float("inf")}, max_in_flight=1) as (sandbox, client):
        sandbox.faults.script("query", None, Fault.TASK_VANISHES_400)
        with pytest.raises(TaskNotFound):
            await client.generate("kite")
        await client.submit("next")


# ------------------------------------------------------------------------------------------- letting go


@pytest.mark.looptime
async def test_finished_tasks_are_let_go_so_that_a_long_life_does_not_grow(service: FakeService) -> None:
    service.service_time_s = 0.5

    def entries() -> int:
        gc.collect()
        return sum(isinstance(thing, Entry) for thing in gc.get_objects())

    async with client_of(service, first_poll_s=1, min_poll_interval_s=1, poll_jitter=0, limits=UNLIMITED) as client:
        before = entries()
        kept: TaskHandle | None = None
        for round_ in range(4):
            prompts = [f"kite {number}{' [fail]' * (number % 5 == 0)}" for number in range(250)]
            outcomes = await asyncio.gather(*(client.generate(prompt) for prompt in prompts), return_exceptions=True)
            assert sum(isinstance(outcome, TaskFailed) for outcome in outcomes) == 50
            del outcomes
            if round_ == 0:
                kept = await client.submit("kept")
                await kept
            await turns()
            assert client.statistics().in_flight == 0
            # Not the entries of hundreds of tasks, just the one whose handle is held.
            assert entries() - before <= 3
        assert client.statistics().completed == 801
        assert kept is not None
        assert (await kept).images  # a handle that is held keeps its outcome


@pytest.mark.looptime
async def test_closing_ends_every_watch_with_the_ids_and_handles_keep_their_outcomes(service: FakeService) -> None:
    service.on_submit.append(answer(200, task("done", "completed")))
    async with client_of(service) as client:
        done = await client.submit("done already")
        running = [await client.submit({"prompt": "x", "client_business_id": f"id-{n}"}) for n in range(3)]
        attached = client.attach("elsewhere")
        waiting = [asyncio.create_task(handle.result()) for handle in (*running, attached)]
        reading = asyncio.create_task(collected(running[0]))
        service.on_query.append(Hold())
        await turns()
    for doing, handle in zip(waiting, (*running, attached), strict=True):
        with pytest.raises(SessionClosed) as caught:
            await doing
        assert caught.value.task_ids == (handle.task_id,)
        assert caught.value.task_id == handle.task_id
        assert caught.value.client_business_ids == ((handle.client_business_id,) if handle.client_business_id else ())
    with pytest.raises(SessionClosed):
        await reading
    assert (await done).task_id == "done"
    assert running[0].status is TaskStatus.QUEUED


@pytest.mark.looptime
async def test_a_task_found_while_the_client_closes_is_not_waited_for_for_ever(service: FakeService) -> None:
    # Its answer is on the loop already when the registry closes.
    hold = Hold()
    service.on_query.append(hold)
    service.on_close = lambda: hold.answer(answer(200, task("t", "in_progress")))
    client = await client_of(service).start()
    finding = asyncio.create_task(client.find("mine"))
    await hold.reached.wait()
    await client.aclose()
    found = await finding
    assert found is not None
    with pytest.raises(SessionClosed) as caught:
        await asyncio.wait_for(found.result(), 100)
    assert caught.value.task_ids == ("t",)
    assert client.statistics().in_flight == 0


@pytest.mark.looptime
@pytest.mark.parametrize("packed_from", [1, 2])
async def test_a_snapshot_is_read_from_the_answer_that_was_kept_packed_or_not(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, packed_from: int
) -> None:
    monkeypatch.setattr("toapis_async.engine.tasks.PACKED_FROM", packed_from)
    async with ToAPIs(KEY) as client:
        handle = await client.submit("kite")
        await asyncio.sleep(7)
        assert (handle.status, handle.progress) == (TaskStatus.IN_PROGRESS, 50)
        assert handle.snapshot is not None
        assert (handle.snapshot.status, handle.snapshot.progress) == (handle.status, handle.progress)
        assert handle.snapshot.raw["object"] == "generation.task"
        assert handle.snapshot.client_business_id == handle.client_business_id
        await handle


def test_an_entry_is_small() -> None:
    assert not hasattr(Entry, "__dict__") or "__slots__" in vars(Entry)
