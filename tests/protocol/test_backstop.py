"""How much dearer a poll is when events come."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from toapis_async.protocol.polling.backstop import LEAST, Backstop
from toapis_async.protocol.polling.schedule import Schedule


def after(*by_event: bool) -> float:
    backstop = Backstop()
    for reported in by_event:
        backstop.ended(by_event=reported)
    return backstop.share


def test_until_events_come_polls_are_as_without_webhooks() -> None:
    assert after() == 1.0
    assert after(*[False] * 50) == 1.0


def test_events_that_report_every_end_leave_the_least() -> None:
    shares = [after(*[True] * count) for count in range(30)]
    assert shares == sorted(shares, reverse=True)
    assert shares[17] > LEAST
    assert shares[18:] == [LEAST] * 12


def test_when_events_stop_polls_are_back_within_five_ends() -> None:
    assert after(*[True] * 100, *[False] * 3) == pytest.approx(0.488, abs=1e-3)
    assert after(*[True] * 100, *[False] * 5) > 0.67
    assert after(*[True] * 100, *[False] * 20) > 0.98


@pytest.mark.parametrize("lost", [0.1, 0.5, 0.9])
def test_the_share_follows_what_is_lost(lost: float) -> None:
    rng = random.Random(7)
    backstop, total = Backstop(), 0.0
    for _ in range(5_000):
        backstop.ended(by_event=rng.random() >= lost)
        total += backstop.share
    assert total / 5_000 == pytest.approx(lost, abs=0.03)


def waited_s(*by_event: bool) -> float:
    """How long a schedule lets a fresh task wait for its first poll."""
    schedule: Schedule[Any] = Schedule(first_s=5, interval_s=5, jitter=0, rng=random.Random(1))
    for reported in by_event:
        schedule.backstop.ended(by_event=reported)
    task = SimpleNamespace(forecast=schedule.forecast_of("a"), since_s=0.0, seen_s=0.0, polled_s=0.0, ended=False)
    schedule.add(task)
    due_s = schedule.next_due_s()
    assert due_s is not None
    return due_s


def test_a_poll_is_put_off_while_events_come_but_never_for_ever() -> None:
    normal, backstop = waited_s(), waited_s(*[True] * 50)
    assert 5 <= normal < backstop / 2
    assert backstop <= 60
    assert waited_s(*[True] * 50, *[False] * 20) == pytest.approx(normal, rel=0.05)


def test_an_event_teaches_the_very_moment_of_an_end_where_a_poll_teaches_the_middle_of_a_gap() -> None:
    watched_s: list[float] = []
    for by_event in (True, False):
        schedule: Schedule[Any] = Schedule(first_s=5, interval_s=5, jitter=0, rng=random.Random(1))
        task = SimpleNamespace(forecast=schedule.forecast_of("a"), since_s=0.0, seen_s=0.0, polled_s=0.0, ended=False)
        schedule.add(task)
        schedule.put_back(task, 5.0)
        schedule.finished(task, 12.0, by_event=by_event)
        watched_s.append(sum(schedule.learned().classes["a"].watched_s))
    assert watched_s == pytest.approx([12.0, 8.5])
