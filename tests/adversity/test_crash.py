"""The short form of the machine that kills; the long one is `python -m benchmarks.crash`."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from toapis_async.sandbox import Fault

from .checks import broken_images
from .launcher import found
from .machine import Outcome, play
from .plans import KINDS, LOST, POINTS, SLOW_ANSWERS, Blow, Plan, Run, Side, Trouble, plan_of

if TYPE_CHECKING:
    from pathlib import Path


INTENT, ACCEPTED, ENDED, SAVED = (
    f"toapis_async.engine.journal.records:put_{name}" for name in ("intent", "accepted", "end", "files")
)
POST, START = "toapis_async.engine.transport:Transport.post", "aiohttp:ClientResponse.start"
PART, RENAME = "toapis_async.engine.part:Part", "pathlib:Path.replace"
FIND, ROW = "toapis_async.engine.queries:Queries.find", "toapis_async.engine.journal.records:record_of_row"

DRAWN = [kind for kind in KINDS if kind not in {"kills", "points", "answers", "lost", "disk"}]
"""Without the kinds that other tests below play, or that others contain."""


@pytest.fixture(autouse=True)
def _quiet_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "aiohttp.server")  # it tells of every client that dies


def killed_at(point: str, side: Side = "before", call: int = 1) -> Run:
    return Run(Trouble(point=point, side=side, call=call))


async def kept(folder: Path, *plans: Plan) -> list[Outcome]:
    """What rounds showed, once every promise was kept. Three are played at a time: they mostly wait."""
    turns = asyncio.Semaphore(3)

    async def played(plan: Plan, number: int) -> Outcome:
        async with turns:
            return await play(plan, folder / str(number))

    outcomes = await asyncio.gather(*(played(plan, number) for number, plan in enumerate(plans)))
    assert not any(outcome.problems for outcome in outcomes), "\n".join(
        each.told() for each in outcomes if each.problems
    )
    assert [(outcome.paid_twice, outcome.lost) for outcome in outcomes] == [(0, 0)] * len(plans)
    return outcomes


@pytest.mark.parametrize("point", [*POINTS, INTENT, ACCEPTED, ENDED, SAVED, POST, START, RENAME, FIND, ROW])
def test_every_point_is_a_function(point: str) -> None:
    assert callable(getattr(*found(point)))


@pytest.mark.parametrize("kinds", [DRAWN[part::3] for part in range(3)], ids=" ".join)
async def test_a_round_of_each_kind_keeps_its_promises(kinds: list[str], tmp_path: Path) -> None:
    await kept(tmp_path, *(plan_of(2, 0, kind) for kind in kinds))


async def test_killed_at_every_step_of_a_submission_nothing_is_paid_twice(tmp_path: Path) -> None:
    runs = (
        killed_at(INTENT, "before", 2),
        killed_at(POST),  # the intent is committed, and nothing is sent
        killed_at(START, "before", 2),  # sent
        Run(blow=Blow("accepted", 1)),  # accepted, and the answer is on its way
        killed_at(ACCEPTED, "before"),  # the answer came, and is not written down
        killed_at(ACCEPTED, "after"),
    )
    plan = Plan("a submission", 0, 0, rows=8, runs=runs, faults=SLOW_ANSWERS)
    outcomes = await kept(tmp_path, plan, replace(plan, program=True))
    assert [outcome.kills for outcome in outcomes] == [len(runs)] * 2


async def test_killed_at_every_step_of_an_image_none_is_lost_or_half_there(tmp_path: Path) -> None:
    runs = (
        killed_at(f"{PART}.finish"),
        killed_at(f"{PART}.add", "after", 2),
        killed_at(f"{PART}.flush", "after"),
        killed_at(RENAME, "before"),
        killed_at(RENAME, "after"),
        killed_at(SAVED, "before"),
        killed_at(SAVED, "after"),
    )
    plan = Plan("an image", 0, 0, rows=8, runs=runs, faults=(("file", Fault.BREAKS_OFF, 0.2),))
    [outcome] = await kept(tmp_path, plan)
    assert outcome.kills == len(runs)


async def test_a_plain_submission_that_was_not_saved_is_recovered_wherever_the_program_was_killed(
    tmp_path: Path,
) -> None:
    """With few rows, the first to end, to get names and to be acknowledged are single requests, too."""
    runs = (
        killed_at(ENDED, "after", 2),
        killed_at(SAVED, "before"),  # on disk, and not written down
        killed_at(SAVED, "after", 2),
        killed_at(RENAME, "before"),
        killed_at(RENAME, "after"),
        killed_at(ENDED, "after"),
    )
    plan = Plan("plain", 0, 0, program=True, rows=4, runs=runs)
    [outcome] = await kept(tmp_path, plan)
    assert outcome.kills >= 3


async def test_killed_while_it_takes_up_what_a_kill_left_it_takes_that_up_too(tmp_path: Path) -> None:
    runs = (
        Run(blow=Blow("accepted", 3)),
        killed_at("toapis_async.engine.journal.records:paid", "after"),
        killed_at(FIND),
        killed_at(FIND, "after"),
        killed_at(ROW, "after", 2),
    )
    plan = Plan("resume", 0, 0, rows=8, runs=runs, faults=(*SLOW_ANSWERS, *LOST), visible_after_s=10)
    [outcome] = await kept(tmp_path, plan)
    assert outcome.kills == len(runs)


async def test_without_a_disk_nothing_is_sent_and_with_it_all_goes_on(tmp_path: Path) -> None:
    def plan(number: int) -> Plan:
        runs = (Run(Trouble(disk=number)), Run(Trouble(disk=number, point=INTENT, call=3)), Run(Trouble(disk=number)))
        return Plan("disk", 0, 0, rows=8, runs=runs)

    outcomes = await kept(tmp_path, plan(errno.ENOSPC), plan(errno.EROFS))
    assert [(outcome.kills, outcome.runs) for outcome in outcomes] == [(0, 5)] * 2


async def test_the_machine_notices_what_is_paid_twice(tmp_path: Path) -> None:
    """Found only after the window of look-ups, a task whose answer was lost is submitted again: the known limit."""
    plan = Plan("too late", 0, 0, rows=4, visible_after_s=40, spare_s=-1.8, faults=(("submit", Fault.LOST_ANSWER, 1),))
    outcome = await play(plan, tmp_path)
    assert outcome.paid_twice > 0
    assert any(problem.startswith("paid twice: ") for problem in outcome.problems)


def test_the_machine_notices_half_an_image(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.new("L", (64, 64)).save(whole, "PNG")
    (tmp_path / "whole.png").write_bytes(whole.getvalue())
    (tmp_path / "half.png").write_bytes(whole.getvalue()[:-20])
    (tmp_path / ".half.png.part").write_bytes(b"")
    assert [name for name, _ in broken_images(tmp_path)] == ["half.png"]
