"""Without a journal: one id of the caller's own is paid once while its task lives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toapis_async import Generation, InvalidRequest, ServiceError, SessionClosed, Settings, SubmitUncertain, ToAPIs

from .kit import KEY, FakeService, Hold, lost, refusal, turns

pytestmark = pytest.mark.looptime

MINE = {"prompt": "kite", "client_business_id": "mine"}


def client_of(service: FakeService, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, settings=Settings(**{"uncertain_submits": "raise", **settings}))


async def test_many_at_once_are_paid_once(service: FakeService) -> None:
    async with client_of(service) as client:
        made = await asyncio.gather(*(client.generate(MINE) for _ in range(20)), client.generate("another"))
        assert len({generation.task_id for generation in made}) == 2
    assert len(service.of("submit")) == 2


async def test_one_that_comes_while_its_task_runs_gets_it_and_one_after_its_end_another(service: FakeService) -> None:
    async with client_of(service) as client:
        first, second = await client.submit(MINE), await client.submit(MINE)
        assert first.task_id == second.task_id
        assert await first == await second
        third = await client.submit(MINE)
        assert third.task_id != first.task_id
        await third
    assert len(service.of("submit")) == 2


async def test_another_request_under_an_id_that_is_in_use_is_refused_and_not_sent(service: FakeService) -> None:
    async with client_of(service) as client:
        first = await client.submit(MINE)
        with pytest.raises(InvalidRequest, match="take another id") as refused:
            await client.submit({**MINE, "prompt": "boat"})
        assert refused.value.client_business_id == "mine"
        await first
        await client.submit({**MINE, "prompt": "boat"})
    assert len(service.of("submit")) == 2


@pytest.mark.parametrize("turn", range(6))
async def test_the_first_is_cancelled_while_its_post_is_under_way(service: FakeService, turn: int) -> None:
    service.on_submit.append(hold := Hold())
    async with client_of(service) as client:
        first = asyncio.ensure_future(client.generate(MINE))
        await hold.reached.wait()
        second = asyncio.ensure_future(client.generate(MINE))
        await turns()
        if turn:
            hold.answer(service.accept(MINE))
            await turns(turn)
        first.cancel()
        await turns(turn)
        if not turn:
            hold.answer(service.accept(MINE))
        made = await second
        assert isinstance(made, Generation)
        with pytest.raises(asyncio.CancelledError):
            await first
    assert len(service.of("submit")) == 1


async def test_the_first_is_cancelled_before_its_post(service: FakeService) -> None:
    async with client_of(service, max_in_flight=1) as client:
        running = await client.submit("before")
        first, second = (asyncio.ensure_future(client.generate(MINE)) for _ in range(2))
        await turns()
        first.cancel()
        await running
        assert (await second).client_business_id == "mine"
    assert len(service.of("submit")) == 2


async def test_a_refusal_is_the_first_ones_and_the_second_sends(service: FakeService) -> None:
    service.on_submit.append(refusal(400, "invalid_request"))
    async with client_of(service) as client:
        first, second = await asyncio.gather(client.generate(MINE), client.generate(MINE), return_exceptions=True)
        assert isinstance(first, ServiceError)
        assert isinstance(second, Generation)


async def test_a_doubt_is_everybodys_that_waited_and_nothing_is_sent_again(service: FakeService) -> None:
    service.on_submit.append(lost())
    service.visible_after_s = 1e9
    async with client_of(service, reconcile_window_s=1) as client:
        errors = await asyncio.gather(*(client.generate(MINE) for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [SubmitUncertain] * 3
        assert len({id(error) for error in errors}) == 3
        assert len(service.of("submit")) == 1
        await client.submit(MINE)  # its user has decided
    assert len(service.of("submit")) == 2


async def test_rows_of_a_batch_too(service: FakeService) -> None:
    rows = [MINE, MINE, {**MINE, "prompt": "boat"}, {"prompt": "kite"}]
    async with client_of(service) as client:
        items = await client.batch(rows).gather()
    assert [item.ok for item in items] == [True, True, False, True]
    assert isinstance(items[2].error, InvalidRequest)
    assert items[0].task_id == items[1].task_id
    assert len(service.of("submit")) == 2


async def test_closing_ends_those_who_wait_for_another(service: FakeService) -> None:
    service.on_submit.append(hold := Hold())
    client = await client_of(service, close_grace_s=1).start()
    waiting = [asyncio.ensure_future(client.generate(MINE)) for _ in range(3)]
    await hold.reached.wait()
    await client.aclose()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, SubmitUncertain | SessionClosed) for each in ended)
    assert len(service.of("submit")) == 1


async def test_nothing_is_kept_of_what_has_ended(service: FakeService) -> None:
    async with client_of(service) as client:
        await client.generate(MINE)
        engine = client._engine
        assert engine is not None
        assert not engine.submitter.in_common._live
