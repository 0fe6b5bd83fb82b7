"""`toapis batch --dask`: real processes, one of which is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from click.testing import CliRunner

from toapis_async.cli import main
from toapis_async.sandbox import Fault, Sandbox

from .kit import KEY, SPEED, kites

WAITS = ["--tier", "svip", "--first-poll-s", f"{5 / SPEED}", "--min-poll-interval-s", f"{5 / SPEED}"]


def workers_of(driver: int) -> list[int]:
    """The worker processes of a driver."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == driver and "spawn_main" in (process / "cmdline").read_text():
                found.append(int(process.name))
        except (OSError, IndexError):
            continue
    return found


async def test_a_batch_on_local_processes_survives_the_death_of_one_and_pays_once(tmp_path: Path) -> None:
    (tmp_path / "kites.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kites(24)))
    async with Sandbox(speed=SPEED, tier="svip") as sandbox:
        sandbox.faults.chance("submit", Fault.LOST_ANSWER, 0.1)
        command = [sys.executable, "-m", "toapis_async", "batch", "kites.jsonl", "--out", "out", "--dask", "local"]
        process = await asyncio.create_subprocess_exec(
            *command, *WAITS, "--reconcile-window-s", "2", "--base-url", sandbox.base_url, "--json", "--no-report",
            cwd=tmp_path, env=os.environ | {"TOAPIS_API_KEY": KEY},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told = asyncio.ensure_future(process.communicate())
        while len(sandbox.ledger.entries) < 5 and not told.done():  # noqa: ASYNC110  (of another process)
            await asyncio.sleep(0.05)
        killed = workers_of(process.pid)[:1]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        _, errors = await told
    assert process.returncode == 0, errors.decode()
    assert killed
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == [row["key"] for row in kites(24)]
    assert all((tmp_path / "out" / row["files"][0]).is_file() for row in rows)
    assert len(sandbox.ledger.entries) == 24
    assert sandbox.ledger.paid_twice() == ()


def test_a_sandbox_inside_of_the_command_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kites.jsonl").write_text('"a kite"\n')
    how = ["--out", str(tmp_path / "out"), "--dask", "local", "--sandbox"]
    ran = CliRunner().invoke(main, ["batch", str(tmp_path / "kites.jsonl"), *how])
    assert ran.exit_code == 2
    assert "start `toapis sandbox`" in " ".join(ran.output.split())
