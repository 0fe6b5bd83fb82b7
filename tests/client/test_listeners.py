"""Listeners of `Settings(on_event=…)` that raise: no caller hangs, no permit is gone, no paid task is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from attrs import fields

from tests.engine.journal_kit import ADDRESS, state_of
from tests.engine.kit import KEY, FakeService, Hold, answer, fast, lost, refusal, served, task
from toapis_async import ContentRefused, LinkExpired, Settings, SubmitUncertain, TaskFailed, ToAPIs
from toapis_async.engine.journal.records import State
from toapis_async.events import (
    FileFailed,
    FileSaved,
    RequestDone,
    SubmitAgain,
    SubmitFailed,
    SubmitInDoubt,
    SubmitLost,
    SubmitQueued,
    SubmitRetried,
    SubmitSent,
    TaskAccepted,
    TaskEnded,
    TaskPolled,
    TaskWatched,
    Throttled,
    UnknownStatus,
)
from toapis_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from toapis_async.events import Event


class Odd(BaseException):
    """Neither an `Exception` nor one that means the end of the program."""


OF_ENGINE = (
    SubmitQueued,
    SubmitSent,
    SubmitRetried,
    SubmitInDoubt,
    SubmitAgain,
    SubmitLost,
    SubmitFailed,
    TaskAccepted,
    TaskWatched,
    TaskPolled,
    UnknownStatus,
    TaskEnded,
    Throttled,
)


def raising(kind: type[Event], error: type[BaseException], seen: list[Event]) -> Callable[[Event], None]:
    """A listener that raises at each event of a kind."""

    def listen(event: Event) -> None:
        seen.append(event)
        if isinstance(event, kind):
            raise error

    return listen


@pytest.mark.looptime
@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, StopAsyncIteration, Odd])
@pytest.mark.parametrize("kind", OF_ENGINE)
async def test_what_a_listener_raises_ends_neither_a_task_nor_a_permit(
    service: FakeService, kind: type[Event], error: type[BaseException]
) -> None:
    seen: list[Event] = []
    settings = Settings(max_in_flight=1, on_event=raising(kind, error, seen), poll_jitter=0)
    async with ToAPIs(KEY, base_url=ADDRESS, settings=settings) as client:
        service.on_submit.append(refusal(429, "rate_limit_exceeded", retry_after="2"))
        service.on_query.append(answer(200, task("task_1", "baking")))
        assert (await client.generate("kite")).task_id == "task_1"
        with pytest.raises(TaskFailed):
            await client.generate("kite [fail]")
        service.on_submit.append(refusal(422, "content_policy_violation"))
        with pytest.raises(ContentRefused):
            await client.generate("kite")
        service.on_submit.append(lost())  # and not taken: sent again after its window
        assert (await client.generate("kite")).task_id == "task_3"
        service.on_submit.extend([lost()] * 4)
        with pytest.raises(SubmitUncertain):
            await client.generate("kite")
        assert (await client.generate("the permit is there")).task_id == "task_4"
        assert (client.statistics().in_flight, client.statistics().waiting) == (0, 0)
        assert client.unclaimed() == ()
    assert any(isinstance(event, kind) for event in seen)


@pytest.mark.parametrize("kind", [RequestDone, FileSaved])
async def test_what_a_listener_raises_is_no_error_of_a_request_or_a_file(tmp_path: Path, kind: type[Event]) -> None:
    seen: list[Event] = []
    async with served(on_event=raising(kind, asyncio.CancelledError, seen)) as (_, client):
        (path,) = await (await client.generate("kite")).save(tmp_path)
        assert path.is_file()
    assert any(isinstance(event, kind) for event in seen)


PAID = {
    SubmitQueued: State.WITHDRAWN,
    SubmitSent: State.INTENT,
    TaskAccepted: State.ACCEPTED,
    TaskPolled: State.ACCEPTED,
    TaskEnded: State.COMPLETED,
}


@pytest.mark.parametrize("kind", PAID)
def test_an_interrupt_in_a_listener_ends_the_program_and_the_journal_keeps_what_was_paid(
    service: FakeService, tmp_path: Path, kind: type[Event]
) -> None:
    service.service_time_s = 0.01
    path = tmp_path / "journal.db"

    async def program() -> None:
        settings = fast(on_event=raising(kind, KeyboardInterrupt, []))
        async with ToAPIs(KEY, base_url=ADDRESS, settings=settings, journal=path) as client:
            await client.generate("kite", client_business_id="mine")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(program())
    assert state_of(path, "mine") is PAID[kind]


@pytest.mark.looptime
async def test_events_about_a_task_bear_both_ids_and_times_of_the_loop(service: FakeService) -> None:
    seen: list[Event] = []
    begun_s = asyncio.get_running_loop().time()
    async with ToAPIs(KEY, base_url=ADDRESS, settings=Settings(on_event=seen.append)) as client:
        service.on_submit.extend([refusal(429, "rate_limit_exceeded", retry_after="2"), lost()])
        service.on_query.extend([refusal(404)] * 8 + [answer(200, task("task_1", "baking"))])
        await client.generate("kite", client_business_id="mine")
    about_tasks = [event for event in seen if "task_id" in {each.name for each in fields(type(event))}]
    assert {type(event) for event in about_tasks} >= {
        SubmitQueued,
        SubmitSent,
        SubmitRetried,
        SubmitInDoubt,
        SubmitAgain,
    }
    for event in about_tasks:
        known: Any = event
        assert known.client_business_id == "mine"
        assert known.task_id == (None if type(event).__name__.startswith("Submit") else "task_1")
    times = [event.at_s for event in seen]
    assert times == sorted(times)
    assert begun_s <= times[0] <= times[-1] <= asyncio.get_running_loop().time()


@pytest.mark.looptime
async def test_nothing_is_made_when_nobody_listens(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for kind in OF_ENGINE:
        for module in ("submission", "tasks", "poller", "pacer"):
            name = f"toapis_async.engine.{module}.{kind.__name__}"
            monkeypatch.setattr(name, lambda *_, name=name: made.append(name), raising=False)
    service.on_submit.append(refusal(429, "rate_limit_exceeded", retry_after="2"))
    async with ToAPIs(KEY, base_url=ADDRESS, settings=Settings()) as client:
        await client.generate("kite")
    assert made == []


@pytest.mark.looptime
async def test_a_bug_in_a_submission_whose_caller_left_gives_its_permit_back(service: FakeService) -> None:
    held = Hold()
    service.on_submit.append(held)
    async with ToAPIs(KEY, base_url=ADDRESS, settings=Settings(max_in_flight=1)) as client:
        sending = asyncio.ensure_future(client.generate("kite", client_business_id="mine"))
        await held.reached.wait()
        sending.cancel()
        await asyncio.wait([sending])
        held.answer(KeyError("a bug"))
        assert (await client.generate("the permit is there")).task_id == "task_1"
        assert client.unclaimed() == ("mine",)  # nobody knows: find() tells


async def test_a_listener_may_be_added_before_the_client_is_opened_and_after() -> None:
    seen: dict[str, list[Event]] = {"settings": [], "before": [], "after": []}
    async with Sandbox(pictures=False, service_time_s=0.02) as sandbox:
        client = ToAPIs(KEY, base_url=sandbox.base_url, settings=fast(on_event=seen["settings"].append))
        client.add_listener(seen["before"].append)
        async with client:
            await client.balance()
            client.add_listener(seen["after"].append)
            await client.generate("kite")
    assert seen["settings"] == seen["before"]
    assert seen["after"] == seen["before"][1:]
    assert isinstance(seen["before"][0], RequestDone)
    with pytest.raises(ValueError, match="must be callable"):
        ToAPIs(KEY).add_listener(5)  # type: ignore[arg-type]


async def test_a_file_that_can_not_be_had_is_told(tmp_path: Path, events: list[Event]) -> None:
    async with served(on_event=events.append) as (sandbox, client):
        sandbox.faults.script("submit", Fault.FILES_EXPIRE)
        generation = await client.generate("kite")
        with pytest.raises(LinkExpired):
            await generation.save(tmp_path)
    (failed,) = [event for event in events if isinstance(event, FileFailed)]
    assert (failed.task_id, failed.reason, failed.attempts) == (generation.task_id, "LinkExpired", 1)
