"""The summary and the shapes of the charts."""

from __future__ import annotations

import re
from decimal import Decimal
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.report.kit import START, row, timed
from toapis_async.protocol.wording import duration
from toapis_async.report import RowError
from toapis_async.report.charts import histograms, time_line
from toapis_async.report.figures import amount, step_s, tick
from toapis_async.report.summary import Reason, RunTotals

if TYPE_CHECKING:
    from toapis_async.report import ReportRow

NOW = START.timestamp() + 1_000


def totals(*rows: ReportRow) -> RunTotals:
    total = RunTotals()
    for one in rows:
        total.add(one)
    return total


def shown(*rows: ReportRow) -> dict[str, tuple[str, str]]:
    return {figure.name: (figure.value, figure.note) for figure in totals(*rows).figures()}


# ----------------------------------------------------------------------------------------------------------- summary


def test_the_summary_of_a_run() -> None:
    figures = shown(
        timed(0, 0, 20, files=("a", "b"), credits=Decimal("1.5")),
        timed(1, 10, 50, files=("c",), credits=Decimal("2.25")),
        timed(2, 60, 60, status="failed", error=RowError("TaskFailed", "x", "y")),
        row(3, status="waiting"),
    )
    assert figures == {
        "Images": ("3", "from 4 rows"),
        "Images a minute": ("1.5", ""),
        "Wall time": ("2 min 00 s", ""),
        "Service time": ("50 s", "median; slowest 1 min 00 s"),
        "Credits": ("3.75", "known for 2 of 4 rows"),
    }


def test_images_that_did_not_come_are_counted_of_rows_that_are_done() -> None:
    rows = [row(0, n=4, files=("a",)), row(1, n=1, files=("b",)), row(2, files=("c",)), row(3, n=2, status="failed")]
    assert shown(*rows)["Images"] == ("3", "from 4 rows; 3 fewer than asked for")


def test_what_is_not_known_is_not_told_as_nought() -> None:
    figures = shown(row(0, files=("a",)))
    assert [figures[name][0] for name in ("Images a minute", "Wall time", "Service time", "Credits")] == ["—"] * 4


def test_failures_are_told_by_reason_the_commonest_first_and_at_most_eight() -> None:
    rows = [row(i, status="failed", error=RowError("T", f"code {min(i // 2, 10)}", f"message {i}")) for i in range(23)]
    reasons = totals(*rows).reasons()
    assert reasons[0] == Reason(3, "code 10", "message 20")
    assert reasons[1] == Reason(2, "code 0", "message 0")
    assert reasons[-1] == Reason(23 - 3 - 7 * 2, "", "other reasons")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (0.38, "0.38"), (12.5, "12.5"), (100, "100"), (174.66, "174.7"), (1_746.2, "1,746")]
)
def test_an_amount(number: float, text: str) -> None:
    assert amount(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7_800, "2 h 10 min"),
    ],
)
def test_a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("span_s", [0.001, 0.3, 1, 4, 7, 19, 60, 61, 599, 3_601, 86_400, 500_000, 40_000_000])
def test_an_axis_has_a_few_round_ticks(span_s: float) -> None:
    step = step_s(span_s, 5)
    assert 0 < span_s / step <= 5 + 1e-6
    assert span_s / step_s(span_s, 5) >= 1
    assert tick(step, step)[0] in "123456789" or tick(step, step).startswith("0.")


# ---------------------------------------------------------------------------------------------------------- time line


def heights(points: str) -> list[float]:
    return [100 - float(point.partition(",")[2]) for point in points.split()]


def test_the_time_line_counts_what_was_submitted_running_and_done() -> None:
    line = time_line(totals(timed(0, 0, 50), timed(1, 25, 75), timed(2, 50, 25, status="failed")), NOW)
    assert line is not None
    assert (line.most, line.most_running) == (3, 2)
    submitted, running, done = heights(line.submitted), heights(line.running), heights(line.done)
    assert len(submitted) == len(running) == len(done) == 241
    third = 100 / 3
    for at_s, expected in ((10, (1, 1, 0)), (30, (2, 2, 0)), (60, (3, 2, 1)), (80, (3, 1, 1)), (100, (3, 0, 2))):
        seen = tuple(heights_of[round(240 * at_s / 100)] for heights_of in (submitted, running, done))
        assert seen == pytest.approx([n * third for n in expected], abs=0.01)
    assert all(a <= b for a, b in pairwise(submitted))
    assert [(round(t.x), t.text) for t in line.ticks] == [
        (0, "0"),
        (20, "20 s"),
        (40, "40 s"),
        (60, "60 s"),
        (80, "80 s"),
        (100, "100 s"),
    ]


def test_a_task_that_runs_runs_until_now() -> None:
    line = time_line(totals(timed(0, 0, 10), timed(1, 0, None, status="running")), NOW)
    assert line is not None
    assert heights(line.running)[-1] == 50
    assert "16 min 40 s" in line.description


def test_no_task_ends_before_it_began_whatever_the_clock_of_the_service_says() -> None:
    line = time_line(totals(timed(0, 0, 100), timed(1, 50, -40)), NOW)
    assert line is not None
    assert heights(line.running)[round(240 * 20 / 100)] == 50  # the first of two; the second did not end at 10 s


@pytest.mark.parametrize("rows", [(), (row(),), (timed(0, 0, 0),), (timed(0, 0, None, status="failed"),)])
def test_there_is_no_time_line_of_nothing(rows: tuple[ReportRow, ...]) -> None:
    assert time_line(totals(*rows), NOW) is None


# --------------------------------------------------------------------------------------------------------- histograms


def test_there_is_a_histogram_a_class_above_one_axis() -> None:
    quick = [timed(i, i, 10 + i % 3, quality="low") for i in range(9)]
    slow = [timed(i, i, 40.0, quality="high", resolution="4k") for i in range(4)]
    drawn = histograms(totals(*slow, *quick))
    assert drawn is not None
    assert drawn.common == "m"
    assert [(one.name, one.short) for one in drawn.classes] == [
        ("low", "9 rows, median 11 s"),
        ("4k · high", "4 rows, median 40 s"),
    ]
    assert [t.text for t in drawn.ticks] == ["0", "10 s", "20 s", "30 s", "40 s", "50 s"]
    (bar,) = drawn.classes[1].bars
    assert bar.height == 100
    assert bar.x <= 100 * 40 / 50 < bar.x + bar.width
    assert bar.description.endswith(": 4 rows")


def test_the_last_bar_collects_what_is_far_out() -> None:
    drawn = histograms(totals(*(timed(i, 0, 10.0) for i in range(400)), timed(400, 0, 100_000)))
    assert drawn is not None
    (one,) = drawn.classes
    assert one.bars[-1].description.endswith("and more: 1 row")
    assert "slowest 27 h 47 min" in one.description
    assert drawn.ticks[-1].text in {"10 s", "12 s", "15 s"}


def test_many_classes_are_the_busiest_five_and_the_others() -> None:
    rows = [timed(i, 0, 5.0, model=f"m{i % 9}") for i in range(60)]
    drawn = histograms(totals(*rows))
    assert drawn is not None
    assert drawn.common == ""
    assert [one.name for one in drawn.classes] == ["m0", "m1", "m2", "m3", "m4", "4 other classes"]
    assert drawn.classes[-1].short.startswith("25 rows")


def test_a_class_that_asked_for_nothing_is_that_of_the_defaults_and_no_time_is_no_histogram() -> None:
    drawn = histograms(
        totals(row(service_s=0.0), row(service_s=1.0, resolution="1k"), row(1, service_s=2.0, quality="medium"))
    )
    assert drawn is not None
    assert [one.name for one in drawn.classes] == ["1k · medium"]
    assert drawn.classes[0].short == "3 rows, median 1 s"  # whole seconds, as the service tells them
    other = histograms(totals(row(service_s=0.0, model="m")))
    assert other is not None
    assert [one.name for one in other.classes] == ["default"]
    assert histograms(totals(row(service_s=-1.0), row(service_s=float("nan")))) is None


# ------------------------------------------------------------------------------------------------------------ colours

STYLE = files("toapis_async.report").joinpath("assets", "page.css").read_text()
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)


def contrast(one: str, other: str) -> float:
    """The ratio that WCAG 2 measures."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_are_told_apart_by_weak_eyes(theme: dict[str, str]) -> None:
    grounds = ("paper", "surface", "mat")
    texts = {
        (text, ground): contrast(theme[text], theme[ground])
        for text in ("ink", "muted", "failed", "running")
        for ground in grounds
    }
    shapes = ("done-fill", "failed-fill", "running-fill", "waiting-fill", "submitted", "bar", "focus")
    drawn = {
        (shape, ground): contrast(theme[shape], theme[ground]) for shape in shapes for ground in ("paper", "surface")
    }
    assert {pair: ratio for pair, ratio in texts.items() if ratio < 4.5} == {}
    assert {pair: ratio for pair, ratio in drawn.items() if ratio < 3} == {}
    assert contrast(theme["ink"], theme["raised"]) >= 4.5
