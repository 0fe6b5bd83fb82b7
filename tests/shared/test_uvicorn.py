"""The web app of docs/fastapi.md under `uvicorn --workers`, on one Redis, one worker of which is killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

import toapis_async
from tests.client.events import SECRET
from tests.engine.kit import KEY
from tests.ports import unused_port
from toapis_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.redis_server import RedisServer

DOCS = Path(__file__).parents[2] / "docs" / "fastapi.md"
QUICK = """
import toapis_async
from functools import partial

waits = dict(first_poll_s=0.5, min_poll_interval_s=0.5, reconcile_window_s=0.5)
toapis_async.Settings = partial(toapis_async.Settings, **waits)
"""
ORDERS, WORKERS = 60, 2


def app_of_docs() -> str:
    """The page's app, with its lifespan for several workers in place of the first; only the waits are shorter."""
    blocks: list[str] = re.findall(r"```python[^\n]*\n(.*?)```", DOCS.read_text(), re.DOTALL)
    before, first, after = re.split(r"(@asynccontextmanager\n.*?\napp = FastAPI[^\n]*\n)", blocks[0], flags=re.DOTALL)
    assert "ToAPIs()" in first
    (of_several_workers,) = (block for block in blocks if "per_process=True" in block)
    return QUICK + before + of_several_workers + after


@asynccontextmanager
async def serving(port: int, folder: Path, **variables: str) -> AsyncIterator[set[int]]:
    """uvicorn with some workers that are up; gives their process ids."""
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--workers", str(WORKERS)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(toapis_async.__file__).parents[1]), **variables},
        stderr=asyncio.subprocess.PIPE,
    )
    assert supervisor.stderr is not None
    workers: set[int] = set()
    up = asyncio.Event()

    async def read(lines: asyncio.StreamReader) -> None:
        started = 0
        while line := (await lines.readline()).decode():
            if found := re.search(r"Started server process \[(\d+)\]", line):
                workers.add(int(found[1]))
            started += "Application startup complete" in line
            if started >= WORKERS:
                up.set()

    reading = asyncio.ensure_future(read(supervisor.stderr))
    try:
        async with asyncio.timeout(60):
            await up.wait()
        yield workers
    finally:
        supervisor.terminate()
        try:
            async with asyncio.timeout(60):
                await supervisor.wait()
        except TimeoutError:
            for pid in (supervisor.pid, *workers):
                os.kill(pid, signal.SIGKILL)
            await supervisor.wait()
        await reading


async def order(browser: httpx.AsyncClient, number: int, answers: Counter[str]) -> str:
    """Send an order, again and again with the same id until it is answered, and return its task."""
    body = {"prompt": f"kite {number}", "client_business_id": f"order-{number}"}
    while True:
        try:
            answer = await browser.post("/images", json=body)
        except httpx.TransportError as error:
            answers[type(error).__name__] += 1
        else:
            answers[str(answer.status_code)] += 1
            if answer.status_code == 200:
                return str(answer.json()["task_id"])
        await asyncio.sleep(0.2)


async def test_a_worker_is_killed_and_no_order_is_lost_or_paid_twice(redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(app_of_docs())
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    answers: Counter[str] = Counter()
    async with Sandbox(pictures=False, service_time_s=1.5, tier="svip") as sandbox:
        sandbox.webhooks.configure(f"{url}/toapis/", SECRET)
        variables = {
            "TOAPIS_API_KEY": KEY,
            "TOAPIS_BASE_URL": sandbox.base_url,
            "TOAPIS_SHARED": redis_server.url,
            "TOAPIS_WEBHOOK_SECRET": SECRET,
        }
        async with (
            serving(port, tmp_path, **variables) as workers,
            httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as browser,
        ):
            # No order is answered before the kill, so that some are sent again whichever worker has them.
            sandbox.faults.chance("submit", Fault.SLOW.lasting(1.0), 1)
            ordering = [asyncio.ensure_future(order(browser, number, answers)) for number in range(ORDERS)]
            while len(sandbox.ledger) < ORDERS // 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            busiest = max(workers, key=lambda pid: len(os.listdir(f"/proc/{pid}/fd")))
            os.kill(busiest, signal.SIGKILL)
            task_ids = await asyncio.gather(*ordering)
        assert len(set(task_ids)) == ORDERS
        assert len(sandbox.ledger) == ORDERS
        assert not sandbox.ledger.paid_twice()
        assert sandbox.requests.rate_limited == 0
    assert answers["200"] == ORDERS
    assert sum(answers.values()) > ORDERS  # some were sent again
