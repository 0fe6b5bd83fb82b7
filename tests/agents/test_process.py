"""The server as a process, driven by the SDK's own client, on a sandbox of this process."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, TextIO

import aiohttp
import httpx2
import pytest
from click.testing import CliRunner
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from toapis_async.cli import main
from toapis_async.sandbox import Sandbox

from .conftest import KEY, Said, accepted, finish_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAST = ("--first-poll-s", "0.02", "--min-poll-interval-s", "0.02")


def environment(sandbox: Sandbox) -> dict[str, str]:
    return {"TOAPIS_API_KEY": KEY, "TOAPIS_BASE_URL": sandbox.base_url, "PATH": os.environ["PATH"]}


def server(sandbox: Sandbox, tmp_path: Path, *options: str, log: TextIO) -> Client:
    """A host that starts the server; its process id is in the file `pid`, its stderr in `log`."""
    command = [sys.executable, "-W", "error", "-m", "toapis_async", "mcp", "--out", str(tmp_path / "out"), *options]
    script = 'echo $$ > "$0"; exec "$@"'
    parameters = StdioServerParameters(
        command="sh", args=["-c", script, str(tmp_path / "pid"), *command, *FAST], env=environment(sandbox)
    )
    return Client(stdio_client(parameters, errlog=log), mode="legacy")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TextIO]:
    """What servers write on stderr."""
    with open(tmp_path / "log", "w+", encoding="utf-8") as file:
        yield file


async def test_a_server_that_is_killed_and_started_again_buys_nothing_twice(tmp_path: Path, log: TextIO) -> None:
    told: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        assert (total, message) == (100.0, "queued")
        told.append(progress)

    kite = {"prompt": "a red kite", "request_id": "kite"}
    async with Sandbox(service_time_s=math.inf, pictures=False) as sandbox:
        async with server(sandbox, tmp_path, "--max-images", "2", log=log) as host:
            with pytest.raises(MCPError, match="timed out"):
                await host.call_tool("generate", kite, read_timeout_seconds=1)
            await accepted(sandbox, 1)
            made_again = Said(await host.call_tool("generate", {**kite, "wait_s": 0.5}, progress_callback=note))
            assert "under this request_id: nothing more was bought" in made_again.text
            assert told == [0.0]
            other = Said(await host.call_tool("generate", {"prompt": "a boat", "wait_s": 0}))
            await accepted(sandbox, 2)
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            with pytest.raises(MCPError):
                await host.call_tool("balance", {})
        async with server(sandbox, tmp_path, "--max-images", "2", log=log) as host:
            finish_all(sandbox)
            said = Said(await host.call_tool("generate", kite))
            assert said.text.startswith("note: this was asked for under this request_id")
            assert len(said.files) == 1
            waited = Said(await host.call_tool("wait", {"token": other.token}))
            assert waited.text.startswith("done: 1 image")
            refused = Said(await host.call_tool("generate", {"prompt": "a third"}))
            assert "the cap of 2, of which 2 are made" in refused.text
        assert len(sandbox.ledger) == 2
        assert sandbox.ledger.paid_twice() == ()
    log.seek(0)
    lines = log.read()
    assert "2 submissions of earlier sessions unfinished; they are watched and saved:" in lines
    assert other.token in lines
    assert "Traceback" not in lines
    assert KEY not in lines


def test_a_server_whose_host_says_nothing_ends_by_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "toapis_async", "mcp", "--out", str(tmp_path), "--sandbox"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
        assert process.stderr is not None
        assert process.stdout is not None
        assert b"serving agents" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == b""
        assert b"Traceback" not in process.stderr.read()


async def test_over_http_the_token_lets_in_and_nothing_else(tmp_path: Path) -> None:
    async with Sandbox(service_time_s=0.005, pictures=False) as sandbox:
        command = ["-W", "error", "-m", "toapis_async", "mcp", "--out", str(tmp_path), "--http", "--port", "0", *FAST]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=environment(sandbox), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            lines = [(await process.stderr.readline()).decode() for _ in range(2)]
            found = re.search(r"(http://127\.0\.0\.1:\d+/mcp) .*Bearer (\S+)", lines[1])
            assert found is not None, lines
            url, token = found.groups()
            async with aiohttp.ClientSession() as session:
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
                    async with session.post(url, json={}, headers=headers) as response:
                        assert response.status == 401
                stranger = {"Authorization": f"Bearer {token}", "Host": "evil.test"}
                async with session.post(url, json={}, headers=stranger) as response:
                    assert response.status == 421
            async with (
                httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http,
                Client(streamable_http_client(url, http_client=http)) as host,
            ):
                said = Said(await host.call_tool("generate", {"prompt": "a red kite"}))
                assert said.text.startswith("done: 1 image")
            process.send_signal(signal.SIGTERM)
            stdout, stderr = await process.communicate()
        finally:
            if process.returncode is None:  # the test failed
                process.kill()
                await process.communicate()
    assert process.returncode == 0
    assert stdout == b""
    assert b"Traceback" not in stderr
    assert len(sandbox.ledger) == 1


def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "toapis_async.agents.server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    ran = CliRunner().invoke(main, ["mcp", "--out", str(tmp_path), "--sandbox"])
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert ran.stderr == "error: toapis mcp needs mcp_types: pip install 'toapis-async[mcp]'\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--port", "9"), "--port is of --http"),
        (("--budget-credits", "x"), "no amount of credits"),
        (("--max-images", "0"), "0 is not in the range"),
    ],
)
def test_options_that_can_not_be_right_are_misuse(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    ran = CliRunner().invoke(main, ["mcp", "--out", str(tmp_path / "out"), *arguments])
    assert ran.exit_code == 2
    assert reason in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_journal_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal.sqlite").symlink_to(tmp_path / "elsewhere")
    ran = CliRunner().invoke(main, ["mcp", "--out", str(tmp_path / "out"), "--sandbox"])
    assert ran.exit_code == 2
    assert "is a symbolic link" in ran.stderr
    assert not (tmp_path / "elsewhere").exists()
