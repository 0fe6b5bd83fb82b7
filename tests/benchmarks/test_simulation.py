"""The simulator tells the same twice, and the best possible is what it says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from benchmarks.library import Bucket, Job, Ours, poll_price
from benchmarks.loads import ONE_CLASS, TWO_CLASSES, Load, LogNormal
from benchmarks.optimum import best_plan, oracle_polls_s
from benchmarks.policies import BackOff, FixedSpacing, Planned, Policy
from benchmarks.simulate import best, rounds
from benchmarks.simulation import LATENCY_S, Simulation, make_jobs, outcome_of
from benchmarks.steps import POLLS, Timed, all_due, planned_anew
from benchmarks.submitting import submit

if TYPE_CHECKING:
    from collections.abc import Callable


def jobs_of(policy: Policy, load: Load, count: int, bucket: Bucket, in_flight: int | None = None) -> list[Job]:
    jobs = make_jobs(load, count, seed=5)
    Simulation(policy, jobs, bucket, in_flight).run()
    return jobs


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = (
        outcome_of(jobs_of(Ours(seed=1), TWO_CLASSES, 200, Bucket(50, 20), in_flight=80)) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("make", [FixedSpacing, BackOff, lambda: Ours(seed=1), lambda: best(ONE_CLASS, 0.5)])
def test_every_policy_sees_every_job_and_none_looks_sooner_than_5_s(make: type[FixedSpacing]) -> None:
    outcome = outcome_of(jobs := jobs_of(make(), ONE_CLASS, 200, Bucket(100, 20)))
    assert all(job.found_s >= job.end_s for job in jobs)
    assert outcome.least_gap_s >= 5.0


def test_fixed_spacing_of_a_constant_time_is_exact() -> None:
    jobs = jobs_of(FixedSpacing(), Load("12 s", (LogNormal(12.0, 0.0),)), 4, Bucket(1e6, 1e6))
    outcome = outcome_of(jobs)
    assert outcome.polls == 3  # at 5, 10.05 and 15.1 s
    assert outcome.lag_s == pytest.approx(3 * (5 + LATENCY_S) - 12)


def test_looks_never_exceed_the_bucket() -> None:
    jobs = jobs_of(FixedSpacing(), ONE_CLASS, 300, Bucket(20, 10))
    polled_s = sorted(at_s for job in jobs for at_s in job.polls_s)
    for begin in range(0, len(polled_s), 7):
        for end in range(begin, len(polled_s), 50):
            assert end - begin + 1 <= 20 + 10 * (polled_s[end] - polled_s[begin]) + 1e-6


def test_the_plan_for_a_constant_hazard_is_the_same_wait_at_every_age() -> None:
    """Without memory the best wait w minimises (lag of one wait + price) / chance of finishing in it."""
    mean_s, price_s = 20.0, 2.0

    def cost_s(wait_s: float) -> float:
        finishes = 1.0 - math.exp(-wait_s / mean_s)
        lag_s = wait_s - mean_s * finishes
        return (lag_s + price_s) / finishes

    known = min((cost_s(0.05 * step), 0.05 * step) for step in range(100, 1_200))
    plan = best_plan(lambda at_s: 1.0 - math.exp(-max(at_s, 0) / mean_s), price_s, horizon_s=400.0, step_s=0.25)
    assert plan.wait_s(0.0) == pytest.approx(known[1], abs=0.25)
    assert plan.wait_s(37.0) == pytest.approx(known[1], abs=0.25)
    assert plan.cost_s == pytest.approx(known[0], rel=1e-3)


def test_the_plan_waits_at_least_the_interval_and_looks_once_at_a_certain_end() -> None:
    certain = best_plan(lambda at_s: float(at_s >= 30.0), 0.5, horizon_s=60.0)
    assert certain.wait_s(0.0) == pytest.approx(30.0, abs=0.25)
    assert best_plan(lambda at_s: float(at_s >= 1.0), 0.5, horizon_s=30.0).wait_s(0.0) == 5.0


def test_the_plans_expected_cost_is_what_a_simulation_of_it_comes_to() -> None:
    load = Load("25", (LogNormal(25.0, 0.5),))
    plan = best_plan(load.classes[0].cdf, 0.5, horizon_s=300.0)
    outcome = outcome_of(jobs_of(Planned((plan,)), load, 4_000, Bucket(1e6, 1e6)))
    assert outcome.cost_s(0.5) - LATENCY_S == pytest.approx(plan.cost_s, rel=0.02)
    assert plan.cost_s == pytest.approx(4.77, abs=0.01)  # 4.12 polls and 2.71 s, as published in limits-and-floors


def test_nobody_beats_the_best_plan_by_more_than_chance() -> None:
    for price_s in (0.5, 1.0):
        with poll_price(price_s):
            ours = rounds(Ours(seed=1), ONE_CLASS, (1_000, 1_000), 1, Bucket(1e6, 1e6))[1]
        known = rounds(best(ONE_CLASS, price_s), ONE_CLASS, (1_000, 1_000), 1, Bucket(1e6, 1e6))[1]
        assert ours.cost_s(price_s) / known.cost_s(price_s) > 0.95


def test_the_oracle_waits_for_ends_and_for_tokens() -> None:
    assert oracle_polls_s([5.0, 1.0], burst=10, per_s=1) == [(1.0, 1.0), (5.0, 5.0)]
    assert [poll_s for _, poll_s in oracle_polls_s([1.0] * 4, burst=2, per_s=0.5)] == [1.0, 1.0, 3.0, 5.0]


def test_submitting_keeps_to_the_services_bucket_without_a_429() -> None:
    run = submit("default", 200)
    assert run.refused == 0
    assert run.least_s == 30.0
    assert 30.0 <= run.took_s < 30.5
    assert run == submit("default", 200)


@pytest.mark.parametrize("scenario", [all_due, planned_anew])
def test_the_steps_that_are_timed_are_many_and_answer_the_polls(scenario: Callable[[int, int], Timed]) -> None:
    timed = scenario(1_000, 0)
    assert timed.calls > 2 * POLLS
    assert timed.longest_s > 0.0
