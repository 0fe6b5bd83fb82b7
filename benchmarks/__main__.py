"""`python -m benchmarks [--quick] [--only NAME]`: every measure in one go, a table, a file and the charts.

It reports, and never fails on a number: the exit code is 0 unless something crashed.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import charts, instructions, measures, simulate
from benchmarks.loads import ONE_CLASS, SLOW, TWO_CLASSES
from benchmarks.processes import ROOT, cpus, install_peers
from benchmarks.report import Findings, table, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

LATEST = Path(__file__).parent / "results" / "latest.json"
CHARTS = ROOT / "docs" / "charts"


def simulated(*, quick: bool) -> Findings:
    """Measures 4 to 7, and 9 to 11 in virtual time."""
    loads = (ONE_CLASS,) if quick else (ONE_CLASS, TWO_CLASSES, SLOW)
    rows = simulate.all_rows(quick=quick, cpu=cpus()[1])  # beside the servers, away from the clients
    return Findings(rows, {"frontier": {load.name: simulate.frontier(load) for load in loads}})


def peers(*, quick: bool) -> Findings:
    return measures.peers(install_peers(), quick=quick)


def lives(*, quick: bool) -> Findings:
    """Compressed so much that no contender is ever short of its processor."""
    return measures.whole_lives(200, 22.5, repetitions=2) if quick else measures.whole_lives(1_000, 12.0, repetitions=5)


def parts_of(*, quick: bool) -> dict[str, Callable[[], Findings]]:
    """What can be chosen with `--only`. The first four run beside the peers, on the servers' processor: they wait, or
    count what can't be disturbed."""
    return {
        "simulate": partial(simulated, quick=quick),
        "pacing": partial(measures.pacing, quick=quick),
        "memory": partial(measures.memory, quick=quick),
        "instructions": partial(instructions.rows, quick=quick),
        "peers": partial(peers, quick=quick),
        "steps": partial(measures.steps, quick=quick),
        "requests": partial(measures.requests_alone, quick=quick),
        "lives": partial(lives, quick=quick),
    }


TOGETHER = ("simulate", "pacing", "memory", "instructions", "peers")


def run(names: list[str], *, quick: bool) -> tuple[Findings, list[str]]:
    """All parts, and what crashed."""
    parts, findings, crashed = parts_of(quick=quick), Findings(), []
    together = [name for name in TOGETHER if name in names]
    alone = [name for name in names if name not in TOGETHER]
    with ThreadPoolExecutor(len(TOGETHER)) as pool:
        waiting = [(name, pool.submit(_timed, name, parts[name])) for name in together]
    outcomes: list[tuple[str, Callable[[], Findings]]] = [(name, future.result) for name, future in waiting]
    outcomes += [(name, partial(_timed, name, parts[name])) for name in alone]
    for name, outcome in outcomes:
        try:
            findings.add(outcome())
        except Exception:  # the other measures are still worth having
            crashed.append(name)
            traceback.print_exc()
    findings.rows.sort(key=lambda row: row.measure)
    return findings, crashed


def _timed(name: str, part: Callable[[], Findings]) -> Findings:
    began_s = time.monotonic()
    findings = part()
    print(f"{name}: {time.monotonic() - began_s:.0f} s", flush=True)
    return findings


def about(*, quick: bool) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "quick": quick,
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "cores": os.cpu_count(),
        "pinned": cpus()[0] is not None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes, fewer tasks and repetitions")
    parser.add_argument("--only", action="append", choices=list(parts_of(quick=True)), help="this part alone")
    chosen = parser.parse_args()
    findings, crashed = run(chosen.only or list(parts_of(quick=True)), quick=chosen.quick)
    print(f"\n{table(findings.rows)}")
    if not chosen.only:  # a part alone must not replace the figures of a whole run
        write_json(LATEST, findings.rows, about(quick=chosen.quick), findings.details)
        charts.write_all(CHARTS, findings.details)
        print(f"\nwritten: {LATEST.relative_to(ROOT)}, {CHARTS.relative_to(ROOT)}/*.svg")
    if crashed:
        print(f"crashed: {', '.join(crashed)}")
    return 1 if crashed else 0


if __name__ == "__main__":
    raise SystemExit(main())
