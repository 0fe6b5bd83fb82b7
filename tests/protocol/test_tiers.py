"""Which tier a header's figure speaks of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol.tiers import bucket_of_limit
from toapis_async.settings import TIERS

if TYPE_CHECKING:
    from toapis_async.protocol.tiers import Category


@pytest.mark.parametrize(
    ("category", "limit", "tier"),
    [
        ("submit", 300, "default"),
        ("submit", 5, "default"),
        ("submit", 50, "default"),
        ("submit", 1_000, "vip"),
        ("submit", 16.7, "vip"),
        ("submit", 17, "vip"),
        ("submit", 167, "vip"),
        ("submit", 166, "vip"),
        ("submit", 2_000, "svip"),
        ("submit", 33, "svip"),
        ("submit", 334, "svip"),
        ("query", 3_000, "default"),
        ("query", 50, "default"),
        ("query", 10_000, "vip"),
        ("query", 167, "vip"),
        ("query", 1_667, "vip"),
        ("query", 30_000, "svip"),
        ("query", 5_000, "svip"),
        ("query", 500, None),  # the default tier's burst and the highest tier's rate
        ("query", 300, None),
        ("submit", 60, None),
        ("submit", 0, None),
        ("submit", -5, None),
        ("submit", 1e300, None),
    ],
)
def test_a_documented_figure_shows_its_tier_and_no_other_does(
    category: Category, limit: float, tier: str | None
) -> None:
    limits = TIERS[tier] if tier else None
    expected = limits and (
        (limits.submit_burst, limits.submit_per_s) if category == "submit" else (limits.query_burst, limits.query_per_s)
    )
    assert bucket_of_limit(category, limit) == expected


@settings(max_examples=100)
@given(category=st.sampled_from(["submit", "query"]), limit=st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_figure_shows_a_documented_bucket_or_none(category: Category, limit: float) -> None:
    shown = bucket_of_limit(category, limit)
    assert shown is None or all(math.isfinite(part) and part > 0 for part in shown)
