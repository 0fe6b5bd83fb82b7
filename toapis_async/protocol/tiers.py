"""Which tier a rate-limit header speaks of."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from toapis_async.settings import TIERS

Category: TypeAlias = Literal["submit", "query"]


def bucket_of_limit(category: Category, limit: float) -> tuple[float, float] | None:
    """The (burst, rate per second) of the one tier that documents this figure for the category.

    The unit of `X-RateLimit-Limit` is not published, so a tier's figure per minute, per second and its burst all
    count, rounded either way. None for a figure that fits no tier, or two (500 is the default tier's query burst and
    the highest tier's query rate).
    """
    shown = [bucket for bucket in _buckets(category) if any(_same(limit, figure) for figure in _figures(*bucket))]
    return shown[0] if len(shown) == 1 else None


def _buckets(category: Category) -> list[tuple[float, float]]:
    if category == "submit":
        return [(limits.submit_burst, limits.submit_per_s) for limits in TIERS.values()]
    return [(limits.query_burst, limits.query_per_s) for limits in TIERS.values()]


def _figures(burst: float, per_s: float) -> tuple[float, ...]:
    return per_s * 60, per_s, burst


def _same(shown: float, figure: float) -> bool:
    return abs(shown - figure) <= 0.05 or shown in {math.floor(figure), math.ceil(figure)}
