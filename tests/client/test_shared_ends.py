"""Ends that one process learns, and events that reach the wrong one: some clients on one channel, in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import SubmitUncertain, TaskFailed, WebhookOutcome, WebhookRejected
from toapis_async.engine.shared import ends as module
from toapis_async.engine.shared.port import StoreLost
from toapis_async.protocol.end_message import EndMessage, encode_end
from toapis_async.receivers import asgi_app

from ..engine.kit import FakeService, Hold, answer, lost, refusal, task, turns
from .events import URL, deliver, event, signed
from .hub import Hub, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from toapis_async import TaskHandle

pytestmark = pytest.mark.looptime
RESOLVED, DUPLICATE, EARLY, HANDED_ON = (
    WebhookOutcome.RESOLVED, WebhookOutcome.DUPLICATE, WebhookOutcome.EARLY, WebhookOutcome.HANDED_ON,
)  # fmt: skip
MINE = {"prompt": "kite", "client_business_id": "mine"}
VIDEO = {"type": "video", "data": [{"url": "https://files.example/a.mp4"}]}


@pytest.fixture
def hub() -> Hub:
    return Hub()


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def ended(handle: TaskHandle) -> str:
    """Wait for a task's end, whatever it is."""
    await asyncio.wait([asyncio.ensure_future(handle.result())])
    return handle.task_id


# ------------------------------------------------------------------------------------------- events


async def test_an_event_that_reaches_another_worker_resolves_the_waiter_and_nobody_polls(
    service: FakeService, hub: Hub
) -> None:
    async with Worker(hub) as here, Worker(hub) as there, Worker(hub):
        handle = await here.submit(MINE)
        waiting = asyncio.ensure_future(handle.result())
        await asyncio.sleep(3)
        assert await deliver(there, event(handle.task_id, "mine")) is HANDED_ON
        generation = await waiting
        assert now_s() == 3
        assert (generation.task_id, generation.client_business_id) == (handle.task_id, "mine")
        assert [image.url for image in generation.images] == [URL]
        assert here.statistics().completed == 1
        assert there.statistics().completed == 0
        await turns()
        assert len(hub.published) == 1  # whoever learned it from others does not tell it again
    assert service.of("query") == []


async def test_a_failure_and_the_end_of_a_video_reach_their_waiters_too(service: FakeService, hub: Hub) -> None:
    async with Worker(hub) as here, Worker(hub) as there:
        failing = await here.submit("kite")
        video = await here.submit({"kind": "video", "model": "seedance-2", "prompt": "a boat"})
        error = {"code": "generation_failed", "message": "no luck"}
        await deliver(there, event(failing.task_id, status="FAILURE", result=None, error=error))
        await deliver(there, event(video.task_id, task_type="video", result=VIDEO))
        with pytest.raises(TaskFailed, match="no luck"):
            await failing
        (made,) = (await video).videos
        assert made.url == "https://files.example/a.mp4"
    assert service.of("query") == []


async def test_an_event_of_the_same_id_but_another_kind_is_not_mixed_up(service: FakeService, hub: Hub) -> None:
    async with Worker(hub) as here, Worker(hub) as there:
        handle = await here.submit("kite")
        assert await deliver(there, event(handle.task_id, task_type="video", result=VIDEO)) is HANDED_ON
        await turns()
        assert not handle.done


async def test_an_event_that_comes_again_or_after_a_poll_changes_nothing(service: FakeService, hub: Hub) -> None:
    service.service_time_s = 3
    async with Worker(hub) as here, Worker(hub) as there:
        handle = await here.submit("kite")
        generation = await handle
        assert await deliver(there, event(handle.task_id)) is HANDED_ON
        assert await deliver(there, event(handle.task_id)) is HANDED_ON
        assert await deliver(here, event(handle.task_id)) is DUPLICATE
        await turns()
        assert (await handle).images == generation.images
        assert here.statistics().completed == 1
        assert len(hub.published) == 3


async def test_tests_and_events_without_an_end_are_not_handed_on(service: FakeService, hub: Hub) -> None:
    async with Worker(hub) as here, Worker(hub):
        test = {"id": "evt_t", "type": "endpoint.test", "data": {"task_id": "task_1", "status": "SUCCESS"}}
        assert await deliver(here, test) is WebhookOutcome.TEST_EVENT
        assert await deliver(here, event("task_1", result=None)) is WebhookOutcome.IGNORED
        await turns()
    assert hub.published == []


# ------------------------------------------------------------------------------------------- before the answer


@pytest.mark.parametrize("told_who", ["mine", None], ids=["with our id", "without"])
async def test_an_event_at_another_worker_before_its_submissions_answer_is_applied_with_it(
    service: FakeService, hub: Hub, told_who: str | None
) -> None:
    service.on_submit.append(hold := Hold())
    async with Worker(hub) as here, Worker(hub) as there:
        submitting = asyncio.ensure_future(here.submit(MINE))
        await hold.reached.wait()
        assert await deliver(there, event("task_9", told_who)) is HANDED_ON
        await turns()
        hold.answer(answer(200, task("task_9")))
        handle = await submitting
        assert handle.done
        assert [image.url for image in (await handle).images] == [URL]
        await turns()
        assert len(hub.published) == 1
    assert service.of("query") == []


async def test_an_event_at_another_worker_settles_a_submission_in_doubt(service: FakeService, hub: Hub) -> None:
    service.on_submit.append(lost())
    async with Worker(hub, reconcile_window_s=30) as here, Worker(hub) as there:
        submitting = asyncio.ensure_future(here.submit(MINE))
        await asyncio.sleep(20)
        assert await deliver(there, event("task_1", "mine")) is HANDED_ON
        assert (await submitting).done
    assert len(service.of("submit")) == 1


async def test_an_early_event_is_told_to_others_too(service: FakeService, hub: Hub) -> None:
    service.on_submit.append(lost())
    async with Worker(hub, uncertain_submits="raise", reconcile_window_s=1) as here, Worker(hub) as there:
        with pytest.raises(SubmitUncertain):
            await here.submit(MINE)
        waiting = there.attach("task_1")
        service.accept(MINE)
        assert await deliver(here, event("task_1", "mine")) is EARLY
        assert (await waiting).task_id == "task_1"
        assert here.attach("mine").done


async def test_an_early_end_that_cannot_be_read_costs_a_poll(service: FakeService, hub: Hub) -> None:
    service.service_time_s = 0
    service.on_submit.append(hold := Hold())
    async with Worker(hub) as here:
        submitting = asyncio.ensure_future(here.submit(MINE))
        await hold.reached.wait()
        hub.put(encode_end(EndMessage("task_1", "mine", "image", True, b"nonsense")))
        await turns()
        hold.answer(service.accept(MINE))
        handle = await submitting
        assert not handle.done
        assert (await handle).task_id == "task_1"


# ------------------------------------------------------------------------------------------- polls


async def test_an_end_that_one_worker_polls_is_known_to_all(service: FakeService, hub: Hub) -> None:
    service.service_time_s = 12
    async with Worker(hub) as here, Worker(hub, first_poll_s=3_000, min_poll_interval_s=3_000) as there:
        handle = await here.submit("kite")
        attached = there.attach(handle.task_id)
        generation = await attached
        at_s = now_s()
        assert (await handle).images == generation.images
        assert now_s() == at_s
        assert len(service.of("query")) <= 4
        await turns()
        assert len(hub.published) == 1


@pytest.mark.parametrize("kind", ["image", "video", None])
@pytest.mark.parametrize("by_event", [True, False])
async def test_attach_in_any_worker_reads_a_known_end_before_it_polls(
    service: FakeService, hub: Hub, by_event: bool, kind: Any
) -> None:
    service.service_time_s = 2
    request = {"kind": "video", "model": "seedance-2", "prompt": "a boat"} if kind != "image" else {"prompt": "kite"}
    async with Worker(hub) as here, Worker(hub) as there:
        handle = await here.submit(request)
        if by_event:
            result: dict[str, Any] = {"task_type": "video", "result": VIDEO} if kind != "image" else {}
            await deliver(there, event(handle.task_id, **result))
        await handle
        token = handle.token()
        await turns()
        polls = len(service.of("query"))
        assert polls == (0 if by_event else 1)
        for name in (handle.task_id, token):
            attached = there.attach(name, kind if name != token else None)
            assert attached.status is None
            assert (await attached).files == (await handle).files
        assert len(service.of("query")) == polls
        assert hub.asked == [handle.task_id] * 2


async def test_attach_polls_at_once_when_nobody_knows_the_end_or_the_channel_is_down(
    service: FakeService, hub: Hub
) -> None:
    service.service_time_s = 2
    service.accept(MINE)
    async with Worker(hub) as here:
        await asyncio.sleep(5)
        assert (await here.attach("task_1")).task_id == "task_1"
        hub.stop()
        assert (await here.attach("mine")).task_id == "task_1"
        await turns()
        assert (await here.attach("task_1")).task_id == "task_1"
        assert now_s() == 5
    assert len(service.of("query")) == 3


async def test_what_is_learned_last_is_told_before_the_client_is_closed(service: FakeService, hub: Hub) -> None:
    service.service_time_s = 2
    service.accept(MINE)
    here = await Worker(hub).start()
    await asyncio.sleep(5)
    await here.attach("task_1")
    await here.aclose()
    assert list(hub.store) == ["task_1"]


# ------------------------------------------------------------------------------------------- what can't be had


async def test_an_event_that_can_not_be_handed_on_is_refused_with_503_and_taken_when_it_comes_again(
    service: FakeService, hub: Hub
) -> None:
    async with Worker(hub) as here, Worker(hub) as there:
        handle = await here.submit("kite")
        hub.stop()
        with pytest.raises(WebhookRejected, match="handed on") as caught:
            await deliver(there, event(handle.task_id))
        assert caught.value.status == 503
        hub.start()
        await asyncio.sleep(2)
        assert await deliver(there, event(handle.task_id)) is HANDED_ON
        assert await ended(handle) == handle.task_id
    assert service.of("query") == []


async def test_the_receivers_answer_503_to_it(service: FakeService, hub: Hub) -> None:
    async with Worker(hub) as here:
        hub.stop()
        body, headers = signed(event("task_of_another"))
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        app = asgi_app(lambda: here.webhooks)
        await app({"type": "http", "method": "POST", "headers": raw}, receive, send)
    assert sent[0]["status"] == 503


async def test_an_event_that_is_ours_needs_no_channel(service: FakeService, hub: Hub) -> None:
    async with Worker(hub) as here:
        handle = await here.submit("kite")
        hub.stop()
        assert await deliver(here, event(handle.task_id)) is RESOLVED
        assert (await handle).task_id == handle.task_id


async def test_an_event_whose_hand_on_is_cut_short_by_closing_is_refused(service: FakeService, hub: Hub) -> None:
    stuck = asyncio.Event()

    async def publish(outgoing: Any) -> None:
        await stuck.wait()

    async with Worker(hub) as here:
        hub.publish = publish  # type: ignore[method-assign]
        delivering = asyncio.ensure_future(deliver(here, event("task_of_another")))
        await turns()
    with pytest.raises(WebhookRejected, match="handed on"):
        await delivering


async def test_what_waits_to_be_told_is_bounded(
    service: FakeService, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_QUEUED_BYTES", 1_000)
    let_go = asyncio.Event()
    publish = hub.publish

    async def slowly(outgoing: Any) -> None:
        await let_go.wait()
        await publish(outgoing)

    async with Worker(hub) as here:
        hub.publish = slowly  # type: ignore[method-assign]
        delivering = [asyncio.ensure_future(deliver(here, event(f"other_{number}"))) for number in range(10)]
        await turns()
        let_go.set()
        done = await asyncio.gather(*delivering, return_exceptions=True)
        assert 1 <= done.count(HANDED_ON) < 5
        assert {each.status for each in done if isinstance(each, WebhookRejected)} == {503}
        assert await deliver(here, event("other")) is HANDED_ON


async def test_an_end_over_a_mebibyte_is_told_by_its_id_alone_and_polled_at_once(
    service: FakeService, hub: Hub
) -> None:
    picture = {"data": [{"b64_json": "A" * 2**20}]}
    async with Worker(hub) as here, Worker(hub, first_poll_s=500, min_poll_interval_s=5) as there:
        service.accept(MINE)
        attached = there.attach("task_1")
        await asyncio.sleep(2)
        service.service_time_s = 0
        service.on_query.append(answer(200, task("task_1", "completed", result=picture)))
        assert (await here.attach("task_1")).task_id == "task_1"
        await turns()
        assert len(hub.published) == 1
        assert len(hub.published[0]) < 1_000
        assert hub.store == {}
        assert (await attached).task_id == "task_1"
        assert now_s() == 5  # no poll of one task sooner than 5 s after the last
    assert len(service.queries("task_1")) == 3


# ------------------------------------------------------------------------------------------- what is malformed


HEAD = {"v": 1, "sender": "x", "task_id": "task_1", "client_business_id": None, "kind": "image", "by_event": True}
BODY = json.dumps(task("task_1", "completed")).encode()


def message(body: bytes = BODY, **head: Any) -> bytes:
    return json.dumps({**HEAD, **head}).encode() + b"\n" + body


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        b"\n",
        b"nonsense",
        b"[" * 10_000,
        b"{}\n{}",
        b"x" * (2**20 + 2**15),
        message(v=2),
        message(task_id=""),
        message(task_id=7),
        message(task_id=".."),
        message(task_id="x" * 513),
        message(kind="sound"),
        message(kind=["image"]),
        message(by_event="yes"),
        message(b"nonsense"),
        message(b"[]"),
        message(b"[" * 100_000),
        message(b"\xff\xfe"),
        message(json.dumps(task("task_1", "in_progress")).encode()),
        message(json.dumps(task("task_1", "completed", result={"data": [{"url": 7}]})).encode()),
    ],
    ids=lambda given: repr(given[:60]),
)
async def test_a_malformed_message_is_ignored_and_told_once(
    service: FakeService, hub: Hub, caplog: pytest.LogCaptureFixture, malformed: bytes
) -> None:
    async with Worker(hub) as here:
        handle = await here.submit("kite")
        for _ in range(3):
            hub.put(malformed)
        await turns(20)
        assert not handle.done
        told = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.getMessage()[:15] for record in told] == ["a message from "]
        assert max(len(record.getMessage()) for record in told) < 500
        hub.put(message())
        await turns()
        assert handle.done


async def test_messages_about_tasks_of_others_are_not_even_decoded(
    service: FakeService, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    async with Worker(hub) as here:
        await here.submit("kite")
        hub.put(message(b"nonsense", task_id="task_of_another"))
        await turns()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_ids_that_are_odd_are_told_and_do_no_harm(service: FakeService, hub: Hub) -> None:
    async with Worker(hub) as here, Worker(hub) as there:
        handle = await here.submit("kite")
        assert await deliver(there, event(handle.task_id, "odd \ud800")) is HANDED_ON
        assert await deliver(there, event("x" * 600, event_id="evt_1")) is HANDED_ON
        assert await ended(handle) == handle.task_id


# ------------------------------------------------------------------------------------------- gaps


async def run(hub: Hub, service: FakeService, stop_at: float | None, *, pushed: bool) -> list[float]:
    """Twenty tasks of 20 s at one worker while events come to another. The channel stops after `stop_at` seconds. Tells
    each task's lag, by the order of submission."""

    async def one(worker: Worker) -> float:
        handle = await worker.submit("kite")
        began_s = now_s()
        await handle
        return now_s() - began_s - service.service_time_s

    async def push(to: Worker) -> None:
        told: set[str] = set()
        while True:
            for each in list(service.tasks.values()):
                if each.task_id not in told and now_s() >= each.accepted_s + service.service_time_s:
                    told.add(each.task_id)
                    try:
                        await deliver(to, event(each.task_id, event_id=f"evt_{each.task_id}"))
                    except WebhookRejected:
                        told.discard(each.task_id)
                        await asyncio.sleep(10)
            await asyncio.sleep(0.1)

    service.tasks.clear()
    service.seen.clear()
    async with Worker(hub, poll_jitter=0) as here, Worker(hub) as there:
        pushing = asyncio.ensure_future(push(there))
        if not pushed:
            pushing.cancel()
        began_s = now_s()
        running = []
        for _ in range(60):
            running.append(asyncio.ensure_future(one(here)))
            if stop_at is not None and now_s() - began_s >= stop_at and hub.is_up:
                hub.stop()
            await asyncio.sleep(1)
        lags_s = list(await asyncio.gather(*running))
        pushing.cancel()
        await asyncio.wait([pushing])
    return lags_s


async def test_when_the_channel_stops_polls_are_at_once_what_they_are_without_webhooks(
    service: FakeService, hub: Hub
) -> None:
    service.service_time_s = 20
    without_s = await run(hub, service, None, pushed=False)
    polls = len(service.of("query"))
    with_s = await run(hub, service, None, pushed=True)
    assert max(with_s) <= 0.2
    assert len(service.of("query")) < polls / 2
    stopped_s = await run(hub, service, 40.5, pushed=True)
    assert max(stopped_s[:20]) <= 0.2
    # The tasks under way when it stopped, and the later ones: as soon as they are seen without webhooks.
    assert max(stopped_s[20:]) <= max(without_s)
    assert mean(stopped_s[20:]) <= mean(without_s) + 0.2


async def test_after_a_gap_the_tasks_whose_events_may_be_lost_are_polled_as_without_webhooks(
    service: FakeService, hub: Hub
) -> None:
    service.service_time_s = 20

    async def trusted() -> None:
        """Ends of a dozen tasks by event."""
        handles = [await here.submit("kite") for _ in range(12)]
        await asyncio.sleep(20)
        for handle in handles:
            await deliver(there, event(handle.task_id))
            await handle

    async with Worker(hub, poll_jitter=0) as here, Worker(hub) as there:
        await trusted()
        await trusted()
        under_way = await here.submit("kite")
        await asyncio.sleep(2)
        hub.stop()
        await asyncio.sleep(1)
        hub.start()
        await asyncio.sleep(2)
        await trusted()
        assert under_way.done  # its event was lost in the gap
        polls = len(service.of("query"))
        await trusted()
        assert len(service.of("query")) == polls  # while new ones are left to their events again


async def test_a_worker_that_never_reached_the_channel_works_as_without_it(
    service: FakeService, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.stop()
    service.service_time_s = 3
    async with Worker(hub) as here:
        handle = await here.submit("kite")
        assert (await handle).task_id == handle.task_id
        assert now_s() < 6
        assert await deliver(here, event(handle.task_id)) is DUPLICATE
        await asyncio.sleep(60)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "stopped by the test" in told[0]


async def test_a_bug_in_what_listens_costs_polls_and_no_task(
    service: FakeService, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service.service_time_s = 3

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "decode_end", broken)
    async with Worker(hub) as here:
        handle = await here.submit("kite")
        hub.put(b"anything")
        await turns()
        assert [record.levelname for record in caplog.records] == ["CRITICAL"]
        with pytest.raises(WebhookRejected, match="handed on"):
            await deliver(here, event("task_of_another"))
        assert (await handle).task_id == handle.task_id
        attached = here.attach(handle.task_id)
        assert (await attached).task_id == handle.task_id


async def test_a_bug_in_what_sends_costs_polls_and_no_task(
    service: FakeService, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with Worker(hub) as here, Worker(hub) as there:
        ended = await there.submit("kite")
        await ended
        monkeypatch.setattr(hub, "publish", broken)
        telling = asyncio.ensure_future(deliver(here, event("task_of_another")))
        await asyncio.sleep(0)
        attached = here.attach(ended.task_id)  # its polls wait for an answer that nobody will ask for
        with pytest.raises(WebhookRejected, match="handed on"):
            await telling
        assert (await attached).task_id == ended.task_id
    assert {record.levelname for record in caplog.records if record.levelno > logging.WARNING} == {"CRITICAL"}


async def test_a_submission_that_is_refused_keeps_nothing_of_others(service: FakeService, hub: Hub) -> None:
    service.on_submit.extend([refusal(422), answer(200, task("task_7"))])
    async with Worker(hub) as here, Worker(hub) as there:
        with pytest.raises(Exception, match="no"):
            await here.submit(MINE)
        await deliver(there, event("task_7", "mine"))
        await turns()
        assert not (await here.submit("another")).done


async def test_a_cancellation_that_the_channel_turns_into_another_error_still_ends_it(
    service: FakeService, hub: Hub
) -> None:
    async def messages() -> AsyncGenerator[bytes | None, None]:
        yield None
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise StoreLost("as redis-py may") from None

    hub.messages = messages  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        async with Worker(hub) as here:
            assert (await here.submit("kite")).task_id == "task_1"
