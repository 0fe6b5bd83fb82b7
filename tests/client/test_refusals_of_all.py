"""What the service refuses for a reason that meets every request: a key that is no good any more, an empty account."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.journal_kit import ADDRESS, opened
from tests.engine.kit import KEY, UNLIMITED, FakeService, Hold, answer, refusal, task, turns, until
from toapis_async import (
    AuthenticationFailed,
    Batch,
    BatchItem,
    InsufficientQuota,
    ServiceError,
    Settings,
    TaskFailed,
    ToAPIs,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.looptime


def client_of(journal: Path | None = None, **settings: Any) -> ToAPIs:
    return ToAPIs(
        KEY, base_url=ADDRESS, settings=Settings(**{"poll_jitter": 0, "limits": UNLIMITED, **settings}), journal=journal
    )


def states(path: Path) -> dict[str, int]:
    """How many records of a closed journal are in which state."""
    with opened(path) as journal:
        return dict(journal.connection.execute("SELECT state, count(*) FROM submission GROUP BY state").fetchall())


async def gathered(batch: Batch) -> list[BatchItem]:
    gathering = asyncio.create_task(batch.gather())
    await until(gathering.done, "the batch's end")
    return await gathering


# ------------------------------------------------------------------------------------------- polls


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_polls_no_more_is_told_to_everyone_within_a_minute_with_their_ids(
    service: FakeService, status: int
) -> None:
    service.service_time_s = 600
    async with client_of() as client:
        rows = [{"prompt": "kite", "client_business_id": f"mine-{number}"} for number in range(5)]
        handles = [await client.submit(row) for row in rows]
        begun_s = asyncio.get_running_loop().time()
        service.on_query.extend([refusal(status, "unauthorized")] * 100)
        outcomes = await asyncio.gather(*(handle.result() for handle in handles), return_exceptions=True)
        assert asyncio.get_running_loop().time() - begun_s <= 60
        service.on_query.clear()
        for number, outcome in enumerate(outcomes):
            assert isinstance(outcome, AuthenticationFailed)
            assert (outcome.task_id, outcome.client_business_id) == (f"task_{number + 1}", f"mine-{number}")
        service.service_time_s = 0
        assert (await client.attach("task_3")).task_id == "task_3"


async def test_a_batch_whose_polls_are_refused_stops_and_its_rows_stay_accepted(
    service: FakeService, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    waits = {"first_poll_s": 0.01, "min_poll_interval_s": 0.01}
    service.on_query.extend([refusal(401, "unauthorized")] * 10_000)
    service.service_time_s = 0.02
    async with client_of(path, **waits) as client:
        items = await gathered(client.batch([f"kite {number}" for number in range(400)], run="r", max_in_flight=20))
        sent = len(service.of("submit"))
        assert sent < 100
        assert all(isinstance(item.error, AuthenticationFailed) for item in items)
        assert [item.error.task_id for item in items if item.error] == [item.task_id for item in items]
    left = states(path)
    assert left.pop("accepted") == sent
    assert set(left) <= {"withdrawn"}
    service.on_query.clear()
    async with client_of(path, **waits) as client:
        items = await gathered(client.batch([f"kite {number}" for number in range(400)], run="r"))
        assert sum(item.ok for item in items) == 400
    assert len(service.of("submit")) == 400


async def test_one_task_that_is_refused_alone_ends_alone(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.service_time_s = 60
    known = service.state
    monkeypatch.setattr(
        type(service), "state", lambda _, name: refusal(403, "forbidden") if name == "task_1" else known(name)
    )
    async with client_of() as client:
        alone, other = await client.submit("kite"), await client.submit("kite")
        with pytest.raises(AuthenticationFailed) as caught:
            await alone
        assert caught.value.task_id == "task_1"
        assert len(service.queries("task_1")) == 3
        assert (await other).task_id == "task_2"


async def test_a_row_whose_task_is_refused_alone_stops_no_batch(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = service.state
    monkeypatch.setattr(
        type(service), "state", lambda _, name: refusal(403, "forbidden") if name == "task_1" else known(name)
    )
    async with client_of() as client:
        items = await client.batch([f"kite {number}" for number in range(100)], max_in_flight=10).gather()
    assert isinstance(items[0].error, AuthenticationFailed)
    assert [item.ok for item in items[1:]] == [True] * 99


@pytest.mark.parametrize("answers", [[refusal(401), refusal(401), answer(200, task(status="in_progress"))]])
async def test_polls_that_are_refused_now_and_then_end_nothing(service: FakeService, answers: list[Any]) -> None:
    service.on_query.extend(answers * 20)
    async with client_of() as client:
        assert (await client.generate("kite")).task_id == "task_1"


async def test_a_gateway_s_403_page_is_not_the_key(service: FakeService) -> None:
    service.on_query.extend([answer(403, b"<html><title>Attention required</title>")] * 8)
    async with client_of() as client:
        assert (await client.generate("kite")).task_id == "task_1"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "internal", "message": "the upstream is gone"}},
        {"success": False, "message": "the upstream is gone"},
        {"code": 500, "message": "the upstream is gone", "data": None},
    ],
)
async def test_polls_that_are_answered_200_with_an_error_are_told_and_not_waited_out(
    service: FakeService, body: dict[str, Any]
) -> None:
    service.on_query.extend([answer(200, body)] * 9)
    async with client_of() as client:
        with pytest.raises(ServiceError, match="the upstream is gone") as caught:
            await client.generate("kite", client_business_id="mine")
        assert (caught.value.task_id, caught.value.client_business_id) == ("task_1", "mine")
    assert len(service.of("query")) == 3


async def test_ids_of_an_error_are_the_tasks_own_also_when_it_is_polled_by_another(service: FakeService) -> None:
    """A task that was found by its client_business_id is polled by that."""
    service.service_time_s = 600
    service.accept({"prompt": "kite", "client_business_id": "mine"})
    async with client_of() as client:
        handle = await client.find("mine")
        assert handle is not None
        service.on_query.extend([refusal(403, "forbidden")] * 9)
        with pytest.raises(AuthenticationFailed) as caught:
            await handle
    assert (caught.value.task_id, caught.value.client_business_id) == ("task_1", "mine")


async def test_a_poll_answered_in_the_tick_of_closing_is_no_hang_and_no_lost_end(service: FakeService) -> None:
    for late in range(6):
        service.on_query.clear()
        async with client_of() as client:
            held = Hold()
            service.on_query.append(held)
            waiting = asyncio.ensure_future((await client.submit("kite")).result())
            await held.reached.wait()
            held.answer(answer(200, task(f"task_{late + 1}", "completed")))
            await turns(late)
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        assert type(outcome).__name__ in {"SessionClosed", "Generation"}


# ------------------------------------------------------------------------------------------- money


EMPTY = [
    refusal(402, "insufficient_quota"),
    refusal(403, "insufficient_user_quota"),
    refusal(429, "quota_not_enough"),
    refusal(400, "quota_not_enough"),
    answer(200, {"error": {"code": "insufficient_quota", "message": "top up"}}),
    answer(200, {"success": False, "code": "quota_not_enough", "message": "top up"}),
    answer(402, {"error": {"code": 402, "type": "payment_required", "message": "top up"}}),
]


@pytest.mark.parametrize("empty", EMPTY, ids=lambda empty: f"{empty.status}")
async def test_an_empty_account_stops_a_batch_at_once_and_its_rows_are_sent_after_topping_up(
    service: FakeService, tmp_path: Path, empty: Any
) -> None:
    path = tmp_path / "journal.db"
    rows = [f"kite {number}" for number in range(400)]
    service.service_time_s = 0.02
    waits = {"first_poll_s": 0.01, "min_poll_interval_s": 0.01}
    service.on_submit.extend([empty] * 1_000)
    async with client_of(path, **waits) as client:
        items = await gathered(client.batch(rows, run="r"))
        assert items
        assert all(isinstance(item.error, InsufficientQuota) for item in items)
        assert all(item.error.client_business_id == item.client_business_id for item in items if item.error)
    sent = len(service.of("submit"))
    assert sent <= 10
    assert set(states(path)) <= {"withdrawn"}
    service.on_submit.clear()
    async with client_of(path, **waits) as client:
        items = await gathered(client.batch(rows, run="r"))
        assert sum(item.ok for item in items) == 400
    assert len(service.of("submit")) == sent + 400


async def test_a_failed_task_s_own_code_stops_no_batch(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = task("task_1", "failed", error={"code": "insufficient_quota", "message": "the upstream has no money"})
    known = service.state
    monkeypatch.setattr(
        type(service), "state", lambda _, name: answer(200, failed) if name == "task_1" else known(name)
    )
    async with client_of() as client:
        items = await client.batch([f"kite {number}" for number in range(100)]).gather()
    assert isinstance(items[0].error, TaskFailed)
    assert items[0].error.code == "insufficient_quota"
    assert [item.ok for item in items[1:]] == [True] * 99
