"""The public types as users' checkers see them: a program, mistakes, and the documentation's own code. Each checker
runs over all of it in a folder that knows nothing of this repository's settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.py)\n")


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The code of a page as whole programs: what continues an example stands after it. With the name of a file, where
    the code says that it is one."""
    before = ""
    for options, code in BLOCK.findall(page):
        name = FILE_NAME.match(code)
        if name is not None:
            yield name[1], code
            continue
        before = before + code if "continuation" in options else code
        yield "", before


def write_documentation(folder: Path) -> int:
    """Every example as a module: since most of them await at the top level, as the body of a function."""
    count = 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, (name, code) in enumerate(blocks(page.read_text("utf-8"))):
            file = name or f"doc_{page.stem.lower()}_{number}.py"
            (folder / file).write_text(code if name else f"async def example():\n{indent(code, '    ')}", "utf-8")
            count += 1
    return count


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a user's program, the mistakes, and the documentation's code in a folder of its own."""
    for name in ("program.py", "mistakes.py"):
        (tmp_path / name).write_text((HERE / name).read_text("utf-8"), "utf-8")
    documentation = tmp_path / "documentation"
    documentation.mkdir()
    assert write_documentation(documentation) > 40
    return tmp_path


def wrong_lines() -> set[tuple[str, int]]:
    lines = (HERE / "mistakes.py").read_text("utf-8").splitlines()
    return {("mistakes.py", number) for number, line in enumerate(lines, 1) if "# wrong" in line}


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(120)
def test_mypy_finds_the_mistakes_and_nothing_else(project: Path) -> None:
    cache = ("--cache-dir", str(ROOT / ".mypy_cache" / "users"))
    said = run(project, "mypy", "--strict", *cache, "program.py", "mistakes.py")
    found = {(line.split(":")[0], int(line.split(":")[1])) for line in said.splitlines() if ": error:" in line}
    assert found == wrong_lines(), said
    said = run(project / "documentation", "mypy", "--check-untyped-defs", *cache, ".")
    assert ": error:" not in said, said


@pytest.mark.timeout(120)
def test_pyright_finds_the_mistakes_and_nothing_else(project: Path) -> None:
    settings = {
        "strict": ["program.py", "mistakes.py"],
        "typeCheckingMode": "standard",
        "reportUnusedExpression": False,  # what a notebook's cell ends with
        "executionEnvironments": [{"root": "documentation"}, {"root": "."}],
    }
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    report = json.loads(run(project, "basedpyright", "--outputjson", "--pythonpath", sys.executable))
    errors = [each for each in report["generalDiagnostics"] if each["severity"] == "error"]
    found = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in errors}
    assert found == wrong_lines(), [(each["file"], each["range"]["start"]["line"], each["message"]) for each in errors]
