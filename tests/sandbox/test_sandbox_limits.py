"""The buckets: pure first, then over the wire with a clock that stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from toapis_async.sandbox import TIERS, Limits, Sandbox
from toapis_async.sandbox.limits import RateLimiter, TokenBucket, retry_after

from .kit import Caller, Clock, Reply

if TYPE_CHECKING:
    import aiohttp

TIGHT = Limits(submit_per_s=2, submit_burst=3, query_per_s=10, query_burst=4)


def test_the_tiers_are_the_published_ones() -> None:
    per_minute = {
        name: (round(tier.submit_per_s * 60), tier.submit_burst, round(tier.query_per_s * 60), tier.query_burst)
        for name, tier in TIERS.items()
    }
    assert per_minute == {
        "default": (300, 50, 3_000, 500),
        "vip": (1_000, 167, 10_000, 1_667),
        "svip": (2_000, 334, 30_000, 5_000),
    }


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate_exactly() -> None:
    bucket = TokenBucket(per_s=3, burst=5, now=100.0)

    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    admitted = sum(bucket.take(100.0 + step / 30) for step in range(1, 301))
    assert admitted == 30


def test_a_bucket_is_never_fuller_than_its_burst() -> None:
    bucket = TokenBucket(per_s=3, burst=5, now=0.0)
    bucket.take(0.0)

    assert bucket.level(1e9) == 5


def test_a_clock_that_goes_back_refills_nothing() -> None:
    bucket = TokenBucket(per_s=1, burst=1, now=100.0)
    assert bucket.take(100.0)
    assert not bucket.take(40.0)
    assert not bucket.take(40.5)
    assert bucket.take(41.0)


def test_a_refusal_takes_nothing() -> None:
    limiter = RateLimiter(TIGHT)
    verdicts = [limiter.admit("ann", "async_submit", 0.0).admitted for _ in range(50)]

    assert verdicts.count(True) == 3
    assert limiter.admit("ann", "async_submit", 0.5).admitted


@pytest.mark.parametrize(
    ("wait_s", "speed", "text"),
    [(0.0, 1, "1"), (0.3, 1, "1"), (1.2, 1, "2"), (0.01, 20, "0.05"), (0.06, 20, "0.1"), (1.0, 1, "1")],
)
def test_retry_after_is_whole_seconds_of_the_services_time(wait_s: float, speed: float, text: str) -> None:
    assert retry_after(wait_s, speed) == text


@pytest.mark.parametrize("figures", [(0, 1, 1, 1), (1, 0.5, 1, 1), (1, 1, -1, 1), (1, 1, 1, 0)], ids=str)
def test_limits_that_would_admit_nothing_are_refused(figures: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="Limits"):
        Limits(*figures)


async def submitted(caller: Caller, times: int) -> list[Reply]:
    return [await caller.submit() for _ in range(times)]


async def test_a_drained_bucket_answers_429_with_all_its_headers(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(limits=TIGHT, clock=clock, pictures=False) as sandbox:
        replies = await submitted(Caller(session, sandbox), 4)

        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert [reply.headers["X-RateLimit-Remaining"] for reply in replies] == ["2", "1", "0", "0"]
        last = replies[-1]
        assert last.error.keys() == {"code", "message"}
        assert last.error["code"] == "rate_limit_exceeded"
        assert last.headers["X-RateLimit-Limit"] == "120"
        assert last.headers["X-RateLimit-Category"] == "async_submit"
        assert last.headers["X-RateLimit-Reset"] == str(int(clock.now) + 2)
        assert last.headers["Retry-After"] == "1"
        assert "Retry-After" not in replies[0].headers
        assert sandbox.requests.rate_limited == 1


async def test_after_retry_after_the_next_one_passes(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(limits=TIGHT, clock=clock, speed=20, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        last = (await submitted(caller, 4))[-1]
        assert last.status == 429
        clock.advance(float(last.headers["Retry-After"]))
        assert (await caller.submit()).status == 200


async def test_speed_multiplies_rates_and_the_figures_in_headers_but_not_bursts(
    session: aiohttp.ClientSession, clock: Clock
) -> None:
    async with Sandbox(clock=clock, speed=20, pictures=False) as sandbox:
        reply = await Caller(session, sandbox).submit()

        assert reply.headers["X-RateLimit-Limit"] == "6000"
        assert reply.headers["X-RateLimit-Remaining"] == "49"


async def test_the_reset_can_count_seconds_instead(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(limits=TIGHT, clock=clock, reset_unit="seconds", pictures=False) as sandbox:
        reply = (await submitted(Caller(session, sandbox), 3))[-1]

        assert reply.headers["X-RateLimit-Reset"] == "2"


async def test_queries_have_a_bucket_of_their_own(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(limits=TIGHT, clock=clock, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        await submitted(caller, 4)
        replies = [await caller.query("nobody") for _ in range(5)]

        assert [reply.status for reply in replies] == [404] * 4 + [429]
        assert replies[0].headers["X-RateLimit-Category"] == "async_query"
        assert replies[0].headers["X-RateLimit-Remaining"] == "3"


async def test_a_business_failure_costs_allowance(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(limits=TIGHT, clock=clock, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        refused = [(await caller.submit("[refuse]")).status for _ in range(4)]

        assert refused == [422, 422, 422, 429]


async def test_all_keys_of_a_user_share_the_buckets(session: aiohttp.ClientSession, clock: Clock) -> None:
    keys = {"a1": "ann", "a2": "ann", "b": "bob"}
    async with Sandbox(limits=TIGHT, clock=clock, keys=keys, pictures=False) as sandbox:
        one, two, bob = (Caller(session, sandbox, key) for key in keys)
        await submitted(one, 3)

        assert (await two.submit()).status == 429
        assert (await bob.submit()).status == 200


async def test_uploads_models_and_balances_are_outside_both_buckets(
    session: aiohttp.ClientSession, clock: Clock
) -> None:
    async with Sandbox(limits=TIGHT, clock=clock, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        for _ in range(8):
            assert (await caller.call("GET", "/v1/balance")).status == 200
            assert (await caller.call("GET", "/v1/models")).status == 200
            assert (await caller.upload(b"GIF89a")).status == 200
        assert "X-RateLimit-Limit" not in (await caller.call("GET", "/v1/balance")).headers
        assert (await caller.submit()).status == 200


async def test_a_tier_is_chosen_by_name(session: aiohttp.ClientSession) -> None:
    async with Sandbox(tier="svip", pictures=False) as sandbox:
        assert (await Caller(session, sandbox).submit()).headers["X-RateLimit-Limit"] == "2000"
