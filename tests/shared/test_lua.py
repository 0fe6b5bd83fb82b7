"""The script that Redis runs, and the arithmetic it was written from, on the same histories."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from attrs import asdict
from redis import Redis

from toapis_async.engine.shared.lua import REDIS_CLOCK, arguments_of, grant_of, script
from toapis_async.protocol import leasing
from toapis_async.protocol.leasing import Ask, State, lease

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

TOLD_TIME = "local now = tonumber(ARGV[19])\n"
"""In place of Redis' own clock, so that histories may be long."""
HISTORIES, STEPS = 25, 50


def asked(rng: random.Random, epoch: int, *, is_loose: bool, burst: float, per_s: float) -> Ask:
    """Something that a process may ask, the unusual often."""

    def seldom(value: Any, otherwise: Any) -> Any:
        return value if rng.random() < 0.15 else otherwise

    return Ask(
        member=rng.choice("abcdef"),
        burst=seldom(burst * 2, burst),
        per_s=seldom(per_s * 3, per_s),
        sureness=seldom(leasing.SEEN, rng.choice([leasing.GUESSED, leasing.STATED])),
        epoch=seldom(rng.randrange(12), epoch),
        want=seldom(0, rng.randrange(60)),
        is_loose=is_loose,
        lease_s=rng.choice([0.05, 0.5, 2.0]),
        unused=seldom(rng.randrange(20), 0),
        unused_for_s=rng.uniform(0, 3),
        extra=seldom(rng.uniform(0, 5), 0.0),
        alone_s=seldom(rng.uniform(0.1, 20), 0.0),
        spent_alone=rng.uniform(0, 50),
        remaining=seldom(rng.uniform(0, 50), None),
        pause_s=seldom(rng.uniform(0, 5), None),
        is_leaving=seldom(True, False),
        of=rng.randrange(1, 9),
    )


def stored(redis: Redis, key: str) -> dict[str, Any]:
    fields: Any = redis.hgetall(key)
    numbers = {name.decode(): float(value) for name, value in fields.items()}
    members = {name[2:]: value for name, value in numbers.items() if name.startswith("m:")}
    return {**{name: value for name, value in numbers.items() if not name.startswith("m:")}, "members": members}


def test_the_script_and_the_arithmetic_agree_on_random_histories(redis_server: RedisServer) -> None:
    with Redis.from_url(redis_server.url) as redis:
        step = redis.register_script(script(TOLD_TIME))
        for seed in range(HISTORIES):
            rng = random.Random(seed)
            key, state, now_s, epoch = f"history-{seed}", None, 1_800_000_000.0 + rng.random(), 0
            kind: dict[str, Any] = {
                "is_loose": rng.random() < 0.5,
                "burst": rng.uniform(1, 500),
                "per_s": rng.uniform(0.1, 200),
            }
            for _ in range(STEPS):
                now_s += rng.choice([0.0, 0.001, rng.uniform(0, 1), rng.uniform(0, 8), -rng.uniform(0, 3)])
                if rng.random() < 0.02:
                    redis.delete(key)
                    state = None
                ask = asked(rng, epoch, **kind)
                state, grant = lease(state, ask, now_s)
                assert grant_of(step(keys=[key], args=[*arguments_of(ask), "epochs", repr(now_s)])) == grant
                assert stored(redis, key) == asdict(state)
                epoch = grant.epoch


def test_a_state_that_was_tampered_with_counts_as_forgotten(redis_server: RedisServer) -> None:
    ask = Ask(member="a", burst=50.0, per_s=5.0, epoch=3)
    with Redis.from_url(redis_server.url) as redis:
        step = redis.register_script(script(TOLD_TIME))
        redis.hset("bucket", mapping={"level": "a lot", "m:b": "7"})
        assert grant_of(step(keys=["bucket"], args=[*arguments_of(ask), "epochs", "9.0"])) == lease(None, ask, 9.0)[1]


def test_members_that_nobody_can_be_are_cleared_away(redis_server: RedisServer) -> None:
    first, then = Ask(member="a", burst=50.0, per_s=5.0), Ask(member="a", burst=50.0, per_s=5.0, epoch=1, want=1)
    with Redis.from_url(redis_server.url) as redis:
        step = redis.register_script(script(TOLD_TIME))
        grant_of(step(keys=["crowd"], args=[*arguments_of(first), "epochs", "9.0"]))
        for seen_s in ("1e12", "inf", "nan", "soon", "9.0"):
            redis.hset("crowd", mapping={f"m:{seen_s}-{number}": seen_s for number in range(11_000)})
        assert grant_of(step(keys=["crowd"], args=[*arguments_of(then), "epochs", "9.5"])).is_sound(then)
        assert grant_of(step(keys=["crowd"], args=[*arguments_of(then), "epochs", "16.0"])).members == 1
        assert stored(redis, "crowd")["members"] == {"a": 16.0}


def test_the_clock_is_redis_own(redis_server: RedisServer) -> None:
    ask = Ask(member="a", burst=50.0, per_s=5.0)
    with Redis.from_url(redis_server.url) as redis:
        step = redis.register_script(script(REDIS_CLOCK))
        before: Any = redis.time()
        step(keys=["bucket"], args=[*arguments_of(ask), "epochs"])
        after: Any = redis.time()
        at_s = stored(redis, "bucket")["at_s"]
        assert before[0] + before[1] / 1e6 <= at_s <= after[0] + after[1] / 1e6
        assert redis.ttl("bucket") in range(1, 86_401)


def test_every_number_of_a_state_is_in_the_script() -> None:
    text = script()
    assert all(f"'{name}'" in text for name in State.__annotations__ if name != "members")
