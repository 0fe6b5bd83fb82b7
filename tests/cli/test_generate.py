"""`toapis generate`: from a prompt to files."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toapis_async.batch.item import RunningRow
from toapis_async.cli.options import Options
from toapis_async.cli.output import CliError, Output
from toapis_async.cli.session import Pending, Session, settings_of
from toapis_async.events import SubmitLost, TaskAccepted, TaskEnded
from toapis_async.models import Generation
from toapis_async.settings import TIERS, Settings
from toapis_async.task import TaskStatus

from .conftest import IN_A_BLINK, interrupt_at, late_at, run

if TYPE_CHECKING:
    from toapis_async.sandbox import Sandbox


def test_the_images_are_saved_and_their_paths_printed() -> None:
    ran = run("generate", "a red kite", "-n", "2", "--size", "3:2", "--out", "kites", *IN_A_BLINK)
    assert ran.code == 0
    files = ran.stdout.splitlines()
    assert sorted(files) == sorted(str(path) for path in Path("kites").glob("*.png"))
    assert len(files) == 2
    accepted, took = ran.stderr.splitlines()
    assert accepted.startswith("accepted as task_img_")
    assert took.startswith("2 images in ")


def test_machines_get_one_record() -> None:
    ran = run("generate", "a red kite", "--json", "--quiet", "--client-business-id", "mine-1", *IN_A_BLINK)
    [record] = ran.records
    assert (ran.code, ran.stderr) == (0, "")
    assert record["ok"]
    assert record["client_business_id"] == "mine-1"
    assert record["model"] == "gpt-image-2-vip"
    assert record["completed_at"].endswith("+00:00")
    assert [Path(file).is_file() for file in record["files"]] == [True]


def test_references_are_files_or_addresses_in_their_order() -> None:
    [first] = run("generate", "a kite", *IN_A_BLINK).stdout.splitlines()
    options = ("--reference", "https://files.toapis.com/a.png", "--reference", first)
    assert run("generate", "the same at dusk", *options, *IN_A_BLINK).code == 0


def test_a_dash_is_the_prompt_on_standard_input(sandboxes: list[Sandbox]) -> None:
    assert run("generate", "-", *IN_A_BLINK, stdin="\ufeffa red kite,\nat dusk\n").code == 0
    assert [entry.request["prompt"] for entry in sandboxes[0].ledger] == ["a red kite,\nat dusk"]


def test_fewer_images_than_asked_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(self: Generation, folder: Path, **_: object) -> tuple[Path, ...]:
        return (folder / "kite.png",)

    monkeypatch.setattr(Generation, "save", one)
    ran = run("generate", "a kite", "-n", "3", "--quiet", *IN_A_BLINK)
    assert (ran.code, ran.stderr) == (0, "the service made fewer images than asked for: 1 of 3\n")


def test_a_proxy_is_used_for_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-mine")
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=_refuse_one, args=(door,))
        thread.start()
        ran = run(
            "balance", "--base-url", "https://toapis.invalid", "--proxy", f"http://127.0.0.1:{door.getsockname()[1]}"
        )
        thread.join()
    assert (ran.code, "407" in ran.stderr) == (1, True)
    refused = run("balance", "--sandbox", "--proxy", "http://127.0.0.1:1")
    assert (refused.code, "leave --proxy out" in refused.stderr) == (2, True)
    assert "proxy must be an http(s) URL" in run("balance", "--proxy", "ftp://x").stderr


def _refuse_one(door: socket.socket) -> None:
    connection, _ = door.accept()
    with connection:
        assert connection.recv(300).startswith(b"CONNECT toapis.invalid:443 ")
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(("stdin", "problem"), [(b" \n", "there is no prompt on"), (b"\xff", "is not UTF-8")])
def test_standard_input_without_a_prompt_is_misuse_and_sends_nothing(
    sandboxes: list[Sandbox], stdin: bytes, problem: str
) -> None:
    ran = run("generate", "-", *IN_A_BLINK, stdin=stdin)
    assert (ran.code, problem in ran.stderr, sandboxes) == (2, True, [])


@pytest.mark.usefixtures("on_terminal")
def test_a_prompt_is_never_markup() -> None:
    ran = run("generate", "[bold]kite[/bold] [/nonsense]", *IN_A_BLINK)
    assert ran.code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("kite", "--size", "auto"), 2, "size='auto' is not supported"),
        (("",), 2, "prompt is empty"),
        (("kite", "--reference", "missing.png"), 2, "missing.png"),
        (("kite [refuse]",), 1, "HTTP 422"),
        (("kite [fail]",), 1, "generation_failed"),
        (("kite", "--first-poll-s", "1e9"), 2, "first_poll_s=1000000000.0 is out of range"),
    ],
)
def test_what_goes_wrong_is_one_line(arguments: tuple[str, ...], code: int, told: str) -> None:
    ran = run("generate", *arguments, "--json", "--quiet", *IN_A_BLINK)
    assert ran.code == code
    [line] = ran.stderr.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert all(record["ok"] is False for record in ran.records)


def test_a_time_out_names_the_task_that_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    late_at(monkeypatch, TaskAccepted, 600)
    ran = run("generate", "a kite", "--sandbox", "--speed", "0.01", "--timeout-s", "600", "--json")
    assert ran.code == 1
    [record] = ran.records
    assert record["error"]["type"] == "WaitTimeout"
    assert "it still runs and is still paid for" in ran.stderr
    assert f"  {record['task_id']}  {record['client_business_id']}\n" in ran.stderr
    assert f"to fetch:\n  toapis fetch {record['task_id']} --sandbox\n" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--nonsense",), "error: no such option"),
        (
            ("over", "the sea's end"),
            "into quotes: toapis generate 'a kite over the sea'\"'\"'s end' (see toapis generate",
        ),
        (("--sandbox", "--base-url", "http://127.0.0.1:1"), "leave --base-url out"),
        (("--speed", "20"), "add --sandbox"),
        (("--seed", "0"), "add --sandbox"),
        (("--sandbox", "--speed", "0"), "--speed"),
        (
            ("--base-url", "http://example.org"),
            "TOAPIS_API_KEY or TOAPIS_API_KEY_FILE; an account at https://toapis.com makes keys",
        ),
    ],
)
def test_options_that_cannot_be_right_are_misuse(arguments: tuple[str, ...], told: str) -> None:
    ran = run("generate", "a kite", *arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert len(ran.stderr.splitlines()) == 1
    assert told in ran.stderr


def test_without_arguments_there_is_help() -> None:
    assert "Usage: toapis" in "".join([(ran := run()).stdout, ran.stderr])
    assert run("nonsense").stderr == "error: no such command 'nonsense' (see toapis --help)\n"
    assert run("--nonsense").stderr.endswith(" (see toapis --help)\n")


def test_the_key_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-secret")
    ran = run("generate", "a kite", "--base-url", "http://example.org")
    assert ran.code == 2
    assert "use https://" in ran.stderr
    assert "sk-secret" not in ran.stderr


@pytest.mark.parametrize(
    ("options", "folder", "told"),
    [
        (Options(sandbox=True), "kites", "toapis fetch t1 t2 --out kites --sandbox"),
        (Options(sandbox=True), "my kites; ls", "toapis fetch t1 t2 --out 'my kites; ls' --sandbox"),
        (Options(), ".", "toapis fetch t1 t2"),
        (Options(base_url="https://a.de/?x"), ".", "toapis fetch t1 t2 --base-url 'https://a.de/?x'"),
    ],
)
def test_the_way_to_fetch_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, out: Output, options: Options, folder: str, told: str
) -> None:
    monkeypatch.setattr("toapis_async.settings.Credentials.resolve", lambda *_: None)
    assert Session(options, out).fetch_command(["t1", "t2"], Path(folder)) == told


def test_a_state_folder_that_is_not_the_sandboxs_is_refused() -> None:
    Path(".sandbox").mkdir()
    Path(".sandbox/sandbox.sqlite3").write_text("no database, but long enough to look like one" * 9)
    ran = run("generate", "a kite", "--sandbox")
    assert ran.code == 2
    assert ran.stderr.startswith("error: ")


def test_a_folder_the_sandbox_cannot_use_is_told() -> None:
    Path("file").touch()
    ran = run("generate", "a kite", "--sandbox", "--out", "file/out")
    assert (ran.code, ran.stderr) == (1, "error: file/out: Not a directory\n")


# ---------------------------------------------------------------------------------------------- settings, pending


def test_the_sandbox_divides_waits_and_multiplies_rates_by_its_speed() -> None:
    settings = settings_of(Options(sandbox=True, speed=10, tier="vip"))
    assert (settings.first_poll_s, settings.min_poll_interval_s) == (0.5, 0.5)
    assert settings.rate_limits.submit_per_s == pytest.approx(10 * TIERS["vip"].submit_per_s)
    assert settings.rate_limits.query_burst == TIERS["vip"].query_burst


def test_waits_that_were_given_are_left_alone() -> None:
    settings = settings_of(Options(sandbox=True, first_poll_s=3.0, max_in_flight=7))
    assert (settings.first_poll_s, settings.min_poll_interval_s, settings.max_in_flight) == (3.0, 0.25, 7)


def test_without_options_the_librarys_defaults_apply() -> None:
    assert settings_of(Options()) == Settings()


def test_the_sandbox_has_the_lowest_tier_unless_told_otherwise() -> None:
    for tier in (None, "auto", "default"):
        limits = settings_of(Options(sandbox=True, speed=1, tier=tier)).rate_limits
        assert limits == TIERS["default"]


def test_a_wrong_setting_is_misuse() -> None:
    with pytest.raises(CliError, match="out of range"):
        settings_of(Options(first_poll_s=1e9))


def test_only_what_is_paid_for_and_not_delivered_is_pending(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    pending = Pending()
    for task_id, business_id in (("t1", "b1"), ("t2", None), ("t3", "b3"), ("t4", "b4")):
        pending.note(TaskAccepted(0.0, task_id, business_id, None))
    pending.note(TaskEnded(0.0, "t1", None, TaskStatus.FAILED, 1.0, 1))
    pending.note(TaskEnded(0.0, "t2", None, TaskStatus.COMPLETED, 1.0, 1))
    pending.note(TaskEnded(0.0, "t4", None, None, 1.0, 1, "closed"))
    pending.settled("t3")
    pending.note(SubmitLost(0.0, "b5", "no answer"))
    pending.note(SubmitLost(0.0, "b6", "no answer"))
    pending.settled(None, "b6")
    pending.warn(out, lambda ids: f"toapis fetch {' '.join(ids)}")
    assert capsys.readouterr().err.splitlines() == [
        "  t2",
        "  t4  b4",
        "2 tasks (above) still running or not fetched yet, and paid for; to fetch:",
        "  toapis fetch t2 t4",
        "  b5",
        "1 submission (above) perhaps accepted, nobody knows; to fetch:",
        "  toapis fetch b5",
    ]


def test_a_row_that_was_left_is_known_by_what_came_later() -> None:
    pending = Pending()
    pending.note(TaskAccepted(0.0, "t1", "b1", None))
    pending.note(SubmitLost(0.0, "b2", "no answer"))
    rows = [
        RunningRow(index, f"k{index}", None, task_id, business_id)
        for index, (task_id, business_id) in enumerate([(None, "b1"), (None, "b2"), (None, "b3"), ("t4", "b4")])
    ]
    assert [(row.index, row.task_id) for row in pending.sent(rows)] == [(0, "t1"), (1, None), (3, "t4")]


def test_ctrl_c_names_the_task_also_on_a_loop_without_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise NotImplementedError  # as on Windows

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", refuse)
    monkeypatch.setattr(asyncio.SelectorEventLoop, "remove_signal_handler", refuse)
    interrupt_at(monkeypatch, TaskAccepted, 1)
    ran = run("generate", "a kite", "--sandbox", "--speed", "1")
    assert ran.code == 130
    assert "1 task (above) still running or not fetched yet, and paid for" in ran.stderr
    assert ran.stderr.endswith("error: interrupted\n")
