"""Ends and events of several clients through a real Redis; tests/client/test_shared_ends.py has the rules."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.client.events import SECRET, deliver, event
from tests.client.test_receivers import served as receiving
from tests.engine.kit import KEY, fast, until
from toapis_async import Shared, ToAPIs, WebhookOutcome, WebhookRejected
from toapis_async.engine.shared.port import Channel, Outgoing, StoreLost
from toapis_async.engine.shared.redis import RedisStore
from toapis_async.sandbox import Fault, Limits, Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.redis_server import RedisServer

pytestmark = pytest.mark.usefixtures("patient")
NEVER_S = 3_600.0
PATIENT = fast(first_poll_s=NEVER_S, min_poll_interval_s=NEVER_S, webhook_secrets=SECRET)
QUICK = fast(webhook_secrets=SECRET)
HANDED_ON, UNKNOWN_TASK = WebhookOutcome.HANDED_ON, WebhookOutcome.UNKNOWN_TASK
BOAT = {"kind": "video", "model": "seedance-2", "prompt": "a boat"}


@asynccontextmanager
async def sandbox_of(service_time_s: float = 0.02) -> AsyncIterator[Sandbox]:
    async with Sandbox(pictures=False, service_time_s=service_time_s, limits=Limits(1e5, 1e5, 1e5, 1e5)) as sandbox:
        yield sandbox


@asynccontextmanager
async def workers(sandbox: Sandbox, *shared: str | Shared, settings: Any = PATIENT) -> AsyncIterator[list[ToAPIs]]:
    """A client for each, all of one account."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(ToAPIs(KEY, base_url=sandbox.base_url, settings=settings, shared=each))
            for each in shared
        ]


# ------------------------------------------------------------------------------------------- the channel itself


@asynccontextmanager
async def opened(url: str, identity: str = "x") -> AsyncIterator[RedisStore]:
    async with aclosing(await RedisStore.open(url, identity, 0.5)) as store:
        yield store


class Listener:
    """What comes by a channel: messages, None for a new subscription, the reason of a loss."""

    def __init__(self, store: RedisStore) -> None:
        self.heard: list[bytes | str | None] = []
        self._store = store

    async def listen(self) -> None:
        while True:
            try:
                async with aclosing(self._store.messages()) as messages:
                    async for message in messages:
                        self.heard.append(message)
            except StoreLost as error:
                self.heard.append(str(error))
            await asyncio.sleep(0.01)

    async def until(self, condition: Callable[[list[bytes | str | None]], object]) -> None:
        await until(lambda: condition(self.heard), "what was to be heard")


@asynccontextmanager
async def listening(store: RedisStore) -> AsyncIterator[Listener]:
    """A listener that has something to go by: its subscription, or why there is none."""
    listener = Listener(store)
    task = asyncio.ensure_future(listener.listen())
    try:
        await listener.until(lambda heard: heard)
        yield listener
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_published_comes_to_all_in_order_and_is_kept_for_those_who_come_later(
    redis_server: RedisServer,
) -> None:
    url = redis_server.url
    async with (
        opened(url) as here, opened(url) as there, opened(url, "y") as stranger,
        listening(here) as heard_here, listening(there) as heard_there, listening(stranger) as heard_by_a_stranger,
    ):  # fmt: skip
        assert isinstance(here, Channel)
        messages = [Outgoing(b"1", "a"), Outgoing(b"2\n\x00\xff"), Outgoing(b"3" * 2**20, "c"), Outgoing(b"4", "a")]
        await here.publish(messages)
        for listener in (heard_here, heard_there):
            await listener.until(lambda heard: heard == [None, *(each.message for each in messages)])
        assert await there.kept(["a", "b", "c"]) == [b"1", None, b"3" * 2**20]  # of two ends, the first
        assert await stranger.kept(["a", "c"]) == [None, None]
        assert heard_by_a_stranger.heard == [None]
        assert 0 < await here.connection.ttl(here.key("end:a")) <= 600


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_redis_that_goes_away_is_noticed_as_a_gap_and_found_again(
    redis_server: RedisServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(redis_server.url) as patient, AsyncExitStack() as stack:
        with monkeypatch.context() as hasty:
            for bound in ("STORE_TIMEOUT_S", "QUIET_S", "PONG_S"):
                hasty.setattr(f"toapis_async.engine.shared.redis.{bound}", 0.3)
            store = await stack.enter_async_context(opened(redis_server.url))
            listener = await stack.enter_async_context(listening(store))
            await listener.until(lambda heard: heard[-1] is None)
            (redis_server.kill if how == "killed" else redis_server.stop)()
            await listener.until(lambda heard: heard[-1] is not None)
            assert isinstance(listener.heard[-1], str)
            assert redis_server.url not in listener.heard[-1]
            with pytest.raises(StoreLost):
                await store.publish([Outgoing(b"1", "a")])
            with pytest.raises(StoreLost):
                await store.kept(["a"])
        (redis_server.start if how == "killed" else redis_server.go_on)()
        await listener.until(lambda heard: heard[-1] is None)
        while b"2" not in listener.heard:  # a late answer may be one more gap
            await patient.publish([Outgoing(b"2", "a")])
            await asyncio.sleep(0.01)


async def test_a_quiet_channel_is_no_gap(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toapis_async.engine.shared.redis.QUIET_S", 0.02)
    async with opened(redis_server.url) as store, listening(store) as listener:
        while (await pings(store)) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await store.publish([Outgoing(b"1")])
        await listener.until(lambda heard: heard == [None, b"1"])


async def pings(store: RedisStore) -> int:
    """How many Redis has answered."""
    statistics = cast("dict[str, dict[str, int]]", await store.connection.info("commandstats"))
    return statistics.get("cmdstat_ping", {"calls": 0})["calls"]


async def test_a_subscription_that_redis_refuses_is_a_reason(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as admin:
        await admin.connection.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all"])
        url = redis_server.url.replace("://", "://narrow:pw@")
        async with opened(url) as store, listening(store) as listener:
            assert "permissions" in str(listener.heard[0])
            assert "pw" not in str(listener.heard[0])


# ------------------------------------------------------------------------------------------- clients


@pytest.mark.parametrize("request_", ["kite", BOAT], ids=["image", "video"])
async def test_an_event_resolves_its_task_in_whichever_process_it_is(redis_server: RedisServer, request_: Any) -> None:
    url = redis_server.url
    async with sandbox_of() as sandbox, workers(sandbox, url, url, url) as (here, there, third):
        async with receiving(there.webhooks) as hook:
            sandbox.webhooks.configure(hook, SECRET)
            handle = await here.submit(request_)
            generation = await handle
            assert [each.url for each in generation.files]
            await until(lambda: sandbox.webhooks.log, "the delivery")
            assert [attempt.status for attempt in sandbox.webhooks.log] == [200]
            attached = third.attach(handle.task_id)
            assert (await attached).files == generation.files
        assert sandbox.requests.count("query") == 0
    async with opened(url) as store:
        keys = [key.decode() for key in cast("list[bytes]", await store.connection.keys())]
    assert any(key.endswith(f":end:{handle.task_id}") for key in keys)
    assert all(key.startswith("toapis:{") and KEY not in key for key in keys)


async def test_tasks_of_another_account_or_service_are_never_mixed_in(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with sandbox_of(NEVER_S) as sandbox, sandbox_of(NEVER_S) as elsewhere, AsyncExitStack() as stack:

        async def client(key: str, at: Sandbox, shared: str | Shared = url) -> ToAPIs:
            made = ToAPIs(key, base_url=at.base_url, settings=PATIENT, shared=shared)
            return await stack.enter_async_context(made)

        for each in (sandbox, elsewhere):  # neither gets to say that it knows no such task
            each.faults.chance("query", Fault.ERROR_500, 1.0)
        teller = await client(KEY, sandbox)
        others = [await client(f"{KEY}2", sandbox), await client(KEY, elsewhere)]
        same = await client(KEY, sandbox)
        handles = [each.attach("task_1", "image") for each in (*others, same)]
        assert await deliver(teller, event("task_1")) is HANDED_ON
        assert (await handles[-1]).task_id == "task_1"
        assert not any(handle.done for handle in handles[:-1])
        named = [await client(f"{KEY}{number}", sandbox, Shared(url, name="team")) for number in (3, 4)]
        handle = named[0].attach("task_2", "image")
        assert await deliver(named[1], event("task_2")) is HANDED_ON
        assert (await handle).task_id == "task_2"


async def test_without_a_channel_an_unknown_task_stays_one(redis_server: RedisServer) -> None:
    async with sandbox_of() as sandbox, workers(sandbox, "host", "off") as clients:
        for client in clients:
            assert await deliver(client, event("task_of_another")) is UNKNOWN_TASK


async def test_events_are_refused_while_redis_is_away_and_taken_when_they_come_again(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with sandbox_of() as sandbox, workers(sandbox, url, url) as (here, there):
        handle = await here.submit("kite")
        redis_server.kill()
        with pytest.raises(WebhookRejected, match="handed on") as caught:
            await deliver(there, event(handle.task_id))
        assert caught.value.status == 503
        redis_server.start()
        await until(lambda: _is_connected(here) and _is_connected(there), "the channel")
        assert await deliver(there, event(handle.task_id)) is HANDED_ON
        assert (await handle).task_id == handle.task_id
        assert sandbox.requests.count("query") == 0


def _is_connected(client: ToAPIs) -> bool:
    ends = client._used_engine().ends
    return ends is not None and ends.is_connected


async def test_a_redis_that_ends_half_way_loses_no_task(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with sandbox_of(0.05) as sandbox, workers(sandbox, url, url, settings=QUICK) as (here, there):
        async with receiving(there.webhooks) as hook:
            sandbox.webhooks.configure(hook, SECRET)
            done = 0
            async for item in here.batch(f"kite {number}" for number in range(200)):
                assert item.ok
                done += 1
                if done == 100:
                    redis_server.kill()
        assert done == 200
        assert sandbox.requests.rate_limited == 0
    assert not sandbox.ledger.paid_twice()


async def test_a_client_opens_works_and_closes_without_the_redis_that_it_names(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with sandbox_of() as sandbox, workers(sandbox, redis_server.url, settings=QUICK) as (client,):
        assert (await client.generate("kite")).images


# ------------------------------------------------------------------------------------------- processes


async def test_processes_behind_one_address_get_every_end_by_its_event(redis_server: RedisServer) -> None:
    async with sandbox_of(0.3) as sandbox, AsyncExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sandbox.webhooks.configure(f"http://127.0.0.1:{listening.getsockname()[1]}/hook", SECRET)
        order = {
            "base_url": sandbox.base_url,
            "shared": redis_server.url,
            "secret": SECRET,
            "fd": listening.fileno(),
            "tasks": 15,
        }
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.shared.receiving_worker", json.dumps(order)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=[listening.fileno()],
            )
            for _ in range(3)
        ]
        for process in processes:
            stack.callback(_end, process)
        outcomes: dict[str, int] = {}
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"done\n"
        for process in processes:
            output, _ = await process.communicate(b"")
            for name, count in json.loads(output).items():
                outcomes[name] = outcomes.get(name, 0) + count
            assert process.returncode == 0
    assert len(sandbox.ledger) == 45
    assert sandbox.requests.count("query") == 0  # polls are an hour away
    assert outcomes["handed_on"] > 0
    assert sum(outcomes.values()) == 45


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
