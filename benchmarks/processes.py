"""Starting servers and contenders as processes of their own, pinned, bounded, and never left running."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.kit import control

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.contenders.kit import Order
    from benchmarks.tasks import Config

ROOT = Path(__file__).parent.parent
PEERS_HOME = Path(__file__).parent / ".venv"
LOOPBACK_ONLY = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "FAL_RUN_HOST": "127.0.0.1"}
PEERS = {"fal": "fal-client", "replicate_": "replicate", "runway": "runwayml"}
"""Contenders that run in the peers' environment, and their packages."""
DEADLINE_S = 420.0


@dataclass(frozen=True)
class Ran:
    """One contender's run, with the server's view of it."""

    cpu_s: float
    wall_s: float
    peak_kb: int
    began_s: float
    lags_s: tuple[float, ...]
    errors: tuple[str, ...]
    details: dict[str, Any]
    served: dict[str, Any]  #: the server's statistics
    ends_s: list[float]  #: when the server finished each task, by its number

    @property
    def lag_s(self) -> float:
        return sum(self.lags_s) / len(self.lags_s) if self.lags_s else math.nan

    @property
    def p95_s(self) -> float:
        return sorted(self.lags_s)[int(0.95 * len(self.lags_s))] if self.lags_s else math.nan


def cpus() -> tuple[int | None, int | None]:
    """One processor for the client and one for the server; None where there aren't two or pinning isn't allowed."""
    if not hasattr(os, "sched_setaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


@contextmanager
def serving(config: Config) -> Iterator[str]:
    """A server while the context lasts; gives its address. It ends with its standard input."""
    process = subprocess.Popen(  # noqa: S603  (our own arguments)
        [sys.executable, "-m", "benchmarks.server", json.dumps(config.to_dict())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        _end(process)


def contend(
    name: str, order: Order, *, under: Sequence[str] = (), more_environment: Mapping[str, str] | None = None
) -> Ran:
    """Run one contender to its end, at most `DEADLINE_S`; `under` another program, given with its arguments. Raises
    `RuntimeError` when it crashed."""
    python = PEERS_HOME / "bin" / "python" if name in PEERS else Path(sys.executable)
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    command = [*under, str(python), "-m", f"benchmarks.contenders.{name}", json.dumps(asdict(order))]
    try:
        # `run` kills the process when the time is over.
        done = subprocess.run(  # noqa: S603  (our own arguments)
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=ROOT,
            env={**environment, **LOOPBACK_ONLY, **(more_environment or {})},
            timeout=DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{name} took more than {DEADLINE_S:g} s") from None
    if done.returncode:
        raise RuntimeError(f"{name} crashed:\n{done.stderr.decode(errors='replace')[-2_000:]}")
    cost = json.loads(done.stdout.splitlines()[-1])
    control_url = order.control_url or order.url
    served = control(control_url, "statistics") | {"polls_of": control(control_url, "polls")}
    ends_s = control(control_url, "ends")
    return Ran(
        cpu_s=cost["cpu_s"],
        wall_s=cost["wall_s"],
        peak_kb=cost["peak_kb"],
        began_s=cost["began_s"],
        lags_s=lags_of(cost["returned_s"], ends_s),
        ends_s=ends_s,
        errors=tuple(cost["errors"]),
        details=cost["details"],
        served=served,
    )


def lags_of(returned_s: Mapping[str, float], ends_s: Sequence[float]) -> tuple[float, ...]:
    """From a task's end at the server to its awaiter's return."""
    return tuple(at_s - ends_s[number_of(task_id)] for task_id, at_s in returned_s.items())


def number_of(task_id: str) -> int:
    return int(task_id[-26:])


def install_peers() -> str | None:
    """Install the peers into an environment of their own. Returns why they can't be had, or None."""
    wanted = Path(__file__).parent / "requirements.txt"
    mark = PEERS_HOME / "installed.txt"
    if mark.exists() and mark.read_text() == wanted.read_text():
        return None
    commands = (
        [sys.executable, "-m", "venv", str(PEERS_HOME)],
        [str(PEERS_HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(wanted)],
    )
    for command in commands:
        try:
            done = subprocess.run(  # noqa: S603  (our own arguments)
                command, capture_output=True, timeout=180, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return type(error).__name__
        if done.returncode:
            return f"{Path(command[0]).name} ended with {done.returncode}"
    mark.write_text(wanted.read_text())
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
