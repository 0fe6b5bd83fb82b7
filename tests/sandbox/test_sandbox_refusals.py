"""Every row of the error table that the service itself answers, and every check of a submission."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from toapis_async.sandbox import Sandbox

from .kit import Caller, Clock

if TYPE_CHECKING:
    import aiohttp


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer  ", "Basic abc", "sk-one"])
async def test_a_request_without_a_bearer_key_is_unauthorized(
    session: aiohttp.ClientSession, sandbox: Sandbox, header: str
) -> None:
    nobody = Caller(session, sandbox, key=None)
    for method, path in (
        ("POST", "/v1/images/generations"),
        ("GET", "/v1/images/generations/x"),
        ("POST", "/v1/uploads/images"),
        ("GET", "/v1/models?type=image"),
        ("GET", "/v1/balance"),
        ("GET", "/v1/user/balance"),
    ):
        reply = await nobody.call(method, path, headers={"Authorization": header})
        assert reply.status == 401
        assert reply.error["code"] == "unauthorized"
        assert reply.error["type"] == "authentication_error"


async def test_a_key_that_nobody_has_is_unauthorized(session: aiohttp.ClientSession) -> None:
    async with Sandbox(keys={"sk-a": "ann"}, pictures=False) as sandbox:
        assert (await Caller(session, sandbox, "sk-a").submit()).status == 200
        assert (await Caller(session, sandbox, "sk-b").submit()).status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/v1/images/generations"),
        ("GET", "/v1/v1/images/generations/task_1"),
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/images/generations"),
        ("GET", "/v1/images/generations/"),
        ("GET", "/v1/images/generations/a/b"),
        ("DELETE", "/v1/images/generations/a"),
        ("GET", "/v1/uploads/images"),
        ("POST", "/images/generations"),
    ],
)
async def test_any_other_path_is_an_invalid_url(sandbox: Sandbox, caller: Caller, method: str, path: str) -> None:
    reply = await caller.call(method, path)

    assert reply.status == 404
    assert reply.error["message"] == f"Invalid URL ({method} {path})"
    assert sandbox.requests.count("unknown") == 1


async def test_an_unknown_task_is_not_found(caller: Caller) -> None:
    reply = await caller.query("task_img_nobody")

    assert reply.status == 404
    assert reply.error["code"] == "task_not_found"
    assert reply.error["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"prompt": None}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"size": "auto"}, "size"),
        ({"size": "10:3"}, "size"),
        ({"size": "1024x1024"}, "size"),
        ({"size": 1}, "size"),
        ({"resolution": "1K"}, "resolution"),
        ({"resolution": "8k"}, "resolution"),
        ({"quality": "ultra"}, "quality"),
        ({"quality": ["low"]}, "quality"),
        ({"n": "1"}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.0}, "n"),
        ({"n": 0}, "n"),
        ({"n": 101}, "n"),
        ({"response_format": 1}, "response_format"),
        ({"background": 1}, "background"),
        ({"metadata": []}, "metadata"),
        ({"reference_images": "https://a.b/c.png"}, "reference_images"),
        ({"reference_images": ["data:image/png;base64,AAAA"]}, "reference_images"),
        ({"reference_images": ["iVBORw0KGgo="]}, "reference_images"),
        ({"reference_images": [{"url": "https://a.b/c.png"}]}, "reference_images"),
        ({"image_urls": ["ftp://a.b/c.png"]}, "image_urls"),
        ({"client_business_id": 7}, "client_business_id"),
        ({"metadata": {"client_business_id": 7}}, "metadata.client_business_id"),
    ],
)
async def test_what_vip_does_not_take_is_an_invalid_request_naming_the_field(
    sandbox: Sandbox, caller: Caller, fields: dict[str, object], param: str
) -> None:
    body = {"model": "gpt-image-2-vip", "prompt": "a kite", **fields}
    reply = await caller.call("POST", "/v1/images/generations", json=body)

    assert reply.status == 400
    assert reply.error["code"] == "invalid_request"
    assert reply.error["param"] == param
    assert len(sandbox.ledger) == 0


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b'"prompt"', b"null", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_an_invalid_request(caller: Caller, raw: bytes) -> None:
    reply = await caller.call("POST", "/v1/images/generations", data=raw)

    assert reply.status == 400
    assert reply.error["code"] == "invalid_request"


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 32_000},
        {"prompt": "星" * 32_000},
        {"size": "9:21", "resolution": "4k", "quality": "high", "n": 4},
        {"size": "7:5"},
        {"size": None, "resolution": None, "quality": None, "n": None},
        {"background": "transparent", "response_format": "url"},
        {"reference_images": ["https://a.b/c.png"], "image_urls": ["http://a.b/d.png"]},
        {"unknown_field": {"of": "any kind"}},
        {"client_business_id": None},
    ],
)
async def test_what_vip_documents_is_taken(caller: Caller, fields: dict[str, object]) -> None:
    body = {"model": "gpt-image-2-vip", "prompt": "a kite", **fields}

    assert (await caller.call("POST", "/v1/images/generations", json=body)).status == 200


@pytest.mark.parametrize(
    ("model", "fields", "status"),
    [
        ("gpt-image-2", {"size": "auto", "quality": "whatever", "n": 10}, 200),
        ("gpt-image-2", {"image_urls": ["https://a.b/c"], "quality": "whatever"}, 400),
        ("gpt-image-2", {"resolution": "8k"}, 400),
        ("gpt-image-2", {"background": "opaque"}, 400),
        ("gpt-image-2", {"reference_images": ["https://a.b/c"] * 7}, 400),
        ("gpt-image-2", {"mask_url": "https://a.b/m.png"}, 400),
        ("gpt-image-2", {"mask_url": "https://a.b/m.png", "image_urls": ["https://a.b/c"]}, 200),
        ("gpt-image-2", {"n": 11}, 400),
        ("gpt-image-2-official", {"output_format": "jpeg", "image_urls": ["https://a.b/c"] * 16}, 200),
        ("gpt-image-2-official", {"image_urls": ["https://a.b/c"] * 17}, 400),
        ("gpt-4o-image", {"prompt": "x" * 1_001}, 400),
        ("gemini-3-pro-image-preview", {"metadata": {"resolution": "4K"}, "quality": "high"}, 200),
        ("gemini-3-pro-image-preview", {"n": 2}, 400),
        ("gpt-image-2-official", {"size": "1:1", "resolution": "4k"}, 400),
        ("gpt-image-2-official", {"size": "16:9", "resolution": "4K"}, 200),
        ("gpt-image-2-official", {"output_compression": 101}, 400),
        ("gpt-image-2.5-flare", {"size": "2:1"}, 400),
        ("gpt-image-2.5-flare", {"size": "21:9", "resolution": "4k"}, 200),
        ("gpt-image-2.5-flare", {"reference_images": ["https://a.b/c"], "image_urls": ["https://a.b/d"]}, 400),
        ("gpt-image-2.5-flare", {"n": 2}, 400),
        ("gpt-image-2.5-sunburst-vip", {"size": "16:9"}, 400),
        ("gpt-image-2.5-sunburst-vip", {"size": "1536x1024", "quality": "xhigh"}, 200),
        ("gpt-image-2.5-sunburst-official", {"quality": "ultra"}, 400),
        ("gpt-4o-image", {"n": 3}, 400),
        ("gpt-4o-image", {"image_urls": ["https://a.b/c"] * 6}, 400),
        ("gemini-3.1-flash-image-official", {"metadata": {"resolution": "0.5K"}, "size": "1:8"}, 200),
        ("gemini-3-pro-image-preview", {"metadata": {"resolution": "0.5K"}}, 400),
        ("gemini-2.5-flash-image-official", {"image_urls": [{"url": "https://a.b/c"}] * 4}, 400),
        ("gemini-3-pro-image-preview", {"metadata": {"google_search": "yes"}}, 400),
        ("doubao-seedream-4-5", {"n": 15}, 200),
        ("doubao-seedream-4-5", {"n": "15"}, 400),
        ("doubao-seedream-4-5", {"n": 8, "image_urls": ["https://a.b/c"] * 8}, 400),
        ("doubao-seedream-5-0-pro", {"n": 11}, 400),
        ("doubao-seedream-5-0-pro", {"layer_decomposition": "yes"}, 400),
        ("flux-kontext-pro", {"image_urls": ["https://a.b/c"] * 2}, 400),
        ("flux-2-pro", {"metadata": {"resolution": "4K"}}, 400),
        ("grok-4-2-image", {"n": 4}, 200),
        ("grok-imagine-1.0-edit", {"image_urls": ["https://a.b/c"]}, 400),
        ("vidu-image", {"seed": 7, "size": "1024*1024"}, 200),
        ("vidu-image", {"seed": "7"}, 400),
        ("qwen-image-3.0-pro", {"size": "1536x864", "metadata": {"seed": 1}}, 200),
        ("qwen-image-3.0-pro", {"size": "wide"}, 400),
        ("viduq3-fast", {"size": "1024*1536", "resolution": "strange"}, 200),
        ("gpt-image-2", {"n": "9" * 5_000}, 400),
        ("gpt-image-2", {"output_format": ["png"]}, 400),
    ],
)
async def test_other_models_are_held_to_their_pages(
    caller: Caller, model: str, fields: dict[str, object], status: int
) -> None:
    assert (await caller.submit(**{"model": model, **fields})).status == status


async def test_a_model_without_a_channel_is_not_found(caller: Caller) -> None:
    reply = await caller.submit(model="gpt-image-3")

    assert reply.status == 503
    assert reply.error["code"] == "model_not_found"
    assert reply.error["type"] == "new_api_error"


async def test_a_callback_is_refused_while_webhooks_are_off(caller: Caller) -> None:
    reply = await caller.submit(callback_url="https://example.com/hook")

    assert reply.status == 400
    assert reply.error["code"] == "webhook_not_configured"


async def test_a_marked_prompt_is_refused_and_not_charged(sandbox: Sandbox, caller: Caller) -> None:
    reply = await caller.submit("[refuse] something bad")

    assert reply.status == 422
    assert reply.error["code"] == "content_policy_violation"
    assert sandbox.ledger.credits_charged == 0


async def test_too_low_a_balance_is_refused(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(credits=1.0, clock=clock, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        await caller.task(quality="low", n=2)
        reply = await caller.submit(quality="low")

        assert reply.status == 402
        assert reply.error["code"] == "insufficient_quota"
        assert len(sandbox.ledger) == 1


@pytest.mark.parametrize(
    ("duplicates", "status", "accepted"), [("run_again", 200, 2), ("refuse", 400, 1), ("replay", 200, 1)]
)
async def test_a_second_submission_with_a_used_id_meets_what_was_set(
    session: aiohttp.ClientSession, duplicates: str, status: int, accepted: int
) -> None:
    async with Sandbox(duplicate_ids=duplicates, keys={"a": "ann", "b": "bob"}, pictures=False) as sandbox:  # type: ignore[arg-type]
        ann, bob = Caller(session, sandbox, "a"), Caller(session, sandbox, "b")
        first = await ann.task(client_business_id="order")
        second = await ann.submit(client_business_id="order")
        assert second.status == status
        assert len(sandbox.ledger) == accepted
        if duplicates == "replay":
            assert second.body["id"] == first
        if duplicates == "refuse":
            assert second.error["param"] == "client_business_id"
        assert (await bob.submit(client_business_id="order")).status == 200
        assert (await ann.submit()).status == 200
