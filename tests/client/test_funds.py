"""A batch warns when its budget, or the key's balance, will not cover the rows that are left."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.kit import KEY, FakeService
from toapis_async import Settings, ToAPIs
from toapis_async.events import CreditsShort, Event

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = pytest.mark.looptime


async def warned(
    rows: Iterable[Any], *, journal: Path | None = None, price: float = 2, **how: Any
) -> list[CreditsShort]:
    events: list[Event] = []
    settings = Settings(on_event=events.append, prices={"*": price} if price else {})
    async with ToAPIs(KEY, settings=settings, journal=journal) as client:
        await client.batch(rows, **how).gather()
    return [event for event in events if isinstance(event, CreditsShort)]


def kites(number: int) -> list[str]:
    return [f"kite {n}" for n in range(number)]


async def test_a_budget_that_does_not_cover_the_rows_is_told_once_and_early(service: FakeService) -> None:
    (event,) = await warned(kites(10), budget_credits=8)
    assert (event.of, event.rows_left) == ("budget", 10)
    assert (event.needed_credits, event.left_credits) == (Decimal(20), Decimal(8))
    assert event.at_s == 0  # at the first row


async def test_a_budget_or_a_balance_that_just_covers_them_is_not(service: FakeService) -> None:
    service.balance = {"success": True, "remain_credits": 20}
    assert await warned(kites(10), budget_credits=20) == []


async def test_what_rows_cost_is_learned_as_they_are_read(service: FakeService) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"{n}", "n": 1 if n == 0 else 4} for n in range(9)]
    (event,) = await warned(rows, budget_credits=50)
    assert event.needed_credits > 40  # 2 for the first, 8 for each of the others
    assert [event.of for event in await warned(rows, budget_credits=66)] == []


async def test_a_source_without_a_length_is_not_judged(service: FakeService) -> None:
    service.balance = {"success": True, "remain_credits": 1}
    assert await warned(iter(kites(10)), budget_credits=8) == []
    assert service.of("balance") == []


async def test_the_key_is_told_apart_from_the_budget(service: FakeService) -> None:
    service.balance = {"success": True, "remain_credits": 6}
    (event,) = await warned(kites(10), budget_credits=100)
    assert (event.of, event.needed_credits, event.left_credits) == ("key", Decimal(20), Decimal(6))
    service.balance = {"success": True, "remain_balance": -1, "unlimited_quota": True, "remain_credits": 0}
    assert await warned(kites(10), budget_credits=100) == []


async def test_where_nobody_counts_credits_nobody_asks_for_the_balance(service: FakeService) -> None:
    service.balance = {"success": True, "remain_credits": 6}
    assert await warned(kites(10), price=0) == []
    assert service.of("balance") == []


@pytest.mark.parametrize("how", [{}, {"max_images": 50}])
async def test_what_earlier_passes_paid_is_not_needed_again(
    service: FakeService, tmp_path: Path, how: dict[str, Any]
) -> None:
    await warned(kites(6), journal=tmp_path / "j.db", run="r", **how)
    service.balance = {"success": True, "remain_credits": 8}
    assert await warned(kites(10), journal=tmp_path / "j.db", run="r", **how) == []
    service.balance = {"success": True, "remain_credits": 7}
    (event,) = await warned(kites(14), journal=tmp_path / "j.db", run="r", **how)
    assert event.of == "key"
    assert event.needed_credits <= 8
