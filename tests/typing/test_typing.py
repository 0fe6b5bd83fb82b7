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
OF_FRAGMENTS = {
    "name-defined",
    "import-not-found",
    "untyped-decorator",
    "reportUndefinedVariable",
    "reportMissingImports",
}
"""What may be said of code that is not run: it may name what stands elsewhere, and libraries that are not here."""
OF_EXAMPLES = {"no-untyped-def", "no-untyped-call"}
"""What `mypy --strict` says of the functions around the documentation's code, and of such code itself: it is shown
without annotations."""

NOT_READ = ("IPython", "PIL", "cryptography", "dask", "distributed", "httpcore", "httpcore2", "markdown_it", "numpy",
            "prompt_toolkit", "rich", "urllib3")  # fmt: skip
"""What the library imports and no checked code uses: to read it, mypy would take twice as long."""
MYPY = f"""[mypy]
[mypy-{",".join(f"{name}.*" for name in NOT_READ)}]
follow_imports = skip
follow_imports_for_stubs = true
"""


def modules(page: Path) -> Iterator[tuple[str, str]]:
    """The code of a page as modules. What continues an example stands after it; since most examples await at the top
    level, each is the body of a function, unless the code says that it is a file."""
    before = ""
    for number, (options, code) in enumerate(BLOCK.findall(page.read_text("utf-8"))):
        if (name := FILE_NAME.match(code)) is not None:
            yield name[1], code
            continue
        before = before + code if "continuation" in options else code
        kind = "fragment" if "notest" in options else "example"
        given = ", ".join(re.findall(r"fixture:(\w+)", options))  # by their names
        yield f"{kind}_{page.stem.lower()}_{number}.py", f"async def example({given}):\n{indent(before, '    ')}"


def write_documentation(folder: Path) -> int:
    """How many modules were written."""
    pages = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    written = [(folder / name).write_text(code, "utf-8") for page in pages for name, code in modules(page)]
    return len(written)


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


def is_allowed(file: str, rule: str) -> bool:
    path = Path(file)
    if path.name.startswith("fragment_") and rule in OF_FRAGMENTS:
        return True
    return path.parent.name == "documentation" and rule in OF_EXAMPLES


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def test_mypy_finds_the_mistakes_and_nothing_else(project: Path) -> None:
    used = re.compile(rf"^\s*(?:import|from) (?:{'|'.join(NOT_READ)})\b", re.MULTILINE)
    assert [path for path in project.rglob("*.py") if used.search(path.read_text("utf-8"))] == []
    (project / "mypy.ini").write_text(MYPY)
    # In one run: under other options it would read the library anew.
    cache = str(ROOT / ".mypy_cache" / "users")
    said = run(project, "mypy", "--strict", "--cache-dir", cache, "program.py", "mistakes.py", "documentation")
    errors = re.findall(r"^(.+?):(\d+): error: .*\[([\w-]+)\]$", said, re.MULTILINE)
    assert len(errors) == said.count(": error: ")
    found = {(file, int(line)) for file, line, rule in errors if not is_allowed(file, rule)}
    assert found == wrong_lines(), said


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
    errors = [each for each in errors if not is_allowed(each["file"], each.get("rule", ""))]
    found = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in errors}
    assert found == wrong_lines(), [(each["file"], each["range"]["start"]["line"], each["message"]) for each in errors]
