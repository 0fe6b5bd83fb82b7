"""Polls while events may be missed, of tasks whose events may have been missed, and of those known to be over."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from toapis_async.protocol.polling.schedule import Schedule

FIRST_S = 5.0


class Task(SimpleNamespace):
    """What the schedule keeps of a task."""

    def __lt__(self, other: Task) -> bool:
        return bool(self.since_s < other.since_s)


def trusting(*, interrupted: bool = False) -> Schedule[Any]:
    """A schedule that has seen every end told by an event."""
    schedule = fresh()
    if interrupted:
        schedule.events_interrupted()
    trust(schedule)
    return schedule


def trust(schedule: Schedule[Any]) -> None:
    for _ in range(50):
        schedule.backstop.ended(by_event=True)


def begun(schedule: Schedule[Any], at_s: float = 0.0) -> Task:
    task = Task(forecast=schedule.forecast_of("a"), since_s=at_s, seen_s=at_s, polled_s=at_s, ended=False)
    schedule.add(task)
    return task


def polled_s(schedule: Schedule[Any], from_s: float, until_s: float = 100.0) -> float:
    """When the next task is due, by quarters of a second."""
    now_s = from_s
    while schedule.pop(now_s) is None:
        now_s += 0.25
        assert now_s <= until_s
    return now_s


def fresh() -> Schedule[Any]:
    return Schedule(first_s=FIRST_S, interval_s=5, jitter=0, rng=random.Random(1))


def normal_s() -> float:
    schedule = fresh()
    begun(schedule)
    return polled_s(schedule, 0.0)


NORMAL_S = normal_s()
"""When a first poll is due without events."""


def test_while_events_come_the_first_poll_is_far_off() -> None:
    schedule = trusting()
    begun(schedule)
    assert polled_s(schedule, 0.0) > 2 * NORMAL_S


@pytest.mark.parametrize("at_s", [0.0, 1.0, 4.0, 11.0])
def test_once_they_may_be_missed_tasks_that_wait_are_polled_as_without_events(at_s: float) -> None:
    schedule = trusting()
    begun(schedule)
    assert schedule.pop(at_s) is None
    schedule.events_interrupted()
    assert polled_s(schedule, at_s) == max(NORMAL_S, at_s)


def test_whatever_events_still_come_meanwhile() -> None:
    schedule = trusting(interrupted=True)
    begun(schedule)
    trust(schedule)
    assert polled_s(schedule, 0.0) == NORMAL_S


def test_when_they_come_again_what_was_under_way_is_polled_as_without_events_until_it_was_seen() -> None:
    schedule = trusting(interrupted=True)
    task = begun(schedule)
    schedule.events_resumed(2.0)
    trust(schedule)
    assert polled_s(schedule, 2.0) == NORMAL_S
    schedule.put_back(task, NORMAL_S)
    assert polled_s(schedule, NORMAL_S) > 3 * NORMAL_S  # it was unfinished after the gap: its event is to come


def test_and_how_much_events_find_is_learned_anew() -> None:
    schedule = trusting(interrupted=True)
    schedule.events_resumed(2.0)
    begun(schedule, 3.0)
    assert polled_s(schedule, 3.0) == pytest.approx(3.0 + NORMAL_S, abs=0.25)


def test_a_poll_that_failed_keeps_its_back_off() -> None:
    schedule = trusting()
    task = begun(schedule)
    schedule.put_off(schedule.pop(60.0), 60.0, failures=5)
    due_s = schedule.next_due_s()
    schedule.events_interrupted()
    assert due_s is not None
    assert due_s > 65.0
    assert schedule.next_due_s() == due_s
    assert task.seen_s == 0.0


def test_a_task_that_is_known_to_be_over_is_polled_as_soon_as_it_may_be() -> None:
    schedule = trusting()
    others = [begun(schedule) for _ in range(10)]
    task = begun(schedule, 1.0)
    schedule.hurry(task)
    assert schedule.next_due_s() == 6.0  # an interval after its last poll, or its beginning
    assert schedule.pop(6.0) is task
    schedule.put_back(task, 6.0)  # the service itself is late: back to its plan
    assert task.seen_s == 6.0
    assert polled_s(schedule, 6.0) > 2 * NORMAL_S
    assert all(other.seen_s == 0.0 for other in others)


def test_one_that_is_being_polled_already_is_let_be() -> None:
    schedule = trusting()
    task = begun(schedule)
    assert schedule.pop(60.0) is task
    schedule.hurry(task)
    assert schedule.next_due_s() is None
    assert task.seen_s == 0.0 != -math.inf
