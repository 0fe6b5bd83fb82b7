"""The chaos of `test_chaos` with a journal, over two sessions and with batches that are left: what is written down is
never less than what was paid, and the next session pays for nothing twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.journal_kit import ADDRESS, opened
from tests.engine.kit import KEY, FakeService
from toapis_async import Batch, RateLimits, Settings, TaskFailed, ToAPIs
from toapis_async.engine.journal.writer import JournalWriter

from .events import SECRET
from .test_chaos import CALLERS, Chaos, call

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.looptime

LEFT_ALONE = {"withdrawn", "refused"}
"""States that say that the service certainly holds no task."""


class Disk:
    """Stands in for the journal's thread and its queue: a commit takes a random while of the loop's time."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.writer: JournalWriter | None = None
        self._queue: list[Any] = []

    def put(self, item: Any) -> None:
        self._queue.append(item)
        if item is None:
            self._commit()
        else:
            asyncio.get_running_loop().call_later(self.rng.uniform(0, 2), self._commit)

    def _commit(self) -> None:
        assert self.writer is not None
        if not self._queue:  # a later timer's came along with an earlier one's
            return
        queue, self._queue = self._queue, []
        self.writer._commit([item for item in queue if item is not None])
        if None in queue:
            self.writer._file.close()


class _Thread:
    def __init__(self, **_: Any) -> None: ...
    def start(self) -> None: ...
    def join(self) -> None: ...


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.getfixturevalue("seed"))


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> Chaos:
    """A wild service, and journals that take the loop's time."""
    service = Chaos(rng=rng, latency_s=0.1, visible_after_s=rng.choice([0, 5, 20]))
    monkeypatch.setattr("toapis_async.engine.core.Transport", service.transport)
    # In this module only: the loop's own threads are real.
    monkeypatch.setattr("toapis_async.engine.journal.writer.threading", SimpleNamespace(Thread=_Thread))
    made = JournalWriter.__init__

    def with_disk(self: JournalWriter, *args: Any) -> None:
        made(self, *args)
        disk = Disk(rng)
        disk.writer, self._items = self, disk  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]

    monkeypatch.setattr(JournalWriter, "__init__", with_disk)
    return service


def client_of(path: Path, rng: random.Random) -> ToAPIs:
    settings = Settings(
        max_in_flight=rng.choice([3, 50]),
        limits=RateLimits(submit_per_s=5, submit_burst=5, query_per_s=rng.choice([5, 50]), query_burst=10),
        prices={"*": 2},
        webhook_secrets=SECRET,
        close_grace_s=rng.choice([0, 5]),
    )
    return ToAPIs(KEY, base_url=ADDRESS, settings=settings, journal=path, budget_credits=10_000)


def tame(monkeypatch: pytest.MonkeyPatch, service: Chaos) -> None:
    """From now on the service does as it should."""
    monkeypatch.setattr(Chaos, "transport", FakeService.transport)
    monkeypatch.setattr("toapis_async.engine.core.Transport", service.transport)


def check_journal(path: Path, service: Chaos) -> dict[str, str]:
    """The states by id; each is borne out by the service."""
    with opened(path) as journal:
        rows = journal.connection.execute("SELECT client_business_id, state, task_id FROM submission").fetchall()
    known = {made.client_business_id: made.task_id for made in service.tasks.values()}
    assert known.keys() <= {business_id for business_id, _, _ in rows}
    for business_id, state, task_id in rows:
        assert state not in LEFT_ALONE or business_id not in known, (business_id, state)
        assert task_id in {None, known.get(business_id)}
    return {business_id: state for business_id, state, _ in rows}


def check_all_came_back(client: ToAPIs) -> None:
    engine = client._engine
    assert engine is not None
    budget = engine.spending.budget
    assert budget is not None
    assert (engine._permits._source.taken, budget.reserved_images) == (0, 0)
    assert budget.reserved == 0
    assert (client.statistics().submit.unanswered, client.statistics().query.unanswered) == (0, 0)
    assert not engine.submitter._parts.attempts
    assert not engine.dependents


@pytest.mark.parametrize("seed", range(5))
async def test_what_a_wild_session_paid_is_in_the_journal_and_the_next_pays_for_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, chaos: Chaos, rng: random.Random, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "journal.db"
    client = client_of(path, rng)
    await client.start()
    callers = [asyncio.create_task(call(client, rng, number)) for number in range(CALLERS)]
    for caller in rng.sample(callers, 15):
        asyncio.get_running_loop().call_later(rng.uniform(0, 100), caller.cancel)
    if seed % 2:
        await asyncio.sleep(rng.uniform(1, 90))
    else:
        await asyncio.wait(callers)
        await asyncio.sleep(4_000)
    await client.aclose()
    await asyncio.gather(*callers, return_exceptions=True)
    check_all_came_back(client)
    check_journal(path, chaos)

    tame(monkeypatch, chaos)
    with opened(path) as journal:
        requests = journal.connection.execute("SELECT request FROM submission").fetchall()
    async with client_of(path, rng) as client:
        for (request,) in requests:
            with suppress(TaskFailed):
                await client.generate(json.loads(request))
    check_all_came_back(client)
    states = check_journal(path, chaos)
    assert set(states.values()) <= {"completed", "failed"}
    paid = Counter(made.client_business_id for made in chaos.tasks.values())
    assert [name for name, times in paid.items() if times > 1] == []


async def leave(client: ToAPIs, batch: Batch, rng: random.Random) -> None:
    """Consume a part of a batch, and leave in one of the ways people do."""
    how = rng.choice(["break", "error", "cancelled gather", "cancelled loop", "aclose", "time-out", "close"])
    most, wait_s = rng.randrange(20), rng.uniform(0, 60)

    async def consume() -> None:
        count = 0
        async for _ in batch:
            count += 1
            if count > most and how == "break":
                break
            if count > most and how == "error":
                raise KeyError("of the loop's body")

    consuming = asyncio.create_task(batch.gather() if "gather" in how else consume())
    if how in {"break", "error"}:
        await asyncio.wait([consuming])
    else:
        await asyncio.wait([consuming], timeout=wait_s)
    if how == "aclose":
        await batch.aclose()
    elif how == "close":
        await client.aclose()
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    if rng.random() < 0.5:
        await asyncio.sleep(rng.uniform(0, 30))


@pytest.mark.parametrize("seed", range(12))
async def test_batches_that_are_left_in_whatever_way_pay_for_each_row_once(
    monkeypatch: pytest.MonkeyPatch, chaos: Chaos, rng: random.Random, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "journal.db"
    rows = [f"kite {number}{' [fail]' if number % 7 == 0 else ''}" for number in range(60)]
    for _ in range(3):
        client = client_of(path, rng)
        await client.start()
        with suppress(Exception):
            await leave(client, client.batch(rows, run="r", max_images=rng.choice([None, 100])), rng)
        left = len(chaos.of("submit"))
        if rng.random() < 0.5:
            await asyncio.sleep(500)
            late = {seen.body["client_business_id"] for seen in chaos.of("submit")[left:]}
            assert {made.client_business_id for made in chaos.tasks.values()} & late <= set(client.unclaimed())
        await client.aclose()
        check_all_came_back(client)
        check_journal(path, chaos)

    tame(monkeypatch, chaos)
    for _ in range(2):
        async with client_of(path, rng) as client:
            items = await client.batch(rows, run="r").gather()
        check_all_came_back(client)
    assert len(items) == 60
    for item in items:
        assert item.ok or item.error is not None
    paid = Counter(made.prompt for made in chaos.tasks.values())
    assert {prompt: times for prompt, times in paid.items() if times > 1} == {}
    check_journal(path, chaos)
