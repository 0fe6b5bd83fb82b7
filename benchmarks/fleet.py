"""`python -m benchmarks.fleet ORDER`: clients in processes of their own, which begin at one moment.

They are forked from one process that has imported everything, and none outlives its deadline. Each prints a line of
JSON: its pid when it begins, and what came of it when it is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.processes import LOOPBACK_ONLY, ROOT
from toapis_async import RateLimits, Settings, ToAPIs
from toapis_async.engine.shared import host, leases, redis
from toapis_async.engine.shared.port import STORE_TIMEOUT_S
from toapis_async.errors import ToAPIsError
from toapis_async.events import Event, SharingBack, SharingLost, TaskAccepted
from toapis_async.log import logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FORKED_S = 0.5
"""Within this time all are forked and have opened their client."""


@dataclass(frozen=True)
class Order:
    """What a fleet is to do: each process so many submissions, all at once, and wait for their ends."""

    url: str
    shared: str
    counts: Sequence[int]
    limits: Sequence[float]  #: submit burst and rate, query burst and rate
    first_poll_s: float = 1.25
    deadline_s: float = 120.0
    store_timeout_s: float = STORE_TIMEOUT_S  #: longer where the machine is too busy to answer in time


@dataclass(frozen=True)
class Result:
    """What came of one process. Moments are of the machine's monotonic clock; `began_s` is one for all."""

    place: int
    done: int
    errors: Sequence[str]
    began_s: float
    first_s: float  #: when its first submission was accepted, …
    accepted_s: float  #: … and its last
    done_s: float  #: the last
    cpu_s: float
    leases: int
    processes: int  #: that shared, as it saw them
    alone_s: float
    lost: int  #: times the store was lost
    back: int
    throttled: int


class Fleet:
    """Running processes."""

    def __init__(self, process: subprocess.Popen[bytes], count: int) -> None:
        self.process = process
        self.pids: dict[int, int] = {}
        self._count = count
        assert process.stdout is not None
        self._lines = process.stdout
        while len(self.pids) < count:
            line = self._read()
            self.pids[line["place"]] = line["pid"]

    def kill(self, place: int) -> None:
        """End one at once."""
        os.kill(self.pids[place], signal.SIGKILL)
        self._count -= 1

    def results(self) -> list[Result]:
        """What came of those that were not killed, in their order."""
        results = [Result(**self._read()) for _ in range(self._count)]
        return sorted(results, key=lambda result: result.place)

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise RuntimeError("a process of the fleet ended without a word; see its errors above")
        read: dict[str, Any] = json.loads(line)
        return read


@contextmanager
def fleet(order: Order) -> Iterator[Fleet]:
    """A fleet at work while the context lasts."""
    process = subprocess.Popen(  # noqa: S603  (our own arguments)
        [sys.executable, "-m", "benchmarks.fleet", json.dumps(asdict(order))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | LOOPBACK_ONLY,
        start_new_session=True,
    )
    try:
        yield Fleet(process, len(order.counts))
    finally:
        assert process.stdout is not None
        process.stdout.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own: nobody else is in it
        process.wait()


async def _work(order: Order, place: int, begins_s: float) -> Result:
    """One process's part."""
    for module in (leases, redis, host):
        vars(module)["STORE_TIMEOUT_S"] = order.store_timeout_s
    burst, per_s, query_burst, query_per_s = order.limits
    events: list[Event] = []
    accepted_s: list[float] = []
    done = 0
    errors: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, TaskAccepted):
            accepted_s.append(time.monotonic())
        elif isinstance(event, SharingLost | SharingBack):
            events.append(event)

    settings = Settings(
        limits=RateLimits(submit_burst=burst, submit_per_s=per_s, query_burst=query_burst, query_per_s=query_per_s),
        first_poll_s=order.first_poll_s,
        min_poll_interval_s=order.first_poll_s,
        on_event=note,
    )

    async def generate(client: ToAPIs, number: int) -> None:
        nonlocal done
        try:
            await client.generate(f"a red kite, {place}-{number}")
            done += 1
        except ToAPIsError as error:
            errors.append(repr(error))

    async with ToAPIs("sk-benchmark", base_url=order.url, settings=settings, shared=order.shared) as client:
        await asyncio.sleep(begins_s - time.monotonic())
        cpu_s = time.process_time()
        await asyncio.gather(*(generate(client, number) for number in range(order.counts[place])))
        cpu_s = time.process_time() - cpu_s
        statistics = client.statistics()
    shared = statistics.shared
    return Result(
        place=place,
        done=done,
        errors=errors[:3],
        began_s=begins_s,
        first_s=accepted_s[0],
        accepted_s=accepted_s[-1],
        done_s=time.monotonic(),
        cpu_s=cpu_s,
        leases=shared.leases if shared else 0,
        processes=shared.processes if shared else 1,
        alone_s=shared.alone_s if shared else 0.0,
        lost=sum(isinstance(event, SharingLost) for event in events),
        back=sum(isinstance(event, SharingBack) for event in events),
        throttled=statistics.throttled_submits + statistics.throttled_queries,
    )


def _tell(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")  # one write: lines of several processes don't mix


def main() -> None:
    """Fork the processes and wait for them."""
    order = Order(**json.loads(sys.argv[1]))
    logger.setLevel("ERROR")
    begins_s = time.monotonic() + _FORKED_S
    pids: list[int] = []
    for place in range(len(order.counts)):
        pid = os.fork()
        if not pid:
            signal.alarm(round(order.deadline_s))
            _tell({"place": place, "pid": os.getpid()})
            _tell(asdict(asyncio.run(_work(order, place, begins_s))))
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
