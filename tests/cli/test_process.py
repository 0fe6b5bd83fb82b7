"""The command as a process: what help costs, signals, and `python -m`."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

import toapis_async
from toapis_async import __main__ as entry
from toapis_async.cli import main

from .conftest import run

if TYPE_CHECKING:
    from collections.abc import Iterator

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TOAPIS = (sys.executable, "-W", "error", "-m", "toapis_async")  # in debug mode, asyncio would write of slow steps


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in main.commands)])
def test_help_needs_neither_aiohttp_nor_rich(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from toapis_async.cli import main\n"
        "try:\n    main(sys.argv[1:], prog_name='toapis')\n"
        "finally:\n    heavy = {'aiohttp', 'rich', 'anyio', 'cattrs', 'PIL'} & set(sys.modules)\n"
        "    sys.stderr.write(' '.join(sorted(heavy)))\n"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: toapis")


def test_ctrl_c_while_modules_are_loaded_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Loading(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "toapis_async.cli", Loading("toapis_async.cli"))
    with pytest.raises(SystemExit) as left:
        entry.main()
    assert (left.value.code, capsys.readouterr().err) == (130, "error: interrupted\n")


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([*TOAPIS, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, f"toapis, version {toapis_async.__version__}\n")


def test_every_command_has_an_example() -> None:
    for name in main.commands:
        assert f"  toapis {name} " in run(name, "--help").stdout, name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert f"_TOAPIS_COMPLETE={shell}_complete" in ran.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("toapis batch --dry", ["plain,--dry-run"]),
        ("toapis generate kite --quality ", ["plain,low", "plain,medium", "plain,high"]),
        ("toapis generate kite --size 16", ["plain,16:9"]),
        ("toapis generate kite --resolution 2", ["plain,2k"]),
        ("toapis generate kite --model gpt-image-2-v", ["plain,gpt-image-2-vip"]),
        ("toapis generate kite --kind video --model sora-2-o", ["plain,sora-2-official"]),
        ("toapis models seedance-2-5-g", ["plain,seedance-2-5-global"]),
        ("toapis batch p.csv --out ", ["dir,"]),
        ("toapis status o", ["dir,o"]),
        ("toapis balance --first", []),
    ],
)
def test_the_completion_knows_commands_options_and_values(words: str, offered: list[str]) -> None:
    asked = {"_TOAPIS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert CliRunner(env=asked).invoke(main, prog_name="toapis").stdout.split() == offered


def test_help_lists_options_in_groups_and_only_those_that_are_heeded() -> None:
    balance = run("balance", "--help").stdout
    assert re.findall(r"^  (?:-\w, )?(--[a-z-]+)", balance, re.MULTILINE) == [
        *("--user", "--base-url", "--proxy", "--sandbox", "--json", "--quiet", "--help"),
    ]
    groups = re.findall(r"^([A-Z].*):$", run("batch", "--help").stdout, re.MULTILINE)
    assert groups == [
        *("The rows", "Files", "Money", "The service", "Pace and patience", "Without an account", "Output"),
    ]
    assert re.findall(r"^([A-Z].*):$", run("--help").stdout, re.MULTILINE) == [
        *("Options", "Make", "Look after", "Account", "Around it"),
    ]


def test_a_common_option_that_a_command_does_not_heed_is_taken_all_the_same() -> None:
    assert run("balance", "--sandbox", "--tier", "vip", "--max-in-flight", "9").code == 0


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(  # noqa: S603
        [*TOAPIS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(stream: IO[str] | None, start: str) -> str:
    assert stream is not None
    return next(line for line in stream if line.startswith(start))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_names_its_task_and_shows_no_traceback(number: signal.Signals) -> None:
    with started("generate", "a kite", "--sandbox", "--speed", "4") as process:
        task_id = lines_until(process.stderr, "accepted as ").split()[-1]
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert f"  {task_id}  ta-" in stderr
    assert "1 task (above) still running or not fetched yet, and paid for" in stderr
    assert "Traceback" not in stderr
    assert stderr.endswith("error: interrupted\n")
    [journal] = Path().glob("*.journal")
    command = re.search(r"to fetch:\n  toapis (fetch .*)\n", stderr)
    assert command is not None
    saved = run(*shlex.split(command[1]), "--speed", "1000")
    assert (saved.code, saved.stdout) == (0, f"{journal.with_suffix('.png')}\n")
    assert not list(Path().glob("*.journal*"))


def on_a_terminal(columns: int, *arguments: str, until: str = "") -> str:
    """What a terminal of so many columns is sent, with the escape sequences taken out; Ctrl-C comes once it was sent
    `until`."""
    return ESCAPES.sub("", sent_to_a_terminal(columns, *arguments, until=until))


def screen_after(columns: int, *arguments: str, until: str) -> str:
    """What a terminal of so many columns shows in the end: what was sent, with the cursor's moves and erasures done."""
    lines, row, column = [[" "] * columns], 0, 0
    for escape, text in re.findall(
        r"\x1b\[([0-9;?]*[A-Za-z])|([^\x1b])", sent_to_a_terminal(columns, *arguments, until=until)
    ):
        if escape.endswith("A"):
            row = max(row - int(escape[:-1] or 1), 0)
        elif escape.endswith("K"):
            lines[row] = [" "] * columns if escape == "2K" else lines[row][:column] + [" "] * (columns - column)
        elif text == "\r":
            column = 0
        elif text:
            if text == "\n" or column == columns:
                row, column = row + 1, 0 if text != "\n" else column
            lines += [[" "] * columns for _ in range(row + 1 - len(lines))]
            if text != "\n":
                lines[row][column] = text
                column += 1
    return "\n".join("".join(line).rstrip() for line in lines)


def sent_to_a_terminal(columns: int, *arguments: str, until: str = "") -> str:
    """The same with the escape sequences."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    env = {"TERM": "xterm-256color", "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = [sys.executable, "-W", "error", "-m", "toapis_async", *arguments]  # -X dev would print slow callbacks
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env)  # noqa: S603
    os.close(theirs)
    sent = ""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # the end of a terminal is an error
        while chunk := terminal.read(65_536):
            sent += chunk.decode(errors="replace")
            if until and until in ESCAPES.sub("", sent):
                process.send_signal(signal.SIGINT)
                until = ""
    process.wait()
    return sent


@pytest.mark.parametrize("columns", [60, 120])
def test_a_terminal_of_any_width_shows_a_task_on_one_line_and_the_command_that_fetches_it(columns: int) -> None:
    sent = on_a_terminal(columns, "generate", "a kite", "--sandbox", "--speed", "2", until="queued ━━━")
    seen = [line for line in re.split(r"[\r\n]+", sent) if "━" in line]
    assert seen
    assert all(cell_len(line) < columns for line in seen)
    assert any("queued ━━━━━━━━━━━━━━━━━━━━" in line for line in seen)  # the bar has its 20 columns
    assert any("task_img_" in line for line in seen) == (columns == 120)
    assert re.search(r"to fetch:\s+toapis fetch task_img_\w+ --sandbox\s", sent)
    assert ("sandbox at 2\N{MULTIPLICATION SIGN}" in sent) == (columns == 120)


@pytest.mark.parametrize("columns", [60, 120])
def test_a_terminal_of_any_width_shows_the_figures_of_a_batch_whole(columns: int, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"{number} kites {'over the sea ' * 20}\n" for number in range(9)))
    sent = on_a_terminal(columns, "batch", str(tmp_path / "p.txt"), "--out", "out", "--sandbox", "--speed", "20")
    live, _, _ = sent.partition("9 of 9 done")
    figures = re.findall(r"\d/9 done   ?\d failed  \d in flight +[\d,]+ images/min", live)
    assert figures
    assert re.search(r"\d s elapsed  \d+ s left", live)
    assert all(cell_len(line) <= columns for line in re.split(r"[\r\n]+", live))


@pytest.mark.parametrize("columns", [60, 120])
def test_nothing_of_a_view_is_left_behind_after_ctrl_c(columns: int, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"{number} kites {'over the sea ' * 20}\n" for number in range(9)))
    batch = ("batch", str(tmp_path / "p.txt"), "--out", "out", "--sandbox", "--speed", "4", "--no-report")
    shown = screen_after(columns, *batch, until="9 in flight")
    assert "0 of 9 done, 0 failed, 9 not finished in " in shown
    assert not re.search("━|in flight|images/min|elapsed", shown), shown
    one = screen_after(columns, "generate", "a kite", "--sandbox", "--speed", "2", until="queued ━━━")
    assert "to fetch:" in one
    assert not re.search("━|queued|%", one), one


def test_a_sandbox_serves_another_process_until_ctrl_c() -> None:
    with started("sandbox", "--port", "0", "--files-port", "0", "--speed", "1000", "--json") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        models = subprocess.run(  # noqa: S603
            [*TOAPIS, "models", "--base-url", ready["base_url"]],
            env={"TOAPIS_API_KEY": ready["api_key"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (models.returncode, models.stderr) == (0, "")
        assert "gpt-image-2-vip" in models.stdout.split()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (0, "")
    assert "stopped after 1 request: 0 tasks in the books" in stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "--json <&- >&- 2>&-", "> /dev/full", "--json | true"])
def test_with_closed_streams_the_work_is_done_and_the_exit_code_is_right(tmp_path: Path, closed: str) -> None:
    (tmp_path / "p.txt").write_text("a kite\na boat\n")
    command = f"'{sys.executable}' -m toapis_async batch p.txt --out out --sandbox --speed 1000 {closed}"
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == (1 if "full" in closed else 0), done.stderr
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == 2
    assert (tmp_path / "out" / "index.html").is_file()
    assert "Traceback" not in done.stderr
    refused = ["bash", "-c", f"'{sys.executable}' -m toapis_async batch missing.txt --out out {closed}"]
    again = subprocess.run(refused, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    assert "|" in closed or again.returncode == 2
