"""Fixtures of the command line's tests: each runs in an empty folder and without a key."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from toapis_async.cli import main, session
from toapis_async.cli.output import Output
from toapis_async.sandbox import Sandbox
from toapis_async.sandbox.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from toapis_async.events import Event

IN_A_BLINK = ("--sandbox", "--speed", "1000")
"""A sandbox whose tasks take about 13 ms."""


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @classmethod
    def of(cls, result: Result) -> Ran:
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return cls(result.exit_code, result.stdout, result.stderr)


def run(*args: str, stdin: str | bytes | None = None) -> Ran:
    """Run `toapis` in this process."""
    return Ran.of(CliRunner().invoke(main, args, input=stdin, prog_name="toapis"))


def results_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOAPIS_API_KEY", raising=False)
    monkeypatch.delenv("TOAPIS_BASE_URL", raising=False)


@pytest.fixture
def tries_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be sent is tried again without a wait."""

    def no_wait(tries: int, **_: object) -> float:
        return 0.0

    monkeypatch.setattr("toapis_async.engine.retrying.backoff_s", no_wait)


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stderr counts as a terminal that can redraw lines."""
    monkeypatch.setattr(Output, "on_terminal", True)


@pytest.fixture
def out() -> Output:
    return Output(json=False, quiet=False)


@pytest.fixture
def sandboxes(monkeypatch: pytest.MonkeyPatch) -> list[Sandbox]:
    """Every sandbox that is started."""
    started: list[Sandbox] = []
    start = Sandbox.start

    async def noted(self: Sandbox) -> None:
        await start(self)
        started.append(self)

    monkeypatch.setattr(Sandbox, "start", noted)
    return started


def interrupt_at(monkeypatch: pytest.MonkeyPatch, kind: type[Event], at: int, times: int = 1) -> None:
    """Ctrl-C comes, so many times, with the event of this number."""

    def interrupt() -> None:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    _do_at(monkeypatch, kind, at, interrupt)


def late_at(monkeypatch: pytest.MonkeyPatch, kind: type[Event], late_s: float) -> None:
    """So much time passes at once after the first event of this kind, when whoever waited for it has gone on."""

    def pass_time(turns: int = 100) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(pass_time, turns - 1)
        else:
            clock = Clock()
            clock.follow(asyncio.get_running_loop())
            clock.advance(late_s)

    _do_at(monkeypatch, kind, 1, pass_time)


def _do_at(monkeypatch: pytest.MonkeyPatch, kind: type[Event], at: int, act: Callable[[], None]) -> None:
    heard: list[Event] = []

    def note(self: session.Pending, event: Event) -> None:
        pending_note(self, event)
        if isinstance(event, kind):
            heard.append(event)
            if len(heard) == at:
                act()

    pending_note = session.Pending.note
    monkeypatch.setattr(session.Pending, "note", note)


class Recorder:
    """A live display that keeps what is printed above it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def print_above(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def above() -> Recorder:
    return Recorder()
