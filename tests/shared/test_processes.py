"""Real processes on one account, against a server with exact buckets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.contenders.kit import control
from benchmarks.fleet import Fleet, Order, Result, fleet
from benchmarks.loads import Load, LogNormal
from benchmarks.processes import serving
from benchmarks.tasks import BucketConfig, Config
from toapis_async.engine.shared.port import STORE_TIMEOUT_S

from .kit import PATIENT_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.redis_server import RedisServer

BURST, PER_S = 75.0, 60.0
LIMITS = (BURST, PER_S, 1_000.0, 400.0)
LOCKING = """
import fcntl, os, signal, sys
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


class Account:
    """The service, as the processes of one account use it."""

    def __init__(self, url: str, running: Fleet) -> None:
        self._url = url
        self.running = running

    def served(self) -> dict[str, Any]:
        statistics: dict[str, Any] = control(self._url, "statistics")
        return statistics

    def wait_for(self, submitted: int) -> None:
        """Until the service has taken so many."""
        until_s = time.monotonic() + 120
        while self.served()["submitted"] < submitted:
            assert time.monotonic() < until_s
            time.sleep(0.02)

    def results(self) -> list[Result]:
        """With nothing refused, and nothing failed."""
        results = self.running.results()
        assert [result.errors for result in results] == [[]] * len(results)
        served = self.served()
        assert (served["refused_submits"], served["refused_polls"]) == (0, 0)
        return results


@contextmanager
def account(shared: str, counts: Sequence[int], *, store_timeout_s: float = PATIENT_S) -> Iterator[Account]:
    config = Config(
        Load("short", (LogNormal(0.5, 0.2),)),
        submit=BucketConfig(BURST, PER_S),
        query=BucketConfig(LIMITS[2], LIMITS[3]),
    )
    with serving(config) as url:
        order = Order(url, shared, counts, LIMITS, first_poll_s=0.4, store_timeout_s=store_timeout_s)
        with fleet(order) as running:
            yield Account(url, running)


@pytest.fixture(params=["host", "redis"])
def shared(request: pytest.FixtureRequest) -> str:
    if request.param == "host":
        return "host"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


def test_four_processes_draw_no_429(shared: str) -> None:
    with account(shared, [30] * 4) as four:
        results = four.results()
        assert sum(result.done for result in results) == 120
        served = four.served()
        assert sum(result.leases for result in results) < served["submitted"] + served["polls"]


def test_without_redis_each_goes_on_and_comes_back(redis_server: RedisServer) -> None:
    with account(redis_server.url, [80] * 4) as four:
        four.wait_for(80)
        four.running.kill(3)
        redis_server.kill()
        four.wait_for(130)
        redis_server.start()
        results = four.results()
        assert sum(result.done for result in results) == 240
        assert all(result.lost >= result.back >= 1 for result in results)  # again where a busy machine was late


def test_a_stopped_holder_of_the_lock_stops_nobody(tmp_path: Path) -> None:
    with account("host", [80] * 2, store_timeout_s=STORE_TIMEOUT_S) as two:
        two.wait_for(60)
        (file,) = tmp_path.glob("toapis-*/limits-*-submit.json")
        holder = subprocess.Popen([sys.executable, "-c", LOCKING, str(file)], stdout=subprocess.PIPE)  # noqa: S603
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            two.wait_for(160)  # so that each needs the lock meanwhile, however slow it is
        finally:
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            holder.stdout.close()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
        results = two.results()
        assert [result.done for result in results] == [80] * 2
        assert all(result.lost >= 1 for result in results)
