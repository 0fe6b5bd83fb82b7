"""`client.batch(…, progress=True)` in a terminal, and where there is none."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engine.journal_kit import ADDRESS
from tests.engine.kit import KEY, FakeService, served, until
from toapis_async import Settings, ToAPIs
from toapis_async.display import screens
from toapis_async.display.progress import Progress
from toapis_async.display.screens import Lines, shown
from toapis_async.display.terminal import wrapped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm-256color")


async def test_a_terminal_has_a_bar_that_stays_when_all_is_done(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served() as (_, client):
        async for item in client.batch([f"[bold]kite {number}" for number in range(5)], progress=True):
            assert item.ok
    out, err = capsys.readouterr()
    assert out == ""
    assert "5/5 done" in err
    assert "━\x1b[0m \n" in err  # on a line of its own
    assert err.index(HIDE_CURSOR) < err.rindex("5/5 done") < err.rindex(SHOW_CURSOR)


@pytest.mark.looptime
async def test_a_batch_that_is_left_leaves_the_terminal_as_it_was(
    service: FakeService, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    client = ToAPIs(KEY, base_url=ADDRESS, settings=Settings(poll_jitter=0))
    async with client, client.batch(["kite"] * 3, progress=True) as batch:
        aiter(batch)
        await until(lambda: batch.statistics().in_flight == 3)
        await asyncio.sleep(1)
    err = capsys.readouterr().err
    assert "3 in flight" in err
    assert err.rindex(SHOW_CURSOR) > err.rindex(HIDE_CURSOR)


@pytest.mark.looptime
async def test_without_a_terminal_there_is_a_line_now_and_then(
    service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    async def rows() -> AsyncIterator[str]:
        for number in range(3):
            yield f"kite {number}"

    service.service_time_s = 12
    async with ToAPIs(KEY, base_url=ADDRESS, settings=Settings(poll_jitter=0)) as client:
        await client.batch(rows(), progress=True).gather()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("0 done  0 failed  ")
    assert lines[-1].startswith("3 done  0 failed  0 in flight")
    assert len(lines) <= 6


async def test_without_progress_nothing_is_printed(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    async with served() as (_, client):
        await client.batch(["kite"]).gather()
    assert capsys.readouterr() == ("", "")


class Broken(Lines):
    every_s = 0.001
    is_closed = False

    async def draw(self, progress: Progress) -> None:
        raise OSError("no terminal any more")

    def close(self) -> None:
        self.is_closed = True


async def test_a_screen_that_fails_ends_no_work(caplog: pytest.LogCaptureFixture) -> None:
    done: list[bool] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append(True)

    screen = Broken()
    await shown(screen, lambda: Progress(0, 1, ()), work)
    assert done == [True]
    assert screen.is_closed
    assert caplog.text.count("progress can't be shown any more") == 1


@pytest.mark.looptime
async def test_a_last_picture_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Broken):
        async def draw(self, progress: Progress) -> None:
            await asyncio.sleep(1_000)

    async def work() -> None:
        await asyncio.sleep(1)

    screen, loop = Slow(), asyncio.get_running_loop()
    began_s = loop.time()
    await shown(screen, lambda: Progress(0, 1, ()), work)
    assert loop.time() - began_s == pytest.approx(1 + screens.LAST_DRAW_S)
    assert screen.is_closed


def test_no_figure_is_split_over_two_lines() -> None:
    figures = ["10/20 done", "0 failed", "10 in flight"]
    assert wrapped(figures, 80) == ["10/20 done  0 failed  10 in flight"]
    assert wrapped(figures, 20) == ["10/20 done  0 failed", "10 in flight"]
