"""`toapis batch` from a file to a folder, against a sandbox over real sockets."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.batch.item import BatchItem
from toapis_async.cli import batch as command
from toapis_async.cli import session
from toapis_async.cli.batch_view import BatchProgress, PlainBatch
from toapis_async.cli.options import BatchOptions, Caps, Options
from toapis_async.cli.prompts import Checked
from toapis_async.cli.results import Results
from toapis_async.cli.run_status import JOURNAL
from toapis_async.engine.journal import file as journal_file
from toapis_async.engine.journal.file import lock_path
from toapis_async.events import SubmitLost, SubmitRetried, TaskAccepted
from toapis_async.sandbox import Fault, Sandbox

from .conftest import IN_A_BLINK, interrupt_at, results_of, run

if TYPE_CHECKING:
    from toapis_async.cli.output import Output

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "prompts.jsonl"


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
    assert "  failed   6 rows: " in ran.stderr
    assert "(generation_failed)\n" in ran.stderr
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


def test_the_same_command_again_pays_for_nothing_and_writes_the_same_results(
    one_row: Path, sandboxes: list[Sandbox]
) -> None:
    first = run("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    before = Path("out/results.jsonl").read_bytes()
    again = run("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    assert (first.code, again.code) == (0, 0)
    assert again.stdout == first.stdout
    assert "going on with 1 row: 1 done" in again.stderr
    assert Path("out/results.jsonl").read_bytes() == before
    assert len(sandboxes[1].ledger) == 1
    assert sandboxes[1].requests.count("submit") == 0


def test_overwrite_begins_anew_and_a_later_run_goes_on_with_that(one_row: Path, sandboxes: list[Sandbox]) -> None:
    for flags, charged in (((), 1), (("--overwrite",), 2), ((), 2), (("--overwrite",), 3)):
        assert run("batch", str(one_row), "--out", "out", *flags, *IN_A_BLINK).code == 0
        assert len(sandboxes[-1].ledger) == charged
        assert len(results_of(Path("out"))) == 1


def test_results_without_a_journal_are_never_paid_for_again_unasked(one_row: Path, sandboxes: list[Sandbox]) -> None:
    Path("out").mkdir()
    Path("out/results.jsonl").write_text("{}\n")
    refused = run("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    assert refused.code == 2
    assert "there is no journal beside it" in refused.stderr
    assert Path("out/results.jsonl").read_text() == "{}\n"
    assert sandboxes == []
    assert run("batch", str(one_row), "--out", "out", "--overwrite", *IN_A_BLINK).code == 0


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


def test_a_folder_that_another_process_works_in_is_left_as_it_is(one_row: Path) -> None:
    arguments = ("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    assert run(*arguments).code == 0
    before = {name: Path("out", name).read_bytes() for name in ("results.jsonl", "index.html")}
    with closing(journal_file._locked(Path("out/journal.sqlite").resolve())):
        ran = run(*arguments)
    assert (ran.code, "is using the journal" in ran.stderr) == (2, True)
    assert {name: Path("out", name).read_bytes() for name in before} == before


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


@pytest.fixture
def many_rows() -> Path:
    Path("many.txt").write_text("".join(f"kite number {number}\n" for number in range(500)))
    return Path("many.txt")


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_a_row_for_whatever_was_paid_for(
    monkeypatch: pytest.MonkeyPatch, sandboxes: list[Sandbox], many_rows: Path, times: int
) -> None:
    interrupt_at(monkeypatch, TaskAccepted, 3, times)
    arguments = ("batch", str(many_rows), "--out", "the out", "--sandbox", "--speed", "1", "--json")
    ran = run(*arguments)
    rows = results_of(Path("the out"))
    assert ran.code == 130
    assert sorted(ran.records, key=lambda row: int(row["index"])) == rows
    assert all((row["ok"], row["files"], row["error"]["type"]) == (False, [], "StillRunning") for row in rows)
    # Submissions that were under way when the second Ctrl-C came have lost their answers: their own id is known.
    ledger = {entry.client_business_id: entry.task_id for entry in sandboxes[0].ledger}
    assert {row["client_business_id"] for row in rows} >= ledger.keys()
    assert {row["task_id"] for row in rows} <= {None, *ledger.values()}
    assert all(row["task_id"] or "nobody knows whether it was accepted" in row["error"]["message"] for row in rows)
    known = next(row for row in rows if row["task_id"])
    assert known["error"]["message"] == (
        "interrupted while the service worked on it; still paid for: the same command picks it up"
    )
    told = ran.stderr.splitlines()
    assert len(told) <= 7
    assert "still running or not fetched yet, and paid for" in ran.stderr
    assert "the same command picks them up" in ran.stderr
    assert "0 of 500 done, 0 failed, 500 not finished" in ran.stderr
    assert "  results  the out/results.jsonl" in told
    assert told[-1] == "error: interrupted"
    standing = run("status", "the out")
    assert standing.code == 0
    assert re.match(r"\d+ rows sent: .*\d+ running", standing.stdout)
    assert run_status_in("the out", known["task_id"])["task_id"] == known["task_id"]


def run_status_in(folder: str, task_id: str) -> dict[str, Any]:
    os.chdir(folder)
    ran = run("status", task_id, "--sandbox", "--json")
    record: dict[str, Any] = json.loads(ran.stdout)
    return record


@pytest.mark.usefixtures("tries_again_at_once")
def test_ctrl_c_before_anything_was_sent_leaves_no_results(monkeypatch: pytest.MonkeyPatch, many_rows: Path) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-x")
    interrupt_at(monkeypatch, SubmitRetried, 1)
    ran = run("batch", str(many_rows), "--out", "out", "--base-url", "http://127.0.0.1:9")
    assert (ran.code, Path("out/results.jsonl").exists()) == (130, False)
    assert "results" not in ran.stderr
    assert "toapis status" not in ran.stderr


@pytest.mark.usefixtures("tries_again_at_once")
def test_a_service_that_cannot_be_reached_is_told_at_once(monkeypatch: pytest.MonkeyPatch, one_row: Path) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-x")
    interrupt_at(monkeypatch, SubmitRetried, 2)
    ran = run("batch", str(one_row), "--out", "out", "--base-url", "http://127.0.0.1:9")
    [told] = [line for line in ran.stderr.splitlines() if line.startswith("can't submit yet: ")]
    assert "127.0.0.1" in told
    assert told.endswith("; trying again (up to 120 s)")


async def test_rows_that_ended_unread_are_rows_too(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    items = [BatchItem(index, f"k{index}", None, True, files=(Path(f"out/images/{index}.png"),)) for index in range(3)]

    class Left:
        def statistics(self) -> Any:
            return SimpleNamespace(waiting_for_consumer=len(items))

        stopped_by = None

        async def __anext__(self) -> BatchItem:
            return items.pop(0)

        def running(self) -> tuple[BatchItem, ...]:
            ids: Any = ({"task_id": "t3"}, {"client_business_id": "b4"}, {"client_business_id": "b5"}, {})
            return tuple(BatchItem(index, f"k{index}", None, False, **known) for index, known in enumerate(ids, 3))

    left = command._Run(Checked(9, (), 0), Path("out"), "1", Caps(), BatchOptions())
    left._batch = Left()  # type: ignore[assignment]
    results = Results(Path("out"))
    opened = session.Session(Options(sandbox=True), out)
    opened.pending.note(SubmitLost(0.0, "b4", "no answer"))
    with results.opened():
        await left.leave(opened, results)
    rows = results_of(Path("out"))
    assert [(row["index"], row["ok"]) for row in rows] == [(0, True), (1, True), (2, True), (3, False), (4, False)]
    assert rows[4]["error"]["message"].endswith("nobody knows whether it was accepted: the same command looks it up")
    assert capsys.readouterr().err == (
        "1 task still running or not fetched yet, and paid for; 1 submission perhaps accepted, nobody knows: "
        "the same command picks them up\n"
    )
    assert rows[0]["files"] == ["images/0.png"]


def test_ids_that_cannot_be_written_are_told(monkeypatch: pytest.MonkeyPatch, many_rows: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "out/results.jsonl")

    interrupt_at(monkeypatch, TaskAccepted, 3)
    monkeypatch.setattr(Results, "add_running", full)
    ran = run("batch", str(many_rows), "--out", "out", "--sandbox", "--speed", "1")
    assert ran.code == 1
    assert ran.stderr.count("  task_img_") >= 3
    assert ran.stderr.endswith("error: out/results.jsonl: No space left on device\n")


@pytest.mark.parametrize(("quiet", "told"), [((), "reading prompts, one a line; end with Ctrl-D\n"), (("-q",), "")])
def test_a_terminal_is_told_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, quiet: tuple[str, ...], told: str
) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda stream: stream.name == "<stdin>")
    ran = run("batch", "-", "--out", "out", "--sandbox", *quiet, stdin="")
    assert ran.stderr == f"{told}error: there is no prompt in the input\n"


def test_a_bad_header_is_no_bad_row() -> None:
    Path("rows.csv").write_text("kye,prompt\nk,a kite\n")
    ran = run("batch", "rows.csv", "--out", "out", "--sandbox")
    assert (ran.code, len(ran.stderr.splitlines())) == (2, 1)
    assert ran.stderr.startswith("error: line 1: the header: unknown field 'kye': did you mean 'key'?")


def test_a_json_array_is_one_line_of_misuse() -> None:
    Path("my rows.json").write_text('[\n  {"prompt": "a kite"}\n]\n')
    ran = run("batch", "my rows.json", "--out", "out", "--sandbox")
    assert (ran.code, len(ran.stderr.splitlines())) == (2, 1)
    assert "jq -c '.[]' 'my rows.json'" in ran.stderr


def test_a_second_run_beside_the_first_leaves_its_results_alone(one_row: Path) -> None:
    out = Path("out")
    assert run("batch", str(one_row), "--out", "out", *IN_A_BLINK).code == 0
    before = (out / "results.jsonl").read_bytes()
    with closing(sqlite3.connect(lock_path(out / JOURNAL), isolation_level=None)) as first:
        first.execute("BEGIN IMMEDIATE")
        second = run("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    assert second.code == 2
    assert f"error: process {os.getpid()} is using the journal" in second.stderr
    assert (out / "results.jsonl").read_bytes() == before


def test_rows_that_the_full_disk_kept_from_being_sent_need_no_flag(
    one_row: Path, monkeypatch: pytest.MonkeyPatch, sandboxes: list[Sandbox]
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr("toapis_async.engine.journal.records.put_intent", full)
        assert run("batch", str(one_row), "--out", "out", *IN_A_BLINK).code == 1
    assert len(sandboxes[0].ledger) == 0
    assert results_of(Path("out"))[0]["error"]["type"] == "JournalError"
    ran = run("batch", str(one_row), "--out", "out", *IN_A_BLINK)
    assert (ran.code, len(sandboxes[1].ledger)) == (0, 1)


def test_what_a_kill_left_of_putting_results_in_order_is_removed(one_row: Path) -> None:
    Path("out").mkdir()
    Path("out/.results.jsonl.part").write_bytes(b"half a")
    assert run("batch", str(one_row), "--out", "out", *IN_A_BLINK).code == 0
    assert not Path("out/.results.jsonl.part").exists()


def test_what_a_kill_left_of_images_thumbnails_and_the_page_is_removed(one_row: Path) -> None:
    parts = [Path("out") / name for name in ("images/.k.ab.part", "thumbs/images/.ab.part", ".index.html.ab.part")]
    for part in parts:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"half a")
    assert run("batch", str(one_row), "--out", "out", *IN_A_BLINK).code == 0
    assert not [part for part in parts if part.exists()]


def test_an_empty_account_is_counted_alike_in_view_and_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that met the 402 were not sent, in both."""
    figures: list[str] = []
    drawn = BatchProgress.figures

    def noted(self: BatchProgress) -> list[str]:
        figures[:] = drawn(self)
        return figures

    monkeypatch.setattr(BatchProgress, "figures", noted)
    monkeypatch.setattr(PlainBatch, "close", PlainBatch.show)
    Path("p.txt").write_text("".join(f"kite {number}\n" for number in range(70)))
    started = Sandbox.__init__

    def empty(self: Sandbox, *args: Any, **options: Any) -> None:
        started(self, *args, **options | {"credits": 0.0})

    monkeypatch.setattr(Sandbox, "__init__", empty)
    ran = run("batch", "p.txt", "--out", "out", "--no-report", *IN_A_BLINK)
    assert ran.code == 1
    summary = next(line for line in ran.stderr.splitlines() if " of 70 done" in line)
    assert summary.startswith("0 of 70 done, 0 failed, 70 not sent in ")
    assert figures[1].strip() == "0 failed"
    assert figures[4].endswith(" not sent")


def test_the_summary_says_the_command_that_sends_what_failed_again() -> None:
    Path("my prompts.txt").write_text("a kite\n[fail] a boat\n")
    ran = run("batch", "my prompts.txt", "--out", "out", "--overwrite", *IN_A_BLINK)
    assert ran.code == 1
    assert "slowest" not in ran.stderr
    [command] = [line.strip() for line in ran.stderr.splitlines() if line.strip().startswith("toapis batch")]
    assert command == f"toapis batch 'my prompts.txt' --out out {' '.join(IN_A_BLINK)} --retry-failed"
    again = run(*shlex.split(command)[1:], "--verbose")
    assert "going on with 2 rows: 1 done, 1 failed" in again.stderr
    assert "  slowest " in again.stderr
