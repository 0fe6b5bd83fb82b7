"""`toapis batch` from a file to a folder, against a sandbox over real sockets."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.cli import session
from toapis_async.events import TaskAccepted
from toapis_async.sandbox import Fault, Sandbox

from .conftest import IN_A_BLINK, results_of, run

if TYPE_CHECKING:
    from toapis_async.events import Event

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "prompts.jsonl"


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


@pytest.fixture
def one_row() -> Path:
    Path("one.txt").write_text("a red kite\n")
    return Path("one.txt")


def test_the_example_becomes_a_folder_of_pictures() -> None:
    ran = run("batch", str(EXAMPLE), "--out", "out", *IN_A_BLINK)
    rows = results_of(Path("out"))
    assert (ran.code, len(rows), [row["error"] for row in rows]) == (0, 12, [None] * 12)
    files = [file for row in rows for file in row["files"]]
    assert len(files) == 13
    assert sorted(files) == sorted(path.relative_to("out").as_posix() for path in Path("out/images").iterdir())
    assert sorted(ran.stdout.splitlines()) == sorted(f"out/{file}" for file in files)
    assert {"images/red-kite.png", "images/tin-robot-1.png", "images/tin-robot-2.png"} <= set(files)
    assert "12 of 12 done, 0 failed in" in ran.stderr


def test_sixty_rows_are_all_accounted_for_and_never_too_fast(sandboxes: list[Sandbox]) -> None:
    Path("many.txt").write_text("".join(f"kite number {number}\n" for number in range(60)))
    ran = run("batch", "many.txt", "--out", "out", "--sandbox", "--speed", "200", "--json")
    rows = results_of(Path("out"))
    assert [row["index"] for row in rows] == list(range(60))
    assert all(row["ok"] and (Path("out") / row["files"][0]).stat().st_size for row in rows)
    assert sorted(ran.records, key=lambda row: int(row["index"])) == rows
    [sandbox] = sandboxes
    assert len(sandbox.ledger) == 60
    assert sandbox.requests.rate_limited == 0
    assert {entry.task_id for entry in sandbox.ledger} == {row["task_id"] for row in rows}


def test_failed_rows_are_rows_with_their_reasons() -> None:
    refused = "".join(f"[refuse] {number}\n" for number in range(6))
    Path("prompts.txt").write_text(f"fine\n\x1b[31m[fail]\n{refused}")
    ran = run("batch", "prompts.txt", "--out", "out", *IN_A_BLINK)
    assert ran.code == 1
    fine, failed, *others = results_of(Path("out"))
    assert fine["ok"]
    assert failed["error"]["type"] == "TaskFailed"
    assert failed["billing"]["status"] == "refunded"
    assert {row["error"]["code"] for row in others} == {"content_policy_violation"}
    assert all(row["files"] == [] and row["client_business_id"] for row in others)
    assert "1 of 8 done, 7 failed in" in ran.stderr
    assert "… and 2 more in out/results.jsonl" in ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr


def test_nothing_is_sent_when_a_line_is_bad(sandboxes: list[Sandbox]) -> None:
    Path("prompts.jsonl").write_text('"fine"\n{"prompt": "x", "size": "auto"}\n{"prompt": ""}\n')
    ran = run("batch", "prompts.jsonl", "--out", "out", "--sandbox")
    assert (ran.code, ran.stdout, sandboxes) == (2, "", [])
    first, second, last = ran.stderr.splitlines()
    assert first.startswith("error: line 2: size='auto'")
    assert second.startswith("error: line 3: prompt is empty")
    assert last == "error: 2 of 3 rows can't be right; nothing was sent"
    assert not Path("out").exists()


def test_a_long_list_of_bad_lines_is_cut() -> None:
    ran = run("batch", "-", "--out", "out", "--sandbox", "--format", "jsonl", stdin="7\n" * 52)
    assert ran.code == 2
    assert ran.stderr.splitlines()[-2:] == [
        "error: … and 2 more",
        "error: 52 of 52 rows can't be right; nothing was sent",
    ]


def test_an_empty_input_is_misuse() -> None:
    ran = run("batch", "-", "--out", "out", "--sandbox", stdin="\n")
    assert (ran.code, ran.stderr) == (2, "error: there is no prompt in the input\n")


@pytest.mark.parametrize(
    "stdin", ['{"prompt": "a kite", "key": "kite"}\n', b'\xef\xbb\xbf{"prompt": "a kite", "key": "kite"}']
)
def test_rows_come_from_stdin_too(stdin: str | bytes) -> None:
    ran = run("batch", "-", "--out", "out", "--quiet", *IN_A_BLINK, stdin=stdin)
    assert (ran.code, ran.stdout, ran.stderr) == (0, "out/images/kite.png\n", "")


def test_references_beside_the_file_are_uploaded(sandboxes: list[Sandbox]) -> None:
    run("generate", "a kite", "--out", "rows", *IN_A_BLINK)
    [picture] = Path("rows").glob("*.png")
    Path("rows/prompts.csv").write_text(f"key,prompt,reference_images\nk,the same at dusk,{picture.name}\n")
    assert run("batch", "rows/prompts.csv", "--out", "out", *IN_A_BLINK).code == 0
    [entry] = sandboxes[-1].ledger
    references: Any = entry.request["reference_images"]
    assert [url.startswith(sandboxes[-1].files_url) for url in references] == [True]


def test_earlier_results_are_never_paid_for_again_unasked(one_row: Path, sandboxes: list[Sandbox]) -> None:
    assert run("batch", str(one_row), "--out", "out", *IN_A_BLINK).code == 0
    before = Path("out/results.jsonl").read_bytes()
    again = run("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    assert again.code == 2
    assert "out/results.jsonl holds the results of an earlier run" in again.stderr
    assert Path("out/results.jsonl").read_bytes() == before
    assert len(sandboxes) == 1
    assert run("batch", str(one_row), "--out", "out", "--overwrite", *IN_A_BLINK).code == 0
    assert len(sandboxes[1].ledger) == 2
    assert len(results_of(Path("out"))) == 1


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_sent(one_row: Path, sandboxes: list[Sandbox]) -> None:
    ran = run("batch", str(one_row), "--out", "one.txt/out", "--sandbox")
    assert (ran.code, sandboxes) == (2, [])
    assert ran.stderr == "error: can't write to one.txt/out: Not a directory\n"


def test_a_sandbox_that_cannot_start_leaves_no_results(one_row: Path) -> None:
    Path("out").mkdir()
    Path("out/.sandbox").touch()
    ran = run("batch", str(one_row), "--out", "out", "--sandbox")
    assert (ran.code, ran.stderr) == (1, "error: the sandbox can't start: Not a directory\n")
    assert not Path("out/results.jsonl").exists()


def test_answers_of_429_are_counted(one_row: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Sandbox.start

    async def strict(self: Sandbox) -> None:
        self.faults.script("submit", Fault.RATE_LIMITED.lasting(1))
        await start(self)

    monkeypatch.setattr(Sandbox, "start", strict)
    ran = run("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    assert ran.code == 0
    assert "the service said 429 (too fast) once\n" in ran.stderr


def test_without_a_key_both_ways_out_are_named(one_row: Path) -> None:
    ran = run("batch", str(one_row), "--out", "out")
    assert ran.code == 2
    assert "TOAPIS_API_KEY" in ran.stderr
    assert "--sandbox" in ran.stderr
    assert not Path("out").exists()


@pytest.mark.usefixtures("on_terminal")
def test_on_a_terminal_there_is_a_bar(one_row: Path) -> None:
    ran = run("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    assert (ran.code, len(ran.stdout.splitlines())) == (0, 1)
    assert "1/1 done  0 failed" in ran.stderr


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_keeps_what_is_known_and_names_what_still_runs(
    monkeypatch: pytest.MonkeyPatch, sandboxes: list[Sandbox], times: int
) -> None:
    accepted: list[str] = []

    def note(self: session.Pending, event: Event) -> None:
        pending_note(self, event)
        if isinstance(event, TaskAccepted):
            accepted.append(event.task_id)
            if len(accepted) == 3:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)

    pending_note = session.Pending.note
    monkeypatch.setattr(session.Pending, "note", note)
    Path("many.txt").write_text("".join(f"kite number {number}\n" for number in range(500)))
    ran = run("batch", "many.txt", "--out", "out", "--sandbox", "--speed", "1", "--json")
    assert ran.code == 130
    assert [task_id for task_id in accepted if task_id not in ran.stderr] == []
    # Submissions that were under way when the second Ctrl-C came have lost their answers: they are named as doubtful.
    assert all(
        entry.task_id in ran.stderr or str(entry.client_business_id) in ran.stderr for entry in sandboxes[0].ledger
    )
    assert "still running or not fetched yet, and paid for; to ask: cd out && toapis status --sandbox ID" in ran.stderr
    assert "0 of 500 done, 0 failed, 500 not finished" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr.endswith("error: interrupted\n")
    known = run_status_in("out", accepted[0])
    assert known["task_id"] == accepted[0]


def run_status_in(folder: str, task_id: str) -> dict[str, Any]:
    os.chdir(folder)
    ran = run("status", task_id, "--sandbox", "--json")
    record: dict[str, Any] = json.loads(ran.stdout)
    return record
