"""The page of a batch: what the journal and the results know, and what becomes of it when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from toapis_async.cli import page
from toapis_async.cli.output import Output
from toapis_async.cli.page import row_of, rows_of
from toapis_async.engine.journal.records import Intent, Record, State
from toapis_async.events import TaskAccepted
from toapis_async.protocol.budget import Prices
from toapis_async.report import ReportRow, RowError
from toapis_async.report.pictures import Thumbnails

from .conftest import IN_A_BLINK, interrupt_at, results_of, run

if TYPE_CHECKING:
    from collections.abc import Generator

NOON_S = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
UNPRICED = Prices({})


def rows(*prompts: str) -> str:
    Path("rows.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    return "rows.txt"


def record(state: State, answer: dict[str, Any] | None = None, **changes: Any) -> Record:
    request = {"prompt": "a kite", "model": "m", "size": "16:9", "extra": {"quality": "high", "n": 2}}
    intent = Intent("b1", "d", json.dumps(request), run="1", place=3, stem="a-kite~1")
    given: dict[str, Any] = {
        "task_id": "t1",
        "query_id": "t1",
        "answer": None if answer is None else json.dumps(answer),
    }
    given |= {"intended_at": NOON_S, "accepted_at": NOON_S + 1, "ended_at": NOON_S + 30, "number": 1}
    return Record(intent, state, **(given | changes))


def done(**answer: Any) -> dict[str, Any]:
    times = {"created_at": NOON_S + 1, "completed_at": NOON_S + 24}
    return {"id": "t1", "status": "completed", "url": "http://x/1.png", **times, **answer}


# ---------------------------------------------------------------------------------------------- rows


def test_a_finished_record_is_told_in_full() -> None:
    row = row_of(record(State.COMPLETED, done(), files={0: "a.png", 1: "b.png"}, saved_at=NOON_S + 31), UNPRICED, None)
    assert (row.index, row.key, row.status, row.prompt, row.model) == (3, "a-kite~1", "done", "a kite", "m")
    assert (row.size, row.quality, row.resolution, row.n) == ("16:9", "high", None, 2)
    assert row.files == ("images/a.png", "images/b.png")
    assert (row.service_s, row.credits) == (23.0, None)
    moments = [row.submitted_at, row.completed_at, row.saved_at]
    assert [m and m.timestamp() - NOON_S for m in moments] == [0, 30, 31]


def test_what_ended_while_nobody_looked_ended_when_the_service_says() -> None:
    row = row_of(record(State.COMPLETED, done(), ended_at=NOON_S + 9_000, files={0: "a.png"}), UNPRICED, None)
    assert row.completed_at is not None
    assert row.completed_at.timestamp() == NOON_S + 24


def test_the_cost_is_what_was_billed_or_else_the_stated_price() -> None:
    prices = Prices({"m/*/high": Decimal("1.5")})
    billed = done(billing={"status": "settled", "credits": "4.25"})
    kept = {"files": {0: "a.png"}}
    assert row_of(record(State.COMPLETED, billed, **kept), prices, None).credits == Decimal("4.25")
    assert row_of(record(State.COMPLETED, done(), **kept), prices, None).credits == Decimal(3)
    assert row_of(record(State.ACCEPTED), prices, None).credits is None


LOST = RowError("DownloadFailed", "", "no route")


@pytest.mark.parametrize(
    ("state", "answer", "reason", "shown", "error"),
    [
        (State.INTENT, None, None, "running", None),
        (State.ACCEPTED, None, None, "running", None),
        (State.COMPLETED, done(), None, "running", None),
        (State.COMPLETED, done(), LOST, "failed", LOST),
        (State.WITHDRAWN, None, None, "waiting", None),
        (State.WITHDRAWN, None, LOST, "failed", LOST),
        (
            State.FAILED,
            {"id": "t1", "status": "failed", "error": {"code": "bad", "message": "no luck"}},
            None,
            "failed",
            RowError("TaskFailed", "bad", "no luck"),
        ),
        (
            State.REFUSED,
            {"status": 422, "error": {"code": "content_policy_violation", "message": "not this"}},
            None,
            "failed",
            RowError("ContentRefused", "content_policy_violation", "not this"),
        ),
    ],
)
def test_each_state_is_shown_as_what_it_means(
    state: State, answer: dict[str, Any] | None, reason: RowError | None, shown: str, error: RowError | None
) -> None:
    row = row_of(record(state, answer), UNPRICED, reason)
    assert (row.status, row.error) == (shown, error)


def test_reasons_that_only_the_results_know_are_shown() -> None:
    assert run("batch", rows("a", "b", "c [fail]"), "--out", "out", "--max-images", "2", *IN_A_BLINK).code == 1
    told = results_of(Path("out"))
    early = {
        "index": 9,
        "key": "early",
        "client_business_id": None,
        "error": {"type": "X", "code": None, "message": "y"},
    }
    with Path("out/results.jsonl").open("a") as file:
        file.write('[]\n{"error": 1}\n' + "[" * 100_000 + "\n")  # none of ours
        file.write(json.dumps(early) + '\n{"index": 10, "ke')  # a row that is being written
    shown = list(rows_of(Path("out"), "1", {}))
    unsent = [row for row in told if row["error"] and row["error"]["type"] == "BudgetExceeded"]
    assert len(shown) == 3 - len(unsent) + 1
    assert (shown[-1].key, shown[-1].status, shown[-1].error) == ("early", "failed", RowError("X", "", "y"))


# ---------------------------------------------------------------------------------------------- the command


def test_a_batch_leaves_a_page_and_report_makes_it_again() -> None:
    ran = run("batch", rows("a kite <b>", "[fail]"), "--out", "out", "--price", "2", *IN_A_BLINK)
    assert "  page     out/index.html\n" in ran.stderr
    text = Path("out/index.html").read_text("utf-8")
    assert "a kite \\u003cb\\u003e" in text
    assert "generation_failed" in text
    kite, failed = rows_of(Path("out"), "1", {})
    assert kite.submitted_at is not None
    assert kite.saved_at is not None
    assert kite.submitted_at <= kite.saved_at
    assert failed.saved_at is None
    Path("out/index.html").unlink()
    again = run("report", "out", "--price", "2")
    assert (again.code, again.stdout) == (0, "out/index.html\n")
    assert Path("out/index.html").is_file()
    assert run("report", "out", "--json").records == [{"page": "out/index.html"}]


def test_a_batch_without_report_leaves_no_page() -> None:
    assert run("batch", rows("a kite"), "--out", "out", "--no-report", *IN_A_BLINK).code == 0
    assert not Path("out/index.html").exists()


def test_a_folder_without_a_run_is_misuse() -> None:
    Path("out").mkdir()
    ran = run("report", "out")
    assert (ran.code, ran.stderr) == (2, "error: out holds no run: there is no journal out/journal.sqlite\n")
    assert run("report", "nowhere").code == 2


def test_a_page_of_somebody_else_is_left_alone_and_the_batch_went_well() -> None:
    Path("out").mkdir()
    Path("out/index.html").write_text("mine")
    ran = run("batch", rows("a kite"), "--out", "out", *IN_A_BLINK)
    assert ran.code == 0
    assert "the page could not be made: " in ran.stderr
    assert "is not a page that toapis-async made" in ran.stderr
    assert Path("out/index.html").read_text() == "mine"
    alone = run("report", "out")
    assert alone.code == 1
    assert alone.stderr.startswith("error: out/index.html: is not a page that toapis-async made")


def test_a_bug_in_the_page_does_not_change_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Path:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(page, "write_report", broken)
    ran = run("batch", rows("a kite"), "--out", "out", *IN_A_BLINK)
    assert (ran.code, "the page could not be made: a bug\n" in ran.stderr) == (0, True)


def test_an_interrupted_batch_has_a_page_of_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, TaskAccepted, 2)
    ran = run("batch", rows(*"abcdefgh"), "--out", "out", "--sandbox", "--speed", "1")
    assert (ran.code, "  page     out/index.html\n" in ran.stderr) == (130, True)
    assert '"state":"running"' in Path("out/index.html").read_text("utf-8")


def test_ctrl_c_twice_leaves_without_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, TaskAccepted, 2, times=2)
    ran = run("batch", rows(*"abcdefgh"), "--out", "out", "--sandbox", "--speed", "1")
    assert (ran.code, Path("out/index.html").exists(), "page" in ran.stderr) == (130, False, False)


def test_ctrl_c_while_the_page_is_made_leaves_it_and_the_batch_went_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object) -> Generator[ReportRow]:
        os.kill(os.getpid(), signal.SIGINT)
        given_up_s = time.monotonic() + 60
        while time.monotonic() < given_up_s:
            yield ReportRow(index=0, key="k", status="running", prompt="a kite")

    monkeypatch.setattr(page, "rows_of", endless)
    ran = run("batch", rows("a kite"), "--out", "out", *IN_A_BLINK)
    assert ran.code == 0
    assert "left without the page: `toapis report out` makes it\n" in ran.stderr
    assert sorted(path.name for path in Path("out").iterdir() if path.name not in {".sandbox", "thumbs"}) == [
        "images",
        "journal.sqlite",
        "journal.sqlite.lock",
        "results.jsonl",
    ]


def test_a_page_that_takes_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    note, rows_of, told = Output.note, page.rows_of, threading.Event()

    def noted(out: Output, text: str) -> None:
        note(out, text)
        if text.startswith("making the page"):
            told.set()

    def held_until_told(*arguments: Any) -> Generator[ReportRow]:
        assert told.wait(60)
        yield from rows_of(*arguments)

    monkeypatch.setattr(page, "TOLD_AFTER_S", 0.0)
    monkeypatch.setattr(Output, "note", noted)
    monkeypatch.setattr(page, "rows_of", held_until_told)
    ran = run("batch", rows("a kite"), "--out", "out", *IN_A_BLINK)
    assert "making the page: 0 of 1 row (Ctrl-C leaves without it)\n" in ran.stderr
    assert Path("out/index.html").is_file()


def test_thumbnails_are_begun_as_pictures_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(Thumbnails, "make", lambda _, files: begun.extend(files))
    assert run("batch", rows("a kite", "a boat"), "--out", "out", *IN_A_BLINK).code == 0
    assert sorted(begun) == sorted(f"images/{path.name}" for path in Path("out/images").glob("*.png"))


async def test_a_thumbnail_that_was_begun_is_finished_and_later_ones_are_left_to_the_page(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images/kite.png")
    thumbnails = Thumbnails(tmp_path)
    thumbnails._pool.submit(thumbnails._pictures.inspect, "images/kite.png").result()
    await thumbnails.aclose()
    thumbnails.make(["images/kite.png"])
    assert [path.name for path in (tmp_path / "thumbs/images").iterdir()] == ["kite.png.webp"]


def test_without_a_page_there_are_no_thumbnails() -> None:
    assert run("batch", rows("a kite"), "--out", "out", "--no-report", *IN_A_BLINK).code == 0
    assert not Path("out/thumbs").exists()
