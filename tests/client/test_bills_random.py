"""A budget with pending bills is never passed, in 1,000 random histories of virtual time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field

from tests.engine.kit import KEY, FakeService
from toapis_async import Settings, ToAPIs, ToAPIsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.protocol.lenient import Answer

pytestmark = pytest.mark.looptime

HISTORIES = 100  #: of each of the ten tests


@define
class Auditor(FakeService):
    """Counts at every submission the images that are paid for, or may be as far as anybody can know by then."""

    most_credits: int = 0
    decided_s: dict[str, tuple[str | None, float]] = field(factory=dict[str, tuple[str | None, float]])
    """By prompt: the word of its bill (None: it never has one), and how long after its end that is decided."""
    at_once: int = 0  #: the most that was committed

    def bill_of(self, prompt: str, since_end_s: float) -> Mapping[str, object] | None:
        word, after_s = self.decided_s[prompt]
        if word is None:
            return None
        return {"status": word, "credits": "0" if word == "refunded" else "1"} if since_end_s >= after_s else PENDING

    def accept(self, body: Mapping[str, Any]) -> Answer:
        accepted = super().accept(body)
        now_s = asyncio.get_running_loop().time()
        committed = 0
        for made in self.tasks.values():
            word, after_s = self.decided_s[made.prompt]
            end_s = made.accepted_s + self.service_time_s
            is_free_failure = "[fail]" in made.prompt and word is None and now_s >= end_s
            is_refunded = word == "refunded" and now_s >= end_s + after_s
            committed += not (is_free_failure or is_refunded)
        self.at_once = max(self.at_once, committed)
        return accepted


PENDING = {"status": "pending"}


@pytest.mark.parametrize("seed", range(6))
async def test_a_budget_with_pending_bills_is_never_passed(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = random.Random(seed)
    reached = sent = 0
    for _ in range(HISTORIES):
        service = Auditor(service_time_s=rng.choice([1, 8, 30]), latency_s=rng.choice([0, 0.3]))
        service.bill = service.bill_of
        service.most_credits = rng.randint(1, 4)
        monkeypatch.setattr("toapis_async.engine.core.Transport", service.transport)
        await _history(rng, service)
        assert service.at_once <= service.most_credits
        reached += service.at_once == service.most_credits
        sent += len(service.tasks)
    assert reached > HISTORIES / 2  # or nothing would have been tried
    assert sent > 2 * HISTORIES


async def _history(rng: random.Random, service: Auditor) -> None:
    """Rows and single requests under one budget, with pauses in which bills may be decided."""
    settings = Settings(prices={"*": 1}, submit_retry_s=0, uncertain_submits="raise")
    is_of_client = rng.random() < 0.5
    budget = service.most_credits
    async with ToAPIs(KEY, settings=settings, budget_credits=budget if is_of_client else None) as client:
        prompts = [_prompt(rng, service, number) for number in range(rng.randint(3, 9))]
        if is_of_client:
            for part in range(0, len(prompts), 3):
                await asyncio.gather(*(_tried(client, prompt) for prompt in prompts[part : part + 3]))
                await asyncio.sleep(rng.choice([0, 15, 100, 2_000]))
        await client.batch(prompts, budget_credits=budget, max_in_flight=rng.choice([1, 3, 50])).gather()


def _prompt(rng: random.Random, service: Auditor, number: int) -> str:
    prompt = f"row {number}" + rng.choice([" [fail]", " [fail]", ""])
    words = [None, "settled", "refunded", "refunded"] if "[fail]" in prompt else [None, "settled", "refunded"]
    service.decided_s[prompt] = rng.choice(words), rng.choice([0, 5, 40, 200, 1_000, 1e9])
    return prompt


async def _tried(client: ToAPIs, prompt: str) -> None:
    try:
        await client.generate(prompt)
    except ToAPIsError:
        return
