"""Submissions: what is sent again, what never is, and that a cancelled caller loses neither permits nor tasks."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import (
    AuthenticationFailed,
    ContentRefused,
    Generation,
    InsufficientQuota,
    RateLimited,
    RateLimits,
    ServiceError,
    SessionClosed,
    Settings,
    SubmitUncertain,
    TaskFailed,
    ToAPIs,
    TransportError,
)
from toapis_async.events import SubmitLost, SubmitRetried, TaskAccepted, Throttled
from toapis_async.sandbox import Fault

from .kit import KEY, PNG, FakeService, Hold, answer, lost, not_sent, refusal, served, task, turns, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async import TaskHandle
    from toapis_async.events import Event

MINE = {"prompt": "kite", "client_business_id": "mine"}


def now_s() -> float:
    return asyncio.get_running_loop().time()


def client_of(service: FakeService, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, settings=Settings(**{"uncertain_submits": "raise", **settings}))


LATER: dict[str, Callable[[], Any]] = {
    "not-sent": not_sent,
    "429": lambda: refusal(429, "rate_limit_exceeded"),
    "429-numeric": lambda: refusal(429, 429),
    "429-html": lambda: answer(429, b"<html><title>slow down</title>"),
    "limiter-down": lambda: refusal(503, "rate_limit_unavailable"),
}
REFUSED = {
    "400": (refusal(400, "invalid_request"), ServiceError),
    "401": (refusal(401, "unauthorized"), AuthenticationFailed),
    "402": (refusal(402, "insufficient_quota"), InsufficientQuota),
    "404": (refusal(404), ServiceError),
    "422": (refusal(422, "content_policy_violation"), ContentRefused),
    "503-no-channel": (refusal(503, "model_not_found"), ServiceError),
    "307": (answer(307, b""), ServiceError),
}
UNKNOWN: dict[str, Callable[[], Any]] = {
    "500": lambda: refusal(500, "internal_error"),
    "502": lambda: answer(502, b"<html>"),
    "503-html": lambda: answer(503, b"<html>"),
    "504": lambda: answer(504, b"<html>"),
    "524": lambda: answer(524, b""),
    "lost": lost,
    "200-truncated": lambda: answer(200, b'{"id": "task_'),
    "200-without-id": lambda: answer(200, {"status": "queued"}),
}


# ------------------------------------------------------------------------------------------- sent again, or not


@pytest.mark.looptime
@pytest.mark.parametrize("step", LATER.values(), ids=LATER.keys())
async def test_what_was_certainly_not_taken_is_sent_again_under_the_same_id(
    service: FakeService, events: list[Event], step: Callable[[], Any]
) -> None:
    service.on_submit.extend([step(), step()])
    async with client_of(service, on_event=events.append) as client:
        handle = await client.submit(MINE)
        assert client.statistics().retried == 2
        assert client.statistics().submit.unanswered == 0
    assert handle.client_business_id == "mine"
    assert [seen.body["client_business_id"] for seen in service.of("submit")] == ["mine"] * 3
    assert len(service.tasks) == 1
    assert [type(event) for event in events if isinstance(event, SubmitRetried | TaskAccepted)] == [
        SubmitRetried,
        SubmitRetried,
        TaskAccepted,
    ]


@pytest.mark.looptime
@pytest.mark.parametrize("step", LATER.values(), ids=LATER.keys())
async def test_it_is_sent_again_until_submit_retry_s_and_then_the_reason_is_raised(
    service: FakeService, step: Callable[[], Any]
) -> None:
    service.on_submit.extend(step() for _ in range(1_000))
    async with client_of(service, submit_retry_s=30, max_in_flight=1) as client:
        with pytest.raises((TransportError, ServiceError)) as caught:
            await client.submit(MINE)
        assert type(caught.value) is not SubmitUncertain
        assert 20 <= now_s() <= 45  # the last wait for a token comes on top
        tried = len(service.of("submit"))
        assert 3 <= tried <= 60
        assert f"tried {tried} times" in "".join(caught.value.__notes__)
        service.on_submit.clear()
        await client.submit("next")  # the permit was given back


@pytest.mark.looptime
@pytest.mark.parametrize("step", LATER.values(), ids=LATER.keys())
async def test_with_submit_retry_s_0_nothing_is_sent_twice(service: FakeService, step: Callable[[], Any]) -> None:
    service.on_submit.append(step())
    async with client_of(service, submit_retry_s=0) as client:
        with pytest.raises((TransportError, ServiceError)):
            await client.submit(MINE)
    assert len(service.of("submit")) == 1


@pytest.mark.looptime
@pytest.mark.parametrize("limited", [(429, "rate_limit_exceeded"), (503, "rate_limit_unavailable")])
@pytest.mark.parametrize("asked", ["17", formatdate(1_700_000_017, usegmt=True)])
async def test_retry_after_is_honoured_by_every_submission(
    service: FakeService, events: list[Event], monkeypatch: pytest.MonkeyPatch, limited: tuple[int, str], asked: str
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    service.on_submit.append(refusal(*limited, retry_after=asked))
    async with client_of(service, on_event=events.append) as client, asyncio.TaskGroup() as group:
        group.create_task(client.submit("one"))
        await asyncio.sleep(1)
        group.create_task(client.submit("two"))
    first, *others = service.of("submit")
    assert first.at_s == 0
    assert sorted(seen.subject for seen in others) == ["one", "two"]
    assert all(17 <= seen.at_s <= 25 for seen in others)
    (throttled,) = [event for event in events if isinstance(event, Throttled)]
    assert throttled.category == "submit"


@pytest.mark.looptime
async def test_a_retry_after_beyond_submit_retry_s_raises_at_once_with_what_was_asked(service: FakeService) -> None:
    service.on_submit.append(refusal(429, retry_after="200"))
    async with client_of(service, submit_retry_s=60) as client:
        with pytest.raises(RateLimited) as caught:
            await client.submit(MINE)
        assert now_s() == 0
    assert caught.value.retry_after_s == 200
    assert caught.value.client_business_id == "mine"


@pytest.mark.looptime
async def test_a_pause_of_submissions_does_not_pause_queries(service: FakeService) -> None:
    service.on_submit.append(refusal(429, retry_after="200"))
    async with client_of(service, submit_retry_s=0) as client:
        with pytest.raises(RateLimited):
            await client.submit(MINE)
        assert await client.find("mine") is None
        assert now_s() == 0


@pytest.mark.looptime
async def test_a_submission_that_is_tried_again_goes_before_those_that_queue(service: FakeService) -> None:
    service.on_submit.append(refusal(429, retry_after="5"))
    limits = RateLimits(submit_per_s=1, submit_burst=1, query_per_s=1, query_burst=1)
    async with client_of(service, limits=limits) as client, asyncio.TaskGroup() as group:
        for prompt in ("first", "second", "third"):
            group.create_task(client.submit(prompt))
    assert [seen.subject for seen in service.of("submit")] == ["first", "first", "second", "third"]


@pytest.mark.looptime
@pytest.mark.parametrize(("step", "kind"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_refusal_raises_at_once_with_the_id_and_is_not_sent_again(
    service: FakeService, step: Any, kind: type[ServiceError]
) -> None:
    service.on_submit.append(step)
    async with client_of(service, max_in_flight=1) as client:
        with pytest.raises(ServiceError) as caught:
            await client.submit(MINE)
        assert type(caught.value) is kind
        assert (caught.value.client_business_id, caught.value.task_id) == ("mine", None)
        assert now_s() == 0
        assert len(service.of("submit")) == 1
        await client.submit("next")
        assert client.unclaimed() == ()


@pytest.mark.looptime
@pytest.mark.parametrize("step", UNKNOWN.values(), ids=UNKNOWN.keys())
async def test_an_uncertain_outcome_is_exactly_one_post_and_an_error_with_the_id(
    service: FakeService, events: list[Event], step: Callable[[], Any]
) -> None:
    service.on_submit.append(step())
    async with client_of(service, max_in_flight=1, on_event=events.append) as client:
        with pytest.raises(SubmitUncertain) as caught:
            await client.submit(MINE)
        assert caught.value.client_business_id == "mine"
        assert "client.find('mine')" in str(caught.value)
        assert len(service.of("submit")) == 1
        assert client.statistics().uncertain == 1
        assert client.statistics().submit.unanswered == 0
        await client.submit("next")  # the permit was given back
        assert client.unclaimed() == ()  # its caller was told
    assert [event.client_business_id for event in events if isinstance(event, SubmitLost)] == ["mine"]


@pytest.mark.looptime
async def test_uncertain_after_a_429_is_still_not_sent_again(service: FakeService) -> None:
    service.on_submit.extend([refusal(429), lost()])
    async with client_of(service) as client:
        with pytest.raises(SubmitUncertain):
            await client.submit(MINE)
    assert len(service.of("submit")) == 2


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        (Fault.LOST_ANSWER, True),
        (Fault.LOST_ANSWER_RESET, True),
        (Fault.DROPPED, False),
        (Fault.DROPPED_RESET, False),
        (Fault.BREAKS_OFF, True),
        (Fault.TRUNCATED_JSON, True),
        (Fault.ERROR_500, False),
        (Fault.ERROR_500_ACCEPTED, True),
        (Fault.HTML_502_ACCEPTED, True),
        (Fault.HTML_503, False),
        (Fault.HTML_504, False),
        (Fault.HTML_524_ACCEPTED, True),
        (Fault.SLOW, True),
    ],
)
async def test_everybody_is_charged_once_whatever_the_service_did(fault: Fault, accepted: bool) -> None:
    changes = {
        "submit_retry_s": 9,
        "read_timeout_s": 0.05 if fault is Fault.SLOW else 30,
        "uncertain_submits": "resubmit",
    }
    async with served({"speed": 50}, **changes) as (sandbox, client):
        sandbox.faults.script("submit", fault)
        handle = await client.submit(MINE)
        assert handle.client_business_id == "mine"
        await handle
        counts = client.statistics()
        assert (counts.adopted, counts.resubmitted, counts.uncertain) == (accepted, not accepted, 0)
        assert sandbox.requests.count("submit") == 2 - accepted
        assert len(sandbox.ledger) == 1
        assert sandbox.ledger.paid_twice() == ()


async def test_a_third_of_the_answers_lost_and_late_visibility_everyone_is_paid_once() -> None:
    sandbox = {"speed": 50, "visible_after_s": 5, "seed": 5}
    async with served(sandbox, reconcile_window_s=0.4, uncertain_submits="resubmit") as (service, client):
        service.faults.chance("submit", Fault.LOST_ANSWER, 0.3)
        await asyncio.gather(*(client.generate(f"kite {number}") for number in range(40)))
        assert client.statistics().adopted > 5
        assert len(service.ledger) == 40
        assert service.ledger.paid_twice() == ()


async def test_faults_that_were_not_accepted_are_overcome_and_charged_once(impatient: None) -> None:
    async with served({"speed": 50}, submit_retry_s=9) as (sandbox, client):
        sandbox.faults.script("submit", Fault.RATE_LIMITED, Fault.LIMITER_DOWN, Fault.RATE_LIMITED)
        await client.generate(MINE)
        assert sandbox.requests.count("submit") == 4
        assert len(sandbox.ledger) == 1


# ------------------------------------------------------------------------------------------- what is sent


@pytest.mark.looptime
async def test_an_id_of_our_own_is_minted_when_none_is_given_and_never_twice(service: FakeService) -> None:
    async with client_of(service) as client:
        handles = [await client.submit("kite") for _ in range(5)]
    ids = {handle.client_business_id for handle in handles}
    assert len(ids) == 5
    assert ids == {seen.body["client_business_id"] for seen in service.of("submit")}


@pytest.mark.looptime
@pytest.mark.parametrize(
    "place",
    [{"client_business_id": "a"}, {"metadata": {"client_business_id": "a"}}, {"extra": {"client_business_id": "a"}}],
)
async def test_an_id_of_the_caller_is_used_wherever_it_is_given(service: FakeService, place: dict[str, Any]) -> None:
    async with client_of(service) as client:
        assert (await client.submit({"prompt": "kite", **place})).client_business_id == "a"
    assert service.of("submit")[0].body["client_business_id"] == "a"


@pytest.mark.looptime
async def test_a_task_that_is_finished_already_when_taken_needs_no_look(service: FakeService) -> None:
    service.on_submit.append(answer(200, task("t", "completed")))
    service.on_submit.append(answer(200, task("u", "failed", fail_reason="no")))
    async with client_of(service, max_in_flight=1) as client:
        assert len((await client.generate("kite")).images) == 1
        with pytest.raises(Exception, match="no"):
            await client.generate("kite")
        assert client.statistics().in_flight == 0
        await client.submit("next")
    assert service.of("query") == []


@pytest.mark.looptime
async def test_a_task_the_service_answers_twice_is_one_entry_and_gives_its_second_permit_back(
    service: FakeService,
) -> None:
    service.on_submit.extend([answer(200, task("same")), answer(200, task("same"))])
    async with client_of(service, max_in_flight=2) as client:
        first, second = await client.submit("kite"), await client.submit("boat")
        assert first.task_id == second.task_id == "same"
        assert client.statistics().in_flight == 1
        await client.submit("next")
        assert client.statistics().in_flight == 2


@pytest.mark.looptime
async def test_max_in_flight_bounds_what_the_service_works_on_and_permits_come_back_at_the_end(
    service: FakeService,
) -> None:
    async with client_of(service, max_in_flight=3) as client:
        prompts = [f"kite {number}{' [fail]' if number % 2 else ''}" for number in range(8)]
        doing = asyncio.gather(*(client.generate(prompt) for prompt in prompts), return_exceptions=True)
        await asyncio.sleep(1)
        assert len(service.tasks) == 3
        assert client.statistics().waiting == 5
        outcomes = await doing
    assert [type(outcome) for outcome in outcomes] == [Generation, TaskFailed] * 4
    assert len(service.tasks) == 8


# ------------------------------------------------------------------------------------------- cancelled callers


async def cancelled(doing: asyncio.Task[Any]) -> None:
    """Cancel, and see that CancelledError comes out, whatever else might have."""
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert doing.cancelled()


@pytest.mark.looptime
async def test_cancelled_while_waiting_for_a_permit_nothing_is_sent(service: FakeService) -> None:
    service.service_time_s = 1_000
    async with client_of(service, max_in_flight=1, close_grace_s=0) as client:
        await client.submit("holds the permit")
        waiting = asyncio.create_task(client.submit(MINE))
        await turns()
        await cancelled(waiting)
        assert len(service.of("submit")) == 1
        assert client.unclaimed() == ()


@pytest.mark.looptime
async def test_cancelled_while_waiting_for_a_token_nothing_is_sent_and_the_permit_comes_back(
    service: FakeService,
) -> None:
    limits = RateLimits(submit_per_s=0.1, submit_burst=1, query_per_s=10, query_burst=10)
    async with client_of(service, max_in_flight=2, limits=limits) as client:
        await client.submit("takes the token")
        waiting = asyncio.create_task(client.submit(MINE))
        await asyncio.sleep(1)
        await cancelled(waiting)
        await client.submit("next")
        assert [seen.subject for seen in service.of("submit")] == ["takes the token", "next"]
        assert service.of("submit")[1].at_s == pytest.approx(10)
        assert client.unclaimed() == ()


@pytest.mark.looptime
@pytest.mark.parametrize("ticks", range(12))
async def test_cancelled_in_the_tick_in_which_its_permit_came_it_passes_the_permit_on(
    service: FakeService, ticks: int
) -> None:
    service.service_time_s = 1_000
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(service, max_in_flight=1, close_grace_s=0) as client:
        holder = asyncio.create_task(client.submit("holds the permit"))
        await hold.reached.wait()
        first = asyncio.create_task(client.submit("first"))
        second = asyncio.create_task(client.submit("second"))
        await turns()
        hold.answer(refusal(422))
        for _ in range(ticks):
            await asyncio.sleep(0)
        first.cancel()
        await turns(20)
        with pytest.raises(ContentRefused):
            await holder
        sent = [seen.subject for seen in service.of("submit")]
        if "first" in sent:  # too late to stop it: it has the permit, and is accounted for
            assert first.cancelled() is bool(client.unclaimed())
            second.cancel()
        else:
            assert first.cancelled()
            assert client.unclaimed() == ()
            assert (await second).task_id == "task_1"


@pytest.mark.looptime
async def test_cancelled_between_retries_nothing_is_unclaimed(service: FakeService) -> None:
    service.on_submit.append(refusal(429, retry_after="10"))
    async with client_of(service, max_in_flight=1) as client:
        waiting = asyncio.create_task(client.submit(MINE))
        await asyncio.sleep(1)
        await cancelled(waiting)
        assert client.unclaimed() == ()
        await client.submit("next")
        assert [seen.subject for seen in service.of("submit")] == ["kite", "next"]


AFTERWARDS: dict[str, tuple[Callable[[], Any], bool, bool]] = {
    "taken": (lambda: answer(200, task("t")), True, True),
    "taken-and-done": (lambda: answer(200, task("t", "completed")), True, False),
    "uncertain": (lost, True, False),
    "500": (lambda: refusal(500), True, False),
    "refused": (lambda: refusal(422), False, False),
    "not-sent": (not_sent, False, False),
    "429": (lambda: refusal(429), False, False),
}


@pytest.mark.looptime
@pytest.mark.parametrize(("outcome", "unclaimed", "watched"), AFTERWARDS.values(), ids=AFTERWARDS.keys())
async def test_cancelled_during_the_post_the_client_finishes_it_and_lists_it_if_a_task_may_exist(
    service: FakeService, outcome: Callable[[], Any], unclaimed: bool, watched: bool
) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(service, max_in_flight=1) as client:
        submitting = asyncio.create_task(client.submit(MINE))
        await hold.reached.wait()
        await cancelled(submitting)
        hold.answer(outcome())
        await turns()
        assert client.unclaimed() == (("mine",) if unclaimed else ())
        assert client.statistics().in_flight == watched
        assert len(service.of("submit")) == 1
        if watched:
            service.on_query.append(answer(200, task("t", "completed")))
        await client.submit("next")  # the permit came back, at the task's end at the latest
        assert client.statistics().submit.unanswered == 0


@pytest.mark.looptime
@pytest.mark.parametrize(("outcome", "unclaimed", "watched"), AFTERWARDS.values(), ids=AFTERWARDS.keys())
@pytest.mark.parametrize("ticks", range(8))
async def test_cancelled_in_any_tick_around_the_answer_s_arrival_a_caller_who_was_not_served_is_cancelled(
    service: FakeService, outcome: Callable[[], Any], unclaimed: bool, watched: bool, ticks: int
) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(service, max_in_flight=1) as client:
        submitting = asyncio.create_task(client.submit(MINE))
        await hold.reached.wait()
        hold.answer(outcome())
        for _ in range(ticks):
            await asyncio.sleep(0)
        served_already = submitting.done()
        submitting.cancel()
        await asyncio.wait([submitting])
        if served_already:
            assert not submitting.cancelled()
            submitting.exception()
            assert client.unclaimed() == ()
        else:
            assert submitting.cancelled()
            # A refused POST may have been on its way to another try: there was nothing to claim then.
            assert client.unclaimed() == (("mine",) if unclaimed else ())
        if watched:
            assert client.statistics().in_flight == 1
            service.on_query.append(answer(200, task("t", "completed")))
        await client.submit("next")


@pytest.mark.looptime
async def test_a_post_whose_caller_left_keeps_its_permit_and_gives_back_one_not_two(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(service, max_in_flight=1) as client:
        leaving = asyncio.create_task(client.submit(MINE))
        await hold.reached.wait()
        await cancelled(leaving)
        others = [asyncio.create_task(client.generate(f"other {number}")) for number in range(3)]
        await asyncio.sleep(1)
        assert len(service.of("submit")) == 1  # it may be a task at the service by now
        hold.answer(lost())
        for _ in range(100):
            await asyncio.sleep(0.5)
            assert client.statistics().in_flight <= 1
        await asyncio.gather(*others)


@pytest.mark.looptime
async def test_a_time_out_around_submit_is_a_time_out_and_nothing_else(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(service) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(3):
                await client.submit(MINE)
        assert type(caught.value) is TimeoutError
        assert now_s() == 3
        hold.answer(answer(200, task("t", "completed")))
        await turns()
        assert client.unclaimed() == ("mine",)


@pytest.mark.looptime
async def test_a_task_group_that_fails_takes_its_submissions_along_and_raises_only_its_own_error(
    service: FakeService,
) -> None:
    service.latency_s = 5
    async with client_of(service) as client:

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(client.submit(MINE))
                group.create_task(client.generate("other"))
                await asyncio.sleep(1)
                raise ZeroDivisionError

        with pytest.raises(ExceptionGroup) as caught:
            await work()
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        await asyncio.sleep(5)
        assert len(client.unclaimed()) == 2
        assert client.statistics().in_flight == 2


@pytest.mark.looptime
async def test_cancelled_during_an_upload_nothing_is_submitted(service: FakeService) -> None:
    service.latency_s = 5
    async with client_of(service) as client:
        doing = asyncio.create_task(client.submit({"prompt": "kite", "reference_images": [PNG, PNG + b"\0"]}))
        await until(lambda: len(service.of("upload")) == 2)
        await cancelled(doing)
        assert client.unclaimed() == ()
        assert service.of("submit") == []


@pytest.mark.looptime
async def test_only_the_latest_unclaimed_ids_are_kept(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toapis_async.engine.unclaimed.MOST_UNCLAIMED", 2)
    service.latency_s = 1
    async with client_of(service) as client:
        for business_id in "abc":
            doing = asyncio.create_task(client.submit({"prompt": "kite", "client_business_id": business_id}))
            await asyncio.sleep(0.5)
            await cancelled(doing)
        await asyncio.sleep(1)
        assert client.unclaimed() == ("b", "c")


# ------------------------------------------------------------------------------------------- closing


@pytest.mark.looptime
async def test_closing_refuses_those_who_wait_for_a_permit_or_a_token_with_their_ids(service: FakeService) -> None:
    limits = RateLimits(submit_per_s=0.01, submit_burst=1, query_per_s=10, query_burst=10)
    async with client_of(service, max_in_flight=2, limits=limits) as client:
        await client.submit("takes the token")
        waiting = [asyncio.create_task(client.submit({"prompt": "x", "client_business_id": i})) for i in "abc"]
        await turns()
        assert client.statistics().waiting == 3
    for doing, business_id in zip(waiting, "abc", strict=True):
        with pytest.raises(SessionClosed) as caught:
            await doing
        assert caught.value.client_business_ids == (business_id,)
        assert caught.value.client_business_id == business_id
    assert len(service.of("submit")) == 1


@pytest.mark.looptime
async def test_closing_waits_the_grace_for_a_post_under_way_and_keeps_its_task(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    client = await client_of(service, close_grace_s=10).start()
    submitting = asyncio.create_task(client.submit(MINE))
    await hold.reached.wait()
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(4)
    assert not closing.done()
    hold.answer(answer(200, task("t")))
    handle = await submitting
    await closing
    assert now_s() == 4
    with pytest.raises(SessionClosed) as caught:
        await handle
    assert caught.value.task_ids == ("t",)
    assert caught.value.client_business_ids == ("mine",)


@pytest.mark.looptime
@pytest.mark.parametrize("abandoned", [False, True])
async def test_closing_waits_no_longer_than_the_grace_and_says_that_nobody_knows(
    service: FakeService, abandoned: bool
) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    client = await client_of(service, close_grace_s=10).start()
    submitting = asyncio.create_task(client.submit(MINE))
    await hold.reached.wait()
    if abandoned:
        await cancelled(submitting)
    await client.aclose()
    assert now_s() == 10
    if abandoned:
        assert client.unclaimed() == ("mine",)
    else:
        with pytest.raises(SubmitUncertain) as caught:
            await submitting
        assert caught.value.client_business_id == "mine"
        assert isinstance(caught.value.__cause__, SessionClosed)


@pytest.mark.looptime
@pytest.mark.parametrize("ticks", range(8))
async def test_a_turn_granted_in_the_tick_in_which_the_client_closes_begins_no_post_afterwards(
    service: FakeService, ticks: int
) -> None:
    # Such a POST would begin after the close had looked for POSTs under way, and its task would never be watched.
    hold = Hold()
    service.on_submit.append(hold)
    client = await client_of(service, max_connections=1, close_grace_s=0).start()
    first = asyncio.create_task(client.submit("has the only connection"))
    await hold.reached.wait()
    waiting = asyncio.create_task(client.submit(MINE))
    await turns()
    hold.answer(refusal(422))  # grants the turn, some ticks later
    for _ in range(ticks):
        await asyncio.sleep(0)
    closing_at = len(service.of("submit"))
    await client.aclose()
    await asyncio.gather(first, return_exceptions=True)
    with pytest.raises((SessionClosed, SubmitUncertain)) as caught:
        await asyncio.wait_for(_to_the_end(waiting), 1)
    assert caught.value.client_business_id == "mine"
    if isinstance(caught.value, SessionClosed) and not caught.value.task_ids:
        assert len(service.of("submit")) == closing_at == 1
    assert client.statistics().in_flight == 0


async def _to_the_end(submitting: asyncio.Task[TaskHandle]) -> None:
    await (await submitting)


@pytest.mark.looptime
@pytest.mark.parametrize("ticks", range(1, 8))
async def test_a_close_that_is_cancelled_at_once_gives_no_caller_a_cancellation_it_did_not_ask_for(
    service: FakeService, ticks: int
) -> None:
    service.latency_s = 5
    client = await client_of(service, close_grace_s=100).start()
    submitting = asyncio.create_task(client.submit(MINE))
    closer = asyncio.create_task(client.aclose())
    for _ in range(ticks):
        await asyncio.sleep(0)
    closer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closer
    await client.aclose()
    with pytest.raises((SubmitUncertain, SessionClosed)):
        await submitting
    assert now_s() < 5


@pytest.mark.looptime
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("ticks", range(8))
async def test_a_post_cut_off_before_its_first_step_is_no_cancellation_of_its_caller(
    service: FakeService, ticks: int, patience: int
) -> None:
    # Turn granted, client closing, closer cancelled: all within a tick or two, in every order.
    hold = Hold()
    service.on_submit.append(hold)
    service.latency_s = 1
    client = await client_of(service, max_connections=1, close_grace_s=100).start()
    first = asyncio.create_task(client.submit("has the only connection"))
    await hold.reached.wait()
    waiting = asyncio.create_task(client.submit(MINE))
    await turns()
    hold.answer(refusal(422))
    for _ in range(ticks):
        await asyncio.sleep(0)
    closer = asyncio.create_task(client.aclose())
    for _ in range(patience):
        await asyncio.sleep(0)
    closer.cancel()
    await asyncio.gather(closer, first, return_exceptions=True)
    await client.aclose()
    with pytest.raises((SessionClosed, SubmitUncertain)):
        await asyncio.wait_for(_to_the_end(waiting), 50)
    assert not waiting.cancelled()
    assert client.statistics().in_flight == 0
