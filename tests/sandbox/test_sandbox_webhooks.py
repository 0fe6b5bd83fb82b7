"""Events of the sandbox: signed by the published recipe, at least once, to receivers the service would take."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from toapis_async.sandbox import Clock as Clock_
from toapis_async.sandbox import Fault, Sandbox
from toapis_async.sandbox import webhooks as module

from .kit import HTTPS, SECRET, Caller, Clock, Receiver, signatures, until

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp
    from aiohttp import web


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once: their number and order matter here, their waits are a table."""
    monkeypatch.setattr(module, "RETRIES_S", (0.0,) * len(module.RETRIES_S))


# ------------------------------------------------------------------------------------------------ the event


async def test_a_completed_task_is_sent_as_documented(
    pushing: Sandbox, receiver: Receiver, caller: Caller, clock: Clock
) -> None:
    task_id = await caller.task("kite", client_business_id="mine", n=2)
    clock.advance(7)
    pushing.finish(task_id)
    await until(lambda: receiver.seen)
    ((path, headers, raw),) = receiver.seen
    body = json.loads(raw)
    assert path == "/hook"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "ToAPIs-Webhook/1.0"
    assert headers["X-ToAPIs-Webhook-Id"] == body["id"]
    assert headers["X-ToAPIs-Webhook-Timestamp"] == str(int(clock.now))
    assert headers["X-ToAPIs-Webhook-Signature"] == signatures(raw, headers, SECRET)
    assert "Authorization" not in headers
    links = [item["url"] for item in (await caller.query(task_id)).body["result"]["data"]]
    assert len(links) == 2
    assert body == {
        "id": body["id"],
        "type": "generation.completed",
        "api_version": "v1",
        "created_at": int(clock.now),
        "data": {
            "task_id": task_id,
            "client_business_id": "mine",
            "task_type": "image",
            "model": "gpt-image-2-vip",
            "status": "SUCCESS",
            "progress": "100%",
            "result": {"type": "image", "data": [{"url": url} for url in links]},
            "error": None,
            "submitted_at": int(clock.now) - 7,
            "finished_at": int(clock.now),
        },
    }
    assert body["id"].startswith("evt_")


async def test_a_failed_task_is_sent_with_its_reason(pushing: Sandbox, receiver: Receiver, caller: Caller) -> None:
    task_id = await caller.task("kite")
    pushing.fail(task_id, "generation_failed", "no luck")
    await until(lambda: receiver.seen)
    (body,) = receiver.bodies
    assert body["type"] == "generation.failed"
    data = body["data"]
    assert (data["status"], data["progress"], data["result"]) == ("FAILURE", "100%", None)
    assert data["error"] == {"code": "generation_failed", "message": "no luck"}
    assert "client_business_id" not in data


async def test_an_event_of_a_failure_comes_after_the_refund_and_both_kinds_carry_their_bill(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    clock = Clock_()
    async with Sandbox(
        service_time_s=10, settle_after_s=30, billing="always", pictures=False, clock=clock, webhook_url=receiver.url,
        webhook_secret=SECRET,
    ) as sandbox:  # fmt: skip
        caller = Caller(session, sandbox)
        await caller.task("[fail]")
        await caller.video()
        sandbox.advance(11)
        await until(lambda: receiver.seen)
        sandbox.advance(30)
        await until(lambda: len(receiver.seen) == 2)
    done, failed = (body["data"] for body in receiver.bodies)
    assert (done["task_type"], done["status"], done["billing"]) == ("video", "SUCCESS", {"status": "pending"})
    assert (failed["task_type"], failed["status"]) == ("image", "FAILURE")
    assert failed["billing"] == {"status": "refunded", "credits": "0", "cost_usd": "0"}


async def test_an_event_is_sent_in_time_without_any_query(receiver: Receiver, session: aiohttp.ClientSession) -> None:
    async with Sandbox(service_time_s=0.02, pictures=False, webhook_url=receiver.url, webhook_secret=SECRET) as sandbox:
        task_id = await Caller(session, sandbox).task("kite")
        await until(lambda: receiver.seen)
        assert receiver.bodies[0]["data"]["task_id"] == task_id
        await until(lambda: sandbox.webhooks.log)
        ((attempt),) = sandbox.webhooks.log
        assert (attempt.task_id, attempt.type, attempt.number, attempt.status) == (
            task_id, "generation.completed", 1, 200,
        )  # fmt: skip
        assert sandbox.requests.count("query") == 0


async def test_an_event_can_come_before_the_answer_to_its_submission(
    receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    async with Sandbox(service_time_s=0, pictures=False, webhook_url=receiver.url, webhook_secret=SECRET) as sandbox:
        sandbox.faults.script("submit", Fault.SLOW.lasting(30))
        submitting = asyncio.ensure_future(Caller(session, sandbox).submit("kite"))
        await until(lambda: receiver.seen)
        assert not submitting.done()
        submitting.cancel()
        await asyncio.wait([submitting])


async def test_while_one_secret_replaces_another_both_sign(
    sandbox: Sandbox, receiver: Receiver, caller: Caller
) -> None:
    sandbox.webhooks.configure(receiver.url, ("new", "old"))
    sandbox.finish(await caller.task())
    await until(lambda: receiver.seen)
    _, headers, raw = receiver.seen[0]
    assert headers["X-ToAPIs-Webhook-Signature"] == signatures(raw, headers, "new", "old")


async def test_the_consoles_test_event_has_no_model_a_message_and_no_times(
    pushing: Sandbox, receiver: Receiver
) -> None:
    receiver.answers = [500]
    assert await pushing.webhooks.send_test() == 500
    assert await pushing.webhooks.send_test() == 200
    first, second = receiver.bodies
    assert first["type"] == "endpoint.test"
    assert first["id"] != second["id"]
    assert "model" not in first["data"]
    assert first["data"]["task_id"] == "endpoint_test"
    assert first["data"]["result"] == {"message": "ToAPIs webhook endpoint test"}
    assert (first["data"]["submitted_at"], first["data"]["finished_at"]) == (0, 0)


# ------------------------------------------------------------------------------------------------ at least once


def test_the_ladder_is_the_documented_one() -> None:
    assert module.RETRIES_S == (10.0, 30.0, 120.0, 600.0, 3_600.0, 21_600.0, 86_400.0)
    assert module.TIMEOUT_S == 10.0


@pytest.mark.usefixtures("quick_retries")
async def test_an_event_is_sent_until_2xx_with_the_same_id_and_a_fresh_timestamp(
    pushing: Sandbox, receiver: Receiver, caller: Caller, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answers = [500, 404, 307, 401, 204]
    handle = receiver.handle

    async def later_each_time(request: web.Request) -> web.Response:
        clock.advance(100)
        return await handle(request)

    monkeypatch.setattr(Receiver, "handle", later_each_time)
    pushing.finish(await caller.task())
    await until(lambda: len(pushing.webhooks.log) == 5)
    assert [attempt.status for attempt in pushing.webhooks.log] == [500, 404, 307, 401, 204]
    assert [attempt.number for attempt in pushing.webhooks.log] == [1, 2, 3, 4, 5]
    assert len({headers["X-ToAPIs-Webhook-Id"] for _, headers, _ in receiver.seen}) == 1
    assert len({raw for _, _, raw in receiver.seen}) == 1
    assert {path for path, _, _ in receiver.seen} == {"/hook"}  # no redirect is followed
    for _, headers, raw in receiver.seen:
        assert headers["X-ToAPIs-Webhook-Signature"] == signatures(raw, headers, SECRET)


@pytest.mark.usefixtures("quick_retries")
async def test_after_the_ladder_an_event_is_given_up(pushing: Sandbox, receiver: Receiver, caller: Caller) -> None:
    receiver.answers = [503] * 50
    pushing.finish(await caller.task())
    await until(lambda: not pushing.webhooks._deliveries)
    assert [attempt.status for attempt in pushing.webhooks.log] == [503] * 8


@pytest.mark.usefixtures("quick_retries")
async def test_a_receiver_that_is_not_there_or_too_slow_counts_as_no_answer(
    pushing: Sandbox, receiver: Receiver, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.silent = asyncio.Event()
    monkeypatch.setattr(module, "TIMEOUT_S", 0.01)
    await pushing.webhooks._session.close()  # type: ignore[union-attr]
    pushing.webhooks.start()
    pushing.finish(await caller.task())
    await until(lambda: len(pushing.webhooks.log) == 2)
    receiver.silent.set()
    assert [attempt.status for attempt in pushing.webhooks.log][:2] == [None, None]


@pytest.mark.looptime
async def test_waits_between_attempts_are_the_ladder_divided_by_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    sandbox = Sandbox(speed=10, webhook_url=HTTPS, webhook_secret=SECRET, clock=loop.time, pictures=False)
    posted: list[float] = []

    async def post(*_: object) -> int:
        posted.append(loop.time())
        return 500

    monkeypatch.setattr(sandbox.webhooks, "_post", post)
    await sandbox.webhooks._send(URL(HTTPS), {"id": "evt_1", "type": "x"}, "task_1")
    assert posted == pytest.approx([0, 1, 4, 16, 76, 436, 2_596, 11_236])


# ------------------------------------------------------------------------------------------------ on demand


async def test_events_can_be_lost_doubled_or_late(pushing: Sandbox, receiver: Receiver, caller: Caller) -> None:
    first, second, third, fourth = [await caller.task(f"kite {number}") for number in range(4)]
    pushing.faults.script("event", Fault.DROPPED, about=first)
    pushing.faults.script("event", Fault.DUPLICATED, about=second)
    pushing.faults.script("event", Fault.SLOW.lasting(1e6), about=third)
    for task_id in (first, second, third):
        pushing.finish(task_id)
    await until(lambda: len(receiver.seen) == 2)
    pushing.finish(fourth)
    await until(lambda: len(receiver.seen) == 3)
    assert [body["data"]["task_id"] for body in receiver.bodies] == [second, second, fourth]
    assert {fault for kind, fault in pushing.faults.drawn if kind == "event"} == {
        Fault.DROPPED, Fault.DUPLICATED, Fault.SLOW,
    }  # fmt: skip
    assert receiver.bodies[0] == receiver.bodies[1]


@pytest.mark.parametrize("fault", [Fault.HTML_502, Fault.LOST_ANSWER, Fault.TASK_FAILS])
def test_what_means_nothing_at_an_event_is_refused(fault: Fault) -> None:
    with pytest.raises(ValueError, match="means nothing at 'event', which may be dropped, duplicated, slow"):
        Sandbox().faults.script("event", fault)
    with pytest.raises(ValueError, match="only at event"):
        Sandbox().faults.script("query", Fault.DUPLICATED)


async def test_a_task_that_vanished_has_no_event(pushing: Sandbox, receiver: Receiver, caller: Caller) -> None:
    pushing.faults.script("submit", Fault.TASK_VANISHES)
    vanished, other = await caller.task("one"), await caller.task("two")
    pushing.finish(vanished)
    pushing.finish(other)
    await until(lambda: receiver.seen)
    assert [body["data"]["task_id"] for body in receiver.bodies] == [other]


# ------------------------------------------------------------------------------------------------ lifetime


async def test_closing_drops_what_is_on_its_way_and_waits_until_it_is_gone(
    receiver: Receiver, session: aiohttp.ClientSession, no_leftovers: None
) -> None:
    receiver.silent = asyncio.Event()
    async with Sandbox(
        service_time_s=lambda job: 0 if job.prompt == "now" else 1e9,
        pictures=False,
        webhook_url=receiver.url,
        webhook_secret=SECRET,
    ) as sandbox:
        for prompt in ("now", "never", "now"):
            await Caller(session, sandbox).task(prompt)
        await until(lambda: len(receiver.seen) == 2)
    assert not sandbox.webhooks._deliveries
    receiver.silent.set()


async def test_a_folder_that_is_opened_again_still_owes_its_events(
    tmp_path: Path, receiver: Receiver, session: aiohttp.ClientSession, clock: Clock
) -> None:
    options: dict[str, Any] = {
        "state_dir": tmp_path, "clock": clock, "service_time_s": 10, "pictures": False,
        "webhook_url": receiver.url, "webhook_secret": SECRET,
    }  # fmt: skip
    async with Sandbox(**options) as sandbox:
        task_id = await Caller(session, sandbox).task("kite")
        other = await Caller(session, sandbox).task("other", callback_url=receiver.url + "/other")
    async with Sandbox(**options) as again:
        again.finish(task_id)
        again.finish(other)
        await until(lambda: len(receiver.seen) == 2)
    assert {body["data"]["task_id"] for body in receiver.bodies} == {task_id, other}
    async with Sandbox(**{**options, "webhook_secret": None}):
        pass
