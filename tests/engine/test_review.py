"""What a hostile reviewer found, one test each."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import SessionClosed, Settings, ToAPIs, UnreadableAnswer, WaitTimeout

from .kit import KEY, FakeService, RawServer, answer, fast, reply, task

if TYPE_CHECKING:
    from toapis_async.engine.poller import Poller

LINK = "http://127.0.0.1/test/kite.png"


@pytest.mark.parametrize("key", ["k", "test", "task_"])
async def test_a_short_key_is_not_blotted_out_of_ids_and_links(key: str) -> None:
    done = task("task_1", "completed", result={"data": [{"url": LINK}]})
    async with RawServer(reply(200, done)) as server, ToAPIs(key, base_url=server.url, settings=fast()) as client:
        generation = await client.generate("kite")
    assert (generation.task_id, generation.images[0].url) == ("task_1", LINK)


@pytest.mark.looptime
async def test_a_result_that_cannot_be_read_ends_the_watch_after_a_few_looks(service: FakeService) -> None:
    service.on_query.extend([answer(200, task("task_1", "completed", result={"data": [{"url": 5}]}))] * 9)
    async with ToAPIs(KEY, settings=Settings()) as client:
        handle = await client.submit("kite")
        with pytest.raises(UnreadableAnswer, match=r"\$\.result\.data\[0\]\.url") as caught:
            await handle
    assert caught.value.task_id == "task_1"
    assert len(service.of("query")) == 3


@pytest.mark.looptime
async def test_an_answer_with_an_id_is_an_acceptance_whatever_else_it_holds(service: FakeService) -> None:
    service.accept({"prompt": "kite"})
    service.on_submit.append(answer(200, task("task_1", "completed", result={"data": [{"url": 5}]})))
    async with ToAPIs(KEY, settings=Settings()) as client:
        handle = await client.submit("kite")
        assert (handle.task_id, handle.status) == ("task_1", None)
        assert (await handle).task_id == "task_1"


@pytest.mark.looptime
async def test_after_a_bug_in_the_poller_nothing_more_is_sent(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(self: Poller, *_: Any) -> None:
        raise KeyError("bug")

    monkeypatch.setattr("toapis_async.engine.poller.Poller._report", bug)
    async with ToAPIs(KEY, settings=Settings()) as client:
        with pytest.raises(SessionClosed):
            await client.generate("kite")
        with pytest.raises(SessionClosed):
            await client.submit("another")
    assert len(service.of("submit")) == 1


@pytest.mark.looptime
async def test_a_task_is_looked_at_a_last_time_before_it_is_called_overdue(service: FakeService) -> None:
    service.service_time_s = 99
    async with ToAPIs(KEY, settings=Settings(max_task_age_s=100, first_poll_s=200)) as client:
        handle = await client.submit("kite")
        assert (await handle).task_id == handle.task_id


@pytest.mark.looptime
async def test_a_forgotten_client_lets_its_waiters_go_also_when_warnings_are_errors(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ToAPIs(KEY, settings=Settings())
    await client.start()
    handle = await client.submit("kite")
    raised: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: raised.append(told.exc_type))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del client
        gc.collect()
    assert raised == [ResourceWarning]
    with pytest.raises(SessionClosed):
        await handle
    await asyncio.sleep(0)


@pytest.mark.looptime
async def test_a_task_attached_by_its_business_id_gets_its_own_id(service: FakeService) -> None:
    service.accept({"prompt": "kite", "client_business_id": "mine"})
    async with ToAPIs(KEY, settings=Settings()) as client:
        handle = client.attach("mine")
        generation = await handle
        assert (generation.task_id, handle.task_id, handle.client_business_id) == ("task_1", "task_1", "mine")
        assert client.statistics().in_flight == 0


def test_attaching_without_a_loop_says_what_is_wrong(service: FakeService) -> None:
    async def opened() -> ToAPIs:
        return await ToAPIs(KEY, settings=Settings()).start()

    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(opened())
    with pytest.raises(RuntimeError, match="another event loop"):
        client.attach("task_1")
    loop.run_until_complete(client.aclose())
    loop.close()


@pytest.mark.looptime
async def test_what_somebody_holds_again_is_no_longer_unclaimed(service: FakeService) -> None:
    async with ToAPIs(KEY, settings=Settings()) as client:
        for number in (1, 2):
            with pytest.raises(WaitTimeout):
                await client.generate("kite", client_business_id=f"mine-{number}", timeout_s=1)
        assert client.unclaimed() == ("mine-1", "mine-2")
        await client.find("mine-1")
        assert client.unclaimed() == ("mine-2",)
        assert (await client.attach("mine-2")).task_id == "task_2"
        assert client.unclaimed() == ()
