"""`--shared` on the command line, and those who ignore TOAPIS_SHARED."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import IN_A_BLINK, run

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.testing import ThreadedSandbox

SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def shared_files(folder: Path) -> int:
    return len(list(folder.glob("toapis-*/limits-*.json")))


@pytest.mark.toapis_sandbox(service_time_s=0.0)
def test_a_command_shares_when_it_is_told_to(toapis_sandbox: ThreadedSandbox, tmp_path: Path) -> None:
    assert run("balance").code == 0
    assert shared_files(tmp_path) == 0
    assert run("balance", "--shared", "host").code == 0
    assert shared_files(tmp_path) == 2
    ran = run("balance", "--shared", f"redis://:{SECRET}@127.0.0.1:1/0")
    assert ran.code == 0  # limits never fail closed
    assert SECRET not in ran.stdout + ran.stderr


@pytest.mark.toapis_sandbox
def test_the_environment_says_it_for_commands_too(
    toapis_sandbox: ThreadedSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOAPIS_SHARED", "host")
    assert run("balance", "--shared", "off").code == 0
    assert shared_files(tmp_path) == 0
    assert run("balance").code == 0
    assert shared_files(tmp_path) == 2


def test_the_sandbox_and_the_test_kit_ignore_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("TOAPIS_SHARED", "nonsense")
    assert run("generate", "a kite", *IN_A_BLINK).code == 0
    request.getfixturevalue("toapis_client")
    assert run("balance").code == 0  # the sandbox's environment has none


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--shared", f"memcached://u:{SECRET}@x"), "shared: known are host"),
        (("--sandbox", "--shared", "host"), "leave --shared out"),
    ],
)
def test_what_can_not_be_shared_is_misuse(
    arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-x")
    ran = run("balance", *arguments)
    assert ran.code == 2
    assert told in ran.stderr
    assert SECRET not in ran.stderr
