"""The two token buckets of the service: per user, one for submissions and one for queries.

Pure: the time comes in as an argument. A bucket is refilled lazily and exactly, by the time since its last
use. A refused request takes nothing; whatever happens to an admitted one, its token is gone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

Tier = Literal["default", "vip", "svip"]
"""An account's tier by its documented name [docs]."""
Category = Literal["async_submit", "async_query"]
ResetUnit = Literal["unix", "seconds"]

_DUST = 1e-9
"""Refill is a product of floats: without this, a token due right now could come a hair too late."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Rates in requests a second and bursts in requests, both as the service would have them at speed 1."""

    submit_per_s: float
    submit_burst: float
    query_per_s: float
    query_burst: float

    def __post_init__(self) -> None:
        if min(self.submit_per_s, self.query_per_s) <= 0:
            raise ValueError("Limits: a rate must be positive")
        if min(self.submit_burst, self.query_burst) < 1:
            raise ValueError("Limits: a burst below one request would admit nothing, ever")

    def at_speed(self, speed: float) -> Limits:
        """Refill intervals are divided by the speed; bursts are counts and stay."""
        return replace(self, submit_per_s=self.submit_per_s * speed, query_per_s=self.query_per_s * speed)


TIERS: Final[dict[str, Limits]] = {
    "default": Limits(300 / 60, 50, 3_000 / 60, 500),
    "vip": Limits(1_000 / 60, 167, 10_000 / 60, 1_667),
    "svip": Limits(2_000 / 60, 334, 30_000 / 60, 5_000),
}
"""The documented limits of each tier [docs]."""


class TokenBucket:
    """One bucket: full at the start, refilled at `per_s`, never above `burst`."""

    __slots__ = ("_at", "_level", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self.per_s: float = per_s
        self.burst: float = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """Tokens in the bucket at `now`. A clock that goes back refills nothing and takes nothing."""
        passed_s = max(0.0, now - self._at)
        self._level = min(self.burst, self._level + passed_s * self.per_s)
        self._at = now
        return self._level

    def take(self, now: float) -> bool:
        """Take one token if there is a whole one."""
        if self.level(now) + _DUST < 1:
            return False
        self._level = max(0.0, self._level - 1)
        return True

    def wait_s(self, now: float) -> float:
        """Seconds until a whole token is there; 0 when it is."""
        return max(0.0, (1 - self.level(now)) / self.per_s)

    def full_in_s(self, now: float) -> float:
        """Seconds until the bucket is full again."""
        return (self.burst - self.level(now)) / self.per_s


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request was admitted, and the headers its answer carries either way."""

    admitted: bool
    headers: dict[str, str]


class RateLimiter:
    """The buckets of all users. All keys of a user share that user's two buckets."""

    def __init__(self, limits: Limits, *, speed: float = 1.0, reset_unit: ResetUnit = "unix") -> None:
        self._limits = limits.at_speed(speed)
        self._speed = speed
        self._reset_unit = reset_unit
        self._buckets: dict[tuple[str, Category], TokenBucket] = {}

    def admit(self, user: str, category: Category, now: float) -> Verdict:
        """Take a token for one request of this user, or say how long to wait."""
        bucket = self.bucket(user, category, now)
        admitted = bucket.take(now)
        headers = self._headers(bucket, category, now)
        if not admitted:
            headers["Retry-After"] = retry_after(bucket.wait_s(now), self._speed)
        return Verdict(admitted, headers)

    def bucket(self, user: str, category: Category, now: float) -> TokenBucket:
        """The user's bucket, made full when it is first used."""
        found = self._buckets.get((user, category))
        if found is None:
            found = self._buckets[user, category] = self._new_bucket(category, now)
        return found

    def peek(self, user: str, category: Category, now: float) -> dict[str, str]:
        """The headers without taking a token, for a 429 that comes from a fault."""
        return self._headers(self.bucket(user, category, now), category, now)

    def reset(self) -> None:
        """All buckets are full."""
        self._buckets.clear()

    def _new_bucket(self, category: Category, now: float) -> TokenBucket:
        limits = self._limits
        if category == "async_submit":
            return TokenBucket(limits.submit_per_s, limits.submit_burst, now)
        return TokenBucket(limits.query_per_s, limits.query_burst, now)

    def _headers(self, bucket: TokenBucket, category: Category, now: float) -> dict[str, str]:
        until_full_s = bucket.full_in_s(now)
        reset = now + until_full_s if self._reset_unit == "unix" else until_full_s
        return {
            "X-RateLimit-Limit": str(round(bucket.per_s * 60)),
            "X-RateLimit-Remaining": str(math.floor(bucket.level(now) + _DUST)),
            "X-RateLimit-Reset": str(math.ceil(reset - _DUST)),
            "X-RateLimit-Category": category,
        }


def retry_after(wait_s: float, speed: float) -> str:
    """`Retry-After` for a wait: whole seconds, at least one, of the service's time; at speed k divided by k.

    >>> retry_after(0.2, 1), retry_after(0.06, 20)
    ('1', '0.1')
    """
    service_s = max(1, math.ceil(wait_s * speed - _DUST))
    return f"{service_s / speed:.6g}"
