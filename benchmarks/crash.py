"""`python -m benchmarks.crash [--rounds 1000] [--seed 0] [--kind NAME | --workers]`: the machine that kills, at length.

Each round starts the command (or a small program) against a sandbox under faults, kills it some times, starts it again
until it is done, and holds what is left against the sandbox's books. Exit code 1 when a promise was broken; the plan
of that round is printed, and `--first N --rounds 1` plays it again. With `--workers`, each round is of several workers
that share a journal's folder, to two of which each order is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.adversity.machine import Outcome, play
from tests.adversity.plans import KINDS, plan_of
from tests.adversity.workers import WorkersOutcome, play_workers, workers_plan

WORKERS = "workers"  #: the kind of round


@dataclass
class Summary:
    """All rounds so far."""

    began_s: float = field(default_factory=time.monotonic)
    sums: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    broken: list[Outcome | WorkersOutcome] = field(default_factory=list[Outcome | WorkersOutcome])

    def add(self, outcome: Outcome | WorkersOutcome) -> None:
        self.sums["rounds"] += 1
        for name in ("runs", "kills", "paid", "paid_twice", "images", "lost"):
            self.sums[name] += getattr(outcome, name)
        self.by_kind[outcome.plan.kind] += 1
        if outcome.problems:
            self.broken.append(outcome)

    def line(self) -> str:
        s = self.sums
        return (
            f"{s['rounds']:,} rounds, {s['runs']:,} runs, {s['kills']:,} kills, {s['paid']:,} tasks paid, "
            f"{s['paid_twice']:,} paid twice, {s['images']:,} images, {s['lost']:,} lost, {len(self.broken)} broken, "
            f"{time.monotonic() - self.began_s:.0f} s"
        )


async def _played(seed: int, number: int, kind: str | None, folder: Path) -> Outcome | WorkersOutcome:
    if kind == WORKERS:
        return await play_workers(workers_plan(seed, number), folder)
    return await play(plan_of(seed, number, kind), folder)


async def play_all(numbers: range, seed: int, kind: str | None, jobs: int) -> Summary:
    """Some rounds at a time: they mostly wait."""
    summary, left = Summary(), iter(numbers)

    async def work() -> None:
        for number in left:
            with tempfile.TemporaryDirectory(prefix="toapis-crash-") as folder:
                outcome = await _played(seed, number, kind, Path(folder))
            summary.add(outcome)
            if outcome.problems:
                print(f"\n{outcome.told()}", flush=True)
            print(f"\r{summary.line()}", end="" if sys.stdout.isatty() else "\n", flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(work())
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, help="only this kind  [default: all in turn]")
    parser.add_argument("--workers", action="store_const", const=WORKERS, dest="kind", help="workers on one folder")
    parser.add_argument("--jobs", type=int, default=3, help="rounds at a time")
    chosen = parser.parse_args()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it logs every client that dies
    numbers = range(chosen.first, chosen.first + chosen.rounds)
    summary = asyncio.run(play_all(numbers, chosen.seed, chosen.kind, chosen.jobs))
    print(f"\n{summary.line()}\n{', '.join(f'{count} {kind}' for kind, count in summary.by_kind.items())}")
    return 1 if summary.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
