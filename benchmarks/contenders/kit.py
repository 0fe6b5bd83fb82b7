"""What every contender shares: its order as JSON on the command line, its result as JSON on standard output.

Standard library only, since the peers' environment has nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


@dataclass(frozen=True)
class Order:
    """What a contender has to do."""

    url: str  #: of the server, without a path
    count: int  #: tasks
    interval_s: float = 5.0  #: between two polls of a task
    per_s: float = math.inf  #: tasks begun a second
    concurrency: int = 100  #: connections
    tier: str | None = None  #: the tier whose limits are kept; None for no limits
    contenders: tuple[str, ...] = ()  #: those that take turns in one process
    repetitions: int = 1  #: of each of them
    control_url: str | None = None  #: where the server's control endpoint is, when `url` is https
    most_s: float = math.inf  #: stop beginning tasks after so long
    journal: str | None = None  #: file for the journal of a run
    cpu: int | None = None
    profile: str | None = None  #: file for cProfile's figures


@dataclass
class Returned:
    """What it came to."""

    returned_s: dict[str, float] = field(default_factory=dict)  #: task id -> when its awaiter got it (monotonic)
    errors: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def done(self, task_id: str) -> None:
        self.returned_s[task_id] = time.monotonic()


def main(work: Callable[[Order, Returned], Awaitable[None]]) -> None:
    """Run the work and print what it cost. Imports are done by now, and are not counted."""
    order = Order(**json.loads(sys.argv[1]))
    if order.cpu is not None:
        os.sched_setaffinity(0, {order.cpu})
    returned = Returned()
    before_s, began_s = _cpu_s(), time.monotonic()
    if order.profile is None:
        asyncio.run(_run(work, order, returned))
    else:
        _profiled(work, order, returned)
    ended_s, after_s = time.monotonic(), _cpu_s()
    cost = {
        "cpu_s": after_s - before_s,
        "began_s": began_s,
        "wall_s": ended_s - began_s,
        "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    print(json.dumps({**cost, **asdict(returned)}))


async def _run(work: Callable[[Order, Returned], Awaitable[None]], order: Order, returned: Returned) -> None:
    await work(order, returned)


def _profiled(work: Callable[[Order, Returned], Awaitable[None]], order: Order, returned: Returned) -> None:
    import cProfile  # noqa: PLC0415  (only here: it costs memory)

    profiler = cProfile.Profile()
    profiler.runcall(asyncio.run, _run(work, order, returned))
    profiler.dump_stats(str(order.profile))


async def begin_all(order: Order, returned: Returned, begin: Callable[[], Awaitable[None]]) -> None:
    """All tasks of the order, at once or as many a second as it says."""

    async def at_its_time(number: int) -> None:
        if order.per_s < math.inf:
            await asyncio.sleep(number / order.per_s)
        await begin()

    await gather(returned, [at_its_time(number) for number in range(order.count)])


async def gather(returned: Returned, jobs: Sequence[Awaitable[None]]) -> None:
    """All of them; what one raises is noted, and the others go on."""
    for outcome in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(outcome, BaseException):
            returned.errors.append(f"{type(outcome).__name__}: {outcome}"[:200])


def control(url: str, what: str) -> Any:
    """Get what a server's control endpoint reports."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}/control/{what}", timeout=60) as answer:
        return json.load(answer)


def finish_after(order: Order, polls: int) -> None:
    """From now on the server finishes each task at this poll of it, whenever that comes."""
    control(order.control_url or order.url, f"finish_after/{polls}")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
