"""Faults one by one: what the caller sees, and whether the submission was accepted."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from toapis_async.sandbox import Fault, Sandbox, Step
from toapis_async.sandbox.faults import HTML_PAGES, Kind

from .kit import Caller, Clock, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TITLES = {
    502: "502 Bad Gateway",
    503: "503 Service Temporarily Unavailable",
    504: "504 Gateway Time-out",
    524: "toapis.com | 524: A timeout occurred",
}
RESULT_SHAPES = {
    Fault.RESULT_TOP_URL: ("url", False),
    Fault.RESULT_TOP_DATA: ("data", True),
    Fault.RESULT_OUTPUT_STRINGS: ("output", False),
    Fault.RESULT_OUTPUT_OBJECTS: ("output", True),
    Fault.RESULT_OUTPUTS_STRINGS: ("outputs", False),
    Fault.RESULT_OUTPUTS_OBJECTS: ("outputs", True),
    Fault.RESULT_IMAGES_STRINGS: ("images", False),
    Fault.RESULT_IMAGES_OBJECTS: ("images", True),
}


@pytest.fixture
async def fast(clock: Clock) -> AsyncIterator[Sandbox]:
    """Its clock stands still and its tasks take no time; what really waits is a thousandth as long."""
    async with Sandbox(clock=clock, service_time_s=0, speed=1_000, pictures=False) as sandbox:
        yield sandbox


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("accepted", [False, True])
async def test_an_answer_is_lost_before_or_after_acceptance(
    sandbox: Sandbox, caller: Caller, reset: bool, accepted: bool
) -> None:
    faults = {
        (False, False): Fault.DROPPED,
        (False, True): Fault.DROPPED_RESET,
        (True, False): Fault.LOST_ANSWER,
        (True, True): Fault.LOST_ANSWER_RESET,
    }
    sandbox.faults.script("submit", faults[accepted, reset])
    expected = aiohttp.ClientOSError if reset else aiohttp.ServerDisconnectedError
    with pytest.raises(expected):
        await caller.submit(client_business_id="order")

    assert len(sandbox.ledger.by_client_business_id("order")) == accepted
    assert sandbox.requests.unanswered == {"submit": 1}
    assert (await caller.submit()).status == 200


@pytest.mark.parametrize("fault", list(HTML_PAGES))
async def test_a_gateway_answers_with_a_large_page_of_its_own(sandbox: Sandbox, caller: Caller, fault: Fault) -> None:
    sandbox.faults.script("submit", fault)
    reply = await caller.submit()

    status, accepted = HTML_PAGES[fault]
    assert reply.status == status
    assert reply.headers["Content-Type"] == "text/html"
    assert f"<title>{TITLES[status]}</title>".encode() in reply.raw
    assert len(reply.raw) > 200_000
    assert len(sandbox.ledger) == accepted


@pytest.mark.parametrize(("fault", "accepted"), [(Fault.ERROR_500, 0), (Fault.ERROR_500_ACCEPTED, 1)])
async def test_a_server_error_comes_accepted_or_not(
    sandbox: Sandbox, caller: Caller, fault: Fault, accepted: int
) -> None:
    sandbox.faults.script("submit", fault)
    reply = await caller.submit()

    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert len(sandbox.ledger) == accepted


async def test_the_limiter_is_down_and_nothing_was_accepted(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", Fault.LIMITER_DOWN)
    reply = await caller.submit()

    assert reply.status == 503
    assert reply.error.keys() == {"code", "message"}
    assert reply.error["code"] == "rate_limit_unavailable"
    assert len(sandbox.ledger) == 0


async def test_a_429_on_demand_costs_no_allowance(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", Fault.RATE_LIMITED, Fault.RATE_LIMITED.lasting(7))
    first, second, third = [await caller.submit() for _ in range(3)]

    assert (first.status, first.headers["Retry-After"]) == (429, "1")
    assert (second.status, second.headers["Retry-After"]) == (429, "7")
    assert first.headers["X-RateLimit-Category"] == "async_submit"
    assert first.headers["X-RateLimit-Remaining"] == "0"
    assert third.headers["X-RateLimit-Remaining"] == "49"
    assert sandbox.requests.rate_limited == 2


async def test_a_429_on_demand_outside_the_buckets_has_no_category(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("balance", Fault.RATE_LIMITED)
    reply = await caller.call("GET", "/v1/balance")

    assert reply.status == 429
    assert "X-RateLimit-Category" not in reply.headers
    assert reply.headers["Retry-After"] == "1"


async def test_truncated_json_is_a_whole_answer_with_half_a_body(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", Fault.TRUNCATED_JSON)
    reply = await caller.submit()

    assert reply.status == 200
    assert int(reply.headers["Content-Length"]) == len(reply.raw) > 20
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.raw)
    assert len(sandbox.ledger) == 1


@pytest.mark.parametrize("step", [Fault.SLOW, Fault.SLOW.lasting(30)])
async def test_a_slow_answer_comes_late_and_was_accepted_at_once(
    fast: Sandbox, session: aiohttp.ClientSession, step: Step
) -> None:
    fast.faults.script("submit", step)
    caller = Caller(session, fast)
    waiting = asyncio.create_task(caller.submit())
    await until(lambda: fast.ledger)
    assert not waiting.done()
    async with asyncio.timeout(60):
        assert (await waiting).status == 200


async def test_a_redirect_of_the_api_leads_to_where_following_it_shows(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", Fault.REDIRECT)
    reply = await caller.submit()

    assert reply.status == 307
    assert reply.headers["Location"] == f"{sandbox.base_url}/redirected"
    assert len(sandbox.ledger) == 0
    assert (await caller.call("GET", reply.headers["Location"])).status == 404
    assert sandbox.requests.count("unknown") == 1


@pytest.mark.parametrize("prompt", ["kite", "[fail]"])
async def test_a_task_may_be_finished_when_it_is_accepted(sandbox: Sandbox, caller: Caller, prompt: str) -> None:
    sandbox.faults.script("submit", Fault.FINISHED_AT_ONCE)
    answer = (await caller.submit(prompt)).body
    assert answer == (await caller.query(answer["id"])).body
    assert answer["status"] == ("failed" if prompt == "[fail]" else "completed")


async def test_a_redirected_file_is_really_there(fast: Sandbox, session: aiohttp.ClientSession) -> None:
    caller = Caller(session, fast)
    url = f"{fast.files_url}/generated/{await caller.task()}-0.png"
    fast.faults.script("file", Fault.REDIRECT)
    reply = await caller.file(url)

    assert (reply.status, reply.headers["Location"]) == (307, url)
    assert (await caller.file(url)).status == 200


@pytest.mark.parametrize("kind", ["file", "query", "submit"])
async def test_a_body_breaks_off_in_the_middle(fast: Sandbox, session: aiohttp.ClientSession, kind: Kind) -> None:
    caller = Caller(session, fast)
    task_id = await caller.task()
    url = f"{fast.files_url}/generated/{task_id}-0.png"
    fast.faults.script(kind, Fault.BREAKS_OFF)
    asking = {
        "file": caller.file(url),
        "query": caller.query(task_id),
        "submit": caller.submit(),
    }
    wanted = asking.pop(kind)
    for other in asking.values():
        other.close()
    with pytest.raises(aiohttp.ClientPayloadError):
        await wanted

    assert (await caller.file(url)).status == 200
    assert len(fast.ledger) == (2 if kind == "submit" else 1)


async def test_a_file_is_not_found_this_once(fast: Sandbox, session: aiohttp.ClientSession) -> None:
    caller = Caller(session, fast)
    url = f"{fast.files_url}/generated/{await caller.task()}-0.png"
    fast.faults.script("file", Fault.NOT_FOUND, Fault.HTML_503)

    assert [(await caller.file(url)).status for _ in range(3)] == [404, 503, 200]


async def test_the_401_of_the_field_has_an_empty_code(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("balance", Fault.UNAUTHORIZED)
    reply = await caller.call("GET", "/v1/balance")

    assert reply.status == 401
    assert (reply.error["code"], reply.error["type"]) == ("", "new_api_error")


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (Fault.STATUS_SUBMITTED, "submitted"),
        (Fault.STATUS_PENDING, "pending"),
        (Fault.STATUS_PROCESSING, "processing"),
        (Fault.STATUS_UNKNOWN, "rendering"),
    ],
)
async def test_odd_statuses_stand_for_unfinished_tasks_only(
    sandbox: Sandbox, caller: Caller, clock: Clock, fault: Fault, word: str
) -> None:
    plain = await caller.task()
    sandbox.faults.script("query", fault)
    assert [(await caller.query(plain)).body["status"] for _ in range(2)] == [word, "queued"]

    sandbox.faults.script("submit", fault)
    reply = await caller.submit("odd from its start")
    assert reply.body["status"] == word
    assert (await caller.query(reply.body["id"])).body["status"] == word
    clock.advance(10)
    assert (await caller.query(reply.body["id"])).body["status"] == "completed"


@pytest.mark.parametrize("fault", list(RESULT_SHAPES))
@pytest.mark.parametrize("kind", ["submit", "query"])
async def test_results_come_in_every_shape_that_was_seen(
    fast: Sandbox, session: aiohttp.ClientSession, fault: Fault, kind: Kind
) -> None:
    caller = Caller(session, fast)
    fast.faults.script(kind, fault)
    task_id = await caller.task(n=2)
    body = (await caller.query(task_id)).body
    urls = [f"{fast.files_url}/generated/{task_id}-{index}.png" for index in range(2)]

    name, objects = RESULT_SHAPES[fault]
    expected = urls[0] if name == "url" else [{"url": url} for url in urls] if objects else urls
    assert body[name] == expected
    assert "result" not in body
    assert ("result" in (await caller.query(task_id)).body) == (kind == "query")


async def test_results_may_have_further_fields(fast: Sandbox, session: aiohttp.ClientSession) -> None:
    fast.faults.script("submit", Fault.RESULT_EXTRA_FIELDS)
    caller = Caller(session, fast)
    body = (await caller.query(await caller.task(n=2))).body

    assert [item["z_index"] for item in body["result"]["data"]] == [0, 1]
    assert all(item["url"].startswith(fast.files_url) for item in body["result"]["data"])


async def test_a_task_id_may_stand_for_the_id_and_metadata_be_absent(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", (Fault.TASK_ID_FOR_ID, Fault.WITHOUT_METADATA))
    body = (await caller.submit()).body
    status = (await caller.query(body["task_id"])).body

    for answer in (body, status):
        assert answer["task_id"] == body["task_id"]
        assert "id" not in answer
        assert "metadata" not in answer


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (Fault.TASK_FAILS, "error"),
        (Fault.TASK_FAILS_FAIL_REASON, "fail_reason"),
        (Fault.TASK_FAILS_ERROR_TEXT, "error"),
        (Fault.TASK_FAILS_MESSAGE, "message"),
    ],
)
async def test_a_task_fails_in_every_form_that_was_seen(
    sandbox: Sandbox, caller: Caller, clock: Clock, fault: Fault, where: str
) -> None:
    at_once, later = await caller.task("at once"), None
    sandbox.faults.script("query", fault)
    first, again = (await caller.query(at_once)).body, (await caller.query(at_once)).body
    sandbox.faults.script("submit", fault)
    later = await caller.task("later")
    assert (await caller.query(later)).body["status"] == "queued"
    clock.advance(10)
    last = (await caller.query(later)).body

    for body in (first, again, last):
        assert body["status"] == "failed"
        told = body[where]["message"] if fault is Fault.TASK_FAILS else body[where]
        assert "upstream" in told
        assert {"error", "fail_reason", "message"} & body.keys() == {where}
    assert sandbox.ledger.credits_paid == 0


async def test_a_finished_task_does_not_fail_any_more(fast: Sandbox, session: aiohttp.ClientSession) -> None:
    caller = Caller(session, fast)
    task_id = await caller.task()
    fast.faults.script("query", Fault.TASK_FAILS)

    assert (await caller.query(task_id)).body["status"] == "completed"


@pytest.mark.parametrize(("fault", "status"), [(Fault.TASK_VANISHES, 404), (Fault.TASK_VANISHES_400, 400)])
@pytest.mark.parametrize("kind", ["submit", "query"])
async def test_a_task_vanishes_for_good_but_not_from_the_ledger(
    sandbox: Sandbox, caller: Caller, fault: Fault, status: int, kind: Kind
) -> None:
    sandbox.faults.script(kind, fault)
    task_id = await caller.task()
    replies = [await caller.query(task_id) for _ in range(2)]

    assert [reply.status for reply in replies] == [status] * 2
    if status == 400:
        assert replies[0].body == {"message": "task_not_exist"}
    assert sandbox.ledger.by_task(task_id) is not None


async def test_a_task_is_not_found_this_once(sandbox: Sandbox, caller: Caller) -> None:
    task_id = await caller.task()
    sandbox.faults.script("query", Fault.NOT_FOUND, Fault.NOT_EXIST)
    replies = [await caller.query(task_id) for _ in range(3)]

    assert [reply.status for reply in replies] == [404, 400, 200]
    assert replies[1].body == {"message": "task_not_exist"}


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [("query", 404, "not_found_error"), ("submit", 402, "payment_required"), ("models", 401, "authentication_error")],
)
async def test_codes_may_be_numbers(session: aiohttp.ClientSession, kind: Kind, status: int, name: str) -> None:
    async with Sandbox(credits=0, pictures=False) as sandbox:
        sandbox.faults.script(kind, Fault.NUMERIC_CODES)
        caller = Caller(session, sandbox, key=None if kind == "models" else "sk")
        if kind == "query":
            reply = await caller.query("nobody")
        elif kind == "submit":
            reply = await caller.submit()
        else:
            reply = await caller.call("GET", "/v1/models")

    assert reply.status == status
    assert (reply.error["code"], reply.error["type"]) == (status, name)


@pytest.mark.parametrize(("fault", "code"), [(Fault.NUMERIC_CODES, 422), (Fault.EMPTY_CODES, "")])
async def test_a_failed_tasks_code_may_be_a_number_or_empty(
    fast: Sandbox, session: aiohttp.ClientSession, fault: Fault, code: object
) -> None:
    caller = Caller(session, fast)
    fast.faults.script("query", fault, fault)
    task_id = await caller.task("[fail]")

    assert (await caller.query(task_id)).body["error"]["code"] == code
    assert (await caller.query("nobody")).error["code"] == (404 if code == 422 else "")


@pytest.mark.parametrize("path", ["/v1/balance", "/v1/uploads/images"])
async def test_a_failure_may_come_as_200_without_success(sandbox: Sandbox, caller: Caller, path: str) -> None:
    kind: Kind = "balance" if "balance" in path else "upload"
    sandbox.faults.script(kind, Fault.SUCCESS_FALSE)
    reply = await (caller.call("GET", path) if kind == "balance" else caller.upload(b"GIF89a"))

    assert reply.status == 200
    assert reply.body["success"] is False
    assert reply.body["message"]


async def test_a_dropped_upload_was_not_stored_and_the_next_one_is(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("upload", Fault.DROPPED, Fault.LOST_ANSWER, Fault.HTML_502)
    for _ in range(2):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await caller.upload(b"GIF89a")

    assert (await caller.upload(b"GIF89a")).status == 502
    assert sandbox._api.uploads_taken == 1
