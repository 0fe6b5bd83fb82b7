"""Opening, closing, what a folder keeps, and what the package may import."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import toapis_async.sandbox
from tests.ports import unused_port
from toapis_async.sandbox import Fault, PillowMissingError, Sandbox, StateDirError

from .kit import VIP, Caller, Clock, until

PACKAGE = Path(toapis_async.sandbox.__file__).parent


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_the_sandbox_imports_nothing_of_the_client() -> None:
    for path in PACKAGE.glob("*.py"):
        ours = {name for name in imported(path) if name.startswith("toapis_async")}
        assert all(name.startswith("toapis_async.sandbox") for name in ours), path.name


def test_importing_and_using_the_sandbox_leaves_pillow_alone_until_a_picture_is_drawn() -> None:
    code = "import sys, toapis_async.sandbox as s; s.Sandbox(); assert 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)  # noqa: S603


async def test_without_pillow_the_start_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, session: aiohttp.ClientSession
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "PIL" else found(name))
    with pytest.raises(PillowMissingError, match=r"pip install 'toapis-async\[sandbox\]'"):
        await Sandbox().start()
    async with Sandbox(pictures=False) as sandbox:
        assert (await Caller(session, sandbox).submit()).status == 200


async def test_urls_are_known_once_it_listens() -> None:
    sandbox = Sandbox(pictures=False)
    with pytest.raises(RuntimeError, match="not started"):
        _ = sandbox.base_url
    assert repr(sandbox).startswith("<Sandbox not listening")
    async with sandbox:
        assert sandbox.base_url.startswith("http://127.0.0.1:")
        assert sandbox.base_url != sandbox.files_url
        assert repr(sandbox).startswith(f"<Sandbox {sandbox.base_url}")


async def test_a_sandbox_is_started_once_and_closed_as_often_as_one_likes() -> None:
    sandbox = Sandbox(pictures=False)
    await sandbox.start()
    with pytest.raises(RuntimeError, match="once"):
        await sandbox.start()
    await sandbox.aclose()
    await sandbox.aclose()
    with pytest.raises(RuntimeError, match="once"):
        await sandbox.start()


async def test_it_is_opened_in_one_task_and_closed_in_another(session: aiohttp.ClientSession) -> None:
    sandbox = Sandbox(pictures=False)
    await asyncio.create_task(sandbox.start())
    assert (await Caller(session, sandbox).submit()).status == 200
    await asyncio.create_task(sandbox.aclose())


@pytest.mark.parametrize("options", [{"speed": 0}, {"speed": -1}, {"tier": "gold"}])
def test_settings_out_of_range_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"speed|tier"):
        Sandbox(**options)


async def test_a_port_in_use_leaves_nothing_open() -> None:
    async with Sandbox(pictures=False) as first:
        port = int(first.files_url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            await Sandbox(files_port=port, pictures=False).start()


async def test_ports_and_host_are_the_ones_asked_for() -> None:
    port = unused_port()
    async with Sandbox(host="localhost", port=port, pictures=False) as sandbox:
        assert sandbox.base_url == f"http://localhost:{port}"


async def test_closing_waits_neither_for_slow_answers_nor_for_idle_connections(
    session: aiohttp.ClientSession,
) -> None:
    async with Sandbox(pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        await caller.balance()
        sandbox.faults.script("submit", Fault.SLOW.lasting(3_600))
        waiting = asyncio.create_task(caller.submit())
        await until(lambda: sandbox.ledger)
        started = time.perf_counter()
    assert time.perf_counter() - started < 30  # aiohttp would wait for a minute
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await waiting


async def test_closing_does_not_wait_for_a_body_that_never_ends() -> None:
    async with Sandbox(pictures=False) as sandbox:
        port = int(sandbox.base_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.01)
        started = time.perf_counter()
    assert time.perf_counter() - started < 30  # aiohttp would wait for a minute
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_closing_leaves_no_task_behind(session: aiohttp.ClientSession) -> None:
    before = asyncio.all_tasks()
    async with Sandbox(service_time_s=0) as sandbox:
        caller = Caller(session, sandbox)
        url = (await caller.query(await caller.task())).body["result"]["data"][0]["url"]
        assert (await caller.file(url)).status == 200
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == before


async def test_a_reopened_folder_knows_its_tasks_uploads_balances_and_ledger(
    session: aiohttp.ClientSession, clock: Clock, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "state"
    options: dict[str, Any] = {"clock": clock, "service_time_s": 10, "state_dir": folder, "pictures": False}
    async with Sandbox(**options) as first:
        caller = Caller(session, first)
        done = await caller.task("done", client_business_id="order", n=2)
        fails = await caller.task("[fail] later")
        by_hand, gone = await caller.task("by hand"), await caller.task("gone")
        first.fail(by_hand, "oops", "by hand")
        first.faults.script("query", Fault.TASK_VANISHES_400)
        await caller.query(gone)
        first.faults.script("submit", (Fault.TASK_ID_FOR_ID, Fault.RESULT_TOP_URL))
        odd = (await caller.submit("odd")).body["task_id"]
        upload = (await caller.upload(b"GIF89a reference")).body["data"]["url"]
        entries, balance = first.ledger.entries, await caller.balance()
        urls = (first.base_url, first.files_url)
    clock.advance(5)
    async with Sandbox(**options) as second:
        caller = Caller(session, second)
        assert (second.base_url, second.files_url) == urls
        assert [entry.task_id for entry in second.ledger] == [entry.task_id for entry in entries]
        assert await caller.balance() == balance
        assert await caller.balance("/v1/balance") == balance
        assert (await caller.file(upload)).raw == b"GIF89a reference"
        assert (await caller.query("order")).body["status"] == "in_progress"
        clock.advance(5)
        assert (await caller.query("order")).body["id"] == done
        assert (await caller.query(done)).body["status"] == "completed"
        assert (await caller.query(fails)).body["status"] == "failed"
        assert (await caller.query(by_hand)).body["error"] == {"code": "oops", "message": "by hand"}
        assert (await caller.query(gone)).status == 400
        assert (await caller.query(odd)).body["url"].startswith(second.files_url)
        assert (await caller.file(f"{second.files_url}/generated/{done}-1.png")).status == 200
        assert (await caller.file(f"{second.files_url}/uploads/none.png")).status == 404
        assert second.ledger.credits_refunded == 1.9
        again = await caller.task("done", n=2)
        assert again not in {entry.task_id for entry in entries}


async def test_a_folder_keeps_no_key(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with Sandbox(state_dir=tmp_path, pictures=False) as sandbox:
        await Caller(session, sandbox, key="sk-secret-1234").task()

    assert kept_bytes(tmp_path)
    assert b"sk-secret" not in kept_bytes(tmp_path)


def kept_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_many_submissions_at_once_are_all_kept(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with Sandbox(state_dir=tmp_path, tier="svip", pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        ids = await asyncio.gather(*(caller.task(f"kite {number}") for number in range(200)))
    async with Sandbox(state_dir=tmp_path, pictures=False) as sandbox:
        assert {entry.task_id for entry in sandbox.ledger} == set(ids)


async def test_two_sandboxes_do_not_share_a_folder(tmp_path: Path) -> None:
    async with Sandbox(state_dir=tmp_path, pictures=False):
        with pytest.raises(StateDirError, match="another sandbox"):
            await Sandbox(state_dir=tmp_path, pictures=False).start()


async def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sandbox.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StateDirError, match="can't be read"):
        await Sandbox(state_dir=tmp_path, pictures=False).start()

    (tmp_path / "sandbox.sqlite3").unlink()
    with sqlite3.connect(tmp_path / "sandbox.sqlite3") as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    with pytest.raises(StateDirError, match="not a sandbox's file"):
        await Sandbox(state_dir=tmp_path, pictures=False).start()


async def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    async with Sandbox(state_dir=tmp_path, pictures=False):
        pass
    with sqlite3.connect(tmp_path / "sandbox.sqlite3") as ours:
        ours.execute("PRAGMA user_version = 99")
    ours.close()
    with pytest.raises(StateDirError, match="another version"):
        await Sandbox(state_dir=tmp_path, pictures=False).start()


async def test_a_task_that_is_refused_by_now_is_no_traceback(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with Sandbox(state_dir=tmp_path, pictures=False) as sandbox:
        await Caller(session, sandbox).task()
    with closing(sqlite3.connect(tmp_path / "sandbox.sqlite3")) as ours, ours:
        ours.execute("UPDATE task SET doc = replace(doc, ?, 'gone')", (VIP,))
    with pytest.raises(StateDirError, match="holds a task that this version of the sandbox refuses"):
        await Sandbox(state_dir=tmp_path, pictures=False).start()


async def test_last_times_port_is_given_up_when_somebody_has_it(tmp_path: Path) -> None:
    async with Sandbox(state_dir=tmp_path, pictures=False) as sandbox:
        port = int(sandbox.base_url.rpartition(":")[2])
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        async with Sandbox(state_dir=tmp_path, pictures=False) as sandbox:
            assert not sandbox.base_url.endswith(f":{port}")


KILLED = """
import asyncio, sys, aiohttp
from pathlib import Path
from toapis_async.sandbox import Sandbox
async def main():
    async with Sandbox(state_dir=Path(sys.argv[1]), pictures=False) as sandbox, aiohttp.ClientSession() as session:
        for number in range(5):
            body = {"model": "%s", "prompt": "kite", "client_business_id": f"order-{number}"}
            headers = {"Authorization": "Bearer k"}
            url = sandbox.base_url + "/v1/images/generations"
            async with session.post(url, json=body, headers=headers) as response:
                print((await response.json())["id"], flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_what_was_answered_survives_a_killed_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED % VIP, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    with process:
        assert process.stdout is not None
        answered = [process.stdout.readline().strip() for _ in range(5)]
        os.kill(process.pid, signal.SIGKILL)

    async def known() -> list[str]:
        async with Sandbox(state_dir=tmp_path, pictures=False) as sandbox:
            return [entry.task_id for entry in sandbox.ledger]

    assert asyncio.run(known()) == answered
    asyncio.set_event_loop(None)
    assert all(answered)
