"""`python -m benchmarks.shared [--seeds N] [--tasks N] [NAME …]`: several processes of one account, sharing or not.

Four processes on the default tier at four times its speed (20 submissions a second, 50 at once), against a server with
exact buckets; service times around 3 s. *sending* is the time from the first submission that was accepted to the last;
*limit* is the least that the bucket allows. It reports, and fails on no number. With Redis on the path,
`redis-server` is started on a free loopback port; else its lines are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.buckets import least_time_s
from benchmarks.contenders.kit import control
from benchmarks.fleet import Fleet, Order, Result, fleet
from benchmarks.loads import Load, LogNormal
from benchmarks.processes import serving
from benchmarks.tasks import BucketConfig, Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEFAULT = (50.0, 20.0, 500.0, 200.0)  # at four times its speed
SVIP = (334.0, 2_000 / 60, 5_000.0, 500.0)
FAST = (400.0, 100.0, 4_000.0, 1_000.0)
EVEN, UNEVEN = (0.25,) * 4, (0.75, 1 / 12, 1 / 12, 1 / 12)
OUT_S = 10.0


class Redis:
    """A Redis on a free loopback port, with nothing on disk."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("redis-server") or ""
        command = [
            program,
            "--port",
            str(self._port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            tempfile.gettempdir(),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  (our own arguments)
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1.0):
                return
            time.sleep(0.01)
        raise RuntimeError("redis-server does not accept connections")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Variant:
    """One line of the report."""

    name: str
    store: str  #: "off", "host" or "redis"
    parts: Sequence[float] = EVEN
    limits: Sequence[float] = DEFAULT
    split: bool = False  #: whether each process is given its part of the limits, as one would without sharing
    is_lost: bool = False  #: Redis killed for `OUT_S`, and one process before


VARIANTS = (
    Variant("as they come", "off"),
    Variant("limits split by hand", "off", split=True),
    Variant("limits split by hand, uneven loads", "off", UNEVEN, split=True),
    Variant("host", "host"),
    Variant("host, uneven loads", "host", UNEVEN),
    Variant("redis", "redis"),
    Variant("redis, uneven loads", "redis", UNEVEN),
    Variant("redis, svip", "redis", limits=SVIP),
    Variant("redis, killed for 10 s, and a process", "redis", is_lost=True),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one run."""

    submitted: int
    refused: int
    sending_s: float
    least_s: float
    alone_rate: float | None  #: of the bucket's, while Redis was away
    results: Sequence[Result]

    def line(self, variant: Variant) -> str:
        ends_s = [result.done_s - result.began_s for result in self.results]
        asked = sum(result.leases for result in self.results) / max(self.submitted, 1)
        away = "" if self.alone_rate is None else f"  rate while away {self.alone_rate:.2f}"
        return (
            f"{variant.name:38} {self.refused:5d} {self.sending_s:7.2f} {self.least_s:7.2f} "
            f"{self.sending_s / self.least_s:6.3f} {asked:6.2f}  {' '.join(f'{end_s:5.1f}' for end_s in ends_s)}{away}"
        )


def run(variant: Variant, tasks: int, seed: int, redis: Redis) -> Outcome:
    """One run of a variant."""
    counts = [round(tasks * part) for part in variant.parts]
    burst, per_s, query_burst, query_per_s = variant.limits
    config = Config(
        Load("short", (LogNormal(3.0, 0.25),)),
        seed,
        submit=BucketConfig(burst, per_s),
        query=BucketConfig(query_burst, query_per_s),
    )
    limits = [limit / 4 for limit in variant.limits] if variant.split else variant.limits
    alone_rate = None
    with serving(config) as url:
        order = Order(url, redis.url if variant.store == "redis" else variant.store, counts, limits, deadline_s=400)
        with fleet(order) as running:
            if variant.is_lost:
                alone_rate = _lose(url, running, redis, tasks) / per_s
            results = running.results()
        served = control(url, "statistics")
    return Outcome(
        submitted=served["submitted"],
        refused=served["refused_submits"] + served["refused_polls"],
        sending_s=served["last_submit_s"] - min(result.first_s for result in results),
        least_s=least_time_s(served["submitted"], burst, per_s),
        alone_rate=alone_rate,
        results=results,
    )


def _lose(url: str, running: Fleet, redis: Redis, tasks: int) -> float:
    """Kill one process, then Redis for a while. Returns the submissions a second meanwhile."""
    _wait_until(lambda: _submitted(url) > tasks // 4)
    running.kill(3)
    redis.kill()
    before, since_s = _submitted(url), time.monotonic()
    time.sleep(OUT_S)
    rate = (_submitted(url) - before) / (time.monotonic() - since_s)
    redis.start()
    return rate


def _submitted(url: str) -> int:
    served: dict[str, Any] = control(url, "statistics")
    return int(served["submitted"])


def _wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 120
    while not is_so():
        if time.monotonic() > until_s:
            raise RuntimeError("nothing goes on")
        time.sleep(0.1)


def costs(redis: Redis | None, rounds: int) -> str:
    """What sharing adds to the CPU time of a task: one process, 400 tasks at 100 a second, interleaved rounds."""
    stores = ["off", "host", *(["redis"] if redis else [])]
    spent: dict[str, list[float]] = {store: [] for store in stores}
    config = Config(
        Load("short", (LogNormal(1.0, 0.25),)),
        submit=BucketConfig(FAST[0], FAST[1]),
        query=BucketConfig(FAST[2], FAST[3]),
    )
    for _ in range(rounds):
        for store in stores:
            shared = redis.url if redis and store == "redis" else store
            with serving(config) as url, fleet(Order(url, shared, [800], FAST)) as running:
                (result,) = running.results()
                spent[store].append(result.cpu_s * 1_000 / result.done)
    medians = {store: statistics.median(of) for store, of in spent.items()}
    parts = (f"{store} {median:.3f} ({median - medians['off']:+.3f})" for store, median in medians.items())
    return f"CPU ms a task, median of {rounds} rounds: {', '.join(parts)}"


@contextmanager
def _redis() -> Iterator[Redis | None]:
    if shutil.which("redis-server") is None:
        print("redis-server is not installed: its lines are left out", file=sys.stderr)
        yield None
        return
    redis = Redis()
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="lines that begin so, or 'costs'; all by default")
    parser.add_argument("--tasks", type=int, default=1_200, help="in all, of four processes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison of CPU time")
    given = parser.parse_args()
    with _redis() as redis:
        print(f"{'':38} {'429s':>5} {'sending':>7} {'limit':>7} {'ratio':>6} {'asked':>6}  process ends (s)")
        for variant in VARIANTS:
            is_asked = not given.names or variant.name.startswith(tuple(given.names))
            if is_asked and (redis or variant.store != "redis"):
                for seed in range(given.seeds):
                    print(run(variant, given.tasks, seed, redis or Redis()).line(variant), flush=True)
        if not given.names or "costs" in given.names:
            print(costs(redis, given.rounds), flush=True)


if __name__ == "__main__":
    main()
