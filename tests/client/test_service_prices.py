"""A budget without prices of the user's own takes the service's, once, when it first needs one."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.kit import KEY, FakeService, answer, fast, refusal
from toapis_async import AuthenticationFailed, BudgetExceeded, Settings, ToAPIs, VideoRequest
from toapis_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path


def page(model: str, usd: str, unit: str = "request") -> dict[str, Any]:
    row = {"charge_type": f"per_{unit}", "price_basis": "", "unit": unit, "unit_price": usd}
    return {"currency": "USD", "data": [{"id": model, "type": "image", "prices": [row]}], "has_more": False}


def scripted(service: FakeService, credits_per_usd: int = 200) -> None:
    """Answers to the questions for images' prices, videos' prices and the balance."""
    service.balance = {"success": True, "remain_credits": 5, "credits_per_usd": credits_per_usd}
    service.on_query.extend(
        answer(200, body) for body in (page("gpt-image-2-vip", "0.01"), page("seedance-2", "0.1", "second"))
    )


@pytest.mark.looptime
async def test_rows_are_sent_by_the_services_prices_and_it_is_asked_once(service: FakeService) -> None:
    scripted(service)
    async with ToAPIs(KEY, settings=Settings()) as client:
        items = await client.batch([f"kite {n}" for n in range(5)], budget_credits=6).gather()
    assert [item.ok for item in items] == [True, True, True, False, False]  # 2 credits each
    assert all(isinstance(item.error, BudgetExceeded) for item in items[3:])
    assert len(service.of("prices")) == 2


@pytest.mark.looptime
async def test_credits_of_a_dollar_are_those_of_the_balance(service: FakeService) -> None:
    scripted(service, credits_per_usd=100)
    async with ToAPIs(KEY, settings=Settings(), budget_credits=1) as client:
        await client.generate("a kite")
        with pytest.raises(BudgetExceeded, match="could pass the budget"):
            await client.generate("another")


@pytest.mark.looptime
async def test_a_price_of_the_users_own_asks_nobody(service: FakeService) -> None:
    async with ToAPIs(KEY, settings=Settings(prices={"*": 1}), budget_credits=5) as client:
        await client.generate("a kite")
    assert service.of("prices") == []


@pytest.mark.looptime
async def test_without_a_budget_on_credits_nobody_is_asked(service: FakeService) -> None:
    async with ToAPIs(KEY, settings=Settings()) as client:
        await client.generate("a kite")
        await client.batch(["a kite"], max_images=3).gather()
    assert service.of("prices") == []


@pytest.mark.looptime
async def test_a_service_that_tells_no_prices_leaves_what_has_none_unsent(service: FakeService) -> None:
    service.on_query.append(refusal(403))
    async with ToAPIs(KEY, settings=Settings(), budget_credits=5) as client:
        for _ in range(2):
            with pytest.raises(BudgetExceeded, match="needs a price for gpt-image-2-vip/1k/medium"):
                await client.generate("a kite")
    assert service.of("submit") == []
    assert len(service.of("prices")) == 1


async def test_a_video_of_an_open_length_has_no_price_and_one_of_a_stated_length_has() -> None:
    async with (
        Sandbox(service_time_s=0.02) as sandbox,
        ToAPIs(KEY, base_url=sandbox.base_url, settings=fast(), budget_credits=10_000) as client,
    ):
        with pytest.raises(BudgetExceeded, match="second of an open length"):
            await client.generate(VideoRequest("a boat", model="seedance-2"))
        await client.generate(VideoRequest("a boat", model="seedance-2", duration=5))
        (entry,) = sandbox.ledger.entries
        prices = [p for p in await client.prices("seedance-2") if p.conditions.get("resolution") == "720p"]
        assert Decimal(str(entry.credits)) <= max(p.unit_price for p in prices) * 5 * 200


@pytest.mark.looptime
async def test_a_wrong_key_is_told_as_such_and_stops_the_batch(service: FakeService) -> None:
    service.on_query.append(refusal(401, "unauthorized", "bad key"))
    async with ToAPIs(KEY, settings=Settings()) as client:
        batch = client.batch(["a kite"], budget_credits=5)
        (item,) = await batch.gather()
    assert isinstance(item.error, AuthenticationFailed)
    assert batch.stopped_by is item.error
    assert service.of("submit") == []


@pytest.mark.looptime
async def test_earlier_passes_count_by_the_services_prices(service: FakeService, tmp_path: Path) -> None:
    async with ToAPIs(KEY, settings=Settings(), journal=tmp_path / "j.db") as client:
        await client.batch(["a", "b"], run="r").gather()
    scripted(service)
    async with ToAPIs(KEY, settings=Settings(), journal=tmp_path / "j.db") as client:
        batch = client.batch(["a", "b", "c", "d"], run="r", budget_credits=6)
        items = await batch.gather()
    assert [item.ok for item in items] == [True, True, True, False]
    assert batch.statistics().credits_spent == 6
