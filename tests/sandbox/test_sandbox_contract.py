"""The published endpoints and example bodies, field by field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.sandbox import Sandbox

from .kit import VIP, Caller, Clock

if TYPE_CHECKING:
    import aiohttp

SEED_REQUEST = {
    "model": "gpt-image-2-vip",
    "prompt": "Generate a cinematic widescreen poster of a futuristic neon city at night",
    "n": 1,
    "size": "16:9",
    "resolution": "2k",
    "quality": "high",
    "response_format": "url",
}


async def test_the_seeds_curl_example_gets_the_seeds_answer(caller: Caller) -> None:
    reply = await caller.call("POST", "/v1/images/generations", json=SEED_REQUEST)

    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("application/json")
    body = reply.body
    assert re.fullmatch(r"task_img_[0-9A-Z]{26}", body.pop("id"))
    assert body == {
        "object": "generation.task",
        "model": "gpt-image-2-vip",
        "status": "queued",
        "progress": 0,
        "created_at": 1703884800,
        "metadata": {},
    }


async def test_a_task_is_queued_then_in_progress_then_completed(caller: Caller, clock: Clock) -> None:
    task_id = await caller.task()
    seen: list[tuple[str, int]] = []
    for _ in range(12):
        body = (await caller.query(task_id)).body
        seen.append((body["status"], body["progress"]))
        clock.advance(1)

    statuses, progress = [status for status, _ in seen], [share for _, share in seen]
    assert statuses == ["queued", *["in_progress"] * 9, "completed", "completed"]
    assert progress == sorted(progress)
    assert progress[0] == 0
    assert progress[-1] == 100
    assert len(set(progress)) > 9


async def test_an_unfinished_answer_has_no_result_no_error_and_no_times_of_its_end(caller: Caller) -> None:
    body = (await caller.query(await caller.task())).body

    assert body.keys() == {"id", "object", "model", "status", "progress", "created_at", "metadata"}


async def test_a_completed_answer_has_the_documented_shape(sandbox: Sandbox, caller: Caller, clock: Clock) -> None:
    task_id = await caller.task(n=2, client_business_id="order_20260428_001")
    clock.advance(10)
    body = (await caller.query(task_id)).body

    urls = [f"{sandbox.files_url}/generated/{task_id}-{index}.png" for index in range(2)]
    assert body == {
        "id": task_id,
        "client_business_id": "order_20260428_001",
        "object": "generation.task",
        "model": VIP,
        "status": "completed",
        "progress": 100,
        "created_at": 1703884800,
        "completed_at": 1703884810,
        "expires_at": 1703884810 + 24 * 3600,
        "result": {"type": "image", "data": [{"url": url} for url in urls]},
        "metadata": {},
    }


async def test_a_failed_answer_has_an_error_and_a_refund(caller: Caller, clock: Clock) -> None:
    task_id = await caller.task("[fail] a red kite", quality="low")
    clock.advance(10)
    body = (await caller.query(task_id)).body

    assert body["status"] == "failed"
    assert body["completed_at"] == 1703884810
    assert body["error"]["code"] == "generation_failed"
    assert body["error"]["message"]
    assert body["billing"] == {"status": "refunded", "credits": "0", "cost_usd": "0"}
    assert "result" not in body
    assert "expires_at" not in body


@pytest.mark.parametrize(
    ("mode", "completed", "failed"),
    [("always", "settled", "refunded"), ("refunds", None, "refunded"), ("never", None, None)],
)
async def test_billing_comes_when_the_setting_says_so(
    session: aiohttp.ClientSession, mode: Any, completed: str | None, failed: str | None
) -> None:
    async with Sandbox(service_time_s=0, billing=mode, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        good = (await caller.query(await caller.task())).body
        bad = (await caller.query(await caller.task("[fail]"))).body

    assert good.get("billing", {}).get("status") == completed
    assert bad.get("billing", {}).get("status") == failed


async def test_metadata_comes_back_as_it_was_sent(caller: Caller) -> None:
    reply = await caller.submit(metadata={"order": 7})

    assert reply.body["metadata"] == {"order": 7}


@pytest.mark.parametrize("given", ["order-7", "a/b c%20?x=1#y", "заказ·7", "{braces}", "a%2Fb"])
async def test_a_task_is_found_by_any_client_business_id(caller: Caller, given: str) -> None:
    task_id = await caller.task(client_business_id=given)

    body = (await caller.query(given)).body
    assert body["id"] == task_id
    assert body["client_business_id"] == given


async def test_text_that_utf_8_cannot_hold_is_answered_all_the_same(caller: Caller) -> None:
    reply = await caller.submit("half a pair: \ud800", client_business_id="\udc00")

    assert reply.status == 200
    assert (await caller.query(reply.body["id"])).body["client_business_id"] == "?"


async def test_the_id_is_read_from_metadata_too_but_the_top_level_goes_first(caller: Caller) -> None:
    nested = await caller.task(metadata={"client_business_id": "nested"})
    both = await caller.task(client_business_id="top", metadata={"client_business_id": "below"})

    assert (await caller.query("nested")).body["id"] == nested
    assert (await caller.query("top")).body["id"] == both
    assert (await caller.query("below")).status == 404


async def test_a_task_becomes_findable_late_when_asked_for(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(clock=clock, visible_after_s=20, speed=10, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        task_id = await caller.task(client_business_id="late")
        assert (await caller.query("late")).status == 404
        assert (await caller.query(task_id)).status == 200
        clock.advance(2)
        assert (await caller.query("late")).body["id"] == task_id


async def test_tasks_belong_to_the_user_of_the_key(session: aiohttp.ClientSession) -> None:
    keys = {"sk-a1": "ann", "sk-a2": "ann", "sk-b": "bob"}
    async with Sandbox(keys=keys, pictures=False) as sandbox:
        ann, ann_too, bob = (Caller(session, sandbox, key) for key in keys)
        hers = await ann.task(client_business_id="order")
        his = await bob.task(client_business_id="order")

        assert (await ann_too.query(hers)).status == 200
        assert (await bob.query(hers)).status == 404
        assert (await ann_too.query("order")).body["id"] == hers
        assert (await bob.query("order")).body["id"] == his


async def test_edits_are_submissions_too(sandbox: Sandbox, caller: Caller) -> None:
    body = {"model": "grok-imagine-1.0-edit", "prompt": "bluer", "image_urls": [{"url": "https://a.b/c.png"}]}
    reply = await caller.call("POST", "/v1/images/edits", json=body)

    assert reply.status == 200
    assert (await caller.query(reply.body["id"])).status == 200
    assert sandbox.requests.count("submit") == 1


async def test_balances_have_the_documented_fields(session: aiohttp.ClientSession) -> None:
    async with Sandbox(credits=2560, keys={"sk-1": "ann", "sk-2": "ann"}, pictures=False) as sandbox:
        one, two = Caller(session, sandbox, "sk-1"), Caller(session, sandbox, "sk-2")
        await one.task(model="doubao-seedream-4-0", metadata={"resolution": "1K"}, n=10)
        await two.task(model="doubao-seedream-4-0", metadata={"resolution": "1K"}, n=15)

        assert await one.balance() == {
            "success": True,
            "remain_balance": 12.55,
            "used_balance": 0.25,
            "remain_credits": 2510,
            "used_credits": 50,
            "credits_per_usd": 200,
            "unlimited_quota": False,
        }
        assert (await one.balance("/v1/balance"))["used_credits"] == 20
        assert (await two.balance("/v1/balance"))["used_credits"] == 30
        assert (await two.balance("/v1/balance"))["remain_credits"] == 2510


async def test_an_unlimited_account_says_so(session: aiohttp.ClientSession) -> None:
    async with Sandbox(credits=None, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        await caller.task(quality="low")
        balance = await caller.balance()

    assert balance["unlimited_quota"] is True
    assert balance["remain_balance"] == -1
    assert balance["used_credits"] == 0.38


async def test_models_are_listed_by_type(caller: Caller) -> None:
    async def listed(query: str) -> set[str]:
        body = (await caller.call("GET", f"/v1/models{query}")).body
        assert body["success"] is True
        assert body["object"] == "list"
        assert all(item["object"] == "model" for item in body["data"])
        return {item["id"] for item in body["data"]}

    image, video, text = await listed("?type=image"), await listed("?type=video"), await listed("")
    assert {VIP, "gpt-image-2", "gpt-image-2-official", "gpt-4o-image"} <= image
    assert text
    assert {"seedance-2", "veo3.1-fast", "sora-2-official"} <= video
    assert not (image & text)
    assert not (image & video)
    assert await listed("?type=all") == image | text | video
    assert await listed("?type=audio") == set()
