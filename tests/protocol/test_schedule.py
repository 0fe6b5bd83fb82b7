"""When to poll which task: never too soon, never too late, the likeliest first, and none forgotten."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.models import Evidence, Learned
from toapis_async.protocol.polling.forecast import Forecast
from toapis_async.protocol.polling.hazard import BINS
from toapis_async.protocol.polling.plan import LONGEST_WAIT
from toapis_async.protocol.polling.schedule import CHECKED_EVERY, MOST_CLASSES, SLICE, Schedule

INTERVAL_S = 5.0


@define(eq=False)
class Task:
    forecast: Forecast
    since_s: float = 0.0
    seen_s: float = 0.0
    polled_s: float = 0.0
    ended: bool = False
    ends_s: float = math.inf
    polls: list[float] = field(factory=list)

    def __lt__(self, other: Task) -> bool:
        return self.since_s < other.since_s


def schedule_with(jitter: float = 0.08, seed: int = 0, most_age_s: float = math.inf) -> Schedule[Task]:
    return Schedule(
        first_s=INTERVAL_S, interval_s=INTERVAL_S, jitter=jitter, rng=random.Random(seed), most_age_s=most_age_s
    )


def run(
    schedule: Schedule[Task],
    tasks: list[Task],
    *,
    every_s: float = 0.0,
    until_s: float = 10_000.0,
) -> float:
    """Drive it as the poller does, one poll every `every_s` at the most; returns when the last task was seen."""
    now_s = 0.0
    coming = sorted(tasks, key=lambda task: task.since_s)
    while now_s < until_s:
        due_s = schedule.next_due_s()
        if coming and (due_s is None or coming[0].since_s <= max(due_s, now_s)):
            now_s = max(now_s, coming[0].since_s)
            schedule.add(coming.pop(0))
            continue
        if due_s is None:
            return now_s
        now_s = max(now_s + every_s, due_s)
        task = schedule.pop(now_s)
        if task is None:
            continue
        task.polls.append(now_s)
        if task.ends_s <= now_s:
            schedule.finished(task, now_s, task.ends_s - task.since_s)
        else:
            schedule.put_back(task, now_s)
    raise AssertionError("a task was forgotten")


def population(schedule: Schedule[Task], count: int, rng: random.Random, median_s: float = 25.0) -> list[Task]:
    forecast = schedule.forecast_of(f"{median_s:g}")
    starts = [rng.uniform(0, 60) for _ in range(count)]
    return [Task(forecast, since_s=at, ends_s=at + rng.lognormvariate(math.log(median_s), 0.5)) for at in starts]


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), scarcity=st.sampled_from([0.0, 0.1, 1.0]))
def test_no_poll_is_too_soon_and_no_task_is_forgotten(seed: int, count: int, scarcity: float) -> None:
    rng, schedule = random.Random(seed), schedule_with(seed=seed)
    tasks = population(schedule, count, rng) + population(schedule, count, rng, median_s=80.0)
    run(schedule, tasks, every_s=scarcity)
    for task in tasks:
        assert task.polls[0] - task.since_s >= INTERVAL_S
        assert all(b - a >= INTERVAL_S - 1e-9 for a, b in itertools.pairwise(task.polls))
        assert task.polls[-1] >= task.ends_s


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_no_task_is_starved_while_the_bucket_allows(seed: int) -> None:
    rng, schedule = random.Random(seed), schedule_with(seed=seed)
    tasks = population(schedule, 40, rng)
    tasks[0].ends_s = 2_000.0  # far outside of what its class teaches
    run(schedule, tasks)
    longest_s = LONGEST_WAIT * INTERVAL_S * 1.08 + 1e-9
    assert all(b - a <= longest_s for a, b in itertools.pairwise(tasks[0].polls))


def test_jitter_only_lengthens() -> None:
    for seed in range(20):
        schedule = schedule_with(jitter=1.0, seed=seed)
        schedule.add(Task(schedule.forecast_of("a")))
        assert (schedule.next_due_s() or 0.0) >= INTERVAL_S


def test_what_was_learned_saves_polls_at_the_same_lag() -> None:
    rng, schedule = random.Random(1), schedule_with()
    run(schedule, population(schedule, 200, rng))
    later = population(schedule, 200, rng)
    for task in later:
        task.since_s, task.ends_s = task.since_s + 1_000.0, task.ends_s + 1_000.0
    run(schedule, later)
    fixed = sum(math.ceil((task.ends_s - task.since_s) / INTERVAL_S) for task in later)
    assert sum(len(task.polls) for task in later) < 0.85 * fixed


def test_all_that_are_due_come_by_and_by_when_polls_are_not_scarce() -> None:
    schedule = schedule_with(jitter=0.0)
    schedule.fullness = 0.5
    forecast = schedule.forecast_of("a")
    later, sooner = Task(forecast, since_s=2.0), Task(forecast, since_s=1.0)
    schedule.add(later)
    schedule.add(sooner)
    unseen = Task(schedule.forecast_of(None))
    schedule.add_unseen(unseen)
    assert [schedule.pop(70.0) for _ in range(4)] == [unseen, sooner, later, None]


def test_the_likeliest_to_have_finished_comes_first_when_polls_are_scarce() -> None:
    schedule = schedule_with(jitter=0.0)
    schedule.fullness = 0.49
    quick, slow = schedule.forecast_of("quick"), schedule.forecast_of("slow")
    for _ in range(50):
        quick.saw_finished(0.0, 10.0)
        slow.saw_unfinished(0.0, 60.0)
        slow.saw_finished(60.0, 80.0)
    first, second = Task(slow), Task(quick)
    schedule.add(first)
    schedule.add(second)
    assert [schedule.pop(70.0), schedule.pop(70.0), schedule.pop(70.0)] == [second, first, None]
    for _ in range(2):
        schedule.add(Task(slow))
    assert schedule.pop(70.0) is not None
    late = Task(quick)
    schedule.add(late)
    assert schedule.pop(70.0) is late, "one that becomes due between two rankings takes its place too"


def test_a_task_planned_early_is_put_off_when_its_class_turns_out_slow() -> None:
    schedule = schedule_with(jitter=0.0)
    task = Task(schedule.forecast_of("a"))
    schedule.add(task)
    planned_s = schedule.next_due_s() or 0.0
    for _ in range(1_000):
        task.forecast.saw_unfinished(0.0, 60.0)
        task.forecast.saw_finished(60.0, 65.0)
    assert schedule.pop(planned_s) is None
    assert (schedule.next_due_s() or 0.0) > planned_s + INTERVAL_S


def test_waiting_tasks_are_polled_sooner_when_their_class_turns_out_quick() -> None:
    schedule = schedule_with(jitter=0.0)
    forecast = schedule.forecast_of("a")
    for _ in range(1_000):
        forecast.saw_unfinished(0.0, 200.0)
        forecast.saw_finished(200.0, 220.0)
    task, other = Task(forecast), Task(forecast)
    schedule.add(task)
    assert forecast.next_poll_age_s(0.0, 0.05) > 30.0
    for _ in range(20_000):
        schedule.finished(other, 12.0, 8.0)
    assert popped_s(schedule) <= 2 * CHECKED_EVERY * INTERVAL_S


def learned(schedule: Schedule[Task], median_s: float, sigma: float, count: int = 1_000) -> Forecast:
    """A class that has seen so many tasks, to the second."""
    rng, forecast = random.Random(5), schedule.forecast_of(f"{median_s:g} {sigma:g}")
    for _ in range(count):
        forecast.saw_finished(0.0, float(round(rng.lognormvariate(math.log(median_s), sigma))))
    return forecast


def popped_s(schedule: Schedule[Task]) -> float:
    """When the schedule gives its only task."""
    while True:
        now_s = schedule.next_due_s()
        assert now_s is not None
        if schedule.pop(now_s) is not None:
            return now_s


def first_polls_s(median_s: float, sigma: float, fullness: float = 1.0, jitter: float = 0.0) -> float:
    schedule = schedule_with(jitter=jitter)
    schedule.fullness = fullness
    schedule.add(Task(learned(schedule, median_s, sigma)))
    return popped_s(schedule)


def test_a_poll_gets_dearer_as_the_query_bucket_empties_below_half() -> None:
    waits = [first_polls_s(25.0, 0.5, fullness) for fullness in (1.0, 0.5, 0.25, 0.0)]
    assert waits[0] == waits[1] < waits[2] < waits[3]


@pytest.mark.parametrize("median_s", [7.0, 8.0, 12.0, 30.0, 70.0, 300.0])
def test_a_narrow_class_is_met_at_its_mode_with_few_polls(median_s: float) -> None:
    schedule = schedule_with(jitter=0.0)
    task = Task(learned(schedule, median_s, 0.01), ends_s=median_s)
    run(schedule, [task])
    assert task.polls[-1] - median_s <= 0.05 * median_s + 1.5
    assert len(task.polls) <= 1 + 0.25 * (median_s // INTERVAL_S)


def test_a_class_that_is_quicker_than_the_floor_is_polled_at_the_floor() -> None:
    assert first_polls_s(2.0, 0.1) == INTERVAL_S


def test_only_the_wait_for_the_first_poll_is_lengthened_at_random() -> None:
    assert len({first_polls_s(12.0, 0.3, jitter=0.08)} | {first_polls_s(12.0, 0.3)}) == 2
    later = []
    for jitter in (0.0, 0.08):
        schedule = schedule_with(jitter=jitter)
        task = Task(learned(schedule, 12.0, 0.3))
        schedule.add(task)
        popped_s(schedule)
        schedule.put_back(task, 20.0)
        later.append(popped_s(schedule))
    assert later[0] == later[1]


def test_a_poll_that_failed_is_not_repeated_too_soon_when_its_class_is_planned_anew() -> None:
    schedule = schedule_with(jitter=0.0)
    task = Task(schedule.forecast_of("a"))
    schedule.add(task)
    now_s = schedule.next_due_s() or 0.0
    assert schedule.pop(now_s) is task
    schedule.put_off(task, now_s, 1)
    for _ in range(2_000):
        schedule.finished(Task(task.forecast), now_s, 7.0)
    assert (schedule.next_due_s() or 0.0) >= now_s + INTERVAL_S


def test_tasks_that_nobody_knows_the_age_of_teach_nothing() -> None:
    schedule = schedule_with()
    stranger = Task(schedule.forecast_of(None))
    schedule.add(stranger)
    schedule.put_back(stranger, 50.0)
    schedule.finished(stranger, 90.0)
    assert sum(stranger.forecast.evidence().watched_s) == 0
    assert not schedule.learned().classes


def test_a_task_of_unknown_age_is_due_at_once_and_before_all_others() -> None:
    schedule = schedule_with()
    known, unseen = Task(schedule.forecast_of("a")), Task(schedule.forecast_of("a"), since_s=100.0)
    schedule.add(known)
    schedule.add_unseen(unseen)
    assert schedule.pop(100.0) is unseen
    schedule.put_back(unseen, 100.0)
    assert schedule.pop(100.0) is known


def test_a_task_that_ended_while_it_waited_is_dropped() -> None:
    schedule = schedule_with()
    task = Task(schedule.forecast_of("a"))
    schedule.add(task)
    task.ended = True
    assert schedule.pop(100.0) is None
    assert schedule.next_due_s() is None


def test_a_failed_poll_backs_off_above_the_floor_and_below_the_longest_wait() -> None:
    for failures in range(1, 40):
        schedule = schedule_with(seed=failures)
        schedule.put_off(Task(schedule.forecast_of("a")), 100.0, failures)
        wait_s = (schedule.next_due_s() or 0.0) - 100.0
        assert INTERVAL_S <= wait_s <= LONGEST_WAIT * INTERVAL_S


def test_a_task_is_due_when_it_is_too_old_whatever_was_planned() -> None:
    schedule = schedule_with(most_age_s=3.0)
    task = Task(schedule.forecast_of("a"))
    schedule.add(task)
    assert schedule.next_due_s() == 3.0
    assert schedule.pop(3.0) is task


def test_the_classes_kept_apart_are_bounded() -> None:
    schedule = schedule_with()
    forecasts = {id(schedule.forecast_of(f"class {number}")) for number in range(10 * MOST_CLASSES)}
    assert len(forecasts) == MOST_CLASSES + 1


def test_a_session_starts_from_what_an_earlier_one_learned() -> None:
    first = schedule_with()
    run(first, population(first, 150, random.Random(2), median_s=70.0))
    learned = Learned.from_json(first.learned().to_json())
    assert learned == first.learned()
    warm, cold = schedule_with(jitter=0.0), schedule_with(jitter=0.0)
    warm.recall(learned)
    for schedule in (warm, cold):
        schedule.add(Task(schedule.forecast_of("70")))
    assert popped_s(cold) == INTERVAL_S
    assert popped_s(warm) >= 2 * INTERVAL_S


def test_what_was_learned_under_another_interval_is_left_alone() -> None:
    schedule = schedule_with()
    schedule.recall(Learned(1.0, {"a": Evidence((1.0,) * BINS, (1.0,) * BINS)}))
    assert not schedule.learned().classes


def test_recalled_evidence_is_bounded_and_odd_evidence_is_harmless() -> None:
    forecast = Forecast(5.0, 5.0)
    forecast.recall(Evidence((1e6,) * 500, (1e6,) * 400))
    assert sum(forecast.evidence().finished) <= 200.0
    assert forecast.typical_s > 0


class Counted(Forecast):
    """A forecast that counts what is asked of it: the work that a schedule does."""

    work = 0

    def next_poll_age_s(self, age_s: float, price_s: float) -> float:
        Counted.work += 1
        return super().next_poll_age_s(age_s, price_s)

    def chance(self, from_age_s: float, to_age_s: float) -> float:
        Counted.work += 1
        return super().chance(from_age_s, to_age_s)


def test_no_call_does_more_work_than_a_slice_when_all_are_due_or_their_class_is_planned_anew() -> None:
    schedule, forecast = schedule_with(), Counted(INTERVAL_S, INTERVAL_S)
    tasks = [Task(forecast) for _ in range(20 * SLICE)]
    for task in tasks:
        schedule.add(task)
    popped, calls, now_s = [], 0, 100.0
    while (due_s := schedule.next_due_s()) is not None:
        now_s, calls = max(now_s, due_s), calls + 1
        Counted.work = 0
        due = schedule.pop(now_s)
        if due is not None:
            popped.append(due)
            for _ in range(10):  # so that the class is planned anew now and then
                schedule.finished(due, 120.0, 110.0)
            now_s += 0.01
        assert Counted.work <= 3 * SLICE
    assert len(popped) == len(set(map(id, popped))) == len(tasks), "none is forgotten, none is given twice"
    assert calls <= len(tasks) + 2 * len(tasks) / SLICE + 2


def test_many_classes_that_are_planned_anew_are_planned_in_several_calls() -> None:
    schedule = schedule_with()
    for number in range(MOST_CLASSES):
        schedule.add(Task(schedule.forecast_of(f"class {number}")))
        for _ in range(10):
            schedule.forecast_of(f"class {number}").saw_unfinished(0.0, 5.0)
    calls = 0
    while schedule.pop(100.0) is None:
        calls += 1
    assert calls >= MOST_CLASSES / 2 - 1


def test_nothing_is_due_while_nothing_is_watched() -> None:
    schedule = schedule_with()
    assert schedule.next_due_s() is None
    assert schedule.pop(1e9) is None


def test_an_end_whose_moment_nobody_says_is_spread_over_the_gap_in_which_it_was() -> None:
    schedule = schedule_with()
    task = Task(schedule.forecast_of("a"))
    schedule.add(task)
    schedule.put_back(task, 10.0)
    schedule.finished(task, 20.0)
    evidence = schedule.learned().classes["a"]
    assert sum(evidence.finished) == pytest.approx(1.0)
    assert sum(count > 0 for count in evidence.finished) == 5
    assert sum(evidence.watched_s) == pytest.approx(15.0)
