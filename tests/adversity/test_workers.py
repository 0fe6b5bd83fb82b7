"""Workers that share a journal's folder, killed in some rounds of seconds each. `python -m benchmarks.crash --workers`
plays as many as wanted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from .launcher import found
from .plans import SLOW_ANSWERS, Trouble
from .workers import POINTS, WorkersOutcome, WorkersPlan, play_workers, workers_plan

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = "toapis_async.engine.journal.records"


async def kept(folder: Path, *plans: WorkersPlan) -> list[WorkersOutcome]:
    """What rounds showed, once every promise was kept."""
    outcomes = await asyncio.gather(*(play_workers(plan, folder / str(n)) for n, plan in enumerate(plans)))
    assert not any(outcome.problems for outcome in outcomes), "\n".join(each.told() for each in outcomes)
    assert [(outcome.paid_twice, outcome.lost) for outcome in outcomes] == [(0, 0)] * len(plans)
    return outcomes


@pytest.mark.parametrize("point", POINTS)
def test_every_point_is_a_function(point: str) -> None:
    assert callable(getattr(*found(point)))


async def test_workers_killed_at_random_lose_nothing_and_pay_for_nothing_twice(tmp_path: Path) -> None:
    [outcome] = await kept(tmp_path, workers_plan(3, 0))
    assert outcome.kills


async def test_workers_killed_at_each_step_of_sharing_lose_nothing(tmp_path: Path) -> None:
    """In the first one's opening; around an intent; then, of what those left, around taking over and looking up."""
    troubles = (
        Trouble(point="toapis_async.engine.journal.locks:Processes.join", side="after"),
        Trouble(point=f"{RECORDS}:put_intent", side="after", call=4),
        Trouble(point=f"{RECORDS}:take_over", side="before"),
        Trouble(point=f"{RECORDS}:take_over", side="after"),
        Trouble(point=f"{RECORDS}:hold_intent", side="before"),
        Trouble(point=f"{RECORDS}:hold_intent", side="after"),
        Trouble(point=f"{RECORDS}:put_run", side="after"),
    )
    [outcome] = await kept(tmp_path, WorkersPlan(4, 0, orders=6, minted=3, troubles=troubles, faults=SLOW_ANSWERS))
    assert outcome.kills >= 2  # whether there is something to take over depends on who is faster


async def test_the_machine_notices_what_workers_pay_twice_with_a_journal_each(tmp_path: Path) -> None:
    outcome = await play_workers(
        WorkersPlan(0, 0, workers=2, orders=4, minted=0, rows=1, is_shared=False), tmp_path / "round"
    )
    assert outcome.paid_twice >= 4
    assert any(problem.startswith("paid twice: ") for problem in outcome.problems)
