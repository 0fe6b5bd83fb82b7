"""Reserved before, settled after: the cap is passed at most by what `billing` adds to the stated price."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toapis_async import BudgetExceeded
from toapis_async.protocol.budget import Budget, PriceClass, Prices, images_of

VIP = PriceClass.of({})


def prices(**stated: float) -> Prices:
    return Prices({name.replace("_", "/"): Decimal(str(price)) for name, price in stated.items()})


def any_at(price: str) -> Prices:
    return Prices({"*": Decimal(price)})


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, ("gpt-image-2-vip/1k/medium", "gpt-image-2-vip/1k", "gpt-image-2-vip", "*")),
        ({"resolution": "4k"}, ("gpt-image-2-vip/4k/medium", "gpt-image-2-vip/4k", "gpt-image-2-vip", "*")),
        ({"model": "flux"}, ("flux", "*")),
        ({"model": "flux", "quality": "high"}, ("flux/*/high", "flux/*", "flux", "*")),
        ({"model": "flux", "resolution": "2K"}, ("flux/2K", "flux", "*")),
    ],
)
def test_a_class_is_named_from_the_most_exact_to_any(body: dict[str, Any], names: tuple[str, ...]) -> None:
    assert PriceClass.of(body).names == names
    assert str(PriceClass.of(body)) == names[0]


def test_the_most_exact_stated_price_counts_and_billing_over_it() -> None:
    table = Prices({"*": Decimal(9), "gpt-image-2-vip": Decimal(2), "gpt-image-2-vip/4k": Decimal(5)})
    assert table.of(VIP) == 2
    assert table.of(PriceClass.of({"resolution": "4k"})) == 5
    assert table.of(PriceClass.of({"model": "flux"})) == 9
    table.billed(VIP, 2, Decimal("0.7"))
    assert table.of(VIP) == Decimal("0.35")
    assert Prices({}).of(VIP) is None


@pytest.mark.parametrize(("n", "images"), [(None, 1), (1, 1), (10, 10), (0, 1), (-3, 1), ("4", 1), (True, 1)])
def test_images_are_what_is_charged_up_front(n: object, images: int) -> None:
    assert images_of({"n": n}) == images


def test_one_cheap_bill_does_not_open_the_purse() -> None:
    table = any_at("2")
    table.billed(VIP, 1, Decimal(0))
    assert table.of(VIP) == 2
    for credits_, price in (("1", "1"), ("3", "3"), ("0.5", "3")):
        table.billed(VIP, 1, Decimal(credits_))
        assert table.of(VIP) == Decimal(price)


def test_other_models_may_be_told_in_their_metadata() -> None:
    body = {"model": "gemini", "metadata": {"resolution": "4K", "n": 3}}
    assert PriceClass.of(body).names[0] == "gemini/4K"
    assert images_of(body) == 3
    assert images_of({**body, "n": 2}) == 2
    assert images_of({"model": "gemini", "n": "4"}) == 4
    assert images_of({"model": "gemini", "metadata": {"n": "many"}}) == 1


def test_vip_is_told_at_the_top_alone() -> None:
    body = {"metadata": {"resolution": "4K", "n": 3}}
    assert PriceClass.of(body) == VIP
    assert images_of(body) == 1


def test_a_request_that_fits_exactly_is_let_through_and_the_next_is_not() -> None:
    budget = Budget(any_at("0.1"), most_credits=Decimal("0.3"))
    for _ in range(3):
        budget.reserve(VIP, 1)
    with pytest.raises(BudgetExceeded, match=r"1 more image for 0\.1 credits .* budget of 0\.3 credits, of which 0\.3"):
        budget.reserve(VIP, 1)


def test_what_is_given_back_may_be_spent_again() -> None:
    budget = Budget(any_at("1"), most_credits=Decimal(2))
    first = budget.reserve(VIP, 2)
    budget.give_back(first)
    budget.settle(budget.reserve(VIP, 1))
    assert (budget.spent, budget.reserved) == (Decimal(1), Decimal(0))
    assert (budget.images, budget.reserved_images) == (1, 0)
    budget.reserve(VIP, 1)


def test_billing_corrects_what_was_spent_and_what_the_next_costs() -> None:
    budget = Budget(any_at("1"), most_credits=Decimal(10))
    budget.settle(budget.reserve(VIP, 2), Decimal(6))
    assert budget.spent == 6
    with pytest.raises(BudgetExceeded):
        budget.reserve(VIP, 2)
    budget.reserve(VIP, 1)


def test_a_class_without_a_price_is_refused_with_the_words_to_add() -> None:
    budget = Budget(prices(), most_credits=Decimal(10))
    with pytest.raises(BudgetExceeded, match=r"--price gpt-image-2-vip/1k/medium=") as caught:
        budget.reserve(VIP, 1)
    assert "Settings(prices={'gpt-image-2-vip/1k/medium': …})" in str(caught.value)
    assert not budget.may_get_back(VIP)


def test_a_cap_on_images_needs_no_price() -> None:
    budget = Budget(prices(), most_images=3)
    held = budget.reserve(VIP, 2)
    with pytest.raises(BudgetExceeded, match=r"2 more images could pass the cap of 3, of which 2"):
        budget.reserve(VIP, 2)
    assert budget.may_get_back(VIP)
    budget.settle(held)
    assert not budget.may_get_back(VIP)


def test_what_was_paid_already_counts_even_when_it_does_not_fit() -> None:
    budget = Budget(prices(), most_credits=Decimal(1), most_images=1)
    budget.settle(budget.reserve(VIP, 5, forced=True), Decimal(7))
    assert (budget.spent, budget.images) == (Decimal(7), 5)


def test_without_a_cap_it_only_counts() -> None:
    budget = Budget(prices())
    assert not budget.is_capped
    budget.settle(budget.reserve(VIP, 5))
    assert (budget.spent, budget.images) == (Decimal(0), 5)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["settle", "give back", "keep"])), max_size=60),
    st.integers(0, 40),
)
def test_spent_and_reserved_together_never_pass_the_cap(steps: list[tuple[int, str]], cap: int) -> None:
    budget = Budget(any_at("0.5"), most_credits=Decimal(cap) / 2)
    for images, end in steps:
        try:
            held = budget.reserve(VIP, images)
        except BudgetExceeded:
            continue
        assert budget.spent + budget.reserved <= Decimal(cap) / 2
        if end == "settle":
            budget.settle(held)
        elif end == "give back":
            budget.give_back(held)
    assert budget.reserved >= 0
    assert budget.images + budget.reserved_images <= cap
