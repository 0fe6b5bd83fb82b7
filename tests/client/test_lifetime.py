"""One life of a client: states, closing, leaks."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import (
    ClientStateError,
    SessionClosed,
    Settings,
    SubmitUncertain,
    TaskStatus,
    ToAPIs,
    ToAPIsError,
    TransportError,
)

from ..engine.kit import KEY, PNG, FakeService, Hold, RawServer, answer, fast, reply, served, stall, task, turns, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async import TaskHandle
    from toapis_async.events import Event


def now_s() -> float:
    return asyncio.get_running_loop().time()


def client_of(service: FakeService, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, settings=Settings(**{"close_grace_s": 0, **settings}))


def forget(clients: list[ToAPIs]) -> None:
    clients.clear()
    gc.collect()


async def each_use(client: ToAPIs) -> list[BaseException | None]:
    """What every public call raises."""
    calls: list[Callable[[], Any]] = [
        lambda: client.generate("kite"),
        lambda: client.submit("kite"),
        lambda: client.find("mine"),
        lambda: client.status("t"),
        lambda: client.upload(PNG),
        client.balance,
        client.models,
        lambda: _at_once(client.attach, "t"),
        lambda: _at_once(client.batch, ["kite"]),
    ]
    return list(await asyncio.gather(*(call() for call in calls), return_exceptions=True))


async def _at_once(call: Callable[..., object], *args: object) -> object:
    return call(*args)


# ------------------------------------------------------------------------------------------- states


async def test_a_new_client_says_how_to_open_it(service: FakeService) -> None:
    client = client_of(service)
    for error in await each_use(client):
        assert type(error) is ClientStateError
        assert "async with" in str(error)
    for inquire in (client.statistics, client.unclaimed):
        with pytest.raises(ClientStateError, match="not open yet"):
            inquire()
    assert "new" in repr(client)
    await client.aclose()
    assert "closed" in repr(client)
    with pytest.raises(ClientStateError, match="closed"):
        await client.start()


async def test_a_closed_client_says_so_and_still_tells_its_numbers(service: FakeService) -> None:
    async with client_of(service) as client:
        assert "open" in repr(client)
    for error in await each_use(client):
        assert type(error) is SessionClosed
        assert "closed" in str(error)
    assert client.statistics().in_flight == 0
    assert client.unclaimed() == ()
    assert service.seen == []
    with pytest.raises(ClientStateError, match="closed"):
        await client.start()


async def test_a_client_is_opened_once(service: FakeService) -> None:
    async with client_of(service) as client:
        with pytest.raises(ClientStateError, match="open"):
            await client.start()
        assert (await client.submit("kite")).status is TaskStatus.QUEUED


@pytest.mark.looptime
async def test_a_closing_client_takes_no_new_work(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    client = await client_of(service, close_grace_s=10).start()
    submitting = asyncio.create_task(client.submit("kite"))
    await hold.reached.wait()
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(1)
    assert "closing" in repr(client)
    for error in await each_use(client):
        assert type(error) is SessionClosed
    hold.answer(answer(200, task("t", "completed")))
    await closing
    assert (await (await submitting)).task_id == "t"
    assert now_s() == 1


async def test_a_client_belongs_to_one_loop(service: FakeService) -> None:
    async with client_of(service) as client:
        failures: list[BaseException | None] = []

        async def elsewhere() -> None:
            failures.extend(await each_use(client))
            with pytest.raises(ClientStateError, match="another event loop"):
                await client.aclose()

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert len(failures) == 9
        for error in failures:
            assert type(error) is ClientStateError
            assert "another event loop" in str(error)
        assert await client.submit("kite")
    assert len(service.of("submit")) == 1


async def test_opened_in_one_task_and_closed_in_another() -> None:
    async with served() as (sandbox, _):
        client = ToAPIs(KEY, base_url=sandbox.base_url, settings=fast())
        await asyncio.create_task(client.__aenter__())
        generation = await asyncio.create_task(client.generate("kite"))
        assert generation.images
        await asyncio.create_task(client.__aexit__(None, None, None))
        assert "closed" in repr(client)


async def test_an_error_in_the_body_passes_and_the_client_is_closed(service: FakeService) -> None:
    client = client_of(service)
    with pytest.raises(ZeroDivisionError):
        async with client:
            raise ZeroDivisionError
    assert "closed" in repr(client)
    assert service.closed


@pytest.mark.looptime
async def test_a_cancelled_body_closes_with_the_grace(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)

    async def work() -> None:
        async with client_of(service, close_grace_s=10) as client:
            clients.append(client)
            await client.submit({"prompt": "kite", "client_business_id": "mine"})

    clients: list[ToAPIs] = []
    working = asyncio.create_task(work())
    await hold.reached.wait()
    working.cancel()
    await asyncio.sleep(3)
    hold.answer(answer(200, task("t")))
    with pytest.raises(asyncio.CancelledError):
        await working
    assert clients[0].unclaimed() == ("mine",)


# ------------------------------------------------------------------------------------------- closing


async def test_closing_twice_is_fine(service: FakeService) -> None:
    client = await client_of(service).start()
    await client.aclose()
    await client.aclose()


@pytest.mark.looptime
async def test_closing_at_once_from_several_tasks_closes_once_and_all_wait_for_it(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    client = await client_of(service, close_grace_s=10).start()
    submitting = asyncio.create_task(client.submit("kite"))
    await hold.reached.wait()
    closers = [asyncio.create_task(client.aclose()) for _ in range(4)]
    await asyncio.sleep(2)
    assert not any(closer.done() for closer in closers)
    closers[2].cancel()  # one of those who merely wait: the close goes on with its grace
    await asyncio.sleep(2)
    assert closers[2].cancelled()
    assert not closers[0].done()
    hold.answer(answer(200, task("t", "completed")))
    await asyncio.gather(closers[0], closers[1], closers[3])
    assert await (await submitting)


@pytest.mark.looptime
async def test_a_cancelled_close_skips_the_grace_but_leaves_no_half_client(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    client = await client_of(service, close_grace_s=3_000).start()
    handle_of = asyncio.create_task(client.submit({"prompt": "kite", "client_business_id": "mine"}))
    await hold.reached.wait()
    watched = client.attach("elsewhere")
    waiting = asyncio.create_task(watched.result())
    service.on_query.append(Hold())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await client.aclose()
    assert now_s() == 5
    assert "closed" in repr(client)
    assert service.closed
    with pytest.raises(SubmitUncertain) as caught:
        await handle_of
    assert caught.value.client_business_id == "mine"
    with pytest.raises(SessionClosed):
        await waiting


@pytest.mark.looptime
async def test_closing_while_a_batch_a_watch_and_a_look_up_run_ends_them_all(service: FakeService) -> None:
    service.service_time_s = 1e6
    client = await client_of(service).start()
    batch = client.batch(f"kite {number}" for number in range(10))
    taking = asyncio.create_task(batch.gather())
    waiting = asyncio.create_task(client.generate("alone"))
    await asyncio.sleep(1)
    hold = Hold()
    service.on_query.append(hold)
    finding = asyncio.create_task(client.status("x"))
    await hold.reached.wait()
    service.on_close = lambda: hold.answer(TransportError("the connections were closed"))
    await client.aclose()
    for doing, kind in ((taking, SessionClosed), (waiting, SessionClosed), (finding, SessionClosed)):
        with pytest.raises(ToAPIsError) as caught:
            await doing
        assert type(caught.value) is kind
    assert client.statistics().in_flight == 0
    assert len(client.unclaimed()) == 10  # the batch's rows: nobody has a handle of them


async def test_nothing_is_left_after_closing_no_task_no_connection_no_warning() -> None:
    # `no_leftovers` looks at the tasks, and every ResourceWarning is an error here.
    before = set(threading.enumerate())
    async with served({"service_time_s": 0.5}) as (sandbox, client):
        handles = [await client.submit(f"kite {number}") for number in range(5)]
        waiting = [asyncio.ensure_future(handle.result()) for handle in handles]
        await until(lambda: sandbox.requests.count("query") > 2)
        await client.aclose()
        for doing in waiting:
            with pytest.raises(SessionClosed):
                await doing
    gc.collect()
    await turns()
    assert {thread.name for thread in set(threading.enumerate()) - before if "toapis" in thread.name} == set()


async def test_closing_with_a_server_that_never_answers_takes_the_grace_and_no_longer() -> None:
    async with RawServer(stall()) as server:
        client = await ToAPIs(KEY, base_url=server.url, settings=fast(close_grace_s=0.02)).start()
        submitting = asyncio.create_task(client.submit({"prompt": "kite", "client_business_id": "mine"}))
        uploading = asyncio.create_task(client.submit({"prompt": "kite", "reference_images": [PNG]}))
        await until(lambda: len(server.requests) == 2)
        await client.aclose()
        with pytest.raises(SubmitUncertain):
            await submitting
        with pytest.raises((TransportError, SessionClosed)):
            await uploading
        assert {request.target for request in server.requests} == {"/v1/images/generations", "/v1/uploads/images"}


# ------------------------------------------------------------------------------------------- forgotten clients


async def test_an_unclosed_client_is_noticed_and_its_waiters_are_released(service: FakeService) -> None:
    service.service_time_s = 1e6
    client = await client_of(service).start()
    handle: TaskHandle = await client.submit("kite")
    waiting = asyncio.create_task(handle.result())
    await turns()
    gone = weakref.ref(client)
    held = [client]
    del client
    with pytest.warns(ResourceWarning, match="unclosed client"):
        forget(held)
    assert gone() is None
    with pytest.raises(SessionClosed) as caught:
        await waiting
    assert caught.value.task_ids == (handle.task_id,)
    await turns()  # the poller ends too: `no_leftovers` looks


async def test_a_client_forgotten_after_its_loop_ended_is_noticed_without_harm(service: FakeService) -> None:
    def other_loop() -> list[ToAPIs]:
        async def work() -> list[ToAPIs]:
            return [await client_of(service).start()]

        return asyncio.run(work())

    left = await asyncio.to_thread(other_loop)
    with pytest.warns(ResourceWarning, match="unclosed client"):
        forget(left)


async def test_a_client_never_opened_or_closed_properly_warns_of_nothing(service: FakeService) -> None:
    client = client_of(service)
    del client
    async with client_of(service):
        pass
    gc.collect()


def test_a_client_that_could_not_be_made_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOAPIS_API_KEY", raising=False)
    with pytest.raises(ClientStateError, match="TOAPIS_API_KEY"):
        ToAPIs()
    gc.collect()


# ------------------------------------------------------------------------------------------- events


async def test_a_listener_that_raises_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.ERROR)
    async with served(on_event=broken) as (_, client):
        assert (await client.generate("kite")).images
    assert "Settings.on_event raised" in caplog.text


async def test_events_are_frozen_records_of_what_happened(events: list[Event]) -> None:
    async with served(on_event=events.append) as (_, client):
        handle = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        await handle
    names = [type(event).__name__ for event in events]
    assert names[:6] == ["SubmitQueued", "SubmitSent", "RequestDone", "TaskAccepted", "TaskWatched", "TaskPolled"]
    assert names[-1] == "TaskEnded"
    assert set(names[6:]) == {"RequestDone", "TaskPolled", "TaskEnded"}
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(events))
    for event in events:
        with pytest.raises(AttributeError):
            event.kind = "x"  # type: ignore[misc,union-attr]


async def test_the_environment_is_read_when_a_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(reply(200, task())) as server:
        monkeypatch.setenv("TOAPIS_API_KEY", KEY)
        monkeypatch.setenv("TOAPIS_BASE_URL", server.url)
        async with ToAPIs(settings=fast()) as client:
            await client.status("t")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
