"""What becomes of a part whose workers die: Dask is played here, and gives up on whatever has the row that kills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed.scheduler import KilledWorker

from toapis_async.batch.item import item_of
from toapis_async.dask.plugins import Recipe, unpacked
from toapis_async.dask.session import ROUNDS, ClusterSession
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
