"""Processes of the launcher, forked from one that has imported everything: imports are most of what a start costs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LAUNCHER = Path(__file__).with_name("launcher.py")


class Process:
    """One start of the launcher."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit code, or the signal that ended it as a negative number."""

    def send_signal(self, number: int) -> None:
        if not self.over.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Processes:
    """The process that the others are forked from. It ends with the round, after all of them."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        self._started: dict[int, asyncio.Future[Process]] = {}
        self._processes: dict[int, Process] = {}

    async def start(self, environment: Mapping[str, str]) -> None:
        with self._errors.open("wb") as errors:
            self._server = await asyncio.create_subprocess_exec(
                sys.executable, str(LAUNCHER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=errors, env=environment,
            )  # fmt: skip
        self._reports = asyncio.create_task(self._read())

    async def run(self, number: int, trouble: dict[str, Any], arguments: list[str], out: Path, err: Path) -> Process:
        """Start the launcher with the number of this run, its trouble and its arguments."""
        started: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._started[number] = started
        assert self._server.stdin is not None
        order = {"number": number, "out": str(out), "err": str(err), "trouble": trouble, "arguments": arguments}
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        return await started

    async def aclose(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        await self._reports
        await self._server.wait()

    async def _read(self) -> None:
        assert self._server.stdout is not None
        async for line in self._server.stdout:
            number, what, value = json.loads(line)
            if what == "pid":
                process = self._processes[number] = Process(value)
                if not self._started[number].cancelled():
                    self._started[number].set_result(process)
            else:
                self._processes[number].over.set_result(value)
        error = RuntimeError(f"the launcher ended: {self._errors.read_text('utf-8', 'replace')[-2_000:]}")
        waiting: list[asyncio.Future[Any]] = [
            *self._started.values(),
            *(each.over for each in self._processes.values()),
        ]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
