"""`toapis status DIR`: how a run stands, by its journal alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toapis_async.cli.run_status import MOST_SHOWN
from toapis_async.cli.summary import RETRY_HINT
from toapis_async.events import TaskAccepted

from .conftest import IN_A_BLINK, interrupt_at, run

if TYPE_CHECKING:
    import pytest


def test_what_failed_is_named_with_its_reason_in_columns() -> None:
    Path("rows.jsonl").write_text('{"key": "k", "prompt": "[fail]"}\n{"key": "long", "prompt": "[refuse]"}\n"a kite"\n')
    assert run("batch", "rows.jsonl", "--out", "out", "--no-report", *IN_A_BLINK).code == 1
    ran = run("status", "out")
    assert ran.code == 0
    head, first, second = ran.stdout.splitlines()
    assert head == "3 rows sent: 1 done, 1 failed, 1 refused"
    assert first.startswith("  failed   k     call upstream API failed")
    assert second.startswith("  refused  long  ")
    assert ran.stderr == f"{RETRY_HINT}\n"  # and there is nothing to go on with


def test_what_runs_is_named_with_its_task_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("rows.txt").write_text("".join(f"kite {number}\n" for number in range(MOST_SHOWN + 5)))
    interrupt_at(monkeypatch, TaskAccepted, MOST_SHOWN + 3)
    assert run("batch", "rows.txt", "--out", "out", "--no-report", "--sandbox", "--speed", "1").code == 130
    ran = run("status", "out")
    head, *lines, rest = ran.stdout.splitlines()
    rows = int(head.split()[0])
    assert rows >= MOST_SHOWN + 3
    assert len(lines) == MOST_SHOWN
    assert lines[0].startswith("  running  kite-0~")
    assert "  task_img_" in lines[0]
    assert rest == f"  … and {rows - MOST_SHOWN} more; all of them with --json"
    assert ran.stderr == "the same command as before goes on with it\n"
    assert len(run("status", "out", "--json").records) == rows


def test_a_folder_without_a_run_is_misuse() -> None:
    Path("out").mkdir()
    ran = run("status", "out")
    assert (ran.code, ran.stderr) == (2, "error: out holds no run: there is no journal out/journal.sqlite\n")
