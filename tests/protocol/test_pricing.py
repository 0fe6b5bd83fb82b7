"""The service's prices: what is read of them, and what a request may cost by them at most."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings

from tests.protocol.kit import json_values
from toapis_async.errors import BudgetExceeded, UnreadableAnswer
from toapis_async.protocol.budget import Budget, Prices
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.pricing import PriceClass, PricePage, ServicePrices, decode_prices
from toapis_async.request import ImageRequest, VideoRequest

LINK = "https://files.toapis.com/a.png"


def row(unit_price: str, unit: str = "request", **members: Any) -> dict[str, Any]:
    charge_type = {"request": "per_request", "second": "per_second"}.get(unit, "per_token")
    basis = {"request": "request", "second": "output_seconds"}.get(unit, "total_tokens")
    return {"charge_type": charge_type, "price_basis": basis, "unit": unit, "unit_price": unit_price, **members}


def page(model: str, *rows: object, **members: Any) -> PricePage:
    entry = {"id": model, "type": "image", "prices": list(rows)}
    body = {"object": "list", "currency": "USD", "data": [entry], "has_more": False, "next_after": "", **members}
    return decode_prices(Answer(200, {}, json.dumps(body).encode()))


def cost(model: str, *rows: object, **fields: Any) -> Decimal | None:
    known = ServicePrices(page(model, *rows).prices)
    request = (
        VideoRequest("a", model=model, **fields) if "duration" in fields else ImageRequest("a", model=model, **fields)
    )
    return known.of(PriceClass.of(request.body()))


# ------------------------------------------------------------------------------------------------ what is read


def test_a_documented_page_decodes() -> None:
    found = page(
        "seedance-2",
        row("0.04", "second", group="default", conditions={"resolution": "720p", "has_video_input": False}),
        has_more=True,
        next_after="seedance-2",
    )
    (price,) = found.prices
    assert found.next_after == "seedance-2"
    assert (price.model, price.type, price.unit, price.unit_price) == ("seedance-2", "image", "second", Decimal("0.04"))
    assert (price.charge_type, price.price_basis) == ("per_second", "output_seconds")
    assert price.conditions == {"resolution": "720p", "has_video_input": False}
    assert price.raw["group"] == "default"
    assert page("m", row("1")).next_after is None


@pytest.mark.parametrize("unit_price", [None, "", "free", -1, "-0.1", True, [], "NaN", "1e999999999"])
def test_a_price_that_is_none_is_left_out_and_not_free(unit_price: Any) -> None:
    assert page("m", {**row("1"), "unit_price": unit_price}).prices == ()
    assert cost("m", {**row("1"), "unit_price": unit_price}) is None


def test_other_currencies_are_none_of_ours() -> None:
    assert page("m", row("1"), currency="CNY").prices == ()
    assert len(page("m", row("1"), currency=None).prices) == 1


@settings(max_examples=100)
@given(data=json_values, rows=json_values)
def test_whatever_comes_is_read_or_unreadable(data: object, rows: object) -> None:
    for body in ({"data": data}, {"data": [{"id": "m", "prices": rows}]}, {"data": [{"id": "m", "prices": [rows]}]}):
        answer = Answer(200, {}, json.dumps(body).encode())
        if isinstance(body["data"], list):
            ServicePrices(decode_prices(answer).prices).of(PriceClass("m"))
        else:
            with pytest.raises(UnreadableAnswer):
                decode_prices(answer)


# ------------------------------------------------------------------------------------------------ what it may cost


@pytest.mark.parametrize(
    ("fields", "rows", "credits_"),
    [
        ({}, [row("0.01")], "2"),
        ({"n": 3}, [row("0.01")], "2"),  # an image; the budget multiplies
        ({}, [], None),
        ({}, [row("1", "1m_tokens")], None),
        ({}, [row("0.01"), row("1", "1m_tokens")], None),
        ({}, [row("0.01", group="a"), row("0.03", group="b"), row("0.02", pricing_period="peak")], "6"),
        (
            {"resolution": "2K"},
            [row("1", conditions={"resolution": "1k"}), row("2", conditions={"resolution": "2k"})],
            "400",
        ),
        ({}, [row("1", conditions={"resolution": "1k"}), row("2", conditions={"resolution": "2k"})], "400"),
        ({"resolution": "8k"}, [row("1", conditions={"resolution": "1k"})], None),
        (
            {"quality": "low"},
            [row("1", conditions={"quality": "low"}), row("9", conditions={"quality": "high"})],
            "200",
        ),
        ({}, [row("1", conditions={"what_nobody_knows": "x"}), row("3", conditions={"what_nobody_knows": "y"})], "600"),
        ({"image_urls": [LINK] * 3}, [row("1", input_image_unit_price="0.5", free_input_image_count=1)], "400"),
        ({}, [row("1", input_image_unit_price="0.5", free_input_image_count=1)], "200"),
        ({}, [row("0.001", minimum_charge_usd="0.01")], "2"),
        ({}, [row("1", "fortnight")], None),
    ],
)
def test_the_dearest_row_that_may_apply_counts(
    fields: dict[str, Any], rows: list[object], credits_: str | None
) -> None:
    expected = None if credits_ is None else Decimal(credits_)
    assert cost("some-model", *rows, **fields) == expected


@pytest.mark.parametrize(
    ("fields", "rows", "credits_"),
    [
        ({"duration": 5}, [row("0.1", "second")], "100"),
        ({"duration": 5}, [row("0.1")], "20"),
        ({"duration": 0}, [row("0.1", "second")], None),
        ({"duration": -1}, [row("0.1", "second")], None),
        ({"duration": None}, [row("0.1", "second")], None),
        ({"duration": 0}, [row("0.1")], "20"),
        ({"duration": 5}, [row("0.1", "second", price_basis="input_seconds")], None),
        (
            {"duration": 5, "resolution": "1080p"},
            [row(price, "second", conditions={"resolution": p}) for price, p in (("0.1", "720p"), ("0.2", "1080p"))],
            "200",
        ),
        (
            {"duration": 5},  # 720p by the model's page
            [row(price, "second", conditions={"resolution": p}) for price, p in (("0.1", "720p"), ("0.2", "1080p"))],
            "100",
        ),
        (
            {"duration": 5, "video_with_roles": [{"url": LINK, "role": "reference_video"}]},
            [row("0.1", "second", conditions={"has_video_input": yes}) for yes in (True,)]
            + [row("0.9", "second", conditions={"has_video_input": False})],
            "100",
        ),
    ],
)
def test_a_video_is_priced_by_its_length(fields: dict[str, Any], rows: list[object], credits_: str | None) -> None:
    expected = None if credits_ is None else Decimal(credits_)
    assert cost("seedance-2", *rows, **fields) == expected


def test_the_default_length_of_a_known_model_counts() -> None:
    known = ServicePrices(page("kling-v3", row("0.1", "second")).prices)
    assert known.of(PriceClass.of(VideoRequest("a", model="kling-v3").body())) == 100
    assert known.of(PriceClass.of(VideoRequest("a", model="kling-v4", duration=5).body())) is None


def test_credits_of_a_dollar_are_the_balances() -> None:
    prices = page("m", row("0.5")).prices
    assert ServicePrices(prices, Decimal(100)).of(PriceClass("m")) == 50


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"model": "seedance-2", "duration": 5}, ("seedance-2/720p/5s", "seedance-2/720p", "seedance-2", "*")),
        ({"model": "seedance-2"}, ("seedance-2/720p", "seedance-2", "*")),
        ({"model": "kling-v3", "mode": "pro"}, ("kling-v3/pro/5s", "kling-v3/pro", "kling-v3", "*")),
        (
            {"model": "doubao-seedance-1-5-pro", "metadata": {"resolution": "1080p"}, "duration": 4},
            ("doubao-seedance-1-5-pro/1080p/4s", "doubao-seedance-1-5-pro/1080p", "doubao-seedance-1-5-pro", "*"),
        ),
        ({"model": "new", "duration": 5}, ("new/*/5s", "new/*", "new", "*")),
    ],
)
def test_a_video_has_its_length_in_its_name(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    assert PriceClass.of(VideoRequest("a", **fields).body()).names == names
    assert PriceClass.of(VideoRequest("a", **fields).given()).names == names


# ------------------------------------------------------------------------------------------------ in a budget


def test_the_users_price_overrules_the_services_and_a_bill_corrects_both() -> None:
    service = ServicePrices(page("m", row("0.01")).prices)
    kind = PriceClass("m")
    prices = Prices({}, service)
    assert prices.of(kind) == 2
    assert prices.stated(kind) is None
    assert Prices({"m": Decimal(7)}, service).of(kind) == 7
    prices.billed(kind, 1, Decimal(3))
    assert prices.of(kind) == 3


def test_what_has_no_price_is_refused_under_a_budget_in_words() -> None:
    service = ServicePrices(page("gpt-image-2.5-flare-vip", row("5", "1m_tokens")).prices)
    budget = Budget(Prices({}, service), most_credits=Decimal(100))
    with pytest.raises(BudgetExceeded, match=r"needs a price for gpt-image-2\.5-flare-vip.*by token.*--price"):
        budget.reserve(PriceClass("gpt-image-2.5-flare-vip"), 1)
