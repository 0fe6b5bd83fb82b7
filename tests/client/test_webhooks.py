"""Events and looks: whichever comes first, in whatever order, once or twice, with the submission or before it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import (
    ClientStateError,
    RateLimits,
    Settings,
    SubmitUncertain,
    TaskFailed,
    TaskOverdue,
    ToAPIs,
    WebhookOutcome,
    WebhookRejected,
    Webhooks,
)
from toapis_async.engine import early_events
from toapis_async.events import TaskEnded

from ..engine.kit import KEY, FakeService, Hold, answer, lost, refusal, task, turns
from .events import SECRET, URL, Pusher, deliver, event, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from toapis_async.events import Event

A_LOT = RateLimits(submit_per_s=1e4, submit_burst=1e4, query_per_s=1e4, query_burst=1e4)
MINE = {"prompt": "kite", "client_business_id": "mine"}
RESOLVED, DUPLICATE, EARLY, UNKNOWN_TASK, HANDED_ON, TEST_EVENT, IGNORED = WebhookOutcome


def now_s() -> float:
    return asyncio.get_running_loop().time()


def client_of(service: FakeService, **settings: Any) -> ToAPIs:
    return ToAPIs(
        KEY, settings=Settings(**{"close_grace_s": 0, "webhook_secrets": SECRET, "limits": A_LOT, **settings})
    )


# ------------------------------------------------------------------------------------------- one event


@pytest.mark.looptime
async def test_an_event_resolves_its_task_at_once_and_nobody_looks(service: FakeService) -> None:
    service.service_time_s = 3
    async with client_of(service) as client:
        handle = await client.submit("kite")
        waiting = asyncio.ensure_future(handle.result())
        await asyncio.sleep(3)
        assert await deliver(client, event(handle.task_id, handle.client_business_id)) is RESOLVED
        generation = await waiting
    assert now_s() == 3
    assert [image.url for image in generation.images] == [URL]
    assert generation.task_id == handle.task_id
    assert service.of("query") == []


@pytest.mark.looptime
async def test_an_event_of_a_failure_fails_its_task(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        error = {"code": "generation_failed", "message": "no luck"}
        told = event(handle.task_id, status="FAILURE", result=None, error=error)
        assert await deliver(client, told) is RESOLVED
        with pytest.raises(TaskFailed, match="no luck") as caught:
            await handle
    assert (caught.value.code, caught.value.task_id) == ("generation_failed", handle.task_id)


@pytest.mark.looptime
async def test_everyone_who_waits_is_told_and_the_end_is_counted_once(
    service: FakeService, events: list[Event]
) -> None:
    async with client_of(service, on_event=events.append) as client:
        handle = await client.submit("kite")
        waiting = [asyncio.ensure_future(handle.result()) for _ in range(10)]
        await turns()
        assert await deliver(client, event(handle.task_id)) is RESOLVED
        assert len({(await one).task_id for one in waiting}) == 1
        assert client.statistics().completed == 1
        assert client.statistics().in_flight == 0
    assert [e.polls for e in events if isinstance(e, TaskEnded)] == [0]


@pytest.mark.looptime
async def test_an_event_that_comes_again_is_a_duplicate_whatever_came_between(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        told = event(handle.task_id)
        assert await deliver(client, told) is RESOLVED
        assert await deliver(client, told) is DUPLICATE
        assert await deliver(client, event(handle.task_id, event_id="evt_other")) is DUPLICATE
        assert await deliver(client, event("task_of_another")) is UNKNOWN_TASK
        assert await deliver(client, told) is DUPLICATE


@pytest.mark.looptime
async def test_handled_ids_are_remembered_up_to_a_bound_the_oldest_go_first(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_events, "MOST_REMEMBERED", 3)
    async with client_of(service) as client:
        told = [event((await client.submit("kite")).task_id) for _ in range(4)]
        for one in told:
            assert await deliver(client, one) is RESOLVED
        assert [await deliver(client, one) for one in reversed(told)] == [DUPLICATE, DUPLICATE, DUPLICATE, UNKNOWN_TASK]


# ------------------------------------------------------------------------------------------- event against look


@pytest.mark.looptime
async def test_a_look_that_came_first_wins_and_the_event_is_a_duplicate(service: FakeService) -> None:
    service.service_time_s = 3
    async with client_of(service) as client:
        handle = await client.submit("kite")
        generation = await handle
        assert len(service.of("query")) == 1
        told = event(handle.task_id, status="FAILURE", result=None)
        assert await deliver(client, told) is DUPLICATE
        assert (await handle).images == generation.images


@pytest.mark.looptime
async def test_an_event_wins_against_a_look_whose_answer_is_on_its_way(
    service: FakeService, events: list[Event]
) -> None:
    async with client_of(service, on_event=events.append) as client:
        handle = await client.submit("kite")
        service.on_query.append(hold := Hold())
        await hold.reached.wait()
        assert await deliver(client, event(handle.task_id)) is RESOLVED
        hold.answer(answer(200, task(handle.task_id, "failed", error={"code": "x", "message": "late"})))
        await turns()
        assert [image.url for image in (await handle).images] == [URL]
        statistics = client.statistics()
        assert (statistics.completed, statistics.failed) == (1, 0)
        assert client._used_engine().tasks._agenda._schedules["image"].backstop.share == pytest.approx(
            0.8
        )  # not counted as a look's find
    assert len([e for e in events if isinstance(e, TaskEnded)]) == 1


@pytest.mark.looptime
async def test_an_event_for_a_watch_that_ended_without_an_outcome_is_news(service: FakeService) -> None:
    service.service_time_s = 1e9
    async with client_of(service, max_task_age_s=20) as client:
        handle = await client.submit("kite")
        with pytest.raises(TaskOverdue):
            await handle
        assert await deliver(client, event(handle.task_id)) is UNKNOWN_TASK


@pytest.mark.looptime
async def test_an_event_resolves_what_was_attached_by_either_id_or_found(service: FakeService) -> None:
    service.service_time_s = 1e9
    async with client_of(service) as elsewhere, client_of(service) as client:
        for business_id in ("a", "b", "c"):
            await elsewhere.submit({**MINE, "client_business_id": business_id})
        by_task_id, by_business_id = client.attach("task_1"), client.attach("b")
        found = await client.find("c")
        assert found is not None
        await asyncio.sleep(1)
        for number, handle in enumerate((by_task_id, by_business_id, found), 1):
            told = event(f"task_{number}", "abc"[number - 1])
            assert await deliver(client, told) is RESOLVED
            assert (await handle).task_id == f"task_{number}"
            assert await deliver(client, {**told, "id": f"evt_again_{number}"}) is DUPLICATE


# ------------------------------------------------------------------------------------------- before the submit answer


@pytest.mark.looptime
@pytest.mark.parametrize("told_who", ["mine", None], ids=["with our id", "without"])
async def test_an_event_before_its_submissions_answer_is_kept_and_applied(
    service: FakeService, told_who: str | None
) -> None:
    service.on_submit.append(hold := Hold())
    async with client_of(service) as client:
        submitting = asyncio.ensure_future(client.submit(MINE))
        await hold.reached.wait()
        assert await deliver(client, event("task_9", told_who)) is (EARLY if told_who else UNKNOWN_TASK)
        assert await deliver(client, event("task_9", told_who)) is (DUPLICATE if told_who else UNKNOWN_TASK)
        hold.answer(answer(200, task("task_9")))
        handle = await submitting
        assert handle.done
        assert [image.url for image in (await handle).images] == [URL]
        assert await deliver(client, event("task_9", told_who)) is DUPLICATE
    assert service.of("query") == []


@pytest.mark.looptime
async def test_an_early_event_of_another_task_with_the_same_business_id_lends_it_no_images(
    service: FakeService,
) -> None:
    service.service_time_s = 3
    service.on_submit.append(hold := Hold())
    async with client_of(service) as client:
        submitting = asyncio.ensure_future(client.submit(MINE))
        await hold.reached.wait()
        assert await deliver(client, event("task_of_last_week", "mine")) is EARLY
        hold.answer(service.accept(MINE))
        handle = await submitting
        assert not handle.done
        assert [image.url for image in (await handle).images] == ["https://files.example/a.png"]


@pytest.mark.looptime
async def test_when_the_answer_was_lost_the_event_still_waits_for_whoever_finds_the_task(service: FakeService) -> None:
    service.on_submit.append(lost())
    async with client_of(service, uncertain_submits="raise", reconcile_window_s=1) as client:
        with pytest.raises(SubmitUncertain):
            await client.submit(MINE)
        assert await deliver(client, event("task_1", "mine")) is EARLY
        looked = len(service.of("query"))
        handle = client.attach("mine")
        assert handle.done
        assert (await handle).task_id == "task_1"
    assert len(service.of("query")) == looked


@pytest.mark.looptime
async def test_an_event_settles_a_submission_in_doubt_and_nothing_is_sent_again(service: FakeService) -> None:
    service.on_submit.append(lost())  # accepted, but the service never finds it by its id
    async with client_of(service, reconcile_window_s=30) as client:
        submitting = asyncio.ensure_future(client.submit(MINE))
        await asyncio.sleep(20)
        assert await deliver(client, event("task_1", "mine")) is EARLY
        handle = await submitting
        assert handle.done
        assert [image.url for image in (await handle).images] == [URL]
        assert client.statistics().in_flight == 0
    assert len(service.of("submit")) == 1


@pytest.mark.looptime
async def test_an_event_that_came_before_its_answer_was_lost_spares_the_look_ups(service: FakeService) -> None:
    service.on_submit.append(hold := Hold())
    async with client_of(service) as client:
        submitting = asyncio.ensure_future(client.submit(MINE))
        await hold.reached.wait()
        assert await deliver(client, event("task_1", "mine")) is EARLY
        hold.answer(lost())
        assert (await submitting).done
    assert now_s() == 0
    assert [len(service.of(kind)) for kind in ("submit", "query")] == [1, 0]


@pytest.mark.looptime
async def test_without_a_submission_under_way_strangers_are_not_kept(service: FakeService) -> None:
    service.on_submit.extend([refusal(422), answer(200, task("task_7"))])
    async with client_of(service) as client:
        with pytest.raises(Exception, match="no"):
            await client.submit(MINE)
        assert await deliver(client, event("task_7", "mine")) is UNKNOWN_TASK
        handle = await client.submit("another")
        assert handle.task_id == "task_7"
        assert not handle.done


@pytest.mark.looptime
async def test_what_is_kept_is_bounded_in_number_and_age(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_events, "MOST_KEPT", 2)
    monkeypatch.setattr(early_events, "KEPT_S", 100)
    service.on_submit.extend([lost(), *(answer(200, task(f"task_{number}")) for number in range(8))])
    async with client_of(service, uncertain_submits="raise", reconcile_window_s=1) as client:
        with pytest.raises(SubmitUncertain):
            await client.submit(MINE)
        for number in range(6):
            assert await deliver(client, event(f"task_{number}")) is UNKNOWN_TASK
        done = [(await client.submit("kite")).done for _ in range(6)]
        assert done == [False, False, True, True, True, True]  # four: an event may be kept under two names
        assert await deliver(client, event("task_6")) is UNKNOWN_TASK
        await asyncio.sleep(101)
        assert await deliver(client, event("task_7", "mine")) is UNKNOWN_TASK  # the lost one is not awaited any more
        assert not (await client.submit("kite")).done


# ------------------------------------------------------------------------------------------- other events


@pytest.mark.looptime
async def test_tests_and_kinds_we_do_not_know_change_nothing_and_are_accepted(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        test = {"id": "evt_t", "type": "endpoint.test", "data": {"task_id": handle.task_id, "status": "SUCCESS"}}
        assert await deliver(client, test) is TEST_EVENT
        assert await deliver(client, test) is TEST_EVENT
        assert await deliver(client, event(handle.task_id, status="PROCESSING") | {"type": "new"}) is IGNORED
        assert (
            await deliver(client, event(handle.task_id, result=None)) is IGNORED
        )  # polling tells where the images are
        assert not handle.done
        assert await deliver(client, event(handle.task_id)) is RESOLVED


# ------------------------------------------------------------------------------------------- trust


@pytest.mark.looptime
async def test_what_is_not_signed_changes_nothing_and_is_told_nothing(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with client_of(service, webhook_secrets=(SECRET, "whsec_SECRETold")) as client:
        handle = await client.submit("kite")
        told = event(handle.task_id)
        for body, headers in (
            signed(told, secret="wrong"),
            signed(told, at_s=1_755_000_000),
            (signed(told)[0] + b" ", signed(told)[1]),
            (signed(told)[0], {}),
        ):
            with pytest.raises(WebhookRejected) as caught:
                await client.webhooks.deliver(body, headers)
            assert caught.value.status == 401
            assert handle.task_id not in str(caught.value)
        assert not handle.done
        assert await client.webhooks.deliver(*signed(told, secret="whsec_SECRETold")) is RESOLVED
        shown = f"{client!r} {client.webhooks!r} {client.webhooks} {client._settings!r} {caplog.text} {caught.value!r}"
    assert "SECRET" not in shown


@pytest.mark.looptime
async def test_a_body_is_bytes_and_nothing_that_was_parsed(service: FakeService) -> None:
    async with client_of(service) as client:
        raw, headers = signed(event("task_1"))
        given: Any = raw.decode()
        with pytest.raises(TypeError, match="raw body as bytes, not str"):
            await client.webhooks.deliver(given, headers)
        view: Any = memoryview(raw)
        assert await client.webhooks.deliver(view, headers) is UNKNOWN_TASK


async def test_without_a_secret_webhooks_are_off_and_say_how_to_turn_them_on(service: FakeService) -> None:
    with pytest.raises(ClientStateError, match=r"Settings\(webhook_secrets=…\)"):
        _ = ToAPIs(KEY).webhooks


# ------------------------------------------------------------------------------------------- lifetime


async def test_a_client_that_is_not_open_takes_nothing_so_that_the_service_comes_again(service: FakeService) -> None:
    client = client_of(service)
    webhooks = client.webhooks
    assert isinstance(webhooks, Webhooks)
    with pytest.raises(WebhookRejected, match="not open yet") as refused:
        await webhooks.deliver(*signed(event("task_1")))
    assert refused.value.status == 503
    with pytest.raises(WebhookRejected) as refused:  # a stranger does not even learn that
        await webhooks.deliver(b"{}", {})
    assert refused.value.status == 401
    async with client:
        assert await webhooks.deliver(*signed(event("task_1"))) is UNKNOWN_TASK
    with pytest.raises(WebhookRejected, match="closed") as refused:
        await webhooks.deliver(*signed(event("task_1")))
    assert refused.value.status == 503


@pytest.mark.looptime
async def test_an_event_while_the_client_closes_is_refused_and_not_half_taken(service: FakeService) -> None:
    service.on_submit.append(hold := Hold())
    client = await client_of(service, close_grace_s=5).start()
    submitting = asyncio.ensure_future(client.submit(MINE))
    await hold.reached.wait()
    closing = asyncio.ensure_future(client.aclose())
    await turns()
    with pytest.raises(WebhookRejected, match="closing") as refused:
        await deliver(client, event("task_1", "mine"))
    assert refused.value.status == 503
    await closing
    with pytest.raises(SubmitUncertain):
        await submitting


@pytest.mark.looptime
async def test_an_event_that_was_refused_while_closed_is_handled_by_the_next_client(service: FakeService) -> None:
    service.service_time_s = 1e9
    async with client_of(service) as first:
        task_id = (await first.submit(MINE)).task_id
    with pytest.raises(WebhookRejected) as refused:
        await deliver(first, event(task_id))
    assert refused.value.status == 503
    async with client_of(service) as second:
        handle = second.attach(task_id)
        assert await deliver(second, event(task_id)) is RESOLVED
        assert (await handle).task_id == task_id


# ------------------------------------------------------------------------------------------- the backstop, counted


@asynccontextmanager
async def pushed_to(service: FakeService, client: ToAPIs) -> AsyncIterator[Pusher]:
    pusher = Pusher(service, client)
    running = asyncio.ensure_future(pusher.run())
    try:
        yield pusher
    finally:
        running.cancel()
        await asyncio.wait([running])


async def finished(client: ToAPIs, service: FakeService, count: int, every_s: float = 0.5) -> list[float]:
    """Generate so many, one every half second, and tell each one's lag."""

    async def one() -> float:
        handle = await client.submit("kite")
        began_s = now_s()
        await handle
        return now_s() - began_s - service.service_time_s

    running: list[asyncio.Future[float]] = []
    for _ in range(count):
        running.append(asyncio.ensure_future(one()))
        await asyncio.sleep(every_s)
    return list(await asyncio.gather(*running))


@pytest.mark.looptime
async def test_while_events_come_hardly_anybody_looks(service: FakeService) -> None:
    service.service_time_s = 20
    async with client_of(service) as client, pushed_to(service, client) as pusher:
        lags = await finished(client, service, 100)
        first_looks = len(service.of("query"))
        lags += await finished(client, service, 100)
    assert pusher.outcomes == [RESOLVED] * 200
    assert max(lags) <= 0.25  # how often the pusher pushes
    assert first_looks <= 80  # those before there was anything to trust
    assert len(service.of("query")) == first_looks


@pytest.mark.looptime
async def test_when_every_event_is_lost_looks_are_what_they_are_without_webhooks(service: FakeService) -> None:
    service.service_time_s = 20
    async with client_of(service, webhook_secrets=()) as client:
        without = await finished(client, service, 100)
    looks = len(service.of("query"))
    async with client_of(service) as client, pushed_to(service, client) as pusher:
        pusher.loses = True
        with_all_lost = await finished(client, service, 100)
    # Not the same to the moment: waits are checked at moments of the loop's clock, which went on.
    assert mean(with_all_lost) == pytest.approx(mean(without), rel=0.15)
    assert len(service.of("query")) == pytest.approx(2 * looks, rel=0.05)


@pytest.mark.looptime
async def test_when_events_stop_no_task_is_lost_and_looks_come_back(service: FakeService) -> None:
    service.service_time_s = 20
    async with client_of(service, webhook_secrets=()) as client:
        normal = await finished(client, service, 200)
    async with client_of(service) as client, pushed_to(service, client) as pusher:
        await finished(client, service, 100)
        pusher.loses = True
        at_the_turn = await finished(client, service, 100)
        afterwards = await finished(client, service, 100)
    assert max(at_the_turn) <= 60  # seen by the backstop
    settled = sum(normal[100:]) / 100
    assert sum(afterwards) / 100 <= 1.25 * settled
