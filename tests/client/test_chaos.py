"""Everything at once, at random but seeded: outcomes, losses, cancellations, events and closings. Whatever happens,
nothing is paid twice, every permit, token and reservation comes back, and everyone gets an answer that names its id."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field

from tests.engine.journal_kit import ADDRESS
from tests.engine.kit import KEY, FakeService, FakeTransport, answer, lost, not_sent, refusal
from toapis_async import RateLimits, SessionClosed, Settings, ToAPIs, ToAPIsError

from .events import SECRET, deliver, event

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.events import Event
    from toapis_async.protocol.lenient import Answer
    from toapis_async.settings import Credentials

pytestmark = pytest.mark.looptime

CALLERS = 40
REFUSALS = (
    refusal(400),
    refusal(422),
    refusal(429, "rate_limit_exceeded", retry_after="2"),
    refusal(503, "rate_limit_unavailable"),
)


@define
class Chaos(FakeService):
    """A service that loses answers before and after it has taken a task, refuses, lags and pushes events."""

    rng: random.Random = field(factory=random.Random)

    def transport(self, credentials: Credentials, settings: Settings, emit: Callable[[Event], None]) -> FakeTransport:
        return _Wild(self)


class _Wild(FakeTransport):
    def __init__(self, service: Chaos) -> None:
        super().__init__(service)
        self._wild = service

    async def post(self, kind: str, path: str, json: Any = None, *, form: object = None, **more: Any) -> Answer:
        rng, service = self._wild.rng, self._wild
        await asyncio.sleep(rng.uniform(0, 3))
        luck = rng.random()
        if luck < 0.1:
            raise not_sent()
        if luck < 0.25:
            return rng.choice(REFUSALS)
        if luck < 0.35:
            raise lost()  # and not taken
        taken = service.accept(json)
        await asyncio.sleep(rng.uniform(0, 3))
        if luck < 0.5:
            raise lost()
        return refusal(504) if luck < 0.6 else taken

    async def get(self, kind: str, path: str, *, params: dict[str, str] | None = None) -> Answer:
        rng = self._wild.rng
        if rng.random() < 0.1:
            await asyncio.sleep(rng.uniform(0, 3))
            raise not_sent()
        if rng.random() < 0.1:
            return rng.choice((refusal(500), refusal(429, retry_after="1"), answer(200, b"{")))
        return await super().get(kind, path, params=params)


async def call(client: ToAPIs, rng: random.Random, number: int) -> str | None:
    """One caller: the client_business_id that its image, or its error, names."""
    await asyncio.sleep(rng.uniform(0, 60))
    prompt = f"kite {number}{' [fail]' if rng.random() < 0.2 else ''}"
    business_id = f"mine-{number}"
    try:
        timeout_s = rng.choice([None, None, rng.uniform(0, 60)])
        return (await client.generate(prompt, client_business_id=business_id, timeout_s=timeout_s)).client_business_id
    except SessionClosed:  # of one that came too late, it names none
        return business_id
    except ToAPIsError as error:
        return error.client_business_id


async def push(client: ToAPIs, service: Chaos) -> None:
    """Events: for most tasks that have ended, some twice, in no order, some before anyone knows their task."""
    while True:
        await asyncio.sleep(service.rng.uniform(0, 1))
        ended = [t for t in service.tasks.values() if "[fail]" not in t.prompt]
        if ended and service.rng.random() < 0.3:
            made = service.rng.choice(ended)
            made.accepted_s = min(made.accepted_s, asyncio.get_running_loop().time() - service.service_time_s)
            await deliver(client, event(made.task_id, made.client_business_id))


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_nothing_is_paid_twice_and_everything_comes_back(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    service = Chaos(rng=rng, latency_s=0.1, visible_after_s=rng.choice([0, 5, 20]))
    monkeypatch.setattr("toapis_async.engine.core.Transport", service.transport)
    settings = Settings(
        max_in_flight=rng.choice([3, 50]),
        limits=RateLimits(submit_per_s=5, submit_burst=5, query_per_s=rng.choice([5, 50]), query_burst=10),
        prices={"*": 2},
        webhook_secrets=SECRET,
        close_grace_s=rng.choice([0, 5]),
    )
    client = ToAPIs(KEY, base_url=ADDRESS, settings=settings, budget_credits=10_000)
    await client.start()
    engine = client._engine
    assert engine is not None
    callers = [asyncio.create_task(call(client, rng, number)) for number in range(CALLERS)]
    pusher = asyncio.create_task(push(client, service))
    cancelled = rng.sample(callers, 10)
    for caller in cancelled:
        asyncio.get_running_loop().call_later(rng.uniform(0, 100), caller.cancel)
    closes_early = seed % 2 == 1
    if closes_early:
        await asyncio.sleep(rng.uniform(1, 90))
    else:
        await asyncio.wait(callers)
        await asyncio.sleep(4_000)  # what was abandoned ends, too
        assert engine._permits._source.taken == 0
        assert len(engine.tasks) == 0
    pusher.cancel()
    with suppress(asyncio.CancelledError):
        await pusher
    await client.aclose()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    for number, (caller, outcome) in enumerate(zip(callers, outcomes, strict=True)):
        was_cancelled = isinstance(outcome, asyncio.CancelledError) and caller in cancelled
        assert was_cancelled or outcome == f"mine-{number}"

    twice = [name for name, times in Counter(t.client_business_id for t in service.tasks.values()).items() if times > 1]
    assert twice == []
    budget = engine.spending.budget
    assert budget is not None
    assert (engine._permits._source.taken, budget.reserved_images) == (0, 0)
    assert budget.reserved == 0
    assert engine.spending._held == {}
    assert budget.spent >= 2 * sum("[fail]" not in made.prompt for made in service.tasks.values())
    assert client.statistics().submit.unanswered == 0
    assert client.statistics().query.unanswered == 0
    assert not engine.submitter._parts.attempts
