"""`generate` and its patience, and the small questions."""

from __future__ import annotations

import asyncio
import pickle
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import (
    ClientStateError,
    ContentRefused,
    ImageRequest,
    InvalidRequest,
    RateLimits,
    ServiceError,
    Settings,
    TaskFailed,
    TaskStatus,
    ToAPIs,
    WaitTimeout,
)
from toapis_async.engine import account

from ..engine.kit import KEY, FakeService, Hold, answer, served, task, turns

if TYPE_CHECKING:
    from collections.abc import Mapping


def now_s() -> float:
    return asyncio.get_running_loop().time()


def client_of(service: FakeService, **settings: Any) -> ToAPIs:
    return ToAPIs(KEY, settings=Settings(**{"close_grace_s": 0, **settings}))


@pytest.mark.looptime
@pytest.mark.parametrize(
    "source", ["kite", {"prompt": "kite", "n": 2}, ImageRequest("kite", n=2)], ids=["prompt", "mapping", "request"]
)
async def test_a_request_may_be_a_prompt_a_mapping_or_a_request(
    service: FakeService, source: ImageRequest | Mapping[str, Any] | str
) -> None:
    async with client_of(service) as client:
        generation = await client.generate(source, n=2, size="16:9")
    body = service.of("submit")[0].body
    assert (body["prompt"], body["n"], body["size"]) == ("kite", 2, "16:9")
    assert generation.client_business_id == body["client_business_id"]


@pytest.mark.looptime
@pytest.mark.parametrize("timeout_s", [float("nan"), -1, "5", True])
async def test_a_time_out_that_is_none_is_refused_before_anything_is_sent(service: FakeService, timeout_s: Any) -> None:
    async with client_of(service) as client:
        with pytest.raises(InvalidRequest, match="timeout_s must be a number of seconds"):
            await client.generate("kite", timeout_s=timeout_s)
        assert not service.of("submit")
        handle = await client.submit("kite")
        with pytest.raises(InvalidRequest, match="timeout_s must be a number of seconds"):
            await handle.result(timeout_s=timeout_s)
        assert (await handle.result(timeout_s=1_000)).images


@pytest.mark.looptime
async def test_a_handle_that_is_pickled_names_the_token(service: FakeService) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        with pytest.raises(ClientStateError, match=r"handle\.token\(\)"):
            pickle.dumps(handle)


@pytest.mark.looptime
async def test_a_bad_request_costs_nothing(service: FakeService) -> None:
    async with client_of(service) as client:
        with pytest.raises(InvalidRequest, match="prompt"):
            await client.generate("")
        with pytest.raises(InvalidRequest, match="did you mean 'size'"):
            await client.generate("kite", siez="16:9")  # type: ignore[call-arg]
    assert service.seen == []


async def test_a_failed_task_and_a_refusal_are_told_with_everything_known() -> None:
    async with served() as (_, client):
        with pytest.raises(TaskFailed) as failed:
            await client.generate({"prompt": "kite [fail]", "client_business_id": "mine"})
        assert (failed.value.code, failed.value.client_business_id) == ("generation_failed", "mine")
        assert failed.value.billing is not None
        assert failed.value.billing.status == "refunded"
        assert str(pickle.loads(pickle.dumps(failed.value))) == str(failed.value)  # noqa: S301
        with pytest.raises(ContentRefused):
            await client.generate("kite [refuse]")


# ------------------------------------------------------------------------------------------- patience


@pytest.mark.looptime
async def test_a_time_out_after_the_task_was_taken_detaches_with_both_ids(service: FakeService) -> None:
    async with client_of(service) as client:
        with pytest.raises(WaitTimeout, match="still paid for") as caught:
            await client.generate({"prompt": "kite", "client_business_id": "mine"}, timeout_s=3)
        assert now_s() == 3
        assert (caught.value.task_id, caught.value.client_business_id) == ("task_1", "mine")
        assert caught.value.__cause__ is None
        assert client.statistics().in_flight == 1  # still watched
        assert (await client.attach("task_1").result()).task_id == "task_1"


@pytest.mark.looptime
async def test_a_time_out_during_the_post_tells_the_id_to_find_it_by(service: FakeService) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    async with client_of(service) as client:
        with pytest.raises(WaitTimeout, match=r"client\.find") as caught:
            await client.generate("kite", timeout_s=3)
        assert caught.value.task_id is None
        business_id = service.of("submit")[0].body["client_business_id"]
        assert caught.value.client_business_id == business_id
        hold.answer(answer(200, task("t")))
        await turns()
        assert client.unclaimed() == (business_id,)


@pytest.mark.looptime
async def test_a_time_out_before_anything_was_sent_sends_nothing(service: FakeService) -> None:
    limits = RateLimits(submit_per_s=0.01, submit_burst=1, query_per_s=10, query_burst=10)
    async with client_of(service, limits=limits) as client:
        await client.submit("takes the token")
        with pytest.raises(WaitTimeout) as caught:
            await client.generate("kite", timeout_s=3)
        assert caught.value.task_id is None
        assert client.unclaimed() == ()
        await asyncio.sleep(500)
    assert len(service.of("submit")) == 1


@pytest.mark.looptime
async def test_patience_of_zero_is_over_at_once(service: FakeService) -> None:
    async with client_of(service) as client:
        with pytest.raises(WaitTimeout):
            await client.generate("kite", timeout_s=0)
        assert now_s() == 0


@pytest.mark.looptime
@pytest.mark.parametrize(("outer_s", "inner_s", "ours"), [(2, 4, False), (4, 2, True), (2, None, False)])
async def test_a_time_out_of_the_caller_s_own_is_never_swallowed_or_taken_for_ours(
    service: FakeService, outer_s: float, inner_s: float | None, ours: bool
) -> None:
    async with client_of(service) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(outer_s):
                await client.generate("kite", timeout_s=inner_s)
        assert (type(caught.value) is WaitTimeout) is ours
        assert now_s() == 2
        assert len(client.unclaimed()) == 1, "either way nobody holds a handle on it"


@pytest.mark.looptime
async def test_both_time_outs_in_one_tick_leave_no_stray_cancellation(service: FakeService) -> None:
    async with client_of(service) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await client.generate("kite", timeout_s=2)
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        await asyncio.sleep(1)


@pytest.mark.looptime
async def test_a_cancelled_generate_is_a_cancellation_and_its_task_is_listed_and_watched(service: FakeService) -> None:
    async with client_of(service) as client:
        generating = asyncio.create_task(client.generate({"prompt": "kite", "client_business_id": "mine"}))
        await asyncio.sleep(1)
        generating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await generating
        assert client.unclaimed() == ("mine",)
        found = await client.find("mine")
        assert found is not None
        assert (await found).task_id == "task_1"


@pytest.mark.looptime
async def test_a_task_group_of_generates_raises_only_the_failure(service: FakeService) -> None:
    async with client_of(service) as client:

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(client.generate("kite [fail]"))
                for number in range(5):
                    group.create_task(_late(client, number))

        with pytest.raises(ExceptionGroup) as caught:
            await work()
        assert [type(error) for error in caught.value.exceptions] == [TaskFailed]


async def _late(client: ToAPIs, number: int) -> None:
    await asyncio.sleep(5)
    await client.generate(f"kite {number}")


# ------------------------------------------------------------------------------------------- questions


async def test_prices_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as (sandbox, client):
        whole = await client.prices()
        monkeypatch.setattr(account, "PRICES_A_PAGE", 3)
        assert await client.prices() == whole
        assert {price.type for price in whole} == {"image"}
        assert {price.type for price in await client.prices(type="video")} == {"video"}
        [sora] = await client.prices("sora-2")
        assert (sora.type, sora.unit, sora.unit_price) == ("video", "second", Decimal("0.1"))
        asked = sandbox.requests.count("pricing")
        monkeypatch.setattr(account, "MOST_PRICE_PAGES", 2)
        assert len(await client.prices()) < len(whole)
        assert sandbox.requests.count("pricing") == asked + 2
        with pytest.raises(ServiceError, match="nobody was not found"):
            await client.prices("nobody")


async def test_balances_models_status_and_find_of_the_sandbox() -> None:
    async with served({"credits": 1_000}) as (_, client):
        handle = await client.submit({"prompt": "kite", "client_business_id": "mine"})
        assert (await client.status("mine")).task_id == handle.task_id
        assert (await client.status(handle.task_id)).client_business_id == "mine"
        await handle
        assert handle.status is TaskStatus.COMPLETED
        key, user = await client.balance(), await client.balance("user")
        assert key.remain_credits is not None
        assert key.remain_credits < 1_000
        assert user.remain_credits == key.remain_credits
        assert "gpt-image-2-vip" in {model.id for model in await client.models()}
        assert await client.find("nobody's") is None
