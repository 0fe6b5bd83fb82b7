"""The fixtures as a user's test sees them; virtual time is exact, so durations are asserted to the millisecond."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from toapis_async import (
    InsufficientQuota,
    LinkExpired,
    Settings,
    TaskFailed,
    TaskNotFound,
    TaskOverdue,
    ToAPIs,
    WaitTimeout,
)
from toapis_async.testing import (
    ANSWER_LOST,
    EXPIRES_BEFORE_DOWNLOAD,
    NEVER_ENDS,
    NOT_SENT,
    OUT_OF_CREDITS,
    RATE_LIMITED,
    SECOND_POLL_FAILS,
    TASK_FAILS,
    TASK_VANISHES,
    ThreadedSandbox,
)

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_generation_costs_what_the_books_say(
    toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs, tmp_path: Path
) -> None:
    async with toapis_client:
        generation = await toapis_client.generate("a red kite")
        [file] = await generation.save(tmp_path)
    assert file.read_bytes().startswith(b"\x89PNG")
    [entry] = toapis_sandbox.ledger
    assert (entry.prompt, entry.status) == ("a red kite", "completed")
    assert toapis_sandbox.ledger.credits_paid == entry.credits > 0
    assert toapis_sandbox.requests.count("submit") == 1


@pytest.mark.toapis_sandbox(service_time_s=40)
async def test_a_task_of_forty_seconds_is_awaited_in_forty_virtual_ones(
    toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs
) -> None:
    async with toapis_client:
        generation = await toapis_client.generate("a red kite")
    assert generation.completed_at is not None
    assert (generation.completed_at - generation.created_at).total_seconds() in {39, 40, 41}  # type: ignore[operator]
    assert 40 <= toapis_sandbox.elapsed_s < 60


@pytest.mark.toapis_sandbox(service_time_s=40)
async def test_patience_ends_when_it_says(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        begun_s = toapis_sandbox.elapsed_s
        with pytest.raises(WaitTimeout):
            await toapis_client.generate("a red kite", timeout_s=30)
        assert toapis_sandbox.elapsed_s - begun_s == pytest.approx(30, abs=1e-3)


@pytest.mark.toapis_sandbox(NEVER_ENDS)
@pytest.mark.toapis_client(max_task_age_s=900)
async def test_a_task_that_never_ends_is_overdue(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        with pytest.raises(TaskOverdue):
            await toapis_client.generate("a red kite")
        assert 900 <= toapis_sandbox.elapsed_s < 1_000


@pytest.mark.toapis_sandbox(SECOND_POLL_FAILS)
async def test_a_failed_look_is_followed_by_another(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        await toapis_client.generate("a red kite")
    statuses = toapis_sandbox.requests.statuses
    assert statuses["query", 500] == 1
    assert statuses["query", 200] >= 2
    assert toapis_sandbox.faults.pending("query") == 0


@pytest.mark.toapis_sandbox(ANSWER_LOST)
async def test_a_lost_answer_is_not_paid_twice(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        await toapis_client.generate("a red kite")
    assert toapis_sandbox.requests.unanswered["submit"] == 1
    assert len(toapis_sandbox.ledger) == toapis_sandbox.requests.count("submit") == 1


@pytest.mark.toapis_sandbox(NOT_SENT)
async def test_what_was_never_accepted_is_sent_again(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        await toapis_client.generate("a red kite")
    assert toapis_sandbox.requests.count("submit") == 2
    assert len(toapis_sandbox.ledger) == 1
    assert toapis_sandbox.elapsed_s >= Settings().reconcile_window_s


@pytest.mark.toapis_sandbox(RATE_LIMITED)
async def test_retry_after_is_kept_to(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        await toapis_client.submit("a red kite")
        assert 7 <= toapis_sandbox.elapsed_s < 9


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(InsufficientQuota, marks=pytest.mark.toapis_sandbox(OUT_OF_CREDITS)),
        pytest.param(TaskFailed, marks=pytest.mark.toapis_sandbox(TASK_FAILS)),
        pytest.param(TaskNotFound, marks=pytest.mark.toapis_sandbox(TASK_VANISHES)),
    ],
)
async def test_what_goes_wrong_is_told(toapis_client: ToAPIs, error: type[Exception]) -> None:
    async with toapis_client:
        with pytest.raises(error):
            await toapis_client.generate("a red kite")


@pytest.mark.toapis_sandbox(EXPIRES_BEFORE_DOWNLOAD)
async def test_files_that_are_gone_are_told_as_such(
    toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs, tmp_path: Path
) -> None:
    async with toapis_client:
        generation = await toapis_client.generate("a red kite")
        with pytest.raises(LinkExpired):
            await generation.save(tmp_path)
    assert toapis_sandbox.requests.count("file") == 1


async def test_a_day_passes_and_links_expire(
    toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs, tmp_path: Path
) -> None:
    async with toapis_client:
        generation = await toapis_client.generate("a red kite")
        toapis_sandbox.clock.advance(24 * 3_600)
        with pytest.raises(LinkExpired):
            await generation.save(tmp_path)


@pytest.mark.toapis_sandbox(NEVER_ENDS)
async def test_tasks_are_ended_by_hand(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        kite, ship = [await toapis_client.submit(prompt) for prompt in ("a kite", "a ship")]
        toapis_sandbox.finish(kite.task_id)
        toapis_sandbox.fail(ship.task_id, "too_rough", "the sea")
        await kite
        with pytest.raises(TaskFailed, match="the sea") as failed:
            await ship
    assert failed.value.code == "too_rough"
    with pytest.raises(ValueError, match="has already completed"):
        toapis_sandbox.finish(kite.task_id)
    with pytest.raises(KeyError):
        toapis_sandbox.finish("task_img_unknown")


@pytest.mark.toapis_sandbox(service_time_s=3_500)
async def test_a_client_of_ones_own_follows_the_environment(toapis_sandbox: ThreadedSandbox) -> None:
    with toapis_sandbox.virtual_time():
        async with ToAPIs() as client:
            await client.generate("a red kite", timeout_s=5_000)
    assert 3_500 <= toapis_sandbox.elapsed_s < 5_000


@pytest.mark.toapis_sandbox(service_time_s=30, webhook_url="http://127.0.0.1:9/", webhook_secret="whsec")
@pytest.mark.toapis_client(webhook_secrets="whsec")
async def test_events_come_the_moment_a_task_ends(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    from aiohttp import web  # noqa: PLC0415

    from toapis_async.receivers import aiohttp_handler  # noqa: PLC0415

    app = web.Application()
    app.router.add_post("/hook", aiohttp_handler(toapis_client.webhooks))
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        toapis_sandbox.webhooks.configure(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", "whsec")
        await stack.enter_async_context(toapis_client)
        await asyncio.sleep(600)  # an event's age is told by the same clock
        begun_s = toapis_sandbox.elapsed_s
        await toapis_client.generate("a red kite")
        assert toapis_sandbox.elapsed_s - begun_s == pytest.approx(30, abs=1e-3)
        await asyncio.sleep(1)  # until the sandbox has written down how it was answered
    [attempt] = toapis_sandbox.webhooks.log
    assert (attempt.status, attempt.type) == (200, "generation.completed")


@pytest.mark.toapis_sandbox(webhook_url="http://127.0.0.1:9/", webhook_secret="whsec")
async def test_the_ladder_of_retries_takes_no_time(toapis_sandbox: ThreadedSandbox) -> None:
    with toapis_sandbox.virtual_time():
        async with ToAPIs() as client:
            await client.generate("a red kite")
        await asyncio.sleep(200_000)
    attempts = toapis_sandbox.webhooks.log
    gaps = [round(later.at - earlier.at) for earlier, later in zip(attempts, list(attempts)[1:], strict=False)]
    assert gaps == [10, 30, 120, 600, 3_600, 21_600, 86_400]


async def test_time_that_really_passes_before_and_after_virtual_time_does_not_count(
    toapis_sandbox: ThreadedSandbox,
) -> None:
    await asyncio.sleep(0.02)
    with toapis_sandbox.virtual_time():
        await asyncio.sleep(30)
    await asyncio.sleep(0.02)
    assert toapis_sandbox.elapsed_s == pytest.approx(30, abs=1e-3)
    toapis_sandbox.clock.advance(5)
    assert toapis_sandbox.elapsed_s == pytest.approx(35, abs=1e-3)


async def test_threads_at_work_hold_the_time(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    import anyio.to_thread  # noqa: PLC0415

    async with toapis_client:
        for in_thread in (asyncio.to_thread, anyio.to_thread.run_sync):
            begun_s = toapis_sandbox.elapsed_s
            async with asyncio.timeout(1):  # virtual: it would be over with the first jump
                await in_thread(time.sleep, 0.02)
            assert toapis_sandbox.elapsed_s == begun_s


async def test_a_thread_of_the_sandbox_holds_the_time(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    def painted(*_: object) -> bytes:
        time.sleep(0.03)
        return b"\x89PNG\r\n\x1a\n" + b"IEND\xaeB`\x82"

    monkeypatch.setattr("toapis_async.sandbox.server.plain", painted)
    client: ToAPIs = request.getfixturevalue("toapis_client")
    async with client:
        generation = await client.generate("a red kite")
        async with asyncio.timeout(1):
            await generation.save(tmp_path)


async def test_time_goes_on_from_where_it_jumped_to(toapis_sandbox: ThreadedSandbox) -> None:
    loop = asyncio.get_running_loop()
    late = asyncio.Event()
    with toapis_sandbox.virtual_time():
        with toapis_sandbox.virtual_time():
            await asyncio.sleep(1_000)
        await asyncio.sleep(1_000)
        loop.call_later(0.01, late.set)
        stopped_at_s = loop.time()
    await late.wait()
    assert stopped_at_s + 0.01 <= loop.time() < stopped_at_s + 100
    assert 2_000 <= toapis_sandbox.elapsed_s < 2_100


def wall_clock() -> object:
    return vars(import_module("toapis_async.webhooks"))["time"]


def test_time_that_was_never_ended_ends_with_the_sandbox() -> None:
    from toapis_async.sandbox import Clock, Sandbox  # noqa: PLC0415

    clock = Clock()
    sandbox = ThreadedSandbox(Sandbox(clock=clock, pictures=False), clock)
    sandbox.start()
    virtual_time = sandbox.virtual_time()

    async def begin() -> None:
        virtual_time.__enter__()  # as a client does that nobody closes

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(begin())
        assert wall_clock() is not time
    sandbox.close()
    assert wall_clock() is time


def test_without_a_loop_there_is_no_virtual_time(toapis_sandbox: ThreadedSandbox) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"), toapis_sandbox.virtual_time():
        pass
    assert len(toapis_sandbox.ledger) == 0


@pytest.mark.toapis_sandbox(NEVER_ENDS, service_time_s=20)
@pytest.mark.toapis_sandbox(RATE_LIMITED)
async def test_markers_add_up_and_options_win(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        await toapis_client.generate("a red kite")
    assert toapis_sandbox.requests.rate_limited == 1


def test_what_is_read_is_a_copy_and_what_waits_for_the_test_is_refused(toapis_sandbox: ThreadedSandbox) -> None:
    log = toapis_sandbox.requests.log
    assert log is not toapis_sandbox.requests.log
    assert repr(toapis_sandbox.ledger) == "<Ledger: 0 accepted, 0 credits paid>"
    assert toapis_sandbox.base_url in repr(toapis_sandbox)
    with pytest.raises(TypeError, match="send_test can't be awaited from a test"):
        toapis_sandbox.webhooks.send_test()  # type: ignore[unused-coroutine]
