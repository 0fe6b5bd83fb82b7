"""The plugin in runs of pytest of its own, as users have them: under each async plugin, in parallel, switched off."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toapis_async import testing

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"
SCOPE = "asyncio_default_fixture_loop_scope=function"  # pytest-asyncio warns when this is left to it
BLOCK = re.compile(r"```python notest\n# (\w+\.py)\n(.*?)```", re.DOTALL)


def pytest_run(folder: Path, plugins: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run with these plugins only, by the names of their entry points; with all that are installed for ""."""
    chosen = [option for name in plugins.split() for option in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", "-p", "no:cacheprovider"]
    return subprocess.run(  # noqa: S603
        [*command, *chosen, *options],
        cwd=folder,
        env=os.environ | ({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if plugins else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """A folder with the files of docs/testing.md."""
    blocks = BLOCK.findall(DOCS.read_text())
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    assert {name for name, _ in blocks} == {"kites.py", "test_kites.py", "test_client.py", "app.py", "test_app.py"}
    return tmp_path


def test_the_documented_app_is_tested_as_documented_under_pytest_asyncio_and_in_parallel(documented: Path) -> None:
    ran = pytest_run(documented, "asyncio xdist toapis", "-o", SCOPE, "-n", "2", "test_kites.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout


def test_the_documented_client_is_tested_under_anyios_plugin(documented: Path) -> None:
    ran = pytest_run(documented, "anyio toapis", "test_client.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_the_documented_app_is_tested_with_a_synchronous_client(documented: Path) -> None:
    ran = pytest_run(documented, "toapis", "test_app.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr


PLAIN = """
import os
from urllib.request import Request, urlopen

import pytest


def submit():
    request = Request(os.environ["TOAPIS_BASE_URL"] + "/v1/images/generations", method="POST",
        data=b'{"model": "gpt-image-2-vip", "prompt": "a kite"}',
        headers={"Authorization": "Bearer " + os.environ["TOAPIS_API_KEY"]})
    with urlopen(request) as answer:
        assert answer.status == 200


class TestKites:
    def test_one(self, toapis_sandbox):
        submit()
        [entry] = toapis_sandbox.ledger
        assert entry.status != "completed"
        toapis_sandbox.clock.advance(11)
        assert toapis_sandbox.ledger.entries[0].status == "completed"

    def test_a_failure_is_told_and_nothing_hangs(self, toapis_sandbox):
        raise OSError("as it must")

    @pytest.mark.toapis_sandbox(tier="gold")
    def test_an_option_that_can_not_be_is_an_error_of_the_fixture(self, toapis_sandbox):
        raise AssertionError

    def test_the_environment_is_as_it_was(self):
        assert "TOAPIS_BASE_URL" not in os.environ
"""


def test_plain_tests_have_a_sandbox_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOAPIS_BASE_URL", raising=False)
    (tmp_path / "test_plain.py").write_text(PLAIN)
    ran = pytest_run(tmp_path, "toapis")
    assert "OSError: as it must" in ran.stdout
    assert "no tier 'gold'" in ran.stdout
    assert "2 passed" in ran.stdout
    assert "1 failed" in ran.stdout
    assert "1 error" in ran.stdout


def test_it_can_be_kept_out(tmp_path: Path) -> None:
    (tmp_path / "test_without.py").write_text("def test_one(toapis_sandbox): pass\ndef test_two(): pass\n")
    # looptime asks for a loop where there is none, which Python 3.12 and later warn of.
    ran = pytest_run(tmp_path, "", "-p", "no:toapis", "-p", "no:looptime_plugin", "-o", SCOPE)
    assert "fixture 'toapis_sandbox' not found" in ran.stdout
    assert "1 passed, 1 error" in ran.stdout


def test_loading_it_loads_nothing_to_speak_of() -> None:
    code = (
        "import sys, json, pytest; before = set(sys.modules); import toapis_async.testing.plugin; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    loaded = json.loads(done.stdout)
    assert loaded == ["toapis_async", "toapis_async.testing", "toapis_async.testing.plugin"]


def test_every_public_name_is_there_and_documented() -> None:
    told = DOCS.read_text()
    for name in testing.__all__:
        assert getattr(testing, name) is not None
        assert name in told
    with pytest.raises(AttributeError, match="no attribute 'ANSWER_FOUND'"):
        testing.ANSWER_FOUND  # noqa: B018
