"""`toapis batch` again, and `toapis status DIR`: what the command line makes of the journal in the folder."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toapis_async.cli import session
from toapis_async.cli.summary import RETRY_HINT
from toapis_async.engine.journal.file import JournalFile
from toapis_async.engine.journal.records import State
from toapis_async.events import TaskAccepted
from toapis_async.settings import Credentials, Journal

from ..engine.journal_kit import MINE, leave
from .conftest import IN_A_BLINK, Ran, interrupt_at, results_of, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toapis_async.sandbox import Sandbox

OUT = ("--out", "out")
JOURNAL = Path("out/journal.sqlite")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "toapis-journal"]


def rows(*lines: str) -> str:
    Path("rows.jsonl").write_text("\n".join(lines) + "\n")
    return "rows.jsonl"


def ran(*lines: str, flags: tuple[str, ...] = ()) -> Ran:
    return run("batch", rows(*lines), *OUT, *flags, *IN_A_BLINK)


# ------------------------------------------------------------------------------------------- going on


def test_rows_that_are_added_are_sent_and_the_others_are_not(sandboxes: list[Sandbox]) -> None:
    assert ran('"a"', '"b"').code == 0
    again = ran('"new"', '"b"', '"a"')
    assert again.code == 0
    assert "going on with 2 rows: 2 done" in again.stderr
    assert [row["index"] for row in results_of(Path("out"))] == [0, 1, 2]
    assert sandboxes[1].requests.count("submit") == 1
    assert len(sandboxes[1].ledger) == 3


def test_an_interrupted_run_goes_on_and_pays_for_each_row_once(
    monkeypatch: pytest.MonkeyPatch, sandboxes: list[Sandbox]
) -> None:
    lines = [f'"kite {number}"' for number in range(30)]
    with monkeypatch.context() as patched:
        interrupt_at(patched, TaskAccepted, 11)
        assert ran(*lines).code == 130
    again = ran(*lines)
    assert again.code == 0
    assert len(results_of(Path("out"))) == len(list(Path("out/images").iterdir())) == 30
    assert sandboxes[1].ledger.paid_twice() == ()
    assert len(sandboxes[1].ledger) == 30


def test_failed_rows_are_sent_again_only_when_asked(sandboxes: list[Sandbox]) -> None:
    lines = ('{"key": "f", "prompt": "[fail]"}', '"fine"')
    assert ran(*lines).code == 1
    assert ran(*lines).code == 1
    assert sandboxes[1].requests.count("submit") == 0
    assert ran(*lines, flags=("--retry-failed",)).code == 1
    assert sandboxes[2].requests.count("submit") == 1
    assert len({entry.client_business_id for entry in sandboxes[2].ledger}) == 3


def test_a_row_that_changed_under_its_key_is_a_failed_row(sandboxes: list[Sandbox]) -> None:
    assert ran('{"key": "k", "prompt": "kite"}').code == 0
    again = ran('{"key": "k", "prompt": "dragon"}')
    assert again.code == 1
    [row] = results_of(Path("out"))
    assert row["error"]["type"] == "InvalidRequest"
    assert "give the changed one another key" in row["error"]["message"]
    [entry] = sandboxes[1].ledger
    assert (row["task_id"], row["client_business_id"]) == (entry.task_id, entry.client_business_id)


# ------------------------------------------------------------------------------------------- one process at a time


def test_a_second_run_is_locked_out_and_touches_nothing_of_the_first(sandboxes: list[Sandbox]) -> None:
    assert ran('"a"').code == 0
    part = Path("out/images/.a.part")
    part.touch()
    before = Path("out/results.jsonl").read_bytes()
    account = Credentials(session.SANDBOX_KEY, f"{sandboxes[0].base_url}/v1")
    with closing(JournalFile.open(JOURNAL, account, same_account=False)):
        again = ran('"a"')
        assert again.code == 2
        assert f"process {os.getpid()} is using the journal" in again.stderr
        assert Path("out/results.jsonl").read_bytes() == before
        assert part.exists()
        assert run("status", "out").stdout.startswith("1 row sent: 1 done")
    assert ran('"a"').code == 0
    assert not part.exists()


def test_a_folder_whose_results_cannot_be_written_sends_nothing(sandboxes: list[Sandbox]) -> None:
    Path("out").mkdir()
    leave(JOURNAL, "b1", "kite", State.WITHDRAWN, run="1")
    Path("out/results.jsonl").mkdir()
    refused = ran('"a"')
    assert refused.code == 2
    assert "error: can't write to out: Is a directory\n" in refused.stderr
    assert sandboxes == []


# ------------------------------------------------------------------------------------------- the account


def test_another_key_is_refused_unless_it_is_said_to_be_the_same_account(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out").mkdir()
    leave(JOURNAL, "b1", "kite", State.ACCEPTED, run="1")
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-rotated")
    words = ("batch", rows('{"key": "bad", "prompt": "x"}'), *OUT, "--base-url", MINE.base_url)
    refused = run(*words)
    assert refused.code == 2
    assert "--same-account" in refused.stderr
    assert "sk-" not in refused.stderr
    told: list[Journal | None] = []

    def made(*_: object, journal: Journal | None, **__: object) -> object:
        told.append(journal)
        raise OSError(1, "far enough")

    monkeypatch.setattr(session, "ToAPIs", made)
    run(*words, "--same-account")
    assert [journal and journal.same_account for journal in told] == [True]


def test_the_sandbox_and_the_service_do_not_share_a_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran('"a"').code == 0
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-real")
    refused = run("batch", rows('"a"'), *OUT)
    assert refused.code == 2
    assert "belongs to http://127.0.0.1" in refused.stderr


# ------------------------------------------------------------------------------------------- odd files


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"milk and bread\n" * 100, "no journal, or a damaged one"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "no journal, or a damaged one"),
    ],
)
def test_a_journal_that_is_none_is_refused_in_one_line(content: bytes, told: str, sandboxes: list[Sandbox]) -> None:
    Path("out").mkdir()
    JOURNAL.write_bytes(content)
    for refused in (ran('"a"'), ran('"a"', flags=("--overwrite",)), run("status", "out")):
        assert refused.code == 2
        assert told in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert JOURNAL.read_bytes() == content
    assert sandboxes == []


def test_a_folder_in_place_of_the_journal_is_refused(sandboxes: list[Sandbox]) -> None:
    JOURNAL.mkdir(parents=True)
    refused = ran('"a"')
    assert refused.code == 2
    assert str(JOURNAL) in refused.stderr
    assert sandboxes == []


# ------------------------------------------------------------------------------------------- status DIR


def test_status_tells_every_row_that_is_not_done_and_why() -> None:
    Path("out").mkdir()
    leave(JOURNAL, "b0", "done", State.COMPLETED, run="1", place=0, files=("a.png",))
    leave(JOURNAL, "b1", "to fetch", State.COMPLETED, run="1", place=1)
    leave(JOURNAL, "b2", "runs", State.ACCEPTED, run="1", place=2, key="kite", task_id="task_2")
    leave(JOURNAL, "b3", "doubt", State.INTENT, run="1", place=3)
    leave(JOURNAL, "b4", "no", State.REFUSED, run="1", place=4)
    leave(JOURNAL, "b5", "failed", State.FAILED, run="1", place=5, task_id="task_5")
    leave(JOURNAL, "b6", "later", State.WITHDRAWN, run="1", place=6)
    told = run("status", "out")
    assert told.code == 0
    first, *lines = told.stdout.splitlines()
    assert first == ("7 rows sent: 1 done, 1 to fetch, 1 running, 1 in doubt, 1 not accepted, 1 failed, 1 refused")
    assert "not this" in next(line for line in lines if "b4" in line)
    assert "no luck" in next(line for line in lines if line.split()[0] == "failed")
    assert {line.split()[0] for line in lines} >= {"refused", "failed"}
    assert len(lines) == 5
    assert told.stderr.splitlines() == ["the same command as before goes on with it", RETRY_HINT]
    records = run("status", "out", "--json").records
    assert [record["state"] for record in records][:2] == ["completed", "completed"]
    assert records[0]["files"] == ["a.png"]
    assert records[5]["error"]["code"] == "bad"
    assert [record["index"] for record in records] == list(range(7))


def test_a_long_list_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toapis_async.cli.run_status.MOST_SHOWN", 2)
    Path("out").mkdir()
    for number in range(4):
        leave(JOURNAL, f"b{number}", f"kite {number}", State.INTENT, run="1", place=number)
    told = run("status", "out")
    assert told.stdout.splitlines()[-1] == "  … and 2 more; all of them with --json"
    assert len(run("status", "out", "--json").records) == 4


def test_status_of_a_finished_run_asks_for_nothing_more() -> None:
    Path("out").mkdir()
    leave(JOURNAL, "b0", "done", State.COMPLETED, run="1", place=0, files=("a.png",))
    told = run("status", "out")
    assert (told.stdout, told.stderr) == ("1 row sent: 1 done\n", "")


def test_status_of_a_folder_without_a_run_is_misuse() -> None:
    Path("out").mkdir()
    told = run("status", "out")
    assert told.code == 2
    assert "there is no journal" in told.stderr
    leave(JOURNAL, "b0", "a single submission", State.INTENT)
    assert run("status", "out").code == 2
