"""Every documented answer and event is asked of the sandbox, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from toapis_async.sandbox import BillingMode, Fault, Sandbox, answers
from toapis_async.sandbox.tasks import Failure

from .kit import VIP, Caller, Clock
from .schema_kit import BOAT, DOCUMENTED, HOOK, MP4, PNG, SEED, complaints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .kit import Reply


class Stage:
    """A sandbox whose time stands still, and a caller."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox, clock: Clock) -> None:
        self.sandbox = sandbox
        self.caller = Caller(session, sandbox)
        self.stranger = Caller(session, sandbox, key=None)
        self._clock = clock

    async def submitted(self, *faults: Fault, **fields: Any) -> Reply:
        self.sandbox.faults.script("submit", tuple(faults))
        return await self.caller.call("POST", "/v1/images/generations", json={**SEED, **fields})

    async def polled(self, *faults: Fault, after_s: float = 10, **fields: Any) -> Reply:
        """A task with these traits, asked for so long after its submission."""
        body = (await self.submitted(*faults, **fields)).body
        self._clock.advance(after_s)
        return await self.caller.query(body.get("id") or body["task_id"])

    async def video(self, *faults: Fault, **fields: Any) -> Reply:
        self.sandbox.faults.script("submit", tuple(faults))
        return await self.caller.submit_video(**{**BOAT, **fields})

    async def finished_video(self, **fields: Any) -> Reply:
        """A completed video, with other fields than the documented ones."""
        task_id = await self.caller.video(**{"duration": 5, **fields})
        self._clock.advance(10)
        return await self.caller.query_video(task_id)

    async def remix(self) -> Reply:
        source = (await self.finished_video(model="sora-2-official", duration=4)).body["id"]
        return await self.caller.submit_video(f"/v1/videos/{source}/remix", model="sora-2-official", duration=8)

    async def prices(self, query: str, *faults: Fault) -> Reply:
        self.sandbox.faults.script("pricing", tuple(faults))
        return await self.caller.call("GET", f"/v1/pricing?{query}")

    async def polled_for(self, wanted: str, *faults: Fault) -> Reply:
        self.sandbox.faults.script("query", tuple(faults))
        return await self.caller.query(wanted)

    async def balance(self, *faults: Fault) -> Reply:
        self.sandbox.faults.script("balance", tuple(faults))
        return await self.caller.call("GET", "/v1/balance")


REQUESTED = {"request", "edit", "videoRequest"}
REPLIES: dict[str, Callable[[Stage], Awaitable[Reply]]] = {
    "the answer to it [seed]": lambda s: s.submitted(),
    "the answer to a submission that has begun already, without metadata [docs]": lambda s: s.polled(
        Fault.WITHOUT_METADATA, after_s=5
    ),
    "the answer to a submission that names task_id and is pending [field]": lambda s: s.submitted(
        Fault.TASK_ID_FOR_ID, Fault.STATUS_PENDING
    ),
    "a completed task [docs]": lambda s: s.polled(client_business_id="order-1"),
    "a completed task with a top-level url and a settled billing [docs, field]": lambda s: s.polled(
        Fault.RESULT_TOP_URL
    ),
    "a completed task whose result has more items and fields [docs]": lambda s: s.polled(
        Fault.RESULT_EXTRA_FIELDS, n=2
    ),
    "a failed task [docs]": lambda s: s.polled(Fault.TASK_FAILS),
    "a failed task with a fail_reason and a refund [field]": lambda s: s.polled(Fault.TASK_FAILS_FAIL_REASON),
    "too fast [docs]": lambda s: s.submitted(Fault.RATE_LIMITED),
    "too fast, the code as a number [field]": lambda s: s.submitted(Fault.RATE_LIMITED, Fault.NUMERIC_CODES),
    "the limiter is down [docs]": lambda s: s.submitted(Fault.LIMITER_DOWN),
    "no channel for the model [field]": lambda s: s.submitted(model="nobody-has-it"),
    "a bad request [docs]": lambda s: s.submitted(size="auto"),
    "webhooks are off [docs]": lambda s: s.submitted(callback_url=HOOK),
    "an unknown task [field]": lambda s: s.polled_for("x", Fault.NOT_EXIST),
    "an unknown task [docs]": lambda s: s.polled_for("x"),
    "an unknown task, the code as a number [field]": lambda s: s.polled_for("x", Fault.NUMERIC_CODES),
    "a bad key [docs]": lambda s: s.stranger.submit(),
    "a bad key [field]": lambda s: s.submitted(Fault.UNAUTHORIZED),
    "balance too low [docs]": lambda s: s.submitted(n=50, quality="high", resolution="4k"),
    "balance too low, the code as a number [docs]": lambda s: s.submitted(
        Fault.NUMERIC_CODES, n=50, quality="high", resolution="4k"
    ),
    "refused content [docs]": lambda s: s.submitted(prompt="[refuse]"),
    "a server fault [docs]": lambda s: s.submitted(Fault.ERROR_500),
    "an upload that failed [docs]": lambda s: s.caller.upload(b"no picture"),
    "a balance that failed [docs]": lambda s: s.balance(Fault.SUCCESS_FALSE),
    "an upload [docs]": lambda s: s.caller.upload(PNG),
    "the answer to a video submission [docs]": lambda s: s.video(),
    "the answer to a video submission with two ids and no status [field]": lambda s: s.video(
        Fault.TASK_ID_BESIDE_ID, Fault.STATUS_EMPTY
    ),
    "a completed video with its last frame and a settled bill [docs]": lambda s: s.finished_video(
        client_business_id="boat-1", return_last_frame=True
    ),
    "a completed video that used a tool [docs]": lambda s: s.finished_video(tools=[{"type": "web_search"}]),
    "the answer to a remix [docs]": lambda s: s.remix(),
    "a failed task whose bill is pending [docs]": lambda s: s.polled(Fault.TASK_FAILS, Fault.BILL_PENDING),
    "a failed task that is refunded [docs]": lambda s: s.polled(Fault.TASK_FAILS),
    "a failed task at progress 100 with an upstream's code [docs]": lambda s: s.polled(Fault.TASK_FAILS_AT_100),
    "a completed task with its usage [docs]": lambda s: s.polled(
        model="gpt-image-2.5-flare-vip", size="1024x1024", quality="high"
    ),
    "a completed task in layers [docs]": lambda s: s.polled(model="doubao-seedream-5-0-pro", layer_decomposition=True),
    "balance too low, as a 403 [field]": lambda s: s.submitted(Fault.QUOTA_403),
    "a model that the key may not use [field]": lambda s: s.submitted(Fault.MODEL_FORBIDDEN),
    "a real person in a reference [field]": lambda s: s.submitted(Fault.FAIL_TO_FETCH),
    "prices that are not available [docs]": lambda s: s.prices("", Fault.PRICING_UNAVAILABLE),
    "a wrong question about prices [docs]": lambda s: s.prices("limit=0"),
    "prices of an unknown model [docs]": lambda s: s.prices("model=nobody"),
    "a video that is too large [docs]": lambda s: s.caller.upload(MP4 + bytes(50_000_000), path="/v1/uploads/videos"),
    "an uploaded video [docs]": lambda s: s.caller.upload(MP4, path="/v1/uploads/videos"),
    "a page of prices [docs]": lambda s: s.prices("type=video&limit=1&after=Veo3.1-lite-official"),
    "a balance [docs]": lambda s: s.balance(),
}


@pytest.fixture
async def stage(session: aiohttp.ClientSession, clock: Clock) -> Any:
    async with Sandbox(clock=clock, service_time_s=10, pictures=False, billing="always", credits=300) as sandbox:
        yield Stage(session, sandbox, clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def session() -> Any:
    async with aiohttp.ClientSession() as session:
        yield session


def assert_has_fields(body: Any, documented: Any, place: str = "$") -> None:
    """Every documented field is there, with a value of the same JSON type, all the way down."""
    assert type(body) is type(documented) or {type(body), type(documented)} == {int, float}, place
    if isinstance(documented, dict):
        for name, value in documented.items():
            assert name in body, f"{place}.{name}"
            assert_has_fields(body[name], value, f"{place}.{name}")
    elif isinstance(documented, list):
        assert len(body) == len(documented) or place.endswith(".prices"), place
        for index, value in enumerate(documented):
            assert_has_fields(body[index], value, f"{place}[{index}]")


FIXED = {"status", "object", "model", "code", "type", "mime_type", "credits_per_usd", "api_version", "task_type"}
"""Fields whose very value is documented."""


def fixed_values_of(body: Any, inside: str = "") -> set[tuple[str, Any]]:
    if isinstance(body, list):
        return {word for member in body for word in fixed_values_of(member, inside)}
    if not isinstance(body, dict):
        return {(inside, body)} if inside in FIXED else set()
    return {word for name, member in body.items() for word in fixed_values_of(member, name)}


def test_the_sandbox_is_asked_for_every_documented_answer() -> None:
    answers_ = {one["what"] for one in DOCUMENTED if one["is"] not in REQUESTED | {"webhookEvent"}}
    assert REPLIES.keys() == answers_


@pytest.mark.parametrize("one", [one for one in DOCUMENTED if one["what"] in REPLIES], ids=lambda one: one["what"])
async def test_the_sandbox_has_every_documented_field(one: dict[str, Any], stage: Stage) -> None:
    reply = await REPLIES[one["what"]](stage)
    assert reply.status == one.get("status", 200)
    assert complaints(reply.body, one["is"]) == []
    assert_has_fields(reply.body, one["body"])
    missing = fixed_values_of(one["body"]) - fixed_values_of(reply.body)
    assert missing <= {("model", "gpt-image-2-official"), ("code", "upstream_timeout")}


@pytest.mark.parametrize("one", [one for one in DOCUMENTED if one["is"] == "webhookEvent"], ids=lambda one: one["what"])
async def test_the_sandboxs_events_have_every_documented_field(one: dict[str, Any], stage: Stage, clock: Clock) -> None:
    if one["body"]["type"] == "endpoint.test":
        body = answers.test_event("evt_1", 5)
    else:
        if one["body"]["data"]["task_type"] == "image":
            task_id = await stage.caller.task("kite", client_business_id="order-1")
        else:
            task_id = await stage.caller.video(client_business_id="boat-1", tools=[{"type": "web_search"}])
        task = stage.sandbox._service.tasks[task_id]
        task.end(clock(), None if one["body"]["type"] == "generation.completed" else Failure())
        body = answers.event(task, "evt_1", clock(), stage.sandbox._links(task), "always")
    assert complaints(body, "webhookEvent") == []
    assert_has_fields(body, one["body"])
    assert fixed_values_of(one["body"]) <= fixed_values_of(body)


@pytest.mark.parametrize("billing", ["always", "refunds", "never"])
@pytest.mark.parametrize("fails", [False, True])
async def test_every_form_of_a_task_fits_the_schema(
    session: aiohttp.ClientSession, clock: Clock, billing: BillingMode, fails: bool
) -> None:
    shapes = [fault for fault in Fault if fault.value.startswith(("task_fails" if fails else "result_", "status_"))]
    async with Sandbox(clock=clock, service_time_s=10, pictures=False, billing=billing) as sandbox:
        stage = Stage(session, sandbox, clock)
        for fault in shapes:
            for after_s in (0, 5, 10):
                body = (await stage.polled(fault, Fault.NUMERIC_CODES, after_s=after_s, n=2)).body
                assert complaints(body, "task") == [], fault


async def test_the_models_and_both_balances_fit_the_schema(stage: Stage) -> None:
    assert complaints((await stage.caller.call("GET", "/v1/models?type=image")).body, "models") == []
    assert complaints((await stage.caller.call("GET", "/v1/models")).body, "models") == []
    assert complaints(await stage.caller.balance(), "balance") == []
    assert VIP in str((await stage.caller.call("GET", "/v1/models?type=image")).body)
