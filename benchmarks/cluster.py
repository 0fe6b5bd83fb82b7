"""Runs on a Dask cluster of real processes, whose workers and drivers are killed and stopped meanwhile.

    python -m benchmarks.cluster            # the long form of each, with its figures
    python -m benchmarks.cluster kills zombie --rows 200

Everything is on loopback, against a sandbox in a process of its own. A run that pays twice or loses a row ends the
command with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import LocalCluster

from toapis_async import RateLimits, Settings
from toapis_async.batch.item import BatchItem, item_of
from toapis_async.dask import bulk
from toapis_async.dask.plugins import unpacked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from toapis_async.dask import Bulk

KEY = "sk-sandbox-0123456789"
FAULTS = ("lost_answer=0.03", "html_504_accepted=0.02")
_local_cluster: Any = LocalCluster


@dataclass(frozen=True)
class Load:
    """How many rows, on which service. Its limits are those of the default tier, times the speed."""

    rows: int = 1_200
    workers: int = 4
    speed: float = 4.0
    kills: int = 6
    every_s: float = 4.0  #: between two kills
    faults: tuple[str, ...] = FAULTS
    window_s: float = 7.5

    @property
    def per_s(self) -> float:
        return 5 * self.speed

    def settings(self) -> Settings:
        limits = RateLimits(submit_per_s=self.per_s, submit_burst=50, query_per_s=50 * self.speed, query_burst=500)
        poll_s = 5 / self.speed
        return Settings(
            limits=limits, first_poll_s=poll_s, min_poll_interval_s=poll_s, reconcile_window_s=self.window_s
        )


@dataclass
class Outcome:
    """What the service saw, and what the driver was given."""

    scenario: str
    rows: int
    ok: int = 0
    tasks: int = 0
    paid_twice: int = 0
    rate_limited: int = 0
    of_the_limit: float = 0.0
    wall_s: float = 0.0
    queries_a_task: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def broke_a_promise(self) -> bool:
        return self.paid_twice > 0 or self.ok != self.rows or self.tasks != self.rows


# ------------------------------------------------------------------------------------------------ the service


@contextlib.contextmanager
def sandbox(load: Load) -> Iterator[str]:
    """A sandbox in a process of its own; gives its address."""
    faults = [word for fault in load.faults for word in ("--fault", f"submit:{fault}")]
    command = [sys.executable, "-m", "toapis_async", "sandbox", "--port", "0", "--files-port", "0", "--json"]
    command += ["--speed", f"{load.speed:g}", "--tier", "default", *faults]
    process = subprocess.Popen(  # noqa: S603  (our own arguments)
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["base_url"])
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def told(url: str, what: str) -> Any:
    """What the sandbox tells of itself."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}/_sandbox/{what}", timeout=30) as answer:
        return json.load(answer)


async def _tasks(url: str, number: int) -> None:
    """Wait until the service has so many tasks."""
    while sum(told(url, "state")["tasks"].values()) < number:  # noqa: ASYNC110  (of another process)
        await asyncio.sleep(0.2)


def fill(outcome: Outcome, url: str, load: Load) -> Outcome:
    """Add what the service saw."""
    state, ledger = told(url, "state"), told(url, "ledger")
    entries = ledger["entries"] if isinstance(ledger, dict) else ledger
    outcome.tasks = sum(state["tasks"].values())
    outcome.paid_twice = len(state["paid_twice"])
    outcome.rate_limited = state["rate_limited"]
    outcome.queries_a_task = round(state["requests"]["by_kind"].get("query", 0) / max(outcome.tasks, 1), 2)
    times = sorted(entry["accepted_at"] for entry in entries)
    if len(times) > 1:
        span_s = times[-1] - times[0]
        outcome.of_the_limit = round(len(times) / (50 + load.per_s * span_s), 3)
    return outcome


# ------------------------------------------------------------------------------------------------ clusters


@contextlib.asynccontextmanager
async def cluster_of(workers: int, **options: Any) -> AsyncIterator[Any]:
    async with _local_cluster(
        n_workers=workers, threads_per_worker=1, asynchronous=True, dashboard_address="127.0.0.1:0", **options
    ) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def bare_workers(scheduler: str, number: int) -> AsyncIterator[list[subprocess.Popen[bytes]]]:
    """Workers without a nanny, which reach the scheduler by TCP only."""
    code = "from distributed.cli.dask_worker import main; main()"
    command = [sys.executable, "-c", code, scheduler, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
    with tempfile.TemporaryDirectory() as scratch:
        started = [
            subprocess.Popen([*command, "--local-directory", scratch], stderr=subprocess.DEVNULL)  # noqa: ASYNC220, S603
            for _ in range(number)
        ]
        try:
            yield started
        finally:
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.terminate()
            for process in started:
                await asyncio.to_thread(process.wait, 20)


def pids(cluster: Any) -> list[int]:
    """The worker processes that live now."""
    found = [getattr(worker, "pid", None) for worker in cluster.workers.values()]
    return [pid for pid in found if pid]


def rows_of(number: int) -> Iterator[dict[str, str]]:
    return ({"key": f"kite-{n}", "prompt": f"a kite, number {n}"} for n in range(number))


def job_of(load: Load, url: str, folder: Path, cluster: Any = None, **options: Any) -> Bulk:
    """One pass of the run."""
    how = {"base_url": url, "settings": load.settings(), "journal": folder / "journal", "save_to": folder / "out"}
    return bulk(rows_of(load.rows), run="bench", key="key", cluster=cluster, **{**how, **options})


async def passed(job: Bulk, beside: Callable[[Bulk], Coroutine[Any, Any, None]] | None = None) -> list[BatchItem]:
    """All items of a pass, while something else goes on."""
    items: list[BatchItem] = []
    async with job:
        meanwhile = asyncio.ensure_future(beside(job)) if beside else None
        items.extend([item async for item in job])
        if meanwhile is not None:
            meanwhile.cancel()
            await asyncio.wait([meanwhile])
            if not meanwhile.cancelled():
                meanwhile.result()
    return items


# ------------------------------------------------------------------------------------------------ scenarios


async def kills(load: Load, folder: Path) -> Outcome:
    """Workers are killed one after the other while answers are lost."""
    outcome, killed = Outcome("kills", load.rows), list[int]()
    with sandbox(load) as url:
        started_s = time.monotonic()
        async with cluster_of(load.workers) as cluster:

            async def killer(_: Bulk) -> None:
                while len(killed) < load.kills:
                    await asyncio.sleep(load.every_s)
                    alive = [pid for pid in pids(cluster) if pid not in killed]
                    if alive:
                        os.kill(alive[len(killed) % len(alive)], signal.SIGKILL)
                        killed.append(alive[len(killed) % len(alive)])

            items = await passed(job_of(load, url, folder, cluster), killer)
        outcome.wall_s = round(time.monotonic() - started_s, 1)
        outcome.ok = sum(item.ok for item in items)
        outcome.details = {"killed": len(killed)}
        return fill(outcome, url, load)


async def driver(load: Load, folder: Path) -> Outcome:
    """The driver, with its scheduler, is killed half-way; the same call is made again."""
    outcome = Outcome("driver", load.rows)
    with sandbox(load) as url:
        started_s = time.monotonic()
        first = _driver_process(load, url, folder)
        await _tasks(url, load.rows // 2)
        first.kill()
        first.wait()
        outcome.details = {"tasks_when_killed": sum(told(url, "state")["tasks"].values())}
        again = await asyncio.to_thread(_driver_process(load, url, folder).wait)
        outcome.details["exit_code"] = again
        outcome.ok = int((folder / "ok").read_text())
        outcome.wall_s = round(time.monotonic() - started_s, 1)
        return fill(outcome, url, load)


def _driver_process(load: Load, url: str, folder: Path) -> subprocess.Popen[bytes]:
    order = json.dumps({"load": asdict(load), "url": url, "folder": str(folder)})
    return subprocess.Popen(  # noqa: S603  (our own arguments)
        [sys.executable, "-m", "benchmarks.cluster", "--drive", order], stderr=subprocess.DEVNULL
    )


async def drive(order: dict[str, Any]) -> None:
    """What such a driver does."""
    load, folder = Load(**order["load"]), Path(order["folder"])
    items = await passed(job_of(load, order["url"], folder))
    (folder / "ok").write_text(str(sum(item.ok for item in items)))


async def lost_journal(load: Load, folder: Path) -> Outcome:
    """The scheduler's journal is deleted and a worker killed, half-way; then the run is left, and called again at once
    with nothing of it."""
    outcome = Outcome("lost journal", load.rows)
    with sandbox(load) as url:
        started_s = time.monotonic()
        async with cluster_of(load.workers) as cluster:
            async with job_of(load, url, folder, cluster) as job:
                is_lost = False
                async for _ in job:
                    done = job.statistics().done
                    if not is_lost and done >= load.rows // 3:
                        is_lost = True
                        _delete_journal(folder)
                        os.kill(pids(cluster)[0], signal.SIGKILL)
                    if done >= load.rows // 2:
                        break
            outcome.details = {"tasks_when_left": sum(told(url, "state")["tasks"].values())}
            items = await passed(job_of(load, url, folder, cluster))
        outcome.ok = sum(item.ok for item in items)
        outcome.wall_s = round(time.monotonic() - started_s, 1)
        return fill(outcome, url, load)


def _delete_journal(folder: Path) -> None:
    for file in folder.glob("journal*"):
        file.unlink()


async def zombie(load: Load, folder: Path) -> Outcome:
    """A worker is stopped until its parts were done by others, then continued."""
    outcome = Outcome("zombie", load.rows)
    with sandbox(load) as url, dask.config.set({"distributed.scheduler.worker-ttl": "10s"}):
        started_s = time.monotonic()
        async with (
            cluster_of(0) as cluster,
            bare_workers(cluster.scheduler_address, load.workers) as workers,
            job_of(load, url, folder, cluster) as job,
        ):

            async def stop() -> None:
                await _tasks(url, load.rows // 4)
                workers[0].send_signal(signal.SIGSTOP)

            stopping = asyncio.ensure_future(stop())
            items = [item async for item in job]
            await stopping
            sent = told(url, "state")["requests"]["by_kind"]["submit"]
            workers[0].send_signal(signal.SIGCONT)
            await asyncio.sleep(3)  # what it still sends it sends now
            late = told(url, "state")["requests"]["by_kind"]["submit"] - sent
            outcome.details = {"sent_after_it_was_continued": late, "it_lives": workers[0].poll() is None}
        outcome.ok = sum(item.ok for item in items)
        outcome.wall_s = round(time.monotonic() - started_s, 1)
        return fill(outcome, url, load)


async def start(load: Load, folder: Path) -> Outcome:
    """How long it takes on one machine until the first part is under way, and until everything is closed again."""
    outcome = Outcome("start", 1)
    with sandbox(load) as url:
        started_s = time.monotonic()
        how: dict[str, Any] = {"base_url": url, "settings": load.settings(), "journal": folder / "journal"}
        async with bulk(["a kite"], run="bench", api_key=KEY, **how) as job:
            outcome.details = {"start_s": round(time.monotonic() - started_s, 2)}
            outcome.ok = sum([item.ok async for item in job])
            ended_s = time.monotonic()
        outcome.details["close_s"] = round(time.monotonic() - ended_s, 2)
        outcome.wall_s = round(time.monotonic() - started_s, 2)
        return fill(outcome, url, load)


async def memory(load: Load, folder: Path) -> Outcome:
    """The peak memory of driver and scheduler over many rows, in a process of their own; the workers answer at once."""
    peaks = {}
    for rows in (1_000, 100_000):
        order = json.dumps({"rows": rows, "folder": str(folder / str(rows))})
        command = [sys.executable, "-m", "benchmarks.cluster", "--light", order]
        run = partial(subprocess.run, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        peaks[rows] = json.loads((await asyncio.to_thread(run)).stdout)
    more_mib = round((peaks[100_000]["peak_kb"] - peaks[1_000]["peak_kb"]) / 1024, 1)
    return Outcome("memory", 1, ok=1, tasks=1, details={"more_mib": more_mib, **{str(k): v for k, v in peaks.items()}})


async def light_part(part: bytes, session: str, key: str) -> list[BatchItem]:
    """A part whose rows end at once."""
    return [item_of(row) for row in unpacked(part).rows]


async def light(order: dict[str, Any]) -> None:
    """A driver whose workers answer at once."""
    from toapis_async.dask import session  # noqa: PLC0415

    vars(session)["do_part"] = light_part
    folder = Path(order["folder"])
    os.makedirs(folder)
    count, started_s = 0, time.monotonic()
    async with (
        cluster_of(2) as cluster,
        bulk(rows_of(order["rows"]), run="light", key="key", cluster=cluster, journal=folder / "journal") as job,
    ):
        async for _ in job:
            count += 1
    assert count == order["rows"]
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_kb": peak_kb, "wall_s": round(time.monotonic() - started_s, 1)}))


SCENARIOS: dict[str, Callable[[Load, Path], Coroutine[Any, Any, Outcome]]] = {
    "start": start,
    "kills": kills,
    "driver": driver,
    "lost-journal": lost_journal,
    "zombie": zombie,
    "memory": memory,
}


def main() -> int:
    """Run what was named, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], default=[])
    parser.add_argument("--rows", type=int, default=1_200)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--light", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["TOAPIS_API_KEY"] = KEY  # the workers' own
    if arguments.drive or arguments.light:
        order = json.loads(arguments.drive or arguments.light)
        asyncio.run(drive(order) if arguments.drive else light(order))
        return 0
    load, broken = Load(rows=arguments.rows, kills=arguments.kills), False
    for name in arguments.scenarios or SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = asyncio.run(SCENARIOS[name](load, Path(folder)))
        broken = broken or outcome.broke_a_promise
        print(json.dumps(asdict(outcome)), flush=True)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
