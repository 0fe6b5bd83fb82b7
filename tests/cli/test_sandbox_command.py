"""`toapis sandbox`: the stand-in as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from attrs import asdict

from toapis_async.cli import sandbox as command
from toapis_async.cli.options import Options
from toapis_async.cli.output import CliError, Output
from toapis_async.sandbox import Fault, FaultPlan, Sandbox, Webhooks
from toapis_async.settings import TIERS, RateLimits, Settings

from .conftest import run

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def stopped_when_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives as soon as the sandbox has said where it is."""
    printed: Callable[[Output, Sandbox, Options], None] = command._print_address

    def printed_and_stopped(out: Output, sandbox: Sandbox, served: Options) -> None:
        printed(out, sandbox, served)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(command, "_print_address", printed_and_stopped)


@pytest.mark.usefixtures("stopped_when_ready")
def test_it_says_how_to_point_a_client_at_it_and_ends_well_by_ctrl_c() -> None:
    ran = run("sandbox", "--port", "0", "--files-port", "0", "--speed", "20")
    assert ran.code == 0
    address, key = ran.stdout.splitlines()
    assert address.startswith("export TOAPIS_BASE_URL=http://127.0.0.1:")
    assert key == "export TOAPIS_API_KEY=sk-sandbox"
    assert "20 times as fast as the service" in ran.stderr
    assert "--first-poll-s 0.25 --min-poll-interval-s 0.25" in ran.stderr
    assert ran.stderr.endswith("stopped after 0 requests: 0 tasks in the books, 0 answers of 429\n")


@pytest.mark.usefixtures("stopped_when_ready")
def test_machines_get_one_line_when_it_is_ready() -> None:
    ran = run("sandbox", "--port", "0", "--files-port", "0", "--json", "--quiet", "--state-dir", "state")
    [record] = [json.loads(line) for line in ran.stdout.splitlines()]
    assert record.keys() == {"base_url", "files_url", "api_key"}
    assert record["base_url"] != record["files_url"]
    assert ran.stderr == ""


@pytest.mark.usefixtures("stopped_when_ready")
def test_at_the_services_own_speed_a_client_needs_no_options() -> None:
    told = run("sandbox", "--port", "0", "--files-port", "0").stderr
    assert "--first-poll-s" not in told
    assert "Settings" not in told
    assert "ready, as fast as the service" in told


@pytest.mark.usefixtures("stopped_when_ready")
def test_machines_are_not_pointed_at_lines_they_do_not_get() -> None:
    told = run("sandbox", "--port", "0", "--files-port", "0", "--speed", "20", "--json").stderr
    assert "above" not in told
    assert "20 times as fast" in told


@pytest.mark.usefixtures("stopped_when_ready")
def test_python_is_told_how_to_keep_pace_and_never_to_go_too_fast() -> None:
    told = run("sandbox", "--port", "0", "--files-port", "0", "--speed", "20", "--tier", "vip").stderr
    [line] = [line.strip() for line in told.splitlines() if "Settings(" in line]
    settings = eval(line, {"ToAPIs": lambda settings: settings, "Settings": Settings, "RateLimits": RateLimits})  # noqa: S307
    assert (settings.first_poll_s, settings.min_poll_interval_s) == (0.25, 0.25)
    given, allowed = asdict(settings.limits), asdict(TIERS["vip"])
    assert given["submit_per_s"] == pytest.approx(20 * allowed["submit_per_s"], rel=1e-3)
    assert given["submit_per_s"] <= 20 * allowed["submit_per_s"]
    assert given["query_burst"] == pytest.approx(allowed["query_burst"], rel=1e-3)
    assert given["query_burst"] <= allowed["query_burst"]


@pytest.mark.usefixtures("stopped_when_ready")
def test_people_are_told_of_the_page() -> None:
    ran = run("sandbox", "--port", "0", "--files-port", "0")
    address = ran.stdout.splitlines()[0].rpartition("=")[2]
    assert f"Its tasks, charges and faults: {address}/\n" in ran.stderr


def test_it_can_be_scripted_from_outside_while_it_runs() -> None:
    command = [sys.executable, "-m", "toapis_async", "sandbox", "--port", "0", "--files-port", "0", "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        at = json.loads(process.stdout.readline())["base_url"] + "/_sandbox"
        headers = {"Content-Type": "application/json"}

        def asked(path: str, body: bytes | None = None) -> dict[str, Any]:
            with urlopen(Request(f"{at}/{path}", body, headers), timeout=60) as answer:  # noqa: S310
                told: dict[str, Any] = json.load(answer)
                return told

        before = asked("state")["now"]
        assert asked("clock/advance", b'{"seconds": 86400}') == {"ok": True}
        assert 86_400 <= asked("state")["now"] - before < 87_000
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_a_port_in_use_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ran = run("sandbox", "--port", str(other.getsockname()[1]), "--files-port", "0")
    assert (ran.code, len(ran.stderr.splitlines())) == (1, 1)
    assert ran.stderr.endswith("; take others with --port and --files-port (0: any free)\n")


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org", "::", "192.168.0.1"])  # noqa: S104
def test_it_listens_on_this_machine_only(host: str) -> None:
    ran = run("sandbox", "--host", host)
    assert ran.code == 2
    assert "no loopback address" in ran.stderr


async def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken(_: Sandbox) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(Sandbox, "start", taken)
    out = Output(json=False, quiet=False)
    with pytest.raises(CliError, match="can't start: Address already in use") as refused:
        await command.serve(out, Sandbox(), Options(sandbox=True, speed=1))
    assert refused.value.exit_code == 1


def drawn(text: str, kind: str) -> bool:
    plan = FaultPlan()
    command.add_fault(plan, text)
    return list(plan.draw(kind)) == [Fault(text.partition("=")[0].rpartition(":")[2])]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("lost_answer=1", "submit"),
        ("query:html_502=1", "query"),
        ("not_found=1", "query"),
        ("success_false=1.0", "upload"),
        ("file:breaks_off=1", "file"),
    ],
)
def test_a_fault_meets_the_kind_that_was_named_or_the_first_it_can(text: str, kind: str) -> None:
    assert drawn(text, kind)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lost_anser=0.1", "did you mean lost_answer?"),
        ("xyzzy=0.1", "known are dropped, "),
        ("lost_answer", "known are dropped, "),
        ("lost_answer=often", "say how often, as in lost_answer=0.05"),
        ("lost_answer=7", "a probability lies between 0 and 1"),
        ("balance:not_found=0.1", "means nothing at 'balance'"),
        ("nowhere:lost_answer=0.1", "no requests of kind 'nowhere'"),
    ],
)
def test_a_fault_that_cannot_be_is_misuse(text: str, told: str) -> None:
    ran = run("sandbox", "--fault", text)
    assert ran.code == 2
    assert told in ran.stderr


@pytest.mark.usefixtures("stopped_when_ready")
def test_events_go_to_a_receiver_signed_with_a_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[tuple[str | None, object]] = []
    monkeypatch.setattr(Webhooks, "configure", lambda _, url, secret: configured.append((url, secret)))
    monkeypatch.setenv("TOAPIS_WEBHOOK_SECRET", "whsec_hidden\n")
    ran = run("sandbox", "--port", "0", "--files-port", "0", "--webhook-url", "http://127.0.0.1:8000/hook")
    assert ran.code == 0
    assert configured[-1] == ("http://127.0.0.1:8000/hook", "whsec_hidden")
    assert "hidden" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("url", "secret", "words"),
    [
        ("http://127.0.0.1:8000/hook", "", "set TOAPIS_WEBHOOK_SECRET"),
        ("http://hooks.example/hook", "whsec_hidden", "a receiver must be HTTPS on a public host"),
        ("nonsense", "whsec_hidden", "not an http(s) URL"),
    ],
)
def test_a_receiver_that_can_not_be_is_misuse(
    monkeypatch: pytest.MonkeyPatch, url: str, secret: str, words: str
) -> None:
    monkeypatch.setenv("TOAPIS_WEBHOOK_SECRET", secret)
    ran = run("sandbox", "--port", "0", "--webhook-url", url)
    assert ran.code == 2
    assert f"--webhook-url: {words}" in ran.stderr
    assert "hidden" not in ran.stdout + ran.stderr
