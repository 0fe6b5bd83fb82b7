"""The measures that need a real client, a real server and a clock. Each gives rows, and details for the charts."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.buckets import SERVICE_TIERS, least_time_s
from benchmarks.contenders.bare import POLLS
from benchmarks.contenders.kit import Order, control
from benchmarks.loads import Load, LogNormal
from benchmarks.processes import PEERS, Ran, contend, cpus, lags_of, number_of, serving
from benchmarks.report import Findings, Row
from benchmarks.tasks import BucketConfig, Config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEAST_BYTES = 484
COMPRESSED = Load("compressed", (LogNormal(25.0, 0.5, most_s=75.0),))
PLENTY = BucketConfig(1e6, 1e6)
NAMES = {"ours": "toapis-async", "naive": "naive loop", **PEERS}


def requests_alone(*, quick: bool) -> Findings:
    """Measure 1, second reading: CPU of lives of three polls against the same four requests of bare aiohttp, 16 at
    once, in turns in one process; and once over TLS."""
    count, repetitions = (100, 5) if quick else (250, 15)
    with TemporaryDirectory() as folder:
        certificate = _certificate(Path(folder))
        rows, details = [], {}
        for scheme in ("http", "https") if certificate is not None else ("http",):
            times = 3 if scheme == "https" else repetitions
            costs_us = _lives_alone(scheme, count, times, certificate)
            details[f"life_us_{scheme}"] = costs_us
            bare, ours = costs_us["bare_lives"], costs_us["ours"]
            ratios = tuple(a / b for a, b in zip(ours, bare, strict=True))
            note = f"{median(ours):.0f} / {median(bare):.0f} us"
            over = "" if scheme == "http" else ", over TLS"
            rows.append(Row(1, f"CPU of a life / bare aiohttp's same requests{over}", ratios, None, note))
    return Findings(rows, details)


def _lives_alone(scheme: str, count: int, repetitions: int, certificate: Path | None) -> dict[str, list[float]]:
    """Microseconds of CPU a life, by contender and repetition."""
    config = Config(cpu=cpus()[1], finish_after=POLLS, submit=PLENTY, query=PLENTY, certificate=_text(certificate))
    with serving(config) as url:
        order = Order(
            url if scheme == "http" else control(url, "tls_base"),
            count,
            interval_s=0.05,
            concurrency=16,
            contenders=("bare_lives", "ours"),
            repetitions=repetitions,
            control_url=url,
            cpu=cpus()[0],
        )
        trusted = {} if certificate is None else {"SSL_CERT_FILE": str(certificate)}
        ran = contend("interleaved", order, more_environment=trusted)
    return {name: [1e6 * run["cpu_s"] / count for run in runs] for name, runs in ran.details.items()}


def _certificate(folder: Path) -> Path | None:
    """A file with a certificate for 127.0.0.1 and its key; None without openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    made = folder / "certificate.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made), "-out", str(made)]
    subprocess.run([openssl, *options.split(), *more], check=True, capture_output=True)  # noqa: S603  (our own)
    return made


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def whole_lives(count: int, scale: float, *, repetitions: int) -> Findings:
    """Measures 2 and 11: the whole life of `count` tasks, all in flight at once, time compressed: ours and the naive
    loop, in turns in one process."""
    contenders = ("naive", "ours")
    with serving(Config(load=COMPRESSED, scale=scale, cpu=cpus()[1], submit=PLENTY, query=PLENTY)) as url:
        order = Order(url, count, interval_s=5.0 / scale, cpu=cpus()[0], contenders=contenders, repetitions=repetitions)
        ran = contend("interleaved", order)
    kept = {name: [_life(run, ran, count, scale) for run in runs] for name, runs in ran.details.items()}
    naive, ours = kept["naive"], kept["ours"]

    def both(what: str) -> str:
        return " / ".join(f"{median(run[what] for run in runs):.2f}" for runs in (ours, naive))

    def ratios(what: str) -> tuple[float, ...]:
        return tuple(a[what] / b[what] for a, b in zip(ours, naive, strict=True))

    too_soon_s = max(5.0 / scale - ran.served["least_gap_s"], 0.0) * scale
    cpu_ms = f"{both('cpu_ms_per_task')} ms"
    rows = [
        Row(2, f"CPU per task / naive loop, {count:,} tasks", ratios("cpu_ms_per_task"), 1.1, cpu_ms),
        Row(2, "  at a mean lag / naive loop", ratios("lag_mean_s"), None, f"{both('lag_mean_s')} s"),
        Row(2, "  and GETs / naive loop", ratios("gets_per_task"), None, both("gets_per_task")),
        Row(11, f"  polls too soon with {count:,} in flight, by at most (s)", (too_soon_s,), 0),
        Row(11, f"  tasks lost with {count:,} in flight", tuple(float(count - run["done"]) for run in ours), 0),
    ]
    return Findings(rows, {f"lives_{count}": kept})


def _life(run: Mapping[str, Any], ran: Ran, count: int, scale: float) -> dict[str, Any]:
    """What one contender's turn came to, in the seconds of uncompressed time."""
    lags_s = sorted(scale * lag_s for lag_s in lags_of(run["returned_s"], ran.ends_s))
    polls = sum(ran.served["polls_of"][number_of(task_id)] for task_id in run["returned_s"])
    return {
        "cpu_ms_per_task": 1e3 * run["cpu_s"] / count,
        "gets_per_task": polls / count,
        "lag_mean_s": mean(lags_s),
        "lag_p95_s": lags_s[int(0.95 * len(lags_s))],
        "done": len(lags_s),
        "errors": len(run["errors"]),
    }


def peers(missing: str | None, *, quick: bool) -> Findings:
    """Measure 3: every client at its own protocol, alone on its processor, in turns, time compressed ten times. Tasks
    are begun one after the other: some peers' cost grows with the square of what they send at once (fal-client: 150 ms
    a task when 1,000 begin together)."""
    count, repetitions, scale = (30, 1, 20.0) if quick else (100, 5, 10.0)
    names = ["naive", "ours", *(PEERS if missing is None else ())]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: list[str] = []
    for repetition in range(repetitions):
        for name in names:
            try:
                runs[name].append(_alone(name, count, scale, repetition))
            except RuntimeError as error:
                failed.append(str(error))
    print(*failed, sep="\n", end="" if not failed else "\n")
    details = {
        "peers": {NAMES[name]: _medians(done) for name, done in runs.items() if done},
        # First lines only: a traceback has paths, which the file must not.
        "peers_missing": missing or "; ".join(message.splitlines()[0] for message in failed) or None,
    }
    if len(runs["ours"]) < repetitions or len(runs["naive"]) < repetitions:
        raise RuntimeError("a contender that the others are compared with did not end well")
    return Findings(_peer_rows(runs, count, repetitions, missing), details)


def _medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {key: median(run[key] for run in runs) for key in runs[0]}


def _peer_rows(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], count: int, repetitions: int, missing: str | None
) -> list[Row]:
    def cpu_ms(name: str) -> float:
        return float(median(run["cpu_ms_per_task"] for run in runs[name]))

    whole = [name for name in PEERS if len(runs.get(name, ())) == repetitions]
    if not whole:
        return [Row(3, "CPU per task / best peer", (), None, f"not installed: {missing}")]
    best = min(whole, key=cpu_ms)
    ratios = (a["cpu_ms_per_task"] / b["cpu_ms_per_task"] for a, b in zip(runs["ours"], runs[best], strict=True))
    each_ms = ", ".join(f"{NAMES[name]} {cpu_ms(name):.2f}" for name, done in runs.items() if done)
    return [Row(3, f"CPU per task / {PEERS[best]}, {count:,} tasks", tuple(ratios), 0.2, f"{each_ms} ms")]


def _alone(name: str, count: int, scale: float, seed: int) -> dict[str, Any]:
    client_cpu, server_cpu = cpus()
    with serving(Config(load=COMPRESSED, scale=scale, seed=seed, cpu=server_cpu)) as url:
        ran = contend(name, Order(url, count, interval_s=5.0 / scale, per_s=2.0 * scale, cpu=client_cpu))
    lags_s = sorted(scale * lag_s for lag_s in ran.lags_s)
    return {
        "cpu_ms_per_task": 1e3 * ran.cpu_s / count,
        "gets_per_task": float(ran.served["polls"]) / count,
        "lag_mean_s": mean(lags_s),
        "lag_p95_s": lags_s[int(0.95 * len(lags_s))],
        "peak_mb": ran.peak_kb / 1024,
        "errors": len(ran.errors),
    }


def memory(*, quick: bool) -> Findings:
    """Measure 8: `client.generate()` in flight, the caller's task included."""
    count = 5_000 if quick else 50_000
    client_cpu = cpus()[1]  # on the servers' side: beside the others that are timed
    with serving(Config()) as url:
        # Never polled while it is weighed: the first poll comes after a day.
        weighed = contend("memory", Order(url, count, interval_s=86_400.0, cpu=client_cpu)).details
    each = weighed["generate"]
    what, note = f"bytes of a generate() in flight / {LEAST_BYTES} B, {count:,} of them", f"{each:.0f} B"
    rows = [
        Row(8, what, (each / LEAST_BYTES,), 4.0, f"{note}; least possible here {weighed['least']:.0f}"),
        Row(8, "  objects of it that the garbage collector tracks", (weighed["tracked"],), None),
        Row(8, "  a full collection with 8,000 in flight (ms of CPU)", (weighed["collection_ms"],), None),
    ]
    return Findings(rows, {"memory": weighed})


def steps(*, quick: bool) -> Findings:
    """Measure 12, through the public API; `benchmarks.steps` has the calls of the schedule alone."""
    rows = []
    for count, reach_ms in ((1_000, 5.0), (10_000, 10.0), *(() if quick else ((50_000, 20.0),))):
        runs = [_steps(count) for _ in range(1 if quick else 3)]
        what = f"longest step of the loop (ms), {count:,} attached tasks due at once"
        note = f"{runs[0]['steps']:,} steps, {runs[0]['polls']:,} polls"
        rows.append(Row(12, what, tuple(run["longest_ms"] for run in runs), reach_ms, note))
    return Findings(rows)


def _steps(count: int) -> dict[str, Any]:
    client_cpu, server_cpu = cpus()
    with serving(Config(cpu=server_cpu, submit=PLENTY, query=PLENTY, tasks=count)) as url:
        return contend("steps", Order(url, count, interval_s=86_400.0, cpu=client_cpu)).details


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
