"""One task has one watch, whatever it is called, whoever asks for it, and in whatever order its ids become known."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.journal_kit import ADDRESS, leave, record
from tests.engine.kit import KEY, FakeService, Hold, answer, refusal, task, until
from toapis_async import Settings, TaskHandle, ToAPIs, WebhookOutcome
from toapis_async.engine.journal.records import State
from toapis_async.events import TaskEnded

from .events import SECRET, deliver, event

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.events import Event

pytestmark = pytest.mark.looptime

VIDEO = {"type": "video", "data": [{"url": "https://files.example/a.mp4"}]}
ROW = {"prompt": "kite", "client_business_id": "mine"}


def client_of(events: list[Event] | None = None, journal: Path | None = None, **settings: Any) -> ToAPIs:
    values: dict[str, Any] = {"poll_jitter": 0, "webhook_secrets": SECRET, **settings}
    if events is not None:
        values["on_event"] = events.append
    return ToAPIs(KEY, base_url=ADDRESS, settings=Settings(**values), journal=journal)


WAYS: dict[str, Any] = {
    "own id, then business id": lambda client: [client.attach("task_1"), client.attach("mine")],
    "business id, then own id": lambda client: [client.attach("mine"), client.attach("task_1")],
    "business id, of which kind?": lambda client: [client.attach("mine"), client.attach("mine", "image")],
    "three": lambda client: [client.attach("mine"), client.attach("task_1"), client.attach("task_1", "image")],
}


@pytest.mark.parametrize("name", WAYS)
async def test_attached_under_either_id_before_the_first_poll_it_is_one_watch(service: FakeService, name: str) -> None:
    service.service_time_s = 60
    service.accept(ROW)
    events: list[Event] = []
    async with client_of(events) as client:
        handles: list[TaskHandle] = WAYS[name](client)
        waiting = [asyncio.ensure_future(handle.result()) for handle in handles]
        await asyncio.sleep(1)
        assert client.statistics().in_flight == 1
        before = len(service.of("query"))
        assert before <= 2
        generations = await asyncio.gather(*waiting)
        assert {(each.task_id, each.client_business_id) for each in generations} == {("task_1", "mine")}
        assert {(each.task_id, each.client_business_id) for each in handles} == {("task_1", "mine")}
        times = [seen.at_s for seen in service.of("query")][before:]
        assert all(later - earlier >= 5 for earlier, later in pairwise(times))
        assert client.statistics().completed == 1
    assert sum(isinstance(each, TaskEnded) for each in events) == 1


async def test_an_event_wakes_everyone_who_waits_for_its_task_under_either_id(service: FakeService) -> None:
    service.service_time_s = 600
    service.accept(ROW)
    async with client_of() as client:
        handles = [client.attach("task_1"), client.attach("mine")]
        waiting = [asyncio.ensure_future(handle.result()) for handle in handles]
        updates = asyncio.ensure_future(_all(handles[1]))
        await asyncio.sleep(1)
        assert await deliver(client, event("task_1")) is WebhookOutcome.RESOLVED
        assert {each.task_id for each in await asyncio.gather(*waiting)} == {"task_1"}
        assert [str(each.status) for each in await updates] == ["in_progress", "completed"]


async def _all(handle: TaskHandle) -> list[Any]:
    return [snapshot async for snapshot in handle.updates()]


async def test_a_waiter_that_leaves_after_two_watches_became_one_leaves_the_right_one(service: FakeService) -> None:
    service.service_time_s = 60
    service.accept(ROW)
    async with client_of() as client:
        first, second = client.attach("task_1"), client.attach("mine")
        waiting = [asyncio.ensure_future(handle.result()) for handle in (first, second)]
        await asyncio.sleep(1)
        waiting[1].cancel()
        await asyncio.wait(waiting[1:])
        assert (await waiting[0]).task_id == "task_1"
        assert (second.done, second.status) == (True, "completed")


async def test_a_video_that_is_attached_with_and_without_its_kind_is_one_watch(
    service: FakeService,
) -> None:
    service.latency_s = 0.2
    service.on_query.extend(
        [
            refusal(404, "task_not_found"),  # as an image
            answer(200, task("task_1", "in_progress")),
            answer(200, task("task_1", "in_progress")),
        ]
    )
    service.accept({"prompt": "kite"})
    async with client_of() as client:
        handles = [client.attach("task_1")]
        await asyncio.sleep(0.1)
        handles.append(client.attach("task_1", "video"))
        await asyncio.sleep(1)
        assert client.statistics().in_flight == 1
        assert [handle.kind for handle in handles] == ["video", "video"]
        assert [(await handle).task_id for handle in handles] == ["task_1", "task_1"]


async def test_an_image_and_a_video_of_one_id_are_two_tasks(service: FakeService) -> None:
    service.service_time_s = 600
    service.accept({"prompt": "kite"})
    async with client_of() as client:
        image, video = client.attach("task_1", "image"), client.attach("task_1", "video")
        await asyncio.sleep(1)
        assert await deliver(client, event("task_1", task_type="video", result=VIDEO)) is WebhookOutcome.RESOLVED
        assert (image.done, video.done) == (False, True)
        assert await deliver(client, event("task_1", event_id="evt_2")) is WebhookOutcome.RESOLVED
        assert image.done


async def test_a_task_that_was_attached_before_its_submission_was_answered_holds_its_permit(
    service: FakeService,
) -> None:
    service.service_time_s = 60
    held = Hold()
    service.on_submit.append(held)
    async with client_of(max_in_flight=1) as client:
        sending = asyncio.ensure_future(client.submit(ROW))
        await held.reached.wait()
        client.attach("task_1")
        held.answer(service.accept(ROW))
        handle = await sending
        other = asyncio.ensure_future(client.submit("another"))
        await asyncio.sleep(30)
        assert (handle.done, len(service.of("submit"))) == (False, 1)
        await handle
        await other
        assert len(service.of("submit")) == 2


async def test_recovered_and_generated_under_one_id_it_is_one_watch_and_one_name(
    service: FakeService, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    service.service_time_s = 1
    service.accept(ROW)
    leave(path, "mine", ROW, State.INTENT)
    events: list[Event] = []
    async with client_of(events, path, first_poll_s=0.1, min_poll_interval_s=0.1) as client:
        (recovered,) = client.recovered()
        generating = asyncio.ensure_future(client.generate(ROW))
        waiting = asyncio.ensure_future(recovered.result())
        await until(lambda: generating.done() and waiting.done())
        assert {(await each).task_id for each in (generating, waiting)} == {"task_1"}
        assert client.statistics().completed == 1
    assert sum(isinstance(each, TaskEnded) for each in events) == 1
    known = record(path, "mine")
    assert known is not None
    assert (known.state, known.task_id) == (State.COMPLETED, "task_1")
    assert len(service.of("submit")) == 0
