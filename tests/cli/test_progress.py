"""How work is seen while it goes on."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from toapis_async.batch import BatchStatistics
from toapis_async.cli.output import Output
from toapis_async.cli.progress import (
    LiveBatch,
    LiveTask,
    PlainBatch,
    PlainTask,
    batch_line,
    batch_view,
    shown,
    task_view,
)
from toapis_async.events import TaskAccepted, TaskChanged
from toapis_async.models import TaskStatus


def standing(done: int = 0, failed: int = 0, in_flight: int = 0, elapsed_s: float = 0.0) -> BatchStatistics:
    return BatchStatistics(
        taken=done + failed + in_flight,
        in_flight=in_flight,
        saving=0,
        done=done,
        failed=failed,
        waiting_for_consumer=0,
        elapsed_s=elapsed_s,
        rows_per_s=0.0,
        left_s=None,
        credits_spent=Decimal(0),
        images=0,
    )


def test_the_figures_keep_their_places() -> None:
    lines = [
        batch_line(1_000, standing(), 0),
        batch_line(1_000, standing(40, 10, 400, 30.0), 60),
        batch_line(1_000, standing(990, 10, 0, 600.0), 990),
    ]
    assert lines == [
        "    0/1,000 done      0 failed      0 in flight      0 images/min",
        "   40/1,000 done     10 failed    400 in flight    120 images/min  9 min 30 s left",
        "  990/1,000 done     10 failed      0 in flight     99 images/min",
    ]


async def test_a_view_is_refreshed_while_the_body_runs_and_then_closed() -> None:
    seen: list[str] = []
    enough = asyncio.Event()

    class Counting:
        every_s = 0.001

        def show(self) -> None:
            seen.append("shown")
            if len(seen) == 3:
                enough.set()

        def close(self) -> None:
            seen.append("closed")

    async with shown(Counting()):
        await enough.wait()
    assert seen[:3] == ["shown"] * 3
    assert seen[-1] == "closed"


async def test_a_batch_is_told_in_plain_lines_where_stderr_is_no_terminal(
    out: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    view = batch_view(out, 60, lambda: standing(12, 1, 20, 6.0), lambda: 12)
    assert isinstance(view, PlainBatch)
    view.show()
    view.close()
    assert capsys.readouterr() == ("", "12/60 done   1 failed  20 in flight    120 images/min  22 s left\n")


@pytest.mark.usefixtures("on_terminal")
async def test_a_batch_has_a_bar_on_a_terminal_with_lines_above_it(
    out: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    view = batch_view(out, 60, lambda: standing(12, 1, 20, 6.0), lambda: 12)
    assert isinstance(view, LiveBatch)
    view.print_above("images/[bold]kite[/bold].png")
    view.show()
    view.close()
    told = capsys.readouterr().err
    assert "images/[bold]kite[/bold].png" in told
    assert "12/60 done" in told
    assert out.live is None


@pytest.mark.usefixtures("on_terminal")
async def test_colours_are_left_out_when_nobody_wants_them(
    out: Output, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    view = batch_view(out, 60, lambda: standing(12, 1, 20, 6.0), lambda: 12)
    view.show()
    view.close()
    assert "\x1b[38" not in capsys.readouterr().err


@pytest.mark.usefixtures("on_terminal")
async def test_quiet_means_no_live_display() -> None:
    out = Output(json=False, quiet=True)
    assert isinstance(batch_view(out, 1, standing, lambda: 0), PlainBatch)
    assert isinstance(task_view(out), PlainTask)


@pytest.mark.usefixtures("on_terminal")
async def test_one_task_is_shown_with_its_state_and_progress(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    view = task_view(out)
    assert isinstance(view, LiveTask)
    view.show()
    view.heard(TaskAccepted("task_1", "b1", None))
    view.heard(TaskChanged("task_1", TaskStatus.IN_PROGRESS, 42))
    view.heard(TaskChanged("task_1", TaskStatus.IN_PROGRESS, None))
    view.show()
    view.print_above("a line")
    view.close()
    told = capsys.readouterr().err
    assert "task_1  in progress" in told
    assert "42%" in told


def test_elsewhere_one_task_is_told_once(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainTask(out)
    view.heard(TaskAccepted("task_1", "b1", None))
    view.heard(TaskChanged("task_1", TaskStatus.IN_PROGRESS, 42))
    view.show()
    view.close()
    assert capsys.readouterr().err == "accepted as task_1\n"
