"""How the suite is run, and the code of README.md and docs/ against a sandbox: ```python fixture:service```, or
`fixture:recipe`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import queue
import sqlite3
import sys
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from pytest_markdown_docs.plugin import MarkdownDocstringCodeModule

from toapis_async import Settings
from toapis_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

# Where bytecode is forbidden, each of the hundreds of processes of the tests would compile the package anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

asyncio.set_event_loop(None)  # pytest-asyncio would otherwise find, and leak, the loop of the main thread
SPEED = 200.0
QUICK = partial(Settings, first_poll_s=5 / SPEED, min_poll_interval_s=5 / SPEED, reconcile_window_s=30 / SPEED)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays: the garbage collector neither visits it meanwhile nor in any test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Of modules, only the tests: to look for examples in each docstring of theirs takes longer than to import them."""
    found = yield
    return [each for each in found if not isinstance(each, MarkdownDocstringCodeModule)]


def pytest_markdown_docs_globals() -> dict[str, str]:
    """What the code of a page has: it runs as a script."""
    return {"__name__": "__main__"}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """The environment of a reader who has a key: a service that answers (in a thread, so that `asyncio.run` can be
    shown), an empty folder to work in, and waits in the service's compressed time."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started = threading.Event()
    opened: list[Sandbox] = []

    async def serve() -> None:
        async with Sandbox(speed=SPEED, tier="svip") as sandbox:
            opened.append(sandbox)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(60), "the sandbox did not start"
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-readme")
    monkeypatch.setenv("TOAPIS_BASE_URL", opened[0].base_url)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toapis_async.client.Settings", partial(QUICK, tier="svip"))
    yield opened[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


@pytest.fixture
def recipe(service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The service, the files that recipes read, and quick waits also under settings of their own. A recipe must have
    got something, and paid once for it."""
    for module in ("toapis_async", "toapis_async.parts"):
        monkeypatch.setattr(f"{module}.Settings", QUICK)
    prompts = [{"key": f"{colour}-kite", "prompt": f"a {colour} kite", "size": "16:9"} for colour in ("red", "blue")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    (tmp_path / "prompts.csv").write_text("key,prompt,size,n\nred-kite,a red kite,16:9,\nblue-kite,a blue kite,,2\n")
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db, db:
        db.execute("CREATE TABLE product (id INTEGER PRIMARY KEY, description TEXT, picture TEXT)")
        db.executemany("INSERT INTO product (description) VALUES (?)", [(row["prompt"],) for row in prompts])
    for name in ("sketch.png", "style.png"):
        Image.new("RGB", (64, 64), "tomato").save(tmp_path / name)
    yield
    assert service.ledger.entries, "the recipe got nothing"
    assert not service.ledger.paid_twice()


@pytest.fixture
def cluster(service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The service, and a Dask scheduler in a thread, with a worker, in place of processes of this machine; journals go
    into the working folder."""
    from distributed import LocalCluster  # noqa: PLC0415

    from toapis_async.dask import bulk  # noqa: PLC0415

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("toapis_async.dask.job.Settings", partial(QUICK, tier="svip"))
    local: Any = LocalCluster
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    addresses: queue.Queue[str] = queue.Queue()

    async def serve() -> None:
        async with local(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", asynchronous=True,
            dashboard_address="127.0.0.1:0",
        ) as opened:  # fmt: skip
            addresses.put(opened.scheduler_address)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    address = addresses.get(timeout=60)

    def on_it(*given: Any, cluster: None = None, **named: Any) -> Any:
        return bulk(*given, cluster=cluster or address, **named)

    monkeypatch.setattr("toapis_async.dask.bulk", on_it)
    yield
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()
    assert service.ledger.entries, "the example got nothing"
    assert not service.ledger.paid_twice()
