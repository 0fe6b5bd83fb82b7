"""What is printed, and where."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from toapis_async.cli.output import (
    CliError,
    Output,
    calling_on_signals,
    error_record,
    exit_code_of,
    interruptible,
    plain,
    reported,
)
from toapis_async.errors import (
    ClientStateError,
    ContentRefused,
    DownloadFailed,
    InvalidRequest,
    TaskFailed,
    ToAPIsError,
    TransportError,
)
from toapis_async.protocol.wording import count, duration

if TYPE_CHECKING:
    from .conftest import Recorder


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red kite, 红风筝, Übermut", "a red kite, 红风筝, Übermut"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("half \ud83d", "half \\ud83d"),
        ("family 👩\u200d👧, wide\u3000space", "family 👩\u200d👧, wide\u3000space"),
    ],
)
def test_text_of_others_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7_790, "2 h 10 min"),
        (7_199, "2 h 00 min"),
    ],
)
def test_durations_are_told_as_people_read_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_counts_agree_with_their_noun() -> None:
    assert [count(n, "image") for n in (0, 1, 1_200)] == ["0 images", "1 image", "1,200 images"]


def test_results_go_to_stdout_and_the_rest_to_stderr(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    out.result("kite.png")
    out.record({"never": "shown"})
    out.note("1 image in 0.4 s")
    out.error("too bad")
    assert capsys.readouterr() == ("kite.png\n", "1 image in 0.4 s\nerror: too bad\n")


def test_with_json_stdout_holds_records_only(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json=True, quiet=True)
    out.result("kite.png")
    out.record({"prompt": "\x1b红"})
    out.note("not with --quiet")
    out.warn("always")
    assert capsys.readouterr() == ('{"prompt": "\\u001b\\u7ea2"}\n', "always\n")


def test_what_the_stream_cannot_encode_is_escaped(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    out.result("红.png")
    assert written.getvalue() == b"\\u7ea2.png\n"


def test_a_reader_that_left_is_no_error(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        out.result("nobody reads this")
        out.result("nor this")


def test_a_full_disk_is_told_once_and_makes_the_output_incomplete(
    out: Output, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        out.result("kite.png")
        out.result("another.png")
    assert capsys.readouterr().err == "error: can't write to standard output: No space left on device\n"
    assert out.is_incomplete

    async def done() -> int:
        return 0

    assert asyncio.run(interruptible(out, done())) == 1


@pytest.mark.parametrize("without", [False, True])
def test_signals_call_back_also_on_loops_that_cannot_handle_them(
    monkeypatch: pytest.MonkeyPatch, without: bool
) -> None:
    if without:  # as on Windows

        def refuse(*_: object) -> bool:
            raise NotImplementedError

        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", refuse)
        monkeypatch.setattr(asyncio.SelectorEventLoop, "remove_signal_handler", refuse)

    async def interrupted() -> list[int]:
        called: list[int] = []
        with calling_on_signals(lambda: called.append(len(called))):
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        return called

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert asyncio.run(interrupted()) == [0, 1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_lines_for_a_terminal_go_above_the_live_display(
    out: Output, above: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out.live = above
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    out.result("kite.png")
    out.note("stderr is piped")
    assert above.lines == ["kite.png"]
    assert capsys.readouterr() == ("", "stderr is piped\n")


def test_a_dumb_terminal_gets_plain_lines(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert out.on_terminal
    monkeypatch.setenv("TERM", "dumb")
    assert not out.on_terminal


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InvalidRequest("prompt is empty"), 2, "error: prompt is empty"),
        (ClientStateError("no API key"), 2, "error: no API key"),
        (TransportError("no route"), 1, "error: no route"),
        (CliError("can't start", 1), 1, "error: can't start"),
        (CliError("bad rows"), 2, "error: bad rows"),
        (FileNotFoundError(2, "No such file", "kite.png"), 1, "error: kite.png: No such file"),
        (OSError("disk full"), 1, "error: disk full"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_each_kind_of_failure_is_one_line_and_an_exit_code(
    error: BaseException, code: int, told: str, out: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.exceptions.Exit) as left, reported(out):
        raise error
    assert left.value.exit_code == code
    assert capsys.readouterr().err == f"{told}\n"


def test_an_error_is_told_to_machines_with_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    error: ToAPIsError = TaskFailed("no luck", task_id="t1", client_business_id="b1", code="generation_failed")
    Output(json=True, quiet=False).failure(error)
    told = capsys.readouterr()
    assert json.loads(told.out) == {
        "ok": False,
        "asked": None,
        "task_id": "t1",
        "client_business_id": "b1",
        "error": {"type": "TaskFailed", "code": "generation_failed", "message": "no luck"},
    }
    assert told.err == "error: task t1 failed: no luck (generation_failed)\n"


def test_the_files_that_were_saved_nevertheless_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    error = DownloadFailed("image 2 of 2: HTTP 404", files=(Path("a-1.png"),), missing=(2,))
    Output(json=False, quiet=False).failure(error)
    assert capsys.readouterr() == ("a-1.png\n", "error: image 2 of 2: HTTP 404\n")
    Output(json=True, quiet=False).failure(error)
    assert json.loads(capsys.readouterr().out)["files"] == ["a-1.png"]


def test_an_error_about_one_of_several_names_it_once(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    out.failure(TransportError("no route"), name="kite.png")
    out.failure(InvalidRequest("kite.png is no picture"), name="kite.png")
    assert capsys.readouterr().err == "error: kite.png: no route\nerror: kite.png is no picture\n"


def test_an_error_without_a_code_has_none_in_its_record() -> None:
    refused = ContentRefused("no", status=422)
    assert error_record(refused) == {"type": "ContentRefused", "code": None, "message": "no"}
    assert exit_code_of(refused) == 1
