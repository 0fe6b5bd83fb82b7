"""Client, receiver and sandbox together, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import TaskFailed, ToAPIs, WebhookOutcome
from toapis_async.sandbox import Fault, Limits, Sandbox
from toapis_async.sandbox.gate import Gate
from toapis_async.webhooks import Webhooks

from ..engine.kit import KEY, fast, until
from .events import SECRET
from .test_receivers import served as receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEVER_S = 3_600.0


@asynccontextmanager
async def served(
    sandbox_options: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[Sandbox, ToAPIs, list[WebhookOutcome]]]:
    """A sandbox that pushes events to a client; looks are an hour away unless a test says otherwise."""
    options = {
        "pictures": False,
        "service_time_s": 0.02,
        "limits": Limits(1e5, 1e5, 1e5, 1e5),
        **(sandbox_options or {}),
    }
    waits: dict[str, Any] = {"first_poll_s": NEVER_S, "min_poll_interval_s": NEVER_S, **settings}
    async with (
        Sandbox(**options) as sandbox,
        ToAPIs(KEY, base_url=sandbox.base_url, settings=fast(webhook_secrets=SECRET, **waits)) as client,
    ):
        outcomes: list[WebhookOutcome] = []
        really = client.webhooks

        class Noted(Webhooks):
            async def deliver(self, body: bytes, headers: Any) -> WebhookOutcome:
                outcomes.append(outcome := await really.deliver(body, headers))
                return outcome

        async with receiving(Noted((SECRET,), client._open_engine)) as url:
            sandbox.webhooks.configure(url, SECRET)
            yield sandbox, client, outcomes
            await until(lambda: not sandbox.webhooks._deliveries, "the end of all deliveries")


async def test_a_thousand_tasks_end_by_event_and_nobody_asks() -> None:
    async with served() as (sandbox, client, outcomes):
        items = [item async for item in client.batch(f"kite {number}" for number in range(1_000))]
    assert all(item.ok for item in items)
    assert sandbox.requests.count("query") == 0
    assert len(outcomes) == 1_000
    assert client.statistics().completed == 1_000


async def test_the_links_of_an_event_are_those_of_a_look_and_can_be_saved(tmp_path: Any) -> None:
    async with served() as (_, client, _):
        generation = await client.generate("kite", n=2)
        looked_at = await client.status(generation.task_id)
        assert looked_at.images == generation.images
        assert (looked_at.created_at, looked_at.completed_at) == (generation.created_at, generation.completed_at)
        assert len(await generation.save(tmp_path)) == 2


async def test_a_failure_is_told_by_its_event() -> None:
    async with served() as (_, client, outcomes):
        with pytest.raises(TaskFailed, match="upstream"):
            await client.generate("kite [fail]")
        assert outcomes == [WebhookOutcome.RESOLVED]


async def test_doubled_events_resolve_once() -> None:
    async with served() as (sandbox, client, outcomes):
        sandbox.faults.chance("event", Fault.DUPLICATED, 1)
        await asyncio.gather(*(client.generate(f"kite {number}") for number in range(20)))
        await until(lambda: len(outcomes) == 40)
    assert sorted(outcomes) == [WebhookOutcome.DUPLICATE] * 20 + [WebhookOutcome.RESOLVED] * 20


async def test_an_event_before_its_submissions_answer_is_applied_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served({"service_time_s": 0}) as (sandbox, client, outcomes):

        async def until_the_event_is_there(*_: object) -> bool:
            await until(lambda: outcomes)
            return False

        monkeypatch.setattr(Gate, "_linger", until_the_event_is_there)
        submitting = asyncio.ensure_future(client.submit({"prompt": "kite", "client_business_id": "mine"}))
        await until(lambda: outcomes)
        assert outcomes == [WebhookOutcome.EARLY]
        handle = await submitting
        assert handle.done
        assert (await handle).client_business_id == "mine"
        assert sandbox.requests.count("query") == 0


async def test_with_every_event_dropped_no_task_is_lost() -> None:
    waits: dict[str, Any] = {"first_poll_s": 0.01, "min_poll_interval_s": 0.01}
    async with served(**waits) as (sandbox, client, outcomes):
        sandbox.faults.chance("event", Fault.DROPPED, 1)
        items = await client.batch(f"kite {number}" for number in range(200)).gather()
    assert all(item.ok for item in items)
    assert outcomes == []
    assert sandbox.faults.drawn["event", Fault.DROPPED] == 200


async def test_with_half_the_events_dropped_doubled_or_before_their_answers_no_task_is_lost() -> None:
    waits: dict[str, Any] = {"first_poll_s": 0.01, "min_poll_interval_s": 0.01}
    async with served({"service_time_s": lambda job: 0.04 * len(job.prompt) % 0.05}, **waits) as (sandbox, client, _):
        for fault in (Fault.DROPPED, Fault.DUPLICATED, Fault.SLOW.lasting(0.03)):
            sandbox.faults.chance("event", fault, 0.5)
        sandbox.faults.chance("submit", Fault.SLOW.lasting(0.05), 0.5)
        items = await client.batch("kite" * number for number in range(1, 201)).gather()
    assert all(item.ok for item in items)
    assert client.statistics().completed == 200
    assert not sandbox.ledger.paid_twice()


async def test_an_event_for_a_task_of_another_process_can_be_passed_on() -> None:
    async with (
        served() as (sandbox, client, outcomes),
        ToAPIs(KEY, base_url=sandbox.base_url, settings=fast()) as other,
    ):
        await other.submit("kite")
        await until(lambda: outcomes)
        assert outcomes == [WebhookOutcome.UNKNOWN_TASK]
        assert client.statistics().in_flight == 0


async def test_the_consoles_test_is_answered_well() -> None:
    async with served() as (sandbox, _, outcomes):
        assert await sandbox.webhooks.send_test() == 200
        assert outcomes == [WebhookOutcome.TEST_EVENT]
