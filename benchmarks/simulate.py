"""The scenarios of the scheduler and of the pacer, without a network, deterministic: `python -m benchmarks.simulate`.

The library's own `Schedule` and `TokenBucket` are driven here, with fixed spacing, back-off and the best possible
beside them. Every ratio is of two runs over the very same tasks (paired), so that few seeds tell much.
"""

from __future__ import annotations

import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import cache, partial
from statistics import stdev
from typing import TYPE_CHECKING

from benchmarks.library import INTERVAL_S, Bucket, Ours, poll_price, tier
from benchmarks.loads import ONE_CLASS, SLOW, TWO_CLASSES, Load, LogNormal
from benchmarks.optimum import Plan, best_plan, oracle_polls_s
from benchmarks.policies import BackOff, FixedSpacing, Planned, Policy
from benchmarks.report import Row, table
from benchmarks.simulation import Outcome, Simulation, make_jobs, outcome_of
from benchmarks.steps import step_rows
from benchmarks.submitting import NETWORK_S, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.library import Job

PRICES = (0.5, 1.0)
REACH_AFTER = ((200, 1.06), (1_000, 1.03))
NEXT, FORKS = 200, 5
"""Tasks that are counted once enough was learned, and how many different futures are averaged."""
ARRIVAL = (50.0, 5.0)
"""Submissions at light load: the default tier's burst and rate."""


@cache
def plan_of(times: LogNormal, price_s: float) -> Plan:
    horizon_s = times.median_s * math.exp(5 * times.sigma)
    return best_plan(times.cdf, price_s, horizon_s=horizon_s)


def best(load: Load, price_s: float) -> Policy:
    """The best possible with the distribution of each class known."""
    return Planned(tuple(plan_of(times, price_s) for times in load.classes))


def plenty() -> Bucket:
    return Bucket(*tier("svip")[1])


def rounds(policy: Policy, load: Load, counts: tuple[int, ...], seed: int, bucket: Bucket) -> list[Outcome]:
    """One session in which `counts` tasks are submitted, each group after the one before has ended."""
    outcomes, begin_s = [], 0.0
    jobs: list[Job] = []
    for group, count in enumerate(counts):
        fresh = make_jobs(load, count, seed=1_000 * group + seed, burst=ARRIVAL[0], per_s=ARRIVAL[1])
        for job in fresh:
            job.since_s += begin_s
        begin_s = max(job.end_s for job in fresh) + 60.0
        jobs += fresh
    Simulation(policy, jobs, bucket).run()
    for count in counts:
        outcomes.append(outcome_of(jobs[:count]))
        jobs = jobs[count:]
    return outcomes


def pairs_of(load: Load, seed: int) -> tuple[list[Outcome], list[Outcome]]:
    """Ours and fixed spacing, over the same tasks: 1,000 from cold, then 1,000 more. At the default tier fixed spacing
    would already wait for polls with the slow class, so the bucket is svip's, which is never short of them."""
    counts = (1_000, 1_000)
    return (
        rounds(Ours(seed=seed), load, counts, seed, plenty()),
        rounds(FixedSpacing(), load, counts, seed, plenty()),
    )


def light_rows(load: Load, most_gets: float, most_lag: float, seeds: range) -> Iterator[Row]:
    """Measure 4, as means over the runs: one run's mean lag varies by 3 %."""
    runs = [pairs_of(load, seed) for seed in seeds]
    for place, name, lag_reach in ((1, "warm", most_lag), (0, "cold", most_lag + 0.03)):
        pairs = [(ours[place], fixed[place]) for ours, fixed in runs]
        gets, lags, p95s = (
            [getattr(a, what) / getattr(b, what) for a, b in pairs] for what in ("polls", "lag_s", "p95_s")
        )
        note = (
            f"mean of {len(seeds)} runs of 1,000; lag {_mean(a.lag_s for a, _ in pairs):.2f} s, +- {_error(lags):.3f}"
        )
        yield Row(4, f"GETs / fixed 5 s, {load.name}, {name}", (_mean(gets),), most_gets if place else None, note)
        yield Row(4, "  mean lag / fixed 5 s", (_mean(lags),), lag_reach)
        yield Row(4, "  p95 of the lag / fixed 5 s", (_mean(p95s),), lag_reach)


def narrow_rows(seeds: range) -> Iterator[Row]:
    """Beside measure 4: classes whose tasks all take about the same are met at their mode."""
    for median_s in (8.0, 12.0, 30.0, 70.0):
        load = Load(f"{median_s:g} s +- 2 %", (LogNormal(median_s, 0.02),))
        ours = [pairs_of(load, seed)[0][1] for seed in seeds]
        lag = _mean(run.lag_s for run in ours) / (INTERVAL_S / 2)
        yield Row(4, f"mean lag / 2.5 s, {load.name}, warm", (lag,), 1.0, f"{_mean(r.polls for r in ours):.1f} GETs")


def cost_rows(after: int, reach: float, price_s: float, seeds: range) -> Iterator[Row]:
    """Measure 5: J against the best possible, for tasks that come after N were seen, and for those N from cold."""
    for load in (ONE_CLASS, TWO_CLASSES, SLOW):
        ratios = [_cost_ratios(load, after, price_s, seed) for seed in seeds]
        cold, learned = zip(*ratios, strict=True)
        what = f"J / best, price {price_s:g}, {load.name}: after {after}"
        yield Row(5, what, learned, reach, f"those {after} from cold: {_mean(cold):.3f}")


def _cost_ratios(load: Load, count: int, price_s: float, seed: int) -> tuple[float, float]:
    """Ours over the best possible: from cold, and for `NEXT` tasks with what was learned (in `FORKS` futures)."""
    ours, known = Ours(seed=seed), best(load, price_s)
    with poll_price(price_s):
        cold = rounds(ours, load, (count,), seed, plenty())[0].cost_s(price_s)
        later = [rounds(deepcopy(ours), load, (NEXT,), seed + 100 * f, plenty())[0] for f in range(1, FORKS + 1)]
    cold_best = rounds(known, load, (count,), seed, plenty())[0].cost_s(price_s)
    later_best = [rounds(known, load, (NEXT,), seed + 100 * f, plenty())[0] for f in range(1, FORKS + 1)]
    costs, best_costs = (_mean(run.cost_s(price_s) for run in runs) for runs in (later, later_best))
    return cold / cold_best, costs / best_costs


def batch_rows(seeds: range) -> Iterator[Row]:
    """Beside measure 5: 1,000 at once by a session that knows nothing, where there is nobody to learn from."""
    for load in (ONE_CLASS, TWO_CLASSES):
        ratios = []
        for seed in seeds:
            costs = []
            for policy in (Ours(seed=seed), best(load, PRICES[0])):
                jobs = make_jobs(load, 1_000, seed=seed)
                Simulation(policy, jobs, plenty()).run()
                costs.append(outcome_of(jobs).cost_s(PRICES[0]))
            ratios.append(costs[0] / costs[1])
        yield Row(5, f"J / best, price {PRICES[0]:g}, {load.name}: 1,000 at once, cold", tuple(ratios))


def contended_rows(seeds: range) -> Iterator[Row]:
    """Measure 6: 500 in flight all the time, two classes, 50 polls a second where fixed spacing wants 100."""

    def run(policy: Policy, seed: int) -> Outcome:
        jobs = make_jobs(TWO_CLASSES, 3_000, seed=seed)
        Simulation(policy, jobs, Bucket(500, 50), in_flight=500).run()
        return outcome_of(jobs[500:])

    fixed = [run(FixedSpacing(), seed) for seed in seeds]
    for visible, reach in ((False, 0.78), (True, 0.58)):
        ours = [run(Ours(seed=seed, classes_visible=visible), seed) for seed in seeds]
        pairs = list(zip(ours, fixed, strict=True))
        name = "classes visible" if visible else "classes hidden"
        yield Row(6, f"lag contended / fixed FIFO, {name}", tuple(a.lag_s / b.lag_s for a, b in pairs), reach)
        yield Row(6, "  GETs / fixed FIFO", tuple(a.polls / b.polls for a, b in pairs), 1.0)


def saturated_rows(seeds: range) -> Iterator[Row]:
    """Measure 7: 5,000 submitted at once, two visible classes, 50 polls a second."""
    lags, spans, oracle_lags = [], [], []
    for seed in seeds:
        outcomes = []
        for policy in (FixedSpacing(), Ours(seed=seed)):
            jobs = make_jobs(TWO_CLASSES, 5_000, seed=seed)
            Simulation(policy, jobs, Bucket(500, 50)).run()
            outcomes.append(outcome_of(jobs))
        fixed, ours = outcomes
        oracle = oracle_polls_s([job.end_s for job in jobs], 500, 50)
        lags.append(ours.lag_s / fixed.lag_s)
        spans.append(ours.makespan_s / max(poll_s for _, poll_s in oracle))
        oracle_lags.append(_mean(poll_s - end_s for end_s, poll_s in oracle) / fixed.lag_s)
    note = f"oracle {_mean(oracle_lags):.2f}"
    yield Row(7, "lag with 5,000 in flight / fixed FIFO", tuple(lags), 0.67, note)
    yield Row(7, "  makespan / oracle", tuple(spans), 1.03)


def submit_rows(seeds: range) -> Iterator[Row]:
    """Measures 9 and 10, with drawn latencies; the real runs are in `python -m benchmarks`."""
    for name, reach in (("default", 1.005), ("vip", 1.01), ("svip", 1.01)):
        near = [submit(name, seed=seed) for seed in seeds]
        far = [submit(name, seed=seed, latency_s=NETWORK_S) for seed in seeds]
        note = f"simulated; {NETWORK_S:g} s away: {_mean(run.took_s / run.least_s for run in far):.3f}"
        yield Row(9, f"1,000 submits / bucket limit, {name}", tuple(r.took_s / r.least_s for r in near), reach, note)
        yield Row(10, f"  429s, {name}", tuple(float(run.refused) for run in (*near, *far)), 0, "both latencies")
        drained = [submit(name, seed=seed, drained=True) for seed in seeds]
        shared = [submit(name, seed=seed, shared=0.5) for seed in seeds]
        note = f"time / limit {_mean(run.took_s / run.least_s for run in drained):.3f}"
        yield Row(10, f"  429s, {name}, drained before", tuple(float(run.refused) for run in drained), 8, note)
        note = f"time / limit {_mean(run.took_s / run.least_s for run in shared):.3f}"
        yield Row(10, f"  429s, {name}, half taken throughout", tuple(float(r.refused) for r in shared), None, note)


def gap_rows(seeds: range) -> Iterator[Row]:
    """Measure 11, in virtual time: how much sooner than 5 s a task was ever polled again."""
    gaps = []
    for seed in seeds:
        jobs = make_jobs(TWO_CLASSES, 1_000, seed=seed)
        Simulation(Ours(seed=seed), jobs, Bucket(500, 50)).run()
        gaps.append(max(5.0 - outcome_of(jobs).least_gap_s, 0.0))
    yield Row(11, "polls too soon, by at most (s)", tuple(gaps), 0)


Point = tuple[str, float, float, float]
"""A policy's name, its GETs per task, its mean lag and the lag's p95 (s)."""


def frontier(load: Load, seed: int = 7) -> list[Point]:
    """What each policy makes of the trade between polls and lag, warm."""

    def point(name: str, make: Callable[[], Policy]) -> Point:
        outcome = rounds(make(), load, (1_000, 1_000), seed, plenty())[1]
        return name, outcome.polls, outcome.lag_s, outcome.p95_s

    points = [point("fixed 5 s", FixedSpacing), point("back-off", BackOff)]
    for price_s in (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0):
        with poll_price(price_s):
            points.append(point("ours", lambda: Ours(seed=seed)))
        points.append(point("best possible", lambda price_s=price_s: best(load, price_s)))  # type: ignore[misc]
    return points


def all_rows(*, quick: bool = False, cpu: int | None = None) -> list[Row]:
    """Every simulated measure, on all cores or on one. `quick` takes fewer seeds."""
    many, seeds, few = (range(4), range(2), range(1)) if quick else (range(20), range(6), range(3))
    parts: list[Callable[[], Iterator[Row]]] = [
        partial(light_rows, ONE_CLASS, 0.85, 1.02, many),
        partial(light_rows, TWO_CLASSES, 0.85, 1.02, many),
        partial(light_rows, SLOW, 0.85, 1.02, seeds),
        partial(narrow_rows, few),
        *(partial(cost_rows, after, reach, price_s, seeds) for after, reach in REACH_AFTER for price_s in PRICES),
        partial(batch_rows, few),
        partial(contended_rows, few),
        partial(saturated_rows, few),
        partial(submit_rows, seeds),
        partial(gap_rows, few),
        step_rows,
    ]
    with ProcessPoolExecutor(1 if cpu is not None else None, initializer=_pin, initargs=(cpu,)) as pool:
        return [row for rows in pool.map(_listed, parts) for row in rows]


def _pin(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def _listed(part: Callable[[], Iterator[Row]]) -> list[Row]:
    return list(part())


def _error(values: list[float]) -> float:
    """The standard error of their mean."""
    return stdev(values) / math.sqrt(len(values))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def main() -> None:
    started_s = time.monotonic()
    print(table(all_rows(quick="--quick" in sys.argv)))
    for load in () if "--quick" in sys.argv else (ONE_CLASS, TWO_CLASSES, SLOW):
        print(f"\n{load.name}: GETs per task, mean lag, p95 (s), warm")
        for name, polls, lag_s, p95_s in frontier(load):
            print(f"  {name:14} {polls:6.2f} {lag_s:6.2f} {p95_s:6.2f}")
    print(f"\n{time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    main()
