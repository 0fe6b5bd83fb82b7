"""`toapis sandbox`: the stand-in as a process of its own."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from toapis_async.cli import sandbox as command
from toapis_async.cli.output import CliError, Output
from toapis_async.sandbox import Fault, FaultPlan, Sandbox

from .conftest import run

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def stopped_when_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives as soon as the sandbox has said where it is."""
    tell: Callable[[Output, Sandbox, float], None] = command._tell

    def told(out: Output, sandbox: Sandbox, speed: float) -> None:
        tell(out, sandbox, speed)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(command, "_tell", told)


@pytest.mark.usefixtures("stopped_when_ready")
def test_it_says_how_to_point_a_client_at_it_and_ends_well_by_ctrl_c() -> None:
    ran = run("sandbox", "--port", "0", "--files-port", "0", "--speed", "20")
    assert ran.code == 0
    address, key = ran.stdout.splitlines()
    assert address.startswith("export TOAPIS_BASE_URL=http://127.0.0.1:")
    assert key == "export TOAPIS_API_KEY=sk-sandbox"
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
    assert "--first-poll-s" not in run("sandbox", "--port", "0", "--files-port", "0").stderr


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
        await command.serve(out, Sandbox(), 1)
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
