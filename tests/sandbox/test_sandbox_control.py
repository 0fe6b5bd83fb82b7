"""The control API: what it does, and for whom."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from toapis_async.sandbox import Clock, Fault, Sandbox

from .kit import Caller, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .kit import Clock as StillClock
    from .kit import Reply

CHROMIUM = "/usr/bin/chromium"
DOCS = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=Clock(), service_time_s=10_000, pictures=False, control=True) as sandbox:
        yield sandbox


@pytest.fixture
def anyone(session: aiohttp.ClientSession, sandbox: Sandbox) -> Caller:
    """Somebody without a key."""
    return Caller(session, sandbox, key=None)


async def act(anyone: Caller, path: str, **parameters: object) -> Reply:
    return await anyone.call("POST", f"/_sandbox/{path}", json=parameters)


async def read(anyone: Caller, path: str) -> dict[str, Any]:
    return (await anyone.call("GET", f"/_sandbox/{path}")).body


# ------------------------------------------------------------------------------------------------ what it does


async def test_the_state_has_tasks_charges_requests_and_events(
    sandbox: Sandbox, caller: Caller, anyone: Caller
) -> None:
    kite, ship = await caller.task("a kite"), await caller.task("a ship")
    sandbox.finish(kite)
    sandbox.fail(ship)
    state = await read(anyone, "state")
    assert state["tasks"] == {"queued": 0, "in_progress": 0, "completed": 1, "failed": 1}
    assert [(task["prompt"], task["status"]) for task in state["latest"]] == [
        ("a ship", "failed"),
        ("a kite", "completed"),
    ]
    assert state["credits"]["paid"] == sandbox.ledger.credits_paid > 0
    assert state["credits"]["refunded"] == sandbox.ledger.credits_refunded > 0
    assert state["requests"] == {"total": 2, "by_kind": {"submit": 2}}
    assert state["events"] == []


async def test_ledger_and_requests_are_listed_without_the_key(caller: Caller, anyone: Caller) -> None:
    task_id = await caller.task("a kite", client_business_id="kite-1", metadata={"shelf": 3})
    await caller.query(task_id)
    [entry] = (await read(anyone, "ledger"))["entries"]
    assert (entry["task_id"], entry["client_business_id"]) == (task_id, "kite-1")
    assert (entry["kind"], entry["references"]) == ("image", 0)
    assert entry["request"]["metadata"] == {"shelf": 3}
    requests = await read(anyone, "requests")
    assert [request["kind"] for request in requests["log"]] == ["submit", "query"]
    assert requests["log"][1]["task_id"] == task_id
    assert {"kind": "query", "status": 200, "times": 1} in requests["statuses"]
    everything = json.dumps([await read(anyone, path) for path in ("state", "ledger", "requests")])
    assert "sk-one" not in everything


async def test_faults_are_scripted_and_drawn_and_cleared(sandbox: Sandbox, caller: Caller, anyone: Caller) -> None:
    steps = [None, "error_500", {"fault": "rate_limited", "lasting_s": 7}, ["html_502", "slow"]]
    assert (await act(anyone, "faults/script", kind="query", steps=steps, about="kite-1")).body == {"ok": True}
    await act(anyone, "faults/chance", kind="submit", fault="lost_answer", probability=0.25)
    slow = (Fault.HTML_502, Fault.SLOW)
    assert sandbox.faults.scripts == (
        ("query", "kite-1", (None, Fault.ERROR_500, Fault.RATE_LIMITED.lasting(7), slow)),
    )
    assert sandbox.faults.chances == (("submit", Fault.LOST_ANSWER, 0.25),)
    faults = (await read(anyone, "state"))["faults"]
    assert faults["scripts"] == [{"kind": "query", "about": "kite-1", "steps": steps}]
    assert faults["chances"] == [{"kind": "submit", "fault": "lost_answer", "probability": 0.25}]
    await act(anyone, "faults/clear")
    faults = (await read(anyone, "state"))["faults"]
    assert (faults["scripts"], faults["chances"]) == ([], [])
    await act(anyone, "faults/script", kind="balance", steps=["error_500"])
    assert (await caller.call("GET", "/v1/balance")).status == 500
    assert (await read(anyone, "state"))["faults"]["happened"] == [
        {"kind": "balance", "fault": "error_500", "times": 1}
    ]


async def test_tasks_are_ended_by_hand(sandbox: Sandbox, caller: Caller, anyone: Caller) -> None:
    kite, ship, boat = [await caller.task(prompt) for prompt in ("a kite", "a ship", "a boat")]
    await act(anyone, "tasks/finish", task_id=kite)
    await act(anyone, "tasks/fail", task_id=ship, code="too_rough", message="the sea")
    await act(anyone, "tasks/fail", task_id=boat)
    assert [entry.status for entry in sandbox.ledger] == ["completed", "failed", "failed"]
    assert (await caller.query(ship)).error == {"code": "too_rough", "message": "the sea"}
    assert (await caller.query(boat)).error["code"] == "generation_failed"
    again = await act(anyone, "tasks/finish", task_id=kite)
    assert (again.status, "already completed" in again.body["error"]) == (400, True)
    assert (await act(anyone, "tasks/finish", task_id="task_img_no")).status == 404


async def test_the_clock_is_put_forward_and_wakes_who_waits(sandbox: Sandbox) -> None:
    no_timeout = aiohttp.ClientTimeout()  # here the callers are on the loop whose time jumps
    async with aiohttp.ClientSession(timeout=no_timeout) as session:
        caller = Caller(session, sandbox)
        task_id = await caller.task()
        await act(caller, "clock/advance", seconds=10_001)
        assert (await caller.query(task_id)).body["status"] == "completed"
        sandbox.faults.script("query", Fault.SLOW.lasting(3_600))
        slow = asyncio.ensure_future(caller.query(task_id))
        await until(lambda: sandbox.faults.drawn["query", Fault.SLOW])
        await act(caller, "clock/advance", seconds=3_600)
        assert (await slow).status == 200


async def test_a_sandbox_with_another_clock_says_so(session: aiohttp.ClientSession) -> None:
    async with Sandbox(pictures=False, control=True) as sandbox:
        refused = await act(Caller(session, sandbox, None), "clock/advance", seconds=1)
    assert (refused.status, "without a clock" in refused.body["error"]) == (400, True)


async def test_reset_leaves_a_sandbox_as_new(session: aiohttp.ClientSession, clock: StillClock) -> None:
    async with Sandbox(clock=clock, pictures=False, control=True) as sandbox:
        caller = Caller(session, sandbox)
        task_id = await caller.task("a kite", client_business_id="kite-1")
        before = await caller.balance()
        sandbox.faults.chance("query", Fault.ERROR_500, 1)
        await caller.query(task_id)
        await act(caller, "reset")
        assert (len(sandbox.ledger), sandbox.requests.total, sandbox.faults.chances) == (0, 0, ())
        assert sandbox.faults.drawn.total() == 0
        assert (await caller.query("kite-1")).status == 404
        after = await caller.balance()
        assert before["used_credits"] > after["used_credits"] == 0
        remaining = (await caller.query("kite-1")).headers["X-RateLimit-Remaining"]
        assert remaining == "498"  # the two queries since


async def test_a_kept_sandbox_is_not_reset(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with Sandbox(pictures=False, control=True, state_dir=tmp_path) as sandbox:
        caller = Caller(session, sandbox)
        await caller.task()
        refused = await act(caller, "reset")
        assert len(sandbox.ledger) == 1
    assert (refused.status, "state_dir is not reset" in refused.body["error"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "parameters", "expected"),
    [
        ("faults/script", {"kind": "query"}, "steps must be a list"),
        ("faults/script", {"kind": "query", "steps": ["lost_anser"]}, "'lost_anser' is not a valid Fault"),
        ("faults/script", {"kind": "query", "steps": [5]}, "a step is null"),
        ("faults/script", {"kind": "query", "steps": [[None]]}, "a step is null"),
        ("faults/script", {"kind": "nowhere", "steps": ["slow"]}, "no requests of kind 'nowhere'"),
        ("faults/script", {"kind": "query", "steps": ["limiter_down"]}, "means nothing at 'query'"),
        ("faults/script", {"kind": "query", "steps": [{"fault": "slow", "lasting_s": True}]}, "lasting_s must be a"),
        ("faults/script", {"steps": []}, "kind must be text"),
        ("faults/script", {"kind": "query", "steps": [], "about": 7}, "about must be text"),
        ("faults/chance", {"kind": "query", "fault": "slow", "probability": 7}, "lies between 0 and 1"),
        ("faults/chance", {"kind": "query", "fault": ["slow"], "probability": 1}, "fault must be one fault"),
        ("tasks/finish", {"task_id": 7}, "task_id must be text"),
        ("clock/advance", {"seconds": -1}, "put forward by a number of seconds from 0"),
        ("clock/advance", {"seconds": "7"}, "seconds must be a number"),
        ("clock/advance", {"seconds": 10**400}, "seconds must be a number of at most"),
        ("faults/chance", {"kind": "query", "fault": "slow", "probability": -(10**400)}, "must be a number of at most"),
        ("faults/script", {"kind": "query", "steps": [{"fault": "slow", "lasting_s": 10**400}]}, "of at most"),
    ],
)
async def test_a_wrong_command_is_refused_with_its_reason(
    anyone: Caller, path: str, parameters: dict[str, object], expected: str
) -> None:
    refused = await act(anyone, path, **parameters)
    assert refused.status == 400
    assert expected in refused.body["error"]


# ------------------------------------------------------------------------------------------------ for whom


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8765"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "10.0.0.7"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_other_pages_are_refused(sandbox: Sandbox, anyone: Caller, method: str, headers: dict[str, str]) -> None:
    sandbox.faults.script("query", Fault.ERROR_500)
    path = "/_sandbox/state" if method == "GET" else "/_sandbox/faults/clear"
    refused = await anyone.call(method, path, headers={"Content-Type": "application/json", **headers})
    assert refused.status == 403
    assert sandbox.faults.pending("query") == 1


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "127.5.5.5:80", "[::1]:80"])
async def test_loopback_has_many_names(anyone: Caller, host: str) -> None:
    own = await anyone.call("GET", "/_sandbox/state", headers={"Host": host, "Origin": f"http://{host}"})
    assert own.status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_what_a_form_can_send_is_not_obeyed(sandbox: Sandbox, anyone: Caller, kind: str) -> None:
    sandbox.faults.script("query", Fault.ERROR_500)
    refused = await anyone.call("POST", "/_sandbox/faults/clear", data=b"{}", headers={"Content-Type": kind})
    assert refused.status == 415
    assert sandbox.faults.pending("query") == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"[" * 60_000, 400), (b"{}" + b" " * 70_000, 413), (b"\xff", 400), (b"", 200)],
)
async def test_bodies_are_bounded_and_checked(anyone: Caller, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    assert (await anyone.call("POST", "/_sandbox/faults/clear", data=body, headers=headers)).status == status


async def test_it_is_apart_from_the_service(sandbox: Sandbox, anyone: Caller) -> None:
    sandbox.faults.chance("unknown", Fault.DROPPED, 1)
    for method, path in (
        ("GET", "/"),
        ("GET", "/_sandbox/nowhere"),
        ("PUT", "/_sandbox/reset"),
        ("GET", "/_sandbox/reset"),
    ):
        reply = await anyone.call(method, path)
        assert reply.status == (200 if path == "/" else 404)
        assert reply.headers["Cache-Control"] == "no-store"
    assert sandbox.requests.total == 0


async def test_without_being_asked_for_it_is_not_there(session: aiohttp.ClientSession) -> None:
    async with Sandbox(pictures=False) as sandbox:
        for path in ("/", "/_sandbox/state"):
            assert "Invalid URL" in (await Caller(session, sandbox).call("GET", path)).error["message"]


# ------------------------------------------------------------------------------------------------ the page


async def test_the_page_brings_all_it_needs_and_may_load_nothing_else(anyone: Caller) -> None:
    page = await anyone.call("GET", "/")
    policy = page.headers["Content-Security-Policy"]
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css")):
        assert f"/_sandbox/{name}" in page.raw.decode()
        assert (await anyone.call("GET", f"/_sandbox/{name}")).headers["Content-Type"].startswith(kind)


@pytest.mark.skipif(not shutil.which(CHROMIUM), reason=f"needs Debian's chromium at {CHROMIUM}")
async def test_the_page_shows_what_happens_as_text(sandbox: Sandbox, caller: Caller) -> None:
    from playwright.async_api import async_playwright  # noqa: PLC0415

    await caller.task("<img src=x onerror=alert(1)> a kite")
    sandbox.faults.script("query", None, Fault.SLOW.lasting(30), about="kite-1")
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{sandbox.base_url}/")
        await page.get_by_text("<img src=x onerror=alert(1)> a kite").wait_for()
        await page.get_by_text("next at query about kite-1: pass, slow for 30 s").wait_for()
        await page.get_by_text("in progress").or_(page.get_by_text("queued")).first.wait_for()
        sandbox.advance(10_001)
        await page.get_by_role("cell", name="completed").wait_for()
        await browser.close()
    assert complaints == []


# ------------------------------------------------------------------------------------------------ the documentation

DOCUMENTED = re.findall(r"^control \$AT/(\S+) -d '(.*)'$", DOCS.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("path", "body"), DOCUMENTED)
async def test_what_is_documented_is_obeyed(caller: Caller, path: str, body: str) -> None:
    parameters = json.loads(body)
    if "task_id" in parameters:
        parameters["task_id"] = await caller.task()
    timeout = aiohttp.ClientTimeout()  # as above: the clock jumps
    assert (await caller.call("POST", f"/_sandbox/{path}", json=parameters, timeout=timeout)).body == {"ok": True}


def test_every_command_is_documented() -> None:
    assert {path for path, _ in DOCUMENTED} == {
        "faults/script", "faults/chance", "faults/clear", "tasks/finish", "tasks/fail", "clock/advance", "reset",
    }  # fmt: skip
