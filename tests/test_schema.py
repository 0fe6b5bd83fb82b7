"""`docs/toapis.schema.json` against everything it is about: the documented bodies, the sandbox's and the client's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from toapis_async import ImageRequest, RateLimits, Settings, ToAPIs, ToAPIsError, errors
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.webhook import decode_event
from toapis_async.protocol.wire import decode_balance, decode_task, decode_upload
from toapis_async.sandbox import BillingMode, Fault, Sandbox, answers
from toapis_async.sandbox.tasks import Failure

from .sandbox.kit import VIP, Caller, Clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .sandbox.kit import Reply

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "toapis.schema.json").read_text())
DOCUMENTED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "documented.json").read_text())
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
EXAMPLE = {one["what"]: one["body"] for one in DOCUMENTED}
SEED = EXAMPLE["the submission of the page of gpt-image-2-vip [seed]"]
HOOK = "https://hooks.example/toapis/"


def complaints(body: object, kind: str) -> list[str]:
    """What is wrong with a body of this kind, by the schema."""
    validator = Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]


# ------------------------------------------------------------------------------------------------ the schema


def test_the_schema_is_one_and_knows_every_kind_of_body() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    named = {member["$ref"].rpartition("/")[2] for member in SCHEMA["anyOf"]}
    assert named == {one["is"] for one in DOCUMENTED} | {"models"}
    assert named < SCHEMA["$defs"].keys()


@pytest.mark.parametrize("one", DOCUMENTED, ids=lambda one: one["what"])
def test_every_documented_body_fits_the_schema(one: dict[str, Any]) -> None:
    assert complaints(one["body"], one["is"]) == []


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("request", {"prompt": None}),
        ("request", {"prompt": ""}),
        ("request", {"prompt": "x" * 32_001}),
        ("request", {"n": "1"}),
        ("request", {"n": 0}),
        ("request", {"size": "auto"}),
        ("request", {"resolution": "8k"}),
        ("request", {"quality": "best"}),
        ("request", {"reference_images": ["data:image/png;base64,xxxx"]}),
        ("request", {"reference_images": "https://a.example/b.png"}),
        ("request", {"callback_url": "hooks.example"}),
        ("request", {"sise": "1:1"}),
        ("task", {"id": None}),
        ("task", {"status": None}),
        ("task", {"progress": 101}),
        ("task", {"created_at": "2023-12-29"}),
        ("task", {"status": "completed"}),
        ("task", {"status": "failed"}),
        ("task", {"result": {"type": "image", "data": []}}),
        ("task", {"error": 5}),
        ("task", {"billing": {"status": "settled", "credits": 174.6}}),
        ("error", {"error": None}),
        ("error", {"error": {"code": "x"}}),
        ("upload", {"data": {"id": "a"}}),
        ("upload", {"success": False}),
        ("balance", {"remain_credits": "2100"}),
        ("balance", {"unlimited_quota": None}),
        ("webhookEvent", {"type": "generation.started"}),
        ("webhookEvent", {"type": "generation.failed"}),
        ("webhookEvent", {"data": {"task_id": "t"}}),
        ("webhookEvent", {"api_version": "v2"}),
    ],
)
def test_the_schema_refuses_what_is_wrong(kind: str, changes: dict[str, Any]) -> None:
    body = copy.deepcopy(next(one["body"] for one in DOCUMENTED if one["is"] == kind))
    body.update(changes)
    assert complaints({name: value for name, value in body.items() if value is not None}, kind)


# ------------------------------------------------------------------------------------------------ the client


def decoded(one: dict[str, Any]) -> object:
    """What the library makes of a documented body; raises what it raises."""
    answer = Answer(one.get("status", 200), {}, json.dumps(one["body"]).encode())
    if one["is"] == "error":
        if answer.status == 200:
            return decode_balance(answer)
        raise decode_error(answer, about_task="task" in one["what"])
    by_kind: dict[str, Callable[[], object]] = {
        "request": lambda: ImageRequest.of(one["body"]),
        "task": lambda: decode_task(answer),
        "upload": lambda: decode_upload(answer),
        "balance": lambda: decode_balance(answer),
        "webhookEvent": lambda: decode_event(answer.body, one["body"]["id"]),
    }
    return by_kind[one["is"]]()


@pytest.mark.parametrize("one", DOCUMENTED, ids=lambda one: one["what"])
def test_every_documented_body_is_understood(one: dict[str, Any]) -> None:
    if "raises" in one:
        with pytest.raises(ToAPIsError) as caught:
            decoded(one)
        assert type(caught.value) is getattr(errors, one["raises"])
        return
    value: Any = decoded(one)
    status = one["body"].get("status")
    if one["is"] == "task":
        assert value.raw == one["body"]
        assert bool(value.images) == (status == "completed")
        assert bool(value.error) == (status == "failed")
        assert (value.billing is None) == ("billing" not in one["body"])


REQUESTS: tuple[dict[str, Any], ...] = (
    {"prompt": "a kite"},
    SEED,
    {"prompt": "k" * 32_000, "size": "3:1", "quality": "low", "n": 10, "background": "transparent"},
    {"prompt": "a", "reference_images": ["https://a.example/1.png", PNG], "image_urls": ["http://a.example/2.png"]},
    {"prompt": "a", "callback_url": HOOK, "client_business_id": "order-1", "metadata": {"a": [1, None]}},
    {"prompt": "a", "model": "gemini-3-pro-image-preview", "size": "auto", "resolution": "4K"},
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: str(request)[:40])
async def test_what_the_client_sends_fits_the_schema(request_: dict[str, Any]) -> None:
    plenty = RateLimits(submit_per_s=1e4, submit_burst=1e4, query_per_s=1e4, query_burst=1e4)
    async with (
        Sandbox(pictures=False, webhook_url=HOOK, webhook_secret="whsec", service_time_s=1e9) as sandbox,
        ToAPIs("sk-any", base_url=sandbox.base_url, settings=Settings(limits=plenty, close_grace_s=0)) as client,
    ):
        await client.submit(request_)
        (entry,) = sandbox.ledger.entries
    assert complaints(json.loads(json.dumps(dict(entry.request))), "request") == []
    assert entry.request["client_business_id"] == request_.get("client_business_id", entry.client_business_id)


# ------------------------------------------------------------------------------------------------ the sandbox


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

    async def asked(self, *faults: Fault, after_s: float = 10, **fields: Any) -> Reply:
        """A task with these traits, asked for so long after its submission."""
        body = (await self.submitted(*faults, **fields)).body
        self._clock.advance(after_s)
        return await self.caller.query(body.get("id") or body["task_id"])

    async def asked_for(self, wanted: str, *faults: Fault) -> Reply:
        self.sandbox.faults.script("query", tuple(faults))
        return await self.caller.query(wanted)

    async def balance(self, *faults: Fault) -> Reply:
        self.sandbox.faults.script("balance", tuple(faults))
        return await self.caller.call("GET", "/v1/balance")


TOLD: dict[str, Callable[[Stage], Awaitable[Reply]]] = {
    "the answer to it [seed]": lambda s: s.submitted(),
    "the answer to a submission that has begun already, without metadata [docs]": lambda s: s.asked(
        Fault.WITHOUT_METADATA, after_s=5
    ),
    "the answer to a submission that names task_id and is pending [field]": lambda s: s.submitted(
        Fault.TASK_ID_FOR_ID, Fault.STATUS_PENDING
    ),
    "a completed task [docs]": lambda s: s.asked(client_business_id="order-1"),
    "a completed task with a top-level url and a settled billing [docs, field]": lambda s: s.asked(
        Fault.RESULT_TOP_URL
    ),
    "a completed task whose result has more items and fields [docs]": lambda s: s.asked(Fault.RESULT_EXTRA_FIELDS, n=2),
    "a failed task [docs]": lambda s: s.asked(Fault.TASK_FAILS),
    "a failed task with a fail_reason and a refund [field]": lambda s: s.asked(Fault.TASK_FAILS_FAIL_REASON),
    "too fast [docs]": lambda s: s.submitted(Fault.RATE_LIMITED),
    "too fast, the code as a number [field]": lambda s: s.submitted(Fault.RATE_LIMITED, Fault.NUMERIC_CODES),
    "the limiter is down [docs]": lambda s: s.submitted(Fault.LIMITER_DOWN),
    "no channel for the model [field]": lambda s: s.submitted(model="nobody-has-it"),
    "a bad request [docs]": lambda s: s.submitted(size="auto"),
    "webhooks are off [docs]": lambda s: s.submitted(callback_url=HOOK),
    "an unknown task [field]": lambda s: s.asked_for("x", Fault.NOT_EXIST),
    "an unknown task [docs]": lambda s: s.asked_for("x"),
    "an unknown task, the code as a number [field]": lambda s: s.asked_for("x", Fault.NUMERIC_CODES),
    "a bad key [docs]": lambda s: s.stranger.submit(),
    "a bad key [field]": lambda s: s.submitted(Fault.UNAUTHORIZED),
    "balance too low [docs]": lambda s: s.submitted(n=10, quality="high", resolution="4k"),
    "balance too low, the code as a number [docs]": lambda s: s.submitted(
        Fault.NUMERIC_CODES, n=10, quality="high", resolution="4k"
    ),
    "refused content [docs]": lambda s: s.submitted(prompt="[refuse]"),
    "a server fault [docs]": lambda s: s.submitted(Fault.ERROR_500),
    "an upload that failed [docs]": lambda s: s.caller.upload(b"no picture"),
    "a balance that failed [docs]": lambda s: s.balance(Fault.SUCCESS_FALSE),
    "an upload [docs]": lambda s: s.caller.upload(PNG),
    "a balance [docs]": lambda s: s.balance(),
}


@pytest.fixture
async def stage(session: aiohttp.ClientSession, clock: Clock) -> Any:
    async with Sandbox(clock=clock, service_time_s=10, pictures=False, billing="always", credits=60) as sandbox:
        yield Stage(session, sandbox, clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def session() -> Any:
    async with aiohttp.ClientSession() as session:
        yield session


def assert_tells(body: Any, documented: Any, place: str = "$") -> None:
    """Every documented field is there, with a value of the same JSON type, all the way down."""
    assert type(body) is type(documented) or {type(body), type(documented)} == {int, float}, place
    if isinstance(documented, dict):
        for name, value in documented.items():
            assert name in body, f"{place}.{name}"
            assert_tells(body[name], value, f"{place}.{name}")
    elif isinstance(documented, list):
        assert len(body) == len(documented), place
        for index, value in enumerate(documented):
            assert_tells(body[index], value, f"{place}[{index}]")


WORDS = {"status", "object", "model", "code", "type", "mime_type", "credits_per_usd", "api_version", "task_type"}
"""Fields whose very value is documented."""


def words_of(body: Any, inside: str = "") -> set[tuple[str, Any]]:
    if isinstance(body, list):
        return {word for member in body for word in words_of(member, inside)}
    if not isinstance(body, dict):
        return {(inside, body)} if inside in WORDS else set()
    return {word for name, member in body.items() for word in words_of(member, name)}


def test_the_sandbox_is_asked_for_every_documented_answer() -> None:
    answers_ = {one["what"] for one in DOCUMENTED if one["is"] not in {"request", "webhookEvent"}}
    assert TOLD.keys() == answers_


@pytest.mark.parametrize("one", [one for one in DOCUMENTED if one["what"] in TOLD], ids=lambda one: one["what"])
async def test_the_sandbox_tells_every_documented_field(one: dict[str, Any], stage: Stage) -> None:
    reply = await TOLD[one["what"]](stage)
    assert reply.status == one.get("status", 200)
    assert complaints(reply.body, one["is"]) == []
    assert_tells(reply.body, one["body"])
    missing = words_of(one["body"]) - words_of(reply.body)
    assert missing <= {("model", "gpt-image-2-official")}


@pytest.mark.parametrize("one", [one for one in DOCUMENTED if one["is"] == "webhookEvent"], ids=lambda one: one["what"])
async def test_the_sandboxs_events_tell_every_documented_field(one: dict[str, Any], stage: Stage, clock: Clock) -> None:
    if one["body"]["type"] == "endpoint.test":
        body = answers.test_event("evt_1", 5)
    else:
        task_id = await stage.caller.task("kite", client_business_id="order-1")
        task = stage.sandbox._service.tasks[task_id]
        task.end(clock(), None if one["body"]["type"] == "generation.completed" else Failure())
        body = answers.event(task, "evt_1", clock(), stage.sandbox._links(task), "never")
    assert complaints(body, "webhookEvent") == []
    assert_tells(body, one["body"])
    assert words_of(one["body"]) <= words_of(body)


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
                body = (await stage.asked(fault, Fault.NUMERIC_CODES, after_s=after_s, n=2)).body
                assert complaints(body, "task") == [], fault


async def test_the_models_and_both_balances_fit_the_schema(stage: Stage) -> None:
    assert complaints((await stage.caller.call("GET", "/v1/models?type=image")).body, "models") == []
    assert complaints((await stage.caller.call("GET", "/v1/models")).body, "models") == []
    assert complaints(await stage.caller.balance(), "balance") == []
    assert VIP in str((await stage.caller.call("GET", "/v1/models?type=image")).body)
