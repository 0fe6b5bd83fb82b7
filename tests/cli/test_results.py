"""results.jsonl: appended as rows complete, in the order of the input at the end."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.batch.item import BatchItem, RunningRow
from toapis_async.cli.output import CliError
from toapis_async.cli.results import Results, billing_record, time_record
from toapis_async.errors import TaskFailed
from toapis_async.models import Generation
from toapis_async.task import Billing

from .conftest import results_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def item(index: int, key: str = "", **fields: Any) -> BatchItem:
    return BatchItem(**{"index": index, "key": key or f"k{index}", "request": None, "ok": True, **fields})


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Results]:
    results = Results(tmp_path)
    with results.opened():
        yield results


def test_rows_are_there_at_once_and_in_order_at_the_end(tmp_path: Path) -> None:
    results = Results(tmp_path)
    with results.opened():
        for index in (2, 0, 5, 1):
            results.add(item(index))
        assert [row["index"] for row in results_of(tmp_path)] == [2, 0, 5, 1]
    assert [row["index"] for row in results_of(tmp_path)] == [0, 1, 2, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "results.jsonl"
    ]  # nothing came into images/ and videos/


def test_rows_that_came_in_order_are_left_as_they_are(tmp_path: Path) -> None:
    results = Results(tmp_path)
    with results.opened():
        for index in (0, 1):
            results.add(item(index))
        before = (tmp_path / "results.jsonl").stat().st_ino
    assert (tmp_path / "results.jsonl").stat().st_ino == before


def test_an_interrupted_run_keeps_what_it_knew(tmp_path: Path) -> None:
    results = Results(tmp_path)

    def interrupted() -> None:
        with results.opened():
            results.add(item(3))
            results.add(item(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [row["index"] for row in results_of(tmp_path)] == [1, 3]


def test_a_good_row_holds_files_and_billing(tmp_path: Path, results: Results) -> None:
    billing = Billing("settled", Decimal("174.60"), None)
    generation = Generation("t1", "b1", None, (), billing=billing)
    files = (tmp_path / "images" / "a-1.png", tmp_path / "images" / "a-2.png")
    row = results.add(item(0, "a", generation=generation, files=files, task_id="t1", client_business_id="b1"))
    assert row == results_of(tmp_path)[0]
    assert row == {
        "index": 0,
        "key": "a",
        "ok": True,
        "task_id": "t1",
        "client_business_id": "b1",
        "files": ["images/a-1.png", "images/a-2.png"],
        "error": None,
        "billing": {"status": "settled", "credits": "174.60", "cost_usd": None},
        "attempts": 0,
    }


def test_a_failed_row_holds_the_error_and_its_refund(results: Results) -> None:
    refund = Billing("refunded", None, Decimal("0.1"))
    error = TaskFailed("no luck", task_id="t1", code="generation_failed", billing=refund)
    row = results.add(item(0, ok=False, error=error))
    assert row["error"] == {"type": "TaskFailed", "code": "generation_failed", "message": "no luck"}
    assert row["billing"] == {"status": "refunded", "credits": None, "cost_usd": "0.1"}


def test_a_row_that_still_runs_has_no_files_and_says_so(tmp_path: Path, results: Results) -> None:
    row = results.add_running(RunningRow(0, "k0", None, "t1", "b1", 1), "ask later")
    assert results_of(tmp_path) == [row]
    assert (row["ok"], row["task_id"], row["client_business_id"], row["files"]) == (False, "t1", "b1", [])
    assert row["error"] == {"type": "StillRunning", "code": "", "message": "ask later"}
    assert row.keys() == results.add(item(1)).keys()


def test_keys_are_readable_and_half_a_surrogate_pair_does_no_harm(tmp_path: Path, results: Results) -> None:
    results.add(item(0, "红 \ud83d \x1b"))
    text = (tmp_path / "results.jsonl").read_text("utf-8")
    assert "红" in text
    assert "\x1b" not in text
    assert json.loads(text)["key"] == "红 \ud83d \x1b"


def test_a_run_without_a_row_writes_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    with Results(tmp_path).opened():
        pass
    assert not (tmp_path / "results.jsonl").exists()
    (tmp_path / "results.jsonl").write_text("{}\n")
    with Results(tmp_path).opened():
        pass
    assert (tmp_path / "results.jsonl").read_text() == "{}\n"


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    results = Results(tmp_path / "file" / "out")
    with pytest.raises(CliError, match=r"can't write to .*file.out: Not a directory"), results.opened():
        pass


def test_nothing_stays_nothing() -> None:
    assert billing_record(None) is None
    assert time_record(None) is None
