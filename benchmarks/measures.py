"""The measures that need a real client, a real server and a clock. Each gives rows, and details for the charts."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.buckets import SERVICE_TIERS, least_time_s
from benchmarks.contenders.kit import Order
from benchmarks.loads import TYPICAL, Load, LogNormal
from benchmarks.processes import PEERS, Ran, contend, control, cpus, serving
from benchmarks.report import Row
from benchmarks.tasks import BucketConfig, Config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEAST_BYTES = 484
COMPRESSED = Load("compressed", (LogNormal(25.0, 0.5, most_s=75.0),))
SHORT = Load("short", (LogNormal(10.0, 0.3, most_s=18.0),))
"""For `--quick`, where true scale must end within half a minute."""


@dataclass
class Findings:
    """Rows for the table, and whatever the charts and the file want beside them."""

    rows: list[Row] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        self.rows += other.rows
        self.details |= other.details


def requests_alone(*, quick: bool) -> Findings:
    """Measure 1, first reading: submissions and queries at saturation, 16 at once, and no watching."""
    order = partial(Order, count=500, polls=2_500 if quick else 5_000, concurrency=16, cpu=cpus()[0])
    costs_us: dict[str, list[float]] = {"bare": [], "ours_requests": []}
    for _ in range(3 if quick else 5):
        for name, costs in costs_us.items():
            with serving(Config(cpu=cpus()[1])) as url:
                ran = contend(name, order(url))
            costs.append(1e6 * ran.cpu_s / ran.served["requests"])
    bare, ours = costs_us["bare"], costs_us["ours_requests"]
    note = f"{median(ours):.0f} / {median(bare):.0f} us"
    ratios = tuple(a / b for a, b in zip(ours, bare, strict=True))
    return Findings([Row(1, "CPU per request / bare aiohttp, 16 at once", ratios, 1.15, note)], {"floor_us": costs_us})


def whole_lives(count: int, scale: float, reach: float, *, repetitions: int, floor: bool = False) -> Findings:
    """Measures 2 and 11, and 1 in its second reading: the whole life of `count` tasks, all in flight at once, time
    compressed. The floor replays the moments at which ours sent its requests."""
    names = ["naive", "ours", *(["replay"] if floor else [])]
    runs: dict[str, list[Ran]] = {name: [] for name in names}
    with TemporaryDirectory() as folder:
        replay = Path(folder) / "moments.json"
        for repetition in range(repetitions):
            config = Config(load=COMPRESSED, seed=repetition, scale=scale, cpu=cpus()[1])
            for name, done in runs.items():
                with serving(config) as url:
                    order = Order(url, count, interval_s=5.0 / scale, cpu=cpus()[0], replay=str(replay))
                    done.append(contend(name, order))
                    if name == "ours":
                        replay.write_text(json.dumps(control(url, "moments")))
    rows = _life_rows(runs, count, scale, reach)
    kept = {name: [_kept(run, count) for run in done] for name, done in runs.items()}
    return Findings(rows, {f"lives_{count}": kept})


def _life_rows(runs: dict[str, list[Ran]], count: int, scale: float, reach: float) -> list[Row]:
    naive, ours = runs["naive"], runs["ours"]
    lost = tuple(float(count - len(run.lags_s)) for run in ours)
    too_soon = tuple(max(5.0 / scale - run.served["least_gap_s"], 0.0) * scale for run in ours)
    cpu_ms, gets, lag_s = (
        f"{_mid(ours, what):.2f} / {_mid(naive, what):.2f}"
        for what in (lambda run: 1e3 * run.cpu_s / count, _polls, lambda run: scale * run.lag_s)
    )
    ratios = tuple(a.cpu_s / b.cpu_s for a, b in zip(ours, naive, strict=True))
    note = f"{cpu_ms} ms; GETs {gets}; lag {lag_s} s"
    rows = [
        Row(
            2, f"CPU per task / naive loop, {count:,} tasks", ratios, reach, f"{cpu_ms} ms; GETs {gets}; lag {lag_s} s"
        ),
        Row(11, f"  polls too soon with {count:,} in flight, by at most (s)", too_soon, 0),
        Row(11, f"  tasks lost with {count:,} in flight", lost, 0),
    ]
    if "replay" in runs:
        ratios = tuple(a.cpu_s / b.cpu_s for a, b in zip(ours, runs["replay"], strict=True))
        note = " / ".join(f"{_mid(done, _request_us):.0f}" for done in (ours, runs["replay"]))
        rows.append(Row(1, "CPU of whole lives / bare aiohttp, same moments", ratios, 1.15, f"{note} us a request"))
    return rows


def peers(missing: str | None, *, quick: bool) -> Findings:
    """Measure 3: every client at its own protocol, true scale, all at the same time on one processor (each is mostly
    asleep, and CPU time is counted, not seconds). Tasks are begun one after the other: some peers' cost grows with the
    square of what they send at once (fal-client: 150 ms a task when 1,000 begin together)."""
    count, per_s, load = (150, 15.0, SHORT) if quick else (1_000, 10.0, TYPICAL)
    names = ["naive", "ours", *(PEERS if missing is None else ())]
    with ThreadPoolExecutor(len(names)) as pool:
        waiting = {name: pool.submit(_true_scale, name, count, per_s, load) for name in names}
    ran = {name: future.result() for name, future in waiting.items() if future.exception() is None}
    failed = [str(future.exception()) for future in waiting.values() if future.exception() is not None]
    print(*failed, sep="\n", end="" if not failed else "\n")
    details = {
        "peers": {PEERS.get(name, name): _kept(run, count) for name, run in ran.items()},
        # First lines only: a traceback has paths, which the file must not.
        "peers_missing": missing or "; ".join(message.splitlines()[0] for message in failed) or None,
    }
    if not {"ours", "naive"} <= ran.keys():
        raise RuntimeError("a contender that the others are compared with did not end well")
    return Findings(_peer_rows(ran, count, missing), details)


def _peer_rows(ran: dict[str, Ran], count: int, missing: str | None) -> list[Row]:
    ours, naive = ran["ours"], ran["naive"]
    best = min((run for name, run in ran.items() if name in PEERS), key=lambda run: run.cpu_s, default=None)
    if best is None:
        first = Row(3, "CPU per task / best peer", (), None, f"not installed: {missing}")
    else:
        each_ms = (f"{PEERS.get(name, name)} {1e3 * run.cpu_s / count:.2f}" for name, run in ran.items())
        what = f"CPU per task / best peer, {count:,} tasks"
        first = Row(3, what, (ours.cpu_s / best.cpu_s,), 0.125, f"{', '.join(each_ms)} ms")
    return [
        first,
        Row(4, "  GETs / naive loop, cold, real", (_polls(ours) / _polls(naive),)),
        Row(4, "  mean lag / naive loop, cold, real", (ours.lag_s / naive.lag_s,)),
        Row(11, "  polls too soon at true scale, by at most (s)", (max(5.0 - ours.served["least_gap_s"], 0.0),), 0),
    ]


def _true_scale(name: str, count: int, per_s: float, load: Load) -> Ran:
    client_cpu, server_cpu = cpus()
    with serving(Config(load=load, seed=1, cpu=server_cpu)) as url:
        return contend(name, Order(url, count, per_s=per_s, cpu=client_cpu))


def memory(*, quick: bool) -> Findings:
    """Measure 8."""
    count = 5_000 if quick else 100_000
    client_cpu = cpus()[1]  # on the servers' side: beside the others that are timed
    with serving(Config()) as url:
        # Never polled again while it is weighed: the first poll comes after a day.
        weighed = contend("memory", Order(url, count, interval_s=86_400.0, cpu=client_cpu)).details
    alone, with_task = weighed["alone"], weighed["with_task"]
    note = f"{alone:.0f} B, with its handle {weighed['handles']:.0f}; least possible here {weighed['least']:.0f}"
    what = f"bytes per task in flight / {LEAST_BYTES} B, {count:,} tasks"
    rows = [
        Row(8, what, (alone / LEAST_BYTES,), 1.25, note),
        Row(8, "  with a user's asyncio.Task waiting", (with_task / LEAST_BYTES,), 3.5, f"{with_task:.0f} B"),
    ]
    return Findings(rows, {"memory": weighed})


@dataclass(frozen=True)
class Pace:
    """One way of submitting for real. `drained`: the bucket starts empty; `shared`: others take half the refill."""

    tier: str
    count: int
    reach: float | None
    drained: bool = False
    shared: bool = False

    @property
    def name(self) -> str:
        return self.tier + (", drained before" if self.drained else "") + (", half taken" if self.shared else "")


QUICK_PACES = (Pace("svip", 1_000, 1.01), Pace("svip", 400, None, drained=True))
PACES = (
    Pace("default", 1_000, 1.005),
    Pace("vip", 1_000, 1.01),
    Pace("svip", 1_000, 1.01),
    Pace("default", 800, None, drained=True),
    Pace("svip", 1_000, None, drained=True),
    Pace("vip", 1_000, None, shared=True),
)


def pacing(*, quick: bool) -> Findings:
    """Measures 9 and 10, for real and at true scale: all at the same time, since they only wait."""
    paces = QUICK_PACES if quick else PACES
    with ThreadPoolExecutor(len(paces)) as pool:
        rows = [row for rows in pool.map(_paced, paces) for row in rows]
    return Findings(rows)


def _paced(pace: Pace) -> list[Row]:
    (burst, per_s), query = SERVICE_TIERS[pace.tier]
    level, drain = (0.0 if pace.drained else burst), (per_s / 2 if pace.shared else 0.0)
    config = Config(submit=BucketConfig(burst, per_s, level, drain), query=BucketConfig(*query))
    with serving(config) as url:
        ran = contend("ours_submit", Order(url, pace.count, tier=pace.tier))
    took_s = ran.served["last_submit_s"] - ran.began_s
    ratio = took_s / least_time_s(pace.count, level, per_s - drain)
    refused = float(ran.served["refused_submits"])
    most = 8 if pace.drained else None if pace.shared else 0
    return [
        Row(9, f"{pace.count:,} submits / bucket limit, {pace.name}, real", (ratio,), pace.reach, f"{took_s:.1f} s"),
        Row(10, f"  429s, {pace.name}, real", (refused,), most, f"{len(ran.errors)} errors" if ran.errors else ""),
    ]


def _kept(run: Ran, count: int) -> dict[str, Any]:
    """What of a run is written to the file."""
    lags_s = sorted(run.lags_s)
    return {
        "cpu_ms_per_task": 1e3 * run.cpu_s / count,
        "gets_per_task": _polls(run),
        "lag_mean_s": run.lag_s if lags_s else None,
        "lag_p95_s": run.p95_s if lags_s else None,
        "wall_s": run.wall_s,
        "peak_mb": run.peak_kb / 1024,
        "done": len(lags_s),
        "errors": len(run.errors),
        "refused": run.served["refused_polls"] + run.served["refused_submits"],
    }


def _polls(run: Ran) -> float:
    return float(run.served["polls"]) / max(int(run.served["submitted"]), 1)


def _request_us(run: Ran) -> float:
    return float(1e6 * run.cpu_s / run.served["requests"])


def _mid(runs: Sequence[Ran], what: Callable[[Ran], float]) -> float:
    return float(median(what(run) for run in runs))
