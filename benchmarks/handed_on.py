"""`python -m benchmarks.handed_on [--tasks N]`: webhooks behind several workers, with and without shared ends.

A sandbox at the service's own speed, whose tasks take 6 to 14 s, and worker processes that listen on one socket, as
`uvicorn --workers 4` does: an event reaches any of them. Default settings. Lag is from a task's end at the sandbox to
its waiter's return; GETs are counted by the sandbox. Starts a Redis on a free port (Debian's `redis-server`). It takes
about four minutes, and reports without failing on a number.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import mean, quantiles
from typing import TYPE_CHECKING

from aiohttp import web

from toapis_async import Settings, ToAPIs
from toapis_async.receivers import aiohttp_handler
from toapis_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "whsec_benchmark"  # noqa: S105  (of the sandbox)
KEY = "sk-benchmark"
EVERY_S = 0.1
"""Between two submissions, of whichever worker."""


@dataclass(frozen=True)
class Variant:
    """How many workers, and what they share; `stops`: Redis ends when half of the tasks are submitted."""

    name: str
    workers: int = 4
    webhooks: bool = True
    shares: bool = True
    stops: bool = False


VARIANTS = (
    Variant("1 worker", workers=1, shares=False),
    Variant("4 workers, polling alone", webhooks=False, shares=False),
    Variant("4 workers, events where they come", shares=False),
    Variant('4 workers, shared="redis://…"'),
    Variant("the same, Redis ends half-way", stops=True),
)


# ------------------------------------------------------------------------------------------- a worker


async def work(number: int, workers: int, tasks: int, socket_fd: int) -> None:
    """Submit every so many-th task, wait for all, and tell when each was known to be done."""
    ended_at: dict[str, float] = {}

    async def one(client: ToAPIs, begin_s: float) -> None:
        await asyncio.sleep(begin_s)
        generation = await client.generate("kite")
        ended_at[generation.task_id] = time.time()

    settings = Settings(tier="svip", webhook_secrets=SECRET)
    async with ToAPIs(KEY, settings=settings) as client:
        receive = aiohttp_handler(client.webhooks)

        async def once(request: web.Request) -> web.StreamResponse:
            answer = await receive(request)
            answer.force_close()  # the next event comes by a new connection, to whoever takes it first
            return answer

        app = web.Application()
        app.router.add_post("/hook", once)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, socket.socket(fileno=socket_fd)).start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.gather(*(one(client, place * EVERY_S) for place in range(number, tasks, workers)))
        sys.stdout.write(json.dumps(ended_at) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # others still get events here
        await runner.cleanup()


# ------------------------------------------------------------------------------------------- the measure


@dataclass(frozen=True)
class Outcome:
    """What came of one variant."""

    variant: Variant
    lags_s: list[float]  #: in order of submission
    polls: list[int]
    throttled: int

    def line(self, tasks: slice = slice(None), what: str = "") -> str:
        lags_s = self.lags_s[tasks]
        late_s = quantiles(lags_s, n=20)[-1]
        return (
            f"{self.variant.name + what:44} {mean(lags_s):8.3f} {late_s:8.3f} {max(lags_s):8.3f} "
            f"{mean(self.polls[tasks]):6.2f} {self.throttled:5d}"
        )


async def run(variant: Variant, tasks: int) -> Outcome:
    """One variant, from the start of its workers to their end."""
    rng = random.Random(1)
    async with (
        Sandbox(pictures=False, tier="svip", service_time_s=lambda _: rng.uniform(6.0, 14.0)) as sandbox,
        redis_server() as (url, redis),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            if variant.webhooks:
                sandbox.webhooks.configure(f"http://127.0.0.1:{listening.getsockname()[1]}/hook", SECRET)
            environment = {**os.environ, "TOAPIS_BASE_URL": sandbox.base_url}
            environment["TOAPIS_SHARED"] = url if variant.shares else "off"
            workers = [
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "benchmarks.handed_on", "--worker"),
                    *(str(value) for value in (number, variant.workers, tasks, listening.fileno())),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=environment,
                    pass_fds=[listening.fileno()],
                    limit=2**20,
                )
                for number in range(variant.workers)
            ]
        outputs = [output for worker in workers if (output := worker.stdout) is not None]
        for output in outputs:
            await output.readline()
        if variant.stops:
            await asyncio.sleep(tasks * EVERY_S / 2)
            redis.kill()
        ended_at: dict[str, float] = {}
        for output in outputs:
            ended_at |= json.loads(await output.readline())
        for worker in workers:
            await worker.communicate(b"")
        lags_s = [ended_at[entry.task_id] - (entry.finished_at or 0.0) for entry in sandbox.ledger.entries]
        polls = [sandbox.requests.by_task[entry.task_id] for entry in sandbox.ledger.entries]
        return Outcome(variant, lags_s, polls, sandbox.requests.rate_limited)


@asynccontextmanager
async def redis_server() -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A Redis of our own: its URL and its process."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is not installed (Debian: apt-get install redis-server)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *(program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            yield f"redis://127.0.0.1:{port}/0", process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def main(tasks: int) -> None:
    """One variant after the other."""
    print(f"{tasks} tasks of 6 to 14 s each, all times in seconds\n")
    print(f"{'':44} {'mean lag':>8} {'95 %':>8} {'longest':>8} {'GETs':>6} {'429s':>5}")
    for variant in VARIANTS:
        outcome = await run(variant, tasks)
        print(outcome.line(), flush=True)
        if variant.stops or not variant.webhooks:
            print(outcome.line(slice(tasks // 2, None), ": second half"), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=240, help="tasks a variant (default 240)")
    parser.add_argument("--worker", type=int, nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    asyncio.run(work(*chosen.worker) if chosen.worker else main(chosen.tasks))
