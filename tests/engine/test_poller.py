"""The poller: never too early, never twice at once, and not put off by bad answers."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import (
    AuthenticationFailed,
    RateLimits,
    SessionClosed,
    Settings,
    TaskOverdue,
    TaskStatus,
    ToAPIs,
    ToAPIsError,
    VideoRequest,
)
from toapis_async.events import TaskEnded, Throttled
from toapis_async.sandbox import Fault

from .kit import KEY, FakeService, Hold, answer, refusal, served, task, turns, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.events import Event

A_LOT = RateLimits(submit_per_s=1e4, submit_burst=1e4, query_per_s=1e4, query_burst=1e4)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def client_of(service: FakeService, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, settings=Settings(**{"close_grace_s": 0, **settings}))


async def looked_at(service: FakeService) -> None:
    while not service.of("query"):  # noqa: ASYNC110  (virtual time)
        await asyncio.sleep(0.25)


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


# ------------------------------------------------------------------------------------------- the floor


@pytest.mark.looptime
@pytest.mark.parametrize("jitter", [0, 0.2, 1])
async def test_no_look_comes_sooner_than_the_floors_and_jitter_only_lengthens(
    service: FakeService, jitter: float
) -> None:
    service.service_time_s = 90
    settings: dict[str, Any] = {"first_poll_s": 3, "min_poll_interval_s": 7, "limits": A_LOT}
    async with client_of(service, poll_jitter=jitter, **settings) as client:
        handles = [await client.submit(f"kite {number}") for number in range(40)]
        await asyncio.gather(*handles)
    for handle in handles:
        looks = service.queries(handle.task_id)
        assert looks[0] >= 3
        assert min(gaps(looks)) >= 7 - 1e-9  # the difference of two moments is rounded
    if jitter:
        assert len({service.queries(handle.task_id)[0] for handle in handles}) > 1  # spread out


@pytest.mark.looptime
async def test_videos_are_polled_at_twice_the_interval_and_watched_twice_as_long(service: FakeService) -> None:
    service.service_time_s = 300
    boat = VideoRequest("a boat", model="some-video")
    async with client_of(service, first_poll_s=3, min_poll_interval_s=7, limits=A_LOT) as client:
        videos = [await client.submit(boat) for _ in range(20)]
        await asyncio.gather(*videos)
    polls = [service.queries(video.task_id) for video in videos]
    assert min(times[0] for times in polls) >= 3
    assert min(gap for times in polls for gap in gaps(times)) >= 14 - 1e-9
    service.service_time_s = 1e9
    begun_s = now_s()
    async with client_of(service, max_task_age_s=100) as client:
        with pytest.raises(TaskOverdue):
            await (await client.submit(boat))
    assert 200 <= now_s() - begun_s < 400


@pytest.mark.looptime
async def test_many_finished_tasks_do_not_teach_the_poller_to_come_too_early(service: FakeService) -> None:
    service.service_time_s = 1
    async with client_of(service, first_poll_s=3, min_poll_interval_s=7, limits=A_LOT) as client:
        for _ in range(30):
            handle = await client.submit("kite")
            taken_s = now_s()
            await handle
            assert service.queries(handle.task_id)[0] - taken_s >= 3
        service.service_time_s = 60
        handle = await client.submit("a slow one")
        await handle
        assert min(gaps(service.queries(handle.task_id))) >= 7


async def test_the_sandbox_sees_no_two_looks_closer_than_the_interval() -> None:
    async with served({"service_time_s": math.inf}, first_poll_s=0.02, min_poll_interval_s=0.04) as (sandbox, client):
        handles = [await client.submit(f"kite {number}") for number in range(5)]
        await until(lambda: all(len(sandbox.requests.gaps_s(handle.task_id)) >= 4 for handle in handles))
        for handle in handles:
            # Measured where the looks arrive: the way there varies by a little.
            assert min(sandbox.requests.gaps_s(handle.task_id)) >= 0.04 * 0.8


@pytest.mark.looptime
@pytest.mark.parametrize("failure", [refusal(500), answer(200, b"<html>")])
async def test_failed_looks_are_spaced_wider_never_closer(service: FakeService, failure: Any) -> None:
    service.service_time_s = 1
    service.on_query.extend([failure] * 6)
    async with client_of(service, first_poll_s=3, min_poll_interval_s=7) as client:
        await (await client.submit("kite"))
    looks = service.queries("task_1")
    assert looks[0] >= 3
    assert min(gaps(looks)) >= 7
    assert max(gaps(looks)) > 14


@pytest.mark.looptime
async def test_a_task_attached_is_looked_at_at_once_and_then_by_the_floor(service: FakeService) -> None:
    service.on_query.extend([answer(200, task("t", "in_progress"))] * 3)
    service.on_query.append(answer(200, task("t", "completed")))
    async with client_of(service, min_poll_interval_s=7) as client:
        await client.attach("t")
    looks = service.queries("t")
    assert looks[0] == 0
    assert min(gaps(looks)) >= 7


# ------------------------------------------------------------------------------------------- one look at a time


@pytest.mark.looptime
async def test_two_looks_at_one_task_never_overlap_however_slow_the_answer(service: FakeService) -> None:
    service.latency_s = 50
    service.service_time_s = 200
    async with client_of(service, first_poll_s=1, min_poll_interval_s=1) as client:
        handle = await client.submit("kite")
        await asyncio.gather(handle.result(), client.attach(handle.task_id).result())
    looks = service.queries(handle.task_id)
    assert len(looks) >= 3
    assert min(gaps(looks)) >= 51
    assert service.most_querying == 1


@pytest.mark.looptime
async def test_looks_at_different_tasks_run_at_once_but_within_the_connections(service: FakeService) -> None:
    service.latency_s = 5
    service.service_time_s = 1
    async with client_of(service, max_connections=4, limits=A_LOT, poll_jitter=0) as client:
        await asyncio.gather(*(client.generate(f"kite {number}") for number in range(12)))
    assert 2 <= service.most_querying <= 4


@pytest.mark.looptime
async def test_the_query_bucket_paces_the_looks(service: FakeService) -> None:
    service.service_time_s = 1
    limits = RateLimits(submit_per_s=1e4, submit_burst=1e4, query_per_s=2, query_burst=4)
    async with client_of(service, limits=limits, poll_jitter=0, first_poll_s=5) as client:
        await asyncio.gather(*(client.generate(f"kite {number}") for number in range(20)))
    looks = sorted(seen.at_s for seen in service.of("query"))
    for first, fifth in zip(looks, looks[5:], strict=False):
        assert fifth - first > 0.4  # never more than the burst in a moment
    assert looks[-1] - looks[0] >= (20 - 4) / 2 - 0.5


@pytest.mark.looptime
async def test_one_worker_waits_for_a_turn_however_many_polls_are_due(service: FakeService) -> None:
    service.service_time_s = 1e9
    limits = RateLimits(submit_per_s=1e4, submit_burst=1e4, query_per_s=0.5, query_burst=1)
    async with client_of(service, limits=limits, poll_jitter=0, first_poll_s=5) as client:
        for number in range(30):
            await client.submit(f"kite {number}")
        idle = len(asyncio.all_tasks())
        await asyncio.sleep(20)
        assert 4 <= len(service.of("query")) < 30
        assert len(asyncio.all_tasks()) == idle + 1


# ------------------------------------------------------------------------------------------- bad answers


BAD: dict[str, Callable[[], Any]] = {
    "500": lambda: refusal(500),
    "401": lambda: refusal(401),
    "400": lambda: refusal(400, "invalid_request"),
    "302": lambda: answer(302, b""),
    "html": lambda: answer(200, b"<html><title>hello</title>"),
    "truncated": lambda: answer(200, b'{"id": "task_1", "sta'),
    "odd-result": lambda: answer(200, {"id": "task_1", "status": "completed", "result": {"data": [{"url": 7}]}}),
    "lost": lambda: ToAPIsError("anything of ours"),
    "429": lambda: refusal(429, retry_after="3"),
    "503": lambda: answer(503, b"<html>", retry_after="3"),
}


@pytest.mark.looptime
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_bad_answer_to_a_look_never_fails_the_task(service: FakeService, bad: Callable[[], Any]) -> None:
    service.on_query.extend([bad(), answer(200, task("task_1", "in_progress")), bad(), bad()])
    service.service_time_s = 1
    async with client_of(service) as client:
        generation = await client.generate("kite")
        assert generation.images
        assert client.statistics().query.unanswered == 0
    assert len(service.of("query")) == 5


FAULTS = [
    Fault.ERROR_500,
    Fault.HTML_502,
    Fault.TRUNCATED_JSON,
    Fault.UNAUTHORIZED,
    Fault.DROPPED,
    Fault.DROPPED_RESET,
    Fault.LOST_ANSWER,
    Fault.BREAKS_OFF,
    Fault.NOT_FOUND,
    Fault.NOT_EXIST,
    Fault.REDIRECT,
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_service_at_a_look_never_fails_the_task(fault: Fault) -> None:
    async with served(vanish_grace_s=5) as (sandbox, client):
        sandbox.faults.script("query", fault)
        generation = await client.generate("kite")
        assert generation.images
        assert sandbox.faults.pending("query") == 0
        assert sandbox.requests.count("query") >= 2


@pytest.mark.looptime
async def test_a_refused_look_is_a_warning_in_the_log_and_a_gateway_s_fault_is_not(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "toapis_async")
    service.on_query.extend([refusal(502), refusal(401, message="your key was disabled")])
    async with client_of(service) as client:
        await client.generate("kite")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "your key was disabled" in caplog.text


# ------------------------------------------------------------------------------------------- pauses and priorities


@pytest.mark.looptime
@pytest.mark.parametrize("limited", [refusal(429, retry_after="60"), answer(503, b"", retry_after="60")])
async def test_retry_after_on_a_query_pauses_all_queries_but_no_submission(
    service: FakeService, events: list[Event], limited: Any
) -> None:
    service.service_time_s = 1
    service.on_query.append(limited)
    async with client_of(service, on_event=events.append, limits=A_LOT) as client:
        handles = [await client.submit(f"kite {number}") for number in range(5)]
        await looked_at(service)
        # Those under way with it are on their way already; what counts is what begins afterwards.
        await turns()
        paused_s = now_s()
        began = len(service.of("query"))
        looking_up = asyncio.create_task(client.find("nobody's"))
        await client.submit("another")
        assert now_s() == paused_s
        await asyncio.gather(*handles, looking_up)
    assert all(seen.at_s >= paused_s + 60 for seen in service.of("query")[began:])
    throttled = [event for event in events if isinstance(event, Throttled)]
    assert [event.category for event in throttled] == ["query"]
    assert 60 <= throttled[0].pause_s <= 70


@pytest.mark.looptime
async def test_status_and_find_go_before_polls_that_wait(service: FakeService) -> None:
    limits = RateLimits(submit_per_s=1e4, submit_burst=1e4, query_per_s=1, query_burst=1)
    service.service_time_s = 1e6
    async with client_of(service, limits=limits, first_poll_s=5, poll_jitter=0) as client:
        for number in range(30):
            await client.submit(f"kite {number}")
        await asyncio.sleep(10)  # the looks queue for their tokens now
        before = len(service.of("query"))
        await asyncio.gather(client.status("task_1"), client.find("task_2"))
        assert [seen.subject for seen in service.of("query")[before:]] == ["task_1", "task_2"]


@pytest.mark.looptime
async def test_a_status_asked_by_hand_does_not_disturb_the_watch(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        snapshot = await client.status(handle.task_id)
        assert snapshot.status is TaskStatus.IN_PROGRESS
        assert handle.status is TaskStatus.QUEUED  # one question, no watching
        await handle


# ------------------------------------------------------------------------------------------- the end of patience


@pytest.mark.looptime
async def test_a_task_too_old_is_overdue_its_permit_comes_back_and_it_is_no_longer_asked_for(
    service: FakeService, events: list[Event]
) -> None:
    service.service_time_s = 1e9
    async with client_of(service, max_task_age_s=300, max_in_flight=1, on_event=events.append) as client:
        handle = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        with pytest.raises(TaskOverdue, match="unfinished after 300 s") as caught:
            await handle
        assert 300 <= now_s() <= 301
        assert (caught.value.task_id, caught.value.client_business_id) == (handle.task_id, "mine")
        ended = [event for event in events if isinstance(event, TaskEnded)]
        assert [(event.status, event.reason) for event in ended] == [(None, "TaskOverdue")]
        asked = len(service.of("query"))
        await client.submit("next")
        await asyncio.sleep(100)
        assert len(service.queries(handle.task_id)) == asked
        assert client.statistics().failed == 0


@pytest.mark.looptime
async def test_overdue_is_told_in_time_also_while_every_look_fails(service: FakeService) -> None:
    service.on_query.extend(refusal(500) for _ in range(1_000))
    async with client_of(service, max_task_age_s=300) as client:
        with pytest.raises(TaskOverdue):
            await client.generate("kite")
        assert 300 <= now_s() <= 301


@pytest.mark.looptime
async def test_a_first_look_later_than_the_greatest_age_never_happens(service: FakeService) -> None:
    async with client_of(service, max_task_age_s=2, first_poll_s=5) as client:
        with pytest.raises(TaskOverdue):
            await client.generate("kite")
        assert service.of("query") == []


@pytest.mark.looptime
async def test_a_bug_that_ends_the_poller_ends_every_watch_loudly_and_nobody_waits_for_ever(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.on_query.append(ZeroDivisionError("a bug"))
    client = await client_of(service).start()
    handle = await client.submit("kite")
    with pytest.raises(SessionClosed):
        await handle
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)
    with pytest.raises(SessionClosed):  # and neither do those who come later
        await asyncio.wait_for(client.generate("kite"), 100)
    await client.aclose()


@pytest.mark.looptime
async def test_a_nearer_look_is_not_kept_waiting_by_a_farther_one(service: FakeService) -> None:
    service.service_time_s = 1
    async with client_of(service, first_poll_s=1_000) as client:
        await client.submit("kite")
        await asyncio.sleep(10)
        service.on_query.append(answer(200, task("elsewhere", "completed")))
        await client.attach("elsewhere")
        assert now_s() < 1_000


@pytest.mark.looptime
async def test_a_look_under_way_at_closing_is_given_up(service: FakeService) -> None:
    hold = Hold()
    service.on_query.append(hold)
    async with client_of(service) as client:
        handle = client.attach("t")
        await hold.reached.wait()
    with pytest.raises(SessionClosed):
        await handle
    assert service.querying == 0


@pytest.mark.looptime
async def test_a_status_asked_while_queries_are_paused_is_refused_at_closing(service: FakeService) -> None:
    service.on_query.append(refusal(429, retry_after="200"))
    async with client_of(service) as client:
        with pytest.raises(ToAPIsError):
            await client.status("t")
        waiting = asyncio.create_task(client.status("t"))
        await turns()
    with pytest.raises(SessionClosed):
        await waiting
    assert len(service.of("query")) == 1


@pytest.mark.looptime
async def test_cancelling_a_status_gives_its_turn_back(service: FakeService) -> None:
    hold = Hold()
    service.on_query.append(hold)
    async with client_of(service, max_connections=1) as client:
        asking = asyncio.create_task(client.status("t"))
        await hold.reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert client.statistics().query.unanswered == 0
        service.on_query.append(refusal(401))
        with pytest.raises(AuthenticationFailed):
            await client.status("t")


# ------------------------------------------------------------------------------------------- what the headers tell


@pytest.mark.looptime
async def test_tokens_that_others_took_are_missed_as_soon_as_a_header_tells(service: FakeService) -> None:
    service.on_query.append(answer(200, task("t"), x_ratelimit_remaining="0", x_ratelimit_category="async_query"))
    limits = RateLimits(submit_per_s=1, submit_burst=10, query_per_s=0.1, query_burst=10)
    async with client_of(service, limits=limits) as client:
        await client.status("t")
        for _ in range(3):
            await client.find("nobody's")
        assert now_s() >= 10  # without the header, all ten would have been there


@pytest.mark.looptime
async def test_a_header_of_the_other_category_says_nothing_of_queries(service: FakeService) -> None:
    service.on_query.append(answer(200, task("t"), x_ratelimit_remaining="0", x_ratelimit_category="async_submit"))
    limits = RateLimits(submit_per_s=1, submit_burst=10, query_per_s=0.1, query_burst=10)
    async with client_of(service, limits=limits) as client:
        await client.status("t")
        for _ in range(3):
            await client.find("nobody's")
        assert now_s() == 0


@pytest.mark.looptime
async def test_headers_that_make_no_sense_change_nothing(service: FakeService) -> None:
    for odd in ("", "many", "-5", "nan", "1e999", "1_000"):
        service.on_query.append(answer(200, task("t"), x_ratelimit_remaining=odd, x_ratelimit_limit=odd))
    async with client_of(service) as client:
        before = client.statistics().query
        for _ in range(6):
            await client.status("t")
        after = client.statistics().query
        assert (after.capacity, after.refill_per_s, after.throttled) == (before.capacity, before.refill_per_s, 0)
        assert now_s() == 0
