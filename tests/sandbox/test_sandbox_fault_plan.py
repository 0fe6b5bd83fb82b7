"""The plan of faults: scripts, chances, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from toapis_async.sandbox import Fault, FaultPlan, Sandbox
from toapis_async.sandbox.faults import KINDS, Kind, uniform

if TYPE_CHECKING:
    from .kit import Caller


async def test_a_script_is_consumed_one_step_a_request(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults.script("submit", Fault.ERROR_500, None, (Fault.ERROR_500, Fault.NUMERIC_CODES))
    assert sandbox.faults.pending("submit") == 3
    replies = [await caller.submit() for _ in range(4)]

    assert [reply.status for reply in replies] == [500, 200, 500, 200]
    assert replies[2].error["code"] == 500
    assert sandbox.faults.pending("submit") == 0


async def test_a_script_about_one_task_waits_for_that_task(sandbox: Sandbox, caller: Caller) -> None:
    mine = await caller.task("mine", client_business_id="order")
    other = await caller.task("other")
    sandbox.faults.script("query", Fault.ERROR_500, about=mine)
    sandbox.faults.script("query", Fault.HTML_502, about="order")
    sandbox.faults.script("submit", Fault.HTML_504, about="a third")

    assert (await caller.query(other)).status == 200
    assert [(await caller.query(mine)).status for _ in range(3)] == [500, 502, 200]
    assert (await caller.submit("a fourth")).status == 200
    assert (await caller.submit("a third")).status == 504


def drawn(seed: int, subjects: list[str]) -> dict[str, list[bool]]:
    plan = FaultPlan(seed)
    plan.chance("submit", Fault.LOST_ANSWER, 0.3)
    found: dict[str, list[bool]] = {}
    for subject in subjects:
        found.setdefault(subject, []).append(bool(plan.draw("submit", (subject,))))
    return found


def test_chance_follows_from_the_seed_and_the_subject_not_from_the_order() -> None:
    subjects = [f"kite {number % 200}" for number in range(1_000)]
    found = drawn(1, subjects)

    assert drawn(1, subjects[::-1]) == found
    assert drawn(2, subjects) != found
    hits = sum(sum(hits) for hits in found.values())
    assert 250 < hits < 350


def test_chances_add_up_and_can_be_cleared() -> None:
    plan = FaultPlan()
    plan.chance("query", Fault.SLOW.lasting(3), 1)
    plan.chance("query", Fault.TRUNCATED_JSON, 1)
    plan.chance("query", Fault.DROPPED, 0)
    plan.script("query", None)

    assert plan.draw("query", ("x",)) == {}
    assert plan.draw("query", ("x",)) == {Fault.SLOW: 3, Fault.TRUNCATED_JSON: None}
    assert plan.draw("submit", ("x",)) == {}
    plan.clear()
    assert plan.draw("query", ("x",)) == {}
    assert plan.drawn["query", Fault.SLOW] == 1


def test_numbers_drawn_are_spread_evenly() -> None:
    numbers = [uniform("test", index) for index in range(2_000)]

    assert 0 < min(numbers) < max(numbers) < 1
    assert sum(numbers) / 2_000 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("balance", Fault.TASK_FAILS), ("file", Fault.TRUNCATED_JSON), ("query", Fault.LIMITER_DOWN)],
)
def test_a_fault_that_could_never_show_is_refused(kind: Kind, fault: Fault) -> None:
    with pytest.raises(ValueError, match=fault.name):
        FaultPlan().script(kind, None, (Fault.DROPPED, fault))
    with pytest.raises(ValueError, match=fault.name):
        FaultPlan().chance(kind, fault, 0.5)


def test_misuse_of_the_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="no requests of kind"):
        FaultPlan().script("sumbit", Fault.DROPPED)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between 0 and 1"):
        FaultPlan().chance("submit", Fault.DROPPED, 30)
    with pytest.raises(ValueError, match="no duration"):
        Fault.DROPPED.lasting(3)
    assert "submit" in KINDS
