"""Prices, bills and usage."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.sandbox import Fault, Sandbox
from toapis_async.sandbox.catalogue import IMAGE_MODELS
from toapis_async.sandbox.video_catalogue import VIDEO_MODELS

from .kit import VIP, Caller, Clock

if TYPE_CHECKING:
    import aiohttp


async def prices(caller: Caller, query: str = "") -> dict[str, Any]:
    return (await caller.call("GET", f"/v1/pricing{query}")).body


async def test_prices_are_listed_page_by_page(caller: Caller) -> None:
    seen: list[str] = []
    query = "?limit=7"
    while True:
        page = await prices(caller, query)
        assert page["object"] == "list"
        assert page["currency"] == "USD"
        seen += [entry["id"] for entry in page["data"]]
        if not page["has_more"]:
            break
        query = f"?limit=7&after={page['next_after']}"
    assert page["next_after"] == ""
    assert seen == [*IMAGE_MODELS, *VIDEO_MODELS]


async def test_prices_of_a_model_and_of_a_type(caller: Caller) -> None:
    [entry] = (await prices(caller, f"?model={VIP}"))["data"]
    assert entry["prices"][0] == {
        "group": "default",
        "conditions": {"resolution": "1k", "quality": "low"},
        "charge_type": "per_request",
        "price_basis": "request",
        "unit": "request",
        "unit_price": "0.0019",
    }
    assert {one["type"] for one in (await prices(caller, "?type=video"))["data"]} == {"video"}
    units = {price["unit"] for one in (await prices(caller))["data"] for price in one["prices"]}
    assert units == {"request", "second", "1m_tokens"}
    assert (await prices(caller, "?model=flux-kontext-max"))["data"][0]["prices"] == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?limit=0", 400, "invalid_request_error"),
        ("?limit=101", 400, "invalid_request_error"),
        ("?limit=x", 400, "invalid_request_error"),
        ("?type=audio", 400, "invalid_request_error"),
        ("?after=nobody", 400, "invalid_request_error"),
        ("?model=nobody", 404, "model_not_found"),
    ],
)
async def test_a_wrong_question_about_prices_is_refused(caller: Caller, query: str, status: int, code: str) -> None:
    reply = await caller.call("GET", f"/v1/pricing{query}")
    assert (reply.status, reply.error["code"]) == (status, code)


async def test_prices_need_a_key_and_may_be_unavailable(
    session: aiohttp.ClientSession, sandbox: Sandbox, caller: Caller
) -> None:
    assert (await Caller(session, sandbox, key=None).call("GET", "/v1/pricing")).status == 401
    sandbox.faults.script("pricing", Fault.PRICING_UNAVAILABLE)
    reply = await caller.call("GET", "/v1/pricing")
    assert (reply.status, reply.error["code"]) == (503, "pricing_unavailable")
    assert sandbox.requests.count("pricing") == 2


@pytest.mark.parametrize("kind", ["image", "video"])
async def test_what_is_listed_is_what_is_charged(caller: Caller, sandbox: Sandbox, kind: str) -> None:
    checked = 0
    for entry in (await prices(caller, f"?type={kind}"))["data"]:
        for price in [price for price in entry["prices"] if "pricing_period" not in price]:
            conditions = price["conditions"]
            if conditions.get("has_video_input") or price["unit"] == "1m_tokens":
                continue
            model: Any = {**IMAGE_MODELS, **VIDEO_MODELS}[entry["id"]]
            if kind == "image":
                resolution, quality = conditions["resolution"], conditions.get("quality", "medium")
                charge, times = model.charge(resolution, quality, 3, 1024**2, "x"), 3
            else:
                charge = model.charge(conditions.get(model.resolution_field.rpartition(".")[2], ""), 6, 1, 0)
                times = 6 if price["unit"] == "second" else 1
            assert Decimal(price["unit_price"]) * 200 * times == pytest.approx(Decimal(str(charge.credits)))
            checked += 1
    assert checked > 40


async def test_a_bill_is_pending_before_it_is_settled_or_refunded(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(clock=clock, service_time_s=10, billing="always", settle_after_s=30, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        good, bad = await caller.task(quality="low"), await caller.task("[fail]", quality="low")
        clock.advance(10)
        for task_id in (good, bad):
            assert (await caller.query(task_id)).body["billing"] == {"status": "pending"}
        assert sandbox.ledger.credits_refunded == 0
        assert (await caller.balance())["used_credits"] == 0.76
        clock.advance(30)
        settled, refunded = [(await caller.query(task_id)).body["billing"] for task_id in (good, bad)]
        assert settled == {"status": "settled", "credits": "0.38", "cost_usd": "0.0019"}
        assert refunded == {"status": "refunded", "credits": "0", "cost_usd": "0"}
        assert sandbox.ledger.credits_refunded == 0.38
        assert (await caller.balance())["used_credits"] == 0.38


async def test_a_bill_can_stay_pending_for_good(caller: Caller, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.faults.script("submit", (Fault.BILL_PENDING, Fault.TASK_FAILS))
    task_id = await caller.task()
    clock.advance(1e9)
    assert (await caller.query(task_id)).body["billing"] == {"status": "pending"}
    assert sandbox.ledger.credits_refunded == 0


async def test_by_token_the_settled_bill_is_lower_and_comes_with_its_usage(
    session: aiohttp.ClientSession, clock: Clock
) -> None:
    async with Sandbox(clock=clock, service_time_s=10, billing="always", pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        task_id = await caller.task(model="gpt-image-2.5-flare-vip", quality="medium")
        charged = sandbox.ledger.credits_charged
        clock.advance(10)
        body = (await caller.query(task_id)).body
        usage = body["usage"]
        assert usage["output_tokens"] == 1_056
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert Decimal(body["billing"]["credits"]) == Decimal(usage["total_tokens"]) * 40 * 200 / 1_000_000
        assert sandbox.ledger.credits_paid == float(body["billing"]["credits"]) < charged
        assert (await caller.balance())["used_credits"] == sandbox.ledger.credits_paid


async def test_a_kept_sandbox_knows_its_bills_again(
    session: aiohttp.ClientSession, clock: Clock, tmp_path: Any
) -> None:
    options: dict[str, Any] = {"clock": clock, "billing": "always", "pictures": False, "state_dir": tmp_path}
    async with Sandbox(service_time_s=10, settle_after_s=30, **options) as sandbox:
        caller = Caller(session, sandbox)
        video = await caller.video(client_business_id="boat", duration=4)
        await caller.task("[fail]")
    clock.advance(20)
    async with Sandbox(**options) as sandbox:
        caller = Caller(session, sandbox)
        assert (await caller.query_video("boat")).body["id"] == video
        assert (await caller.query_video("boat")).body["billing"] == {"status": "pending"}
        clock.advance(20)
        assert (await caller.query_video("boat")).body["billing"]["credits"] == "80"
        assert (await caller.balance())["used_credits"] == 80


async def test_one_balance_has_two_paths(caller: Caller) -> None:
    assert await caller.balance("/user/balance") == await caller.balance("/v1/user/balance")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault.QUOTA_403, 403, "insufficient_user_quota"),
        (Fault.MODEL_FORBIDDEN, 403, ""),
    ],
)
async def test_refusals_of_the_family_come_on_demand(
    sandbox: Sandbox, caller: Caller, fault: Fault, status: int, code: str
) -> None:
    sandbox.faults.script("submit", fault)
    reply = await caller.submit()
    assert (reply.status, reply.error["code"]) == (status, code)
    assert len(sandbox.ledger) == 0


async def test_a_person_in_a_reference_is_refused_in_json_as_text(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", Fault.FAIL_TO_FETCH)
    reply = await caller.submit()
    assert (reply.status, reply.body["code"], reply.body["data"]) == (400, "fail_to_fetch_task", None)
    assert "PrivacyInformation" in reply.body["message"]
