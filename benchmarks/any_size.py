"""`python -m benchmarks.any_size [--rows 1000000] [--minutes 5]`: does a batch's memory stay flat?

The same batch with 1,000 rows and with as many as fit in the time, each in a process of its own, against the fast
server; with a journal and without. It prints peak memory, and never fails on a number.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.contenders.kit import Order
from benchmarks.loads import Load, LogNormal
from benchmarks.processes import contend, cpus, serving
from benchmarks.tasks import Config

if TYPE_CHECKING:
    from benchmarks.processes import Ran

FEW = 1_000
QUICK = Load("quick", (LogNormal(0.3, 0.2),))
INTERVAL_S = 0.5
WANTED_MB = 60


def measured(rows: int, most_s: float, *, journal: bool) -> Ran:
    """One batch to its end."""
    client_cpu, server_cpu = cpus()
    with TemporaryDirectory() as folder, serving(Config(load=QUICK, cpu=server_cpu)) as url:
        path = str(Path(folder) / "journal.sqlite") if journal else None
        return contend("batch", Order(url, rows, interval_s=INTERVAL_S, most_s=most_s, journal=path, cpu=client_cpu))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.any_size", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=4.0, help="for each of the two long batches")
    chosen = parser.parse_args()
    for journal in (False, True):
        few = measured(FEW, 60.0, journal=journal)
        many = measured(chosen.rows, 60 * chosen.minutes, journal=journal)
        grown_mb = (many.peak_kb - few.peak_kb) / 1024
        print(
            f"{'with' if journal else 'without'} a journal: {few.details['done']:,} rows {few.peak_kb / 1024:.1f} MiB, "
            f"{many.details['done']:,} rows {many.peak_kb / 1024:.1f} MiB in {many.wall_s:.0f} s: {grown_mb:+.1f} MiB "
            f"(wanted: at most {WANTED_MB:+}); {many.details['done'] / many.wall_s:,.0f} rows/s, "
            f"{1e3 * many.cpu_s / max(many.details['done'], 1):.2f} ms of CPU each; errors {len(many.errors)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
