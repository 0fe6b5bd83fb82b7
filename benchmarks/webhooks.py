"""`python -m benchmarks.webhooks [--tasks N]`: webhooks against polling, over loopback, at the service's own speed.

A sandbox with its own model of service times (speed 1), a client with default settings, and an aiohttp receiver, all
in this process; the four variants run side by side. Lag is from a task's end at the sandbox to its waiters' return;
GETs are counted by the sandbox. It takes about two minutes, and reports without failing on a number.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import mean, quantiles

from aiohttp import web

from toapis_async import Settings, ToAPIs
from toapis_async.events import Event, TaskEnded
from toapis_async.receivers import aiohttp_handler
from toapis_async.sandbox import Fault, Sandbox

SECRET = "whsec_benchmark"  # noqa: S105  (of the sandbox)


@dataclass(frozen=True)
class Variant:
    """How a client learns of its tasks' ends."""

    name: str
    secrets: tuple[str, ...] = (SECRET,)
    dropped_from: float = 2.0  #: the share of the tasks after which every event is dropped


VARIANTS = (
    Variant("polling alone", secrets=()),
    Variant("webhooks"),
    Variant("webhooks, every event dropped", dropped_from=0.0),
    Variant("webhooks, events stop half-variant", dropped_from=0.5),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one variant. Lags in seconds, in order of submission."""

    variant: Variant
    lags_s: list[float]
    polls: list[int]
    lost: int

    def line(self, tasks: slice, what: str = "") -> str:
        lags_s, polls = self.lags_s[tasks], self.polls[tasks]
        late_s = quantiles(lags_s, n=20)[-1]
        return (
            f"{self.variant.name + what:46} {mean(lags_s):8.3f} {late_s:8.3f} {max(lags_s):8.3f} "
            f"{mean(polls):6.2f} {self.lost:5d}"
        )


async def run(variant: Variant, tasks: int) -> Outcome:
    """So many tasks, submitted as fast as the default tier allows."""
    ended_at: dict[str, float] = {}

    def note(event: Event) -> None:
        if isinstance(event, TaskEnded):
            ended_at[event.task_id] = time.time()

    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(pictures=False, seed=1))
        settings = Settings(webhook_secrets=variant.secrets, on_event=note)
        client = await stack.enter_async_context(ToAPIs("sk-any", base_url=sandbox.base_url, settings=settings))
        if variant.secrets:
            app = web.Application()
            app.router.add_post("/hook", aiohttp_handler(client.webhooks))
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            sandbox.webhooks.configure(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", SECRET)
        done = lost = 0
        sandbox.faults.chance("event", Fault.DROPPED, float(variant.dropped_from == 0))
        async for item in client.batch(f"kite {number}" for number in range(tasks)):
            lost += not item.ok
            done += 1
            if done == round(variant.dropped_from * tasks):
                sandbox.faults.chance("event", Fault.DROPPED, 1.0)
        entries = sandbox.ledger.entries
        lags_s = [ended_at[entry.task_id] - (entry.finished_at or 0.0) for entry in entries]
        return Outcome(variant, lags_s, [sandbox.requests.by_task[entry.task_id] for entry in entries], lost)


async def main(tasks: int) -> None:
    """All variants at once: they wait most of the time."""
    print(f"{tasks} tasks each, all times in seconds\n")
    print(f"{'':46} {'mean lag':>8} {'95 %':>8} {'longest':>8} {'GETs':>6} {'lost':>5}")
    outcomes = await asyncio.gather(*(run(variant, tasks) for variant in VARIANTS))
    for outcome in outcomes:
        print(outcome.line(slice(None)))
    half = tasks // 2
    stopped = outcomes[-1]
    print(stopped.line(slice(half), ": first half"))
    print(stopped.line(slice(half, half + half // 2), ": third quarter"))
    print(stopped.line(slice(half + half // 2, None), ": last quarter"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=400, help="tasks a variant (default 400)")
    asyncio.run(main(parser.parse_args().tasks))
