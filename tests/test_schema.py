"""`docs/toapis.schema.json` against everything it describes: the documented bodies, the sandbox's and the client's."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from toapis_async import ImageRequest, RateLimits, Settings, ToAPIs, ToAPIsError, VideoRequest, errors
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.pricing import decode_prices
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.webhook import decode_event
from toapis_async.protocol.wire import decode_balance, decode_task, decode_upload
from toapis_async.sandbox import Sandbox
from toapis_async.sandbox.catalogue import IMAGE_MODELS
from toapis_async.sandbox.video_catalogue import VIDEO_MODELS
from toapis_async.sandbox.video_validation import understand

from .sandbox.schema_kit import BOAT, DOCUMENTED, HOOK, PNG, SCHEMA, SEED, URL, complaints

if TYPE_CHECKING:
    from collections.abc import Callable


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
        ("task", {"billing": {"status": "settled"}}),
        ("task", {"billing": {"status": "pending", "credits": "1", "cost_usd": "1"}}),
        ("task", {"usage": {"input_tokens": -1}}),
        ("edit", {"image_urls": None}),
        ("edit", {"model": "gpt-image-2-vip"}),
        ("videoRequest", {"duration": "5"}),
        ("videoRequest", {"duration": 16}),
        ("videoRequest", {"resolution": "8k"}),
        ("videoRequest", {"aspect_ratio": "2:1"}),
        ("videoRequest", {"reference_images": ["https://a.example/b.png"]}),
        ("videoRequest", {"image_urls": ["https://a.example/b.png"]}),
        ("videoRequest", {"image_with_roles": [{"url": "https://a.example/b.png"}]}),
        ("prices", {"currency": "EUR"}),
        ("prices", {"data": [{"id": "m", "type": "image", "prices": [{"unit_price": 4}]}]}),
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


UNDECODED = {"the parts of an edit as a form [docs]"}
"""What the client only sends."""


def decoded(one: dict[str, Any]) -> object:
    """What the library makes of a documented body; raises what it raises."""
    answer = Answer(one.get("status", 200), {}, json.dumps(one["body"]).encode())
    if one["is"] == "error":
        if answer.status == 200:
            return decode_balance(answer)
        raise decode_error(answer, about_task="task" in one["what"])
    by_kind: dict[str, Callable[[], object]] = {
        "request": lambda: ImageRequest.of(one["body"]),
        "videoRequest": lambda: VideoRequest.of(one["body"]),
        "edit": lambda: ImageRequest.of(one["body"]),
        "prices": lambda: decode_prices(answer),
        "task": lambda: decode_task(answer),
        "upload": lambda: decode_upload(answer),
        "balance": lambda: decode_balance(answer),
        "webhookEvent": lambda: decode_event(answer.body, one["body"]["id"]),
    }
    return by_kind[one["is"]]()


@pytest.mark.parametrize(
    "one", [one for one in DOCUMENTED if one["what"] not in UNDECODED], ids=lambda one: one["what"]
)
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
        assert bool(value.files) == (status == "completed")
        assert (value.usage is None) == ("usage" not in one["body"])
        assert bool(value.error) == (status == "failed")
        assert (value.billing is None) == ("billing" not in one["body"])


NAMES = ("reference_images", "image_urls", "image", "url", "video_list")


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in IMAGE_MODELS for name in NAMES[:2]]
    + [(model, name) for model in VIDEO_MODELS for name in NAMES],
)
def test_schema_and_sandbox_agree_on_the_names_of_references(model: str, name: str) -> None:
    kind, path = "videoRequest", "/v1/videos/generations"
    listed: set[str]
    needed: tuple[str, ...]
    if model in IMAGE_MODELS:
        edits = IMAGE_MODELS[model].only_edits
        kind, path = ("edit", "/v1/images/edits") if edits else ("request", "/v1/images/generations")
        listed, needed = set(IMAGE_MODELS[model].references), ("image_urls",) if edits else ()
    else:
        listed, needed = set(VIDEO_MODELS[model].inputs), VIDEO_MODELS[model].needs[:1]
    given = {one: URL if one in {"image", "url"} else [URL] for one in {name, *needed}}
    body = {"model": model, "prompt": "x", **given}

    assert len(understand(body, path).references) == len(given.keys() & listed)
    assert (complaints(body, kind) == []) == (name in listed)


VIDEO_REQUESTS: tuple[dict[str, Any], ...] = (
    BOAT,
    {"model": "veo3.1-fast", "prompt": "a", "duration": 8, "metadata": {"resolution": "4k"}},
    {"model": "grok-video-1.5", "prompt": "a", "image": "https://a.example/1.png"},
    {"model": "MiniMax-Hailuo-02", "prompt": "a", "duration": 6, "image_urls": [PNG]},
    {"model": "kling-v2-6", "prompt": "a", "mode": "pro", "reference_images": ["https://a.example/1.png"]},
)


@pytest.mark.parametrize("request_", VIDEO_REQUESTS, ids=lambda request: str(request)[:40])
async def test_the_clients_video_requests_fit_the_schema_and_their_inputs_are_read(request_: dict[str, Any]) -> None:
    plenty = RateLimits(submit_per_s=1e4, submit_burst=1e4, query_per_s=1e4, query_burst=1e4)
    async with (
        Sandbox(pictures=False, service_time_s=1e9) as sandbox,
        ToAPIs("sk-any", base_url=sandbox.base_url, settings=Settings(limits=plenty, close_grace_s=0)) as client,
    ):
        await client.submit(VideoRequest.of(request_))
        (entry,) = sandbox.ledger.entries
    assert complaints(json.loads(json.dumps(dict(entry.request))), "videoRequest") == []
    assert entry.kind == "video"
    assert len(entry.references) == sum(name in request_ for name in (*NAMES, "image_with_roles"))


REQUESTS: tuple[dict[str, Any], ...] = (
    {"prompt": "a kite"},
    SEED,
    {"prompt": "k" * 32_000, "size": "3:1", "quality": "low", "n": 10, "background": "transparent"},
    {"prompt": "a", "reference_images": ["https://a.example/1.png", PNG], "image_urls": ["http://a.example/2.png"]},
    {"prompt": "a", "callback_url": HOOK, "client_business_id": "order-1", "metadata": {"a": [1, None]}},
    {"prompt": "a", "model": "gemini-3-pro-image-preview", "size": "auto", "resolution": "4K"},
    {"prompt": "a", "model": "gpt-image-2-official", "reference_images": [PNG], "size": "3:2", "resolution": "4k"},
    {"prompt": "a", "model": "vidu-image", "reference_images": ["https://a.example/1.png"], "seed": 7},
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
