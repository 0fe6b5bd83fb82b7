"""What becomes of a part whose workers die: Dask is played here, and gives up on whatever has the row that kills."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from distributed.scheduler import KilledWorker

from toapis_async.batch.item import item_of
from toapis_async.dask.plugins import Recipe, unpacked
from toapis_async.dask.session import ROUNDS, WATCH_S, WORKERS_S, ClusterSession
from toapis_async.parts import PartOptions

from .kit import kites, part_of, quick

if TYPE_CHECKING:
    from collections.abc import Generator


class Future:
    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def __await__(self) -> Generator[None, None, Any]:
        yield from ()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def release(self) -> None: ...


class Dask:
    """Gives up `times` on every part that has the row of this index."""

    def __init__(self, index: int, times: int) -> None:
        self.index = index
        self.times = times
        self.keys: list[str] = []

    def submit(self, _: Any, sent: bytes, *args: Any, key: str, **options: Any) -> Future:
        self.keys.append(key)
        part = unpacked(sent)
        if self.times and any(row.index == self.index for row in part.rows):
            self.times -= 1
            last: Any = None
            return Future(KilledWorker(key, last, 3))
        return Future([item_of(row) for row in part.rows])


def session_on(dask: Dask) -> ClusterSession:
    recipe = Recipe(session="s", options=PartOptions(run="r"), settings=quick(), api_key=None, base_url=None)
    session = ClusterSession(recipe, None, journal=None, fresh=False)
    session._client = dask
    return session


async def test_a_part_that_saw_workers_die_is_handed_out_anew_under_another_key() -> None:
    dask = Dask(index=1, times=ROUNDS - 1)
    items = await session_on(dask).do(await part_of(kites(3)), "rows 0..2")
    assert [item.ok for item in items] == [True] * 3
    assert len(set(dask.keys)) == len(dask.keys) == ROUNDS


async def test_a_row_that_kills_every_worker_is_found_and_the_others_are_done() -> None:
    dask = Dask(index=1, times=10**6)
    items = await session_on(dask).do(await part_of(kites(3)), "rows 0..2")
    assert {item.index: item.ok for item in items} == {0: True, 1: False, 2: True}
    assert len(set(dask.keys)) == len(dask.keys) == ROUNDS + 2 + ROUNDS


class Machine:
    """A scheduler and its local workers, which Dask has given up after their death."""

    def __init__(self) -> None:
        self.worker_spec = {0: "a worker", 1: "another"}
        self.workers = {**self.worker_spec}
        self.scaled_at_s: list[float] = []
        self.scheduler = self

    def scale(self, number: int) -> None:
        self.scaled_at_s.append(asyncio.get_running_loop().time())
        self.workers = dict(list(self.worker_spec.items())[:number])

    async def toapis_desk(self, what: str, packed: bytes) -> bytes:
        assert what == "workers"
        return pickle.dumps(len(self.workers))


@pytest.mark.looptime
async def test_local_workers_that_dask_has_given_up_are_started_anew() -> None:
    machine, session = Machine(), session_on(Dask(0, 0))
    session._client = session._local = machine
    watching = asyncio.create_task(session._watch())
    await asyncio.sleep(WATCH_S + 1)
    machine.workers = {}
    await asyncio.sleep(10 * WATCH_S)
    assert machine.scaled_at_s == [2 * WATCH_S]
    assert len(machine.workers) == 2
    watching.cancel()
    await asyncio.wait([watching])


@pytest.mark.looptime
async def test_a_run_that_waits_for_workers_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    machine, session = Machine(), session_on(Dask(0, 0))
    session._client, machine.workers = machine, {}
    watching = asyncio.create_task(session._watch())
    await asyncio.sleep(5 * WORKERS_S)
    assert [record.levelname for record in caplog.records if "no worker" in record.getMessage()] == ["WARNING"]
    assert machine.scaled_at_s == []  # somebody else's cluster
    watching.cancel()
    await asyncio.wait([watching])
