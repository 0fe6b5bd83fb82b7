"""A batch while it runs, as people see it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from toapis_async.batch.item import BatchItem, BatchStatistics
from toapis_async.cli.batch_view import LAST_SHOWN, BatchProgress, LiveBatch, PlainBatch, batch_view
from toapis_async.cli.output import Output
from toapis_async.display.terminal import wrapped
from toapis_async.errors import ContentRefused
from toapis_async.models import Generation
from toapis_async.request import ImageRequest

if TYPE_CHECKING:
    from toapis_async.errors import ToAPIsError

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)


def statistics(
    done: int = 0, failed: int = 0, in_flight: int = 0, elapsed_s: float = 0.0, credits_spent: str = "0"
) -> BatchStatistics:
    return BatchStatistics(
        taken=done + failed + in_flight,
        in_flight=in_flight,
        saving=0,
        done=done,
        failed=failed,
        waiting_for_consumer=0,
        total=None,
        elapsed_s=elapsed_s,
        credits_spent=Decimal(credits_spent),
        images=0,
    )


def progress(total: int, now: BatchStatistics, saved: int = 0, **more: Any) -> BatchProgress:
    return BatchProgress(total, lambda: now, lambda: saved, **more)


def item(prompt: str, error: ToAPIsError | None = None, took_s: float = 23.0) -> BatchItem:
    done = Generation("t", None, None, (), BEGAN, BEGAN + timedelta(seconds=took_s))
    given = BatchItem(0, "k", ImageRequest(prompt), error is None, error=error)
    return given if error else evolve(given, generation=done)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm-256color")


def test_the_figures_keep_their_places() -> None:
    told = [
        "  ".join(progress(1_000, statistics(), 0).figures()),
        "  ".join(progress(1_000, statistics(40, 10, 400, 30.0), 60).figures()),
        "  ".join(progress(1_000, statistics(990, 10, 0, 600.0), 990).figures()),
    ]
    assert told == [
        "    0/1,000 done      0 failed      0 in flight      0 images/min",
        "   40/1,000 done     10 failed    400 in flight    120 images/min  30 s elapsed  9 min 30 s left",
        "  990/1,000 done     10 failed      0 in flight     99 images/min  10 min 00 s elapsed",
    ]


def test_rows_of_an_earlier_pass_do_not_make_the_rest_look_short() -> None:
    now = statistics(done=500, elapsed_s=10.0)
    assert "10 s left" in progress(1_000, now).figures()
    assert not any("left" in figure for figure in progress(1_000, now, ended_earlier=500).figures())
    assert "50 s left" in progress(1_000, now, ended_earlier=400).figures()


@pytest.mark.parametrize(
    ("spent", "budget", "told"),
    [("12.50", None, "12.5 credits"), ("0", "1000", "0/1,000 credits"), ("1200", "1500.5", "1,200/1,500.5 credits")],
)
def test_credits_are_told_when_they_are_known(spent: str, budget: str | None, told: str) -> None:
    shown = progress(10, statistics(credits_spent=spent), budget_credits=Decimal(budget) if budget else None)
    assert shown.figures()[-1] == told


def test_figures_are_broken_between_them_where_the_terminal_is_narrow() -> None:
    figures = ["12/60 done", "1 failed", "20 in flight"]
    assert wrapped(figures, 80) == ["12/60 done  1 failed  20 in flight"]
    assert wrapped(figures, 20) == ["12/60 done  1 failed", "20 in flight"]
    assert wrapped(figures, 5) == figures


async def test_plain_lines_where_stderr_is_no_terminal(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    view = batch_view(out, progress(60, statistics(12, 1, 20, 6.0), 12))
    assert isinstance(view, PlainBatch)
    view.show()
    view.close()
    assert capsys.readouterr() == (
        "",
        "12/60 done   1 failed  20 in flight    120 images/min  6 s elapsed  22 s left\n",
    )


@pytest.mark.usefixtures("on_terminal")
async def test_quiet_means_no_live_display(capsys: pytest.CaptureFixture[str]) -> None:
    view = batch_view(Output(json=False, quiet=True), progress(1, statistics()))
    assert isinstance(view, PlainBatch)
    view.show()
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("on_terminal", "wide")
async def test_a_live_display_shows_a_bar_figures_and_the_last_prompts(
    out: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = progress(60, statistics(12, 1, 20, 6.0), 12)
    for number in range(LAST_SHOWN + 1):
        seen.note(item(f"kite number {number}"))
    seen.note(item("[bold]a very long prompt of\n\x1b[2J" + "many words " * 30, ContentRefused("not this", status=422)))
    view = batch_view(out, seen)
    assert isinstance(view, LiveBatch)
    capsys.readouterr()
    view.print_above("images/[bold]kite[/bold].png")
    view.show()
    told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
    view.close()
    assert out.live is None
    assert "images/[bold]kite[/bold].png" in told
    assert "12/60 done   1 failed  20 in flight    120 images/min  6 s elapsed  22 s left" in told
    assert "━" in told
    assert "kite number 1" not in told
    assert f"kite number {LAST_SHOWN}" in told
    assert "23 s" in told
    assert "[bold]a very long prompt of \\x1b[2J" in told
    assert "not this" in told
    assert "\x1b[2J" not in told


@pytest.mark.usefixtures("on_terminal", "wide")
@pytest.mark.parametrize("wanted", [True, False])
async def test_colours_are_left_out_when_nobody_wants_them(
    out: Output, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    if not wanted:
        monkeypatch.setenv("NO_COLOR", "1")
    seen = progress(60, statistics(12, 1, 20, 6.0), 12)
    seen.note(item("a kite"))
    view = batch_view(out, seen)
    view.show()
    view.close()
    assert ("\x1b[32m" in capsys.readouterr().err) is wanted


def test_rows_that_were_not_sent_are_no_failures() -> None:
    shown = progress(100, statistics(0, 64, 0, 6.0), unsent=lambda: 64, retries=lambda: 3, sandbox="sandbox at 20x")
    assert [part.strip() for part in shown.figures()] == [
        *("0/100 done", "0 failed", "0 in flight", "0 images/min", "64 not sent", "3 tried again"),
        *("6 s elapsed", "3 s left", "sandbox at 20x"),
    ]


@pytest.mark.usefixtures("on_terminal", "wide")
@pytest.mark.parametrize(
    ("ended", "cells"),
    [((30, 0), (39, 0)), ((30, 1), (39, 1)), ((0, 60), (0, 79)), ((59, 1), (77, 1)), ((60, 0), (79, 0))],
)
async def test_the_bar_is_green_for_what_went_well_and_red_for_what_did_not(
    out: Output, capsys: pytest.CaptureFixture[str], ended: tuple[int, int], cells: tuple[int, int]
) -> None:
    green, red = cells
    view = batch_view(out, progress(60, statistics(*ended, 0, 6.0)))
    view.show()
    view.close()
    told = capsys.readouterr().err
    assert f"\x1b[32m{'━' * green}\x1b[0m" in told or not green
    assert f"\x1b[31m{'━' * red}\x1b[0m" in told or not red
    assert ("\x1b[31m" in told) == (red > 0)
    assert ("\x1b[32m" in told) == (green > 0)
