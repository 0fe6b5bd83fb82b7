"""Submissions whose answer was lost: looked up through a whole window, and only then, perhaps, sent again."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import ContentRefused, ServiceError, SessionClosed, Settings, SubmitUncertain, ToAPIs, WaitTimeout
from toapis_async.events import SubmitAgain, SubmitInDoubt, SubmitLost, TaskAccepted
from toapis_async.protocol.retry import look_up_gaps_s

from .kit import KEY, FakeService, Hold, answer, lost, not_sent, refusal, task

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.events import Event

pytestmark = pytest.mark.looptime
MINE = {"prompt": "kite", "client_business_id": "mine"}


def now_s() -> float:
    return asyncio.get_running_loop().time()


def client_of(**settings: Any) -> ToAPIs:
    return ToAPIs(KEY, settings=Settings(**{"poll_jitter": 0, **settings}))


def taken_but_lost(service: FakeService) -> Any:
    """The service takes the task, and its answer never comes."""

    class Step(Hold):
        async def wait(self) -> Any:
            service.accept(service.of("submit")[-1].body)
            return lost()

    return Step()


@pytest.mark.parametrize("window_s", [0.1, 1.0, 30.0, 3_600.0])
def test_look_ups_have_growing_gaps_and_one_of_them_ends_with_the_window(window_s: float) -> None:
    gaps = list(look_up_gaps_s(window_s))
    moments = [sum(gaps[: place + 1]) for place in range(len(gaps))]
    end = next(place for place, moment in enumerate(moments) if moment >= window_s * (1 - 1e-9))
    assert moments[end] == pytest.approx(window_s)
    assert moments[-1] == pytest.approx(2 * window_s)
    assert all(0 < a < b for a, b in pairwise(gaps[: end + 1]))
    assert 6 <= end <= 12


async def test_a_lost_answer_is_looked_up_and_its_task_adopted_as_if_the_answer_had_come(
    service: FakeService, events: list[Event]
) -> None:
    service.on_submit.append(taken_but_lost(service))
    async with client_of(on_event=events.append, max_in_flight=1) as client:
        handle = await client.submit(MINE)
        assert now_s() == pytest.approx(0.5)
        assert (handle.task_id, handle.client_business_id) == ("task_1", "mine")
        generation = await handle
        assert (generation.task_id, generation.client_business_id) == ("task_1", "mine")
        assert now_s() < 18  # seen like any other task
        counts = client.statistics()
        assert (counts.accepted, counts.adopted, counts.resubmitted, counts.uncertain) == (1, 1, 0, 0)
        await client.submit("next")  # its permit came back
    assert len(service.of("submit")) == 2
    kinds = [type(event) for event in events]
    assert kinds.index(SubmitInDoubt) < kinds.index(TaskAccepted)
    assert SubmitLost not in kinds


async def test_an_adopted_task_is_not_looked_at_again_too_soon(service: FakeService) -> None:
    service.on_submit.append(taken_but_lost(service))
    async with client_of() as client:
        await (await client.submit(MINE))
    looks = service.queries("mine")
    assert looks[0] == pytest.approx(0.5)
    assert all(later - earlier >= 5 for earlier, later in pairwise(looks))


@pytest.mark.parametrize("visible_after_s", [0.4, 3, 12, 29.5])
async def test_a_task_that_can_be_found_late_within_the_window_is_paid_once(
    service: FakeService, visible_after_s: float
) -> None:
    service.on_submit.append(taken_but_lost(service))
    service.visible_after_s = visible_after_s
    async with client_of() as client:
        await client.generate(MINE)
    assert len(service.of("submit")) == len(service.tasks) == 1


async def test_what_is_found_finished_ends_at_once(service: FakeService) -> None:
    service.on_submit.append(taken_but_lost(service))
    service.service_time_s = 0
    async with client_of(max_in_flight=1) as client:
        assert (await client.generate(MINE)).client_business_id == "mine"
        assert len(service.queries("mine")) == 1
        await client.submit("next")


async def test_not_found_through_the_whole_window_it_is_sent_again_under_the_same_id(
    service: FakeService, events: list[Event]
) -> None:
    service.on_submit.append(lost())
    async with client_of(on_event=events.append) as client:
        handle = await client.submit(MINE)
        assert now_s() == pytest.approx(30)
        assert handle.client_business_id == "mine"
        counts = client.statistics()
        assert (counts.adopted, counts.resubmitted, counts.uncertain) == (0, 1, 0)
    first, second = service.of("submit")
    assert first.body == second.body
    again = [event for event in events if isinstance(event, SubmitAgain)]
    assert [(event.client_business_id, event.times) for event in again] == [("mine", 1)]


async def test_it_is_sent_again_three_times_each_after_a_window_and_then_nobody_knows(
    service: FakeService, events: list[Event]
) -> None:
    service.on_submit.extend([lost(), refusal(502), answer(200, b"<html>"), lost()])
    async with client_of(on_event=events.append, max_in_flight=1) as client:
        with pytest.raises(SubmitUncertain) as caught:
            await client.submit(MINE)
        assert now_s() == pytest.approx(120)
        assert caught.value.client_business_id == "mine"
        assert [seen.at_s for seen in service.of("submit")] == pytest.approx([0, 30, 60, 90])
        counts = client.statistics()
        assert (counts.adopted, counts.resubmitted, counts.uncertain) == (0, 3, 1)
        await client.submit("next")
    assert [event.client_business_id for event in events if isinstance(event, SubmitLost)] == ["mine"]


async def test_asked_to_raise_it_looks_through_the_window_and_sends_nothing_again(service: FakeService) -> None:
    service.on_submit.append(lost())
    async with client_of(uncertain_submits="raise") as client:
        with pytest.raises(SubmitUncertain):
            await client.submit(MINE)
        assert now_s() == pytest.approx(30)
        assert len(service.of("submit")) == 1
        assert client.statistics().uncertain == 1


NO_EVIDENCE: dict[str, Callable[[], Any]] = {
    "500": lambda: refusal(500),
    "502-page": lambda: answer(502, b"<html><title>Bad gateway"),
    "404-page": lambda: answer(404, b"<html><title>Not here"),
    "401": lambda: refusal(401),
    "429": lambda: refusal(429, "rate_limit_exceeded", retry_after="1"),
    "lost": lost,
    "not-sent": not_sent,
    "unreadable": lambda: answer(200, b"<html>"),
    "another-task": lambda: answer(200, task("theirs", client_business_id="theirs")),
}


@pytest.mark.parametrize("step", NO_EVIDENCE.values(), ids=NO_EVIDENCE.keys())
async def test_look_ups_that_fail_are_no_evidence_and_nothing_is_sent_again(
    service: FakeService, step: Callable[[], Any]
) -> None:
    service.on_submit.append(lost())
    service.on_query.extend(step() for _ in range(50))
    async with client_of(max_in_flight=1) as client:
        with pytest.raises(SubmitUncertain) as caught:
            await client.submit(MINE)
        assert "no evidence" in "".join(caught.value.__notes__)
        assert now_s() >= 60  # a second window was waited for an answer
        assert len(service.of("submit")) == 1
        service.on_query.clear()
        await client.submit("next")


async def test_only_the_last_look_ups_count_when_earlier_ones_failed(service: FakeService) -> None:
    service.on_submit.append(taken_but_lost(service))
    service.on_query.extend([refusal(404, "task_not_found"), refusal(500), lost(), refusal(502)])
    async with client_of() as client:
        await client.generate(MINE)
    assert len(service.of("submit")) == 1


@pytest.mark.parametrize("code", [400, 409])
async def test_a_refusal_of_what_is_sent_again_is_looked_up_before_it_is_believed(
    service: FakeService, code: int
) -> None:
    # "This id was used already" may be the first sign that the first submission was accepted.
    service.on_submit.extend([taken_but_lost(service), refusal(code, "duplicate")])
    service.visible_after_s = 40
    async with client_of() as client:
        generation = await client.generate(MINE)
        assert client.statistics().adopted == 1
    assert generation.task_id == "task_1"
    assert len(service.of("submit")) == 2
    assert len(service.tasks) == 1


async def test_a_refusal_that_still_nobody_knows_a_task_of_is_raised(service: FakeService) -> None:
    service.on_submit.extend([lost(), refusal(422)])
    async with client_of(max_in_flight=1) as client:
        with pytest.raises(ContentRefused) as caught:
            await client.submit(MINE)
        assert now_s() == pytest.approx(60)
        assert caught.value.client_business_id == "mine"
        assert client.statistics().uncertain == 0
        await client.submit("next")


@pytest.mark.parametrize("step", [not_sent(), refusal(429, retry_after="7"), refusal(503, "rate_limit_unavailable")])
async def test_what_is_sent_again_and_certainly_not_taken_is_sent_once_more_after_another_window(
    service: FakeService, step: Any
) -> None:
    service.on_submit.extend([lost(), step])
    async with client_of() as client:
        await client.submit(MINE)
    assert len(service.of("submit")) == 3
    assert now_s() == pytest.approx(60)


# ------------------------------------------------------------------------------------------- callers who go


async def test_cancelled_while_it_is_looked_up_the_client_goes_on_and_lists_the_id(service: FakeService) -> None:
    service.on_submit.append(taken_but_lost(service))
    service.visible_after_s = 20
    async with client_of(max_in_flight=1) as client:
        submitting = asyncio.create_task(client.submit(MINE))
        await asyncio.sleep(5)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        assert client.unclaimed() == ("mine",)
        await asyncio.sleep(30)
        assert client.statistics().adopted == 1
        found = await client.find("mine")
        assert found is not None
        await found
        assert client.unclaimed() == ()
        await client.submit("next")
    assert len(service.tasks) == 2


@pytest.mark.parametrize("at_s", [0.5, 1.0, 29.999, 30.0, 30.001])
async def test_cancelled_around_any_step_it_is_a_cancellation_and_is_paid_at_most_once(
    service: FakeService, at_s: float
) -> None:
    service.on_submit.append(lost())
    async with client_of(max_in_flight=1) as client:
        submitting = asyncio.create_task(client.submit(MINE))
        await asyncio.sleep(at_s)
        submitting.cancel()
        await asyncio.wait([submitting])
        cancelled = submitting.cancelled()
        await asyncio.sleep(60)
        assert len(service.tasks) == 1  # settled as if the caller were there
        assert client.unclaimed() == (("mine",) if cancelled else ())


async def test_a_time_out_while_it_is_looked_up_is_a_wait_timeout_that_names_the_id(service: FakeService) -> None:
    service.on_submit.append(lost())
    async with client_of() as client:
        with pytest.raises(WaitTimeout) as caught:
            await client.generate(MINE, timeout_s=4)
        assert caught.value.client_business_id == "mine"
        assert client.unclaimed() == ("mine",)


async def test_an_abandoned_submission_that_is_refused_after_all_is_no_longer_listed(service: FakeService) -> None:
    service.on_submit.extend([lost(), refusal(422)])
    async with client_of() as client:
        submitting = asyncio.create_task(client.submit(MINE))
        await asyncio.sleep(1)
        submitting.cancel()
        await asyncio.wait([submitting])
        assert client.unclaimed() == ("mine",)
        await asyncio.sleep(70)
        assert client.unclaimed() == ()


# ------------------------------------------------------------------------------------------- closing


async def test_closing_waits_the_grace_for_a_look_up_and_then_nobody_knows(service: FakeService) -> None:
    service.on_submit.append(lost())
    client = await client_of(close_grace_s=5).start()
    submitting = asyncio.create_task(client.submit(MINE))
    await asyncio.sleep(1)
    await client.aclose()
    assert now_s() == pytest.approx(6)
    with pytest.raises(SubmitUncertain) as caught:
        await submitting
    assert isinstance(caught.value.__cause__, SessionClosed)
    assert client.statistics().uncertain == 1


async def test_what_is_found_within_the_grace_is_watched_until_the_end_of_the_session(service: FakeService) -> None:
    service.on_submit.append(taken_but_lost(service))
    service.visible_after_s = 2
    client = await client_of(close_grace_s=5).start()
    submitting = asyncio.create_task(client.submit(MINE))
    await asyncio.sleep(1)
    await client.aclose()
    handle = await submitting
    with pytest.raises(SessionClosed) as caught:
        await handle
    assert caught.value.task_ids == ("task_1",)


async def test_find_of_a_gateway_s_404_page_is_an_error_not_a_none(service: FakeService) -> None:
    service.on_query.append(answer(404, b"<html><title>nothing here</title>"))
    async with client_of() as client:
        with pytest.raises(ServiceError, match="nothing here"):
            await client.find("mine")
        assert await client.find("mine") is None
