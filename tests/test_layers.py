"""The floors of `architecture.md`: imports only point down.

Every import counts, those inside functions and those under `if TYPE_CHECKING` too: a type that is named is known. No
arrow points up, and no files form a circle.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import toapis_async

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

PACKAGE = Path(toapis_async.__file__).parent

FLOORS = (
    {"task", "log", "scrub", "sinks"},
    {"errors"},
    {"display"},
    {"models", "request", "events", "proxies"},
    {"settings", "shared"},
    {"protocol"},
    {"engine"},
    {"handle", "report"},
    {"batch", "webhooks", "receivers", "sse", "lifetime"},
    {"client"},
    {"parts", "telemetry"},
    {"dask"},
    {"", "agents", "cli", "testing", "__main__"},
)
"""From the ground up, by the first part of a module's name below the package; "" is `__init__`, which names them all
for type checkers and loads them when asked."""
APART = "sandbox"
MAY_USE_APART = {"cli", "testing"}

SPEAKS_HTTP = {
    "engine.transport", "engine.connections", "engine.filehosts", "engine.uploads",  # uploads: only for FormData
}  # fmt: skip
SERVES_HTTP = {"receivers"}  # aiohttp.web, for those whose server it is
NAMES_HTTP_TYPES = {"engine.downloads"}  # the answer it is handed to read, under TYPE_CHECKING
PURE = ("protocol.", "task", "scrub", "errors", "models", "request", "events")
IMPURE_MODULES = {
    "asyncio", "aiohttp", "anyio", "time", "socket", "ssl", "subprocess", "threading", "concurrent", "selectors",
    "random", "os", "sys", "logging", "yarl", "urllib.request", "http",
}  # fmt: skip
CLOCKS = {"now", "utcnow", "today", "monotonic", "perf_counter", "time_ns", "localtime", "gmtime"}


class Import(NamedTuple):
    """One import: of `target` (an absolute name), at `line`; `for_types` when only type checkers see it."""

    target: str
    line: int
    for_types: bool


def name_of(file: Path, root: Path) -> str:
    """A module's name below the package: `engine.transport`, and "" for the package itself."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root: Path) -> dict[str, list[Import]]:
    """What every module imports, by the module's name."""
    return {
        (name := name_of(file, root)): imports_of(file.read_text(), name, file.stem == "__init__")
        for file in sorted(root.rglob("*.py"))
    }


@functools.cache
def imports_of(code: str, name: str, is_package: bool) -> list[Import]:
    return list(imports(ast.parse(code), name, is_package))


def imports(tree: ast.Module, name: str, is_package: bool) -> Iterator[Import]:
    """Every import of a module, wherever it stands; `from a import b` counts as `a.b`."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and "TYPE_CHECKING" in ast.unparse(node.test)
        and "not" not in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = ["toapis_async", *filter(None, name.split("."))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            here = package if is_package else package[:-1]
            base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            targets = [f"{base if node.level else node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            literal = node.args[0]
            targets = [literal.value] if isinstance(literal, ast.Constant) and isinstance(literal.value, str) else []
        else:
            continue
        for target in targets:
            yield Import(target, node.lineno, id(node) in for_types)


def floor_of(name: str) -> int:
    first = name.partition(".")[0]
    for floor, members in enumerate(FLOORS):
        if first in members:
            return floor
    raise LookupError(f"{name}.py stands on no floor: give it one in tests/test_layers.py")


def ours(target: str, known: Container[str]) -> str | None:
    """The module of ours that an absolute name lies in; None when it is somebody else's."""
    first, _, rest = target.partition(".")
    if first != "toapis_async":
        return None
    while rest not in known:
        rest = rest.rpartition(".")[0]
    return rest


def offences(root: Path) -> list[str]:
    """What breaks a rule of the house, one line each."""
    house = modules(root)
    found: list[str] = []
    for name, imported_by in house.items():
        for imported in imported_by:
            what = f"{name or '__init__'}:{imported.line} imports {imported.target}"
            module = ours(imported.target, house)
            problem = _foreign(name, imported) if module is None else _inner(name, module)
            if problem:
                found.append(f"{what}: {problem}")
    for file in root.rglob("*.py"):
        name = name_of(file, root)
        if name.startswith(PURE):
            found += [f"{name}:{line} reads a clock" for line in _clocks(ast.parse(file.read_text()))]
    return found


def _foreign(name: str, imported: Import) -> str | None:
    target = imported.target
    if target.startswith("aiohttp.web") and name in SERVES_HTTP:
        return None
    if target.partition(".")[0] == "aiohttp" and name not in SPEAKS_HTTP and not name.startswith(APART):
        lenient = imported.for_types and name in NAMES_HTTP_TYPES
        return None if lenient else "only the transport speaks HTTP"
    # Under TYPE_CHECKING a name such as random.Random or os.PathLike is the type of an argument: nothing is done.
    if (
        name.startswith(PURE)
        and not imported.for_types
        and any(target == m or target.startswith(f"{m}.") for m in IMPURE_MODULES)
    ):
        return "it is pure"
    return None


def _inner(name: str, module: str) -> str | None:
    from_apart, to_apart = name.partition(".")[0] == APART, module.partition(".")[0] == APART
    if from_apart:
        return None if to_apart else "the sandbox uses nothing of the client"
    if to_apart:
        return (
            None
            if name.partition(".")[0] in MAY_USE_APART
            else "only the command line and the test kit use the sandbox"
        )
    return "the arrow points up" if floor_of(module) > floor_of(name) else None


def _clocks(tree: ast.Module) -> list[int]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [c.lineno for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in CLOCKS]


# ------------------------------------------------------------------------------------------------ the house itself


def test_imports_only_point_down() -> None:
    assert offences(PACKAGE) == []


def test_aiohttp_is_loaded_by_the_transport_and_for_a_form_only() -> None:
    house = modules(PACKAGE)
    loading = {
        name
        for name, all_of in house.items()
        for i in all_of
        if i.target.partition(".")[0] == "aiohttp" and not i.for_types and not name.startswith((APART, *SERVES_HTTP))
    }
    assert "engine.transport" in loading
    assert loading <= SPEAKS_HTTP
    uses = ast.walk(ast.parse((PACKAGE / "engine" / "uploads.py").read_text()))
    assert {n.attr for n in uses if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "aiohttp"} <= {"FormData"}


@pytest.mark.parametrize(
    ("package", "home"),
    [("redis", {"engine.shared.redis"}), ("distributed", {"dask", "dask.job", "dask.plugins", "dask.session"})],
)
def test_an_optional_package_is_imported_in_one_place(package: str, home: set[str]) -> None:
    house = modules(PACKAGE)
    users = {name for name, all_of in house.items() for i in all_of if i.target.partition(".")[0] == package}
    assert users <= home
    assert users


def circle(root: Path) -> set[str]:
    """The modules that name each other in a circle, or need one that does; `__init__` names all."""
    house = modules(root)
    needs = {
        name: {m for i in all_of if (m := ours(i.target, house)) and m != name}
        for name, all_of in house.items()
        if name
    }
    done: set[str] = set()
    while ready := {name for name in needs if name not in done and needs[name] <= done}:
        done |= ready
    return needs.keys() - done


def test_modules_form_no_circle() -> None:
    assert circle(PACKAGE) == set()


# ------------------------------------------------------------------------------------------------ the test itself


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for folder in ("protocol", "engine", "batch", "report", "sandbox", "cli", "testing"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    for floor in FLOORS:
        for name in floor - {"", "protocol", "engine", "batch", "report", "cli", "testing"}:
            (tmp_path / f"{name}.py").touch()
    (tmp_path / "__init__.py").touch()
    (tmp_path / "protocol" / "wire.py").write_text("from toapis_async.models import TaskStatus\n")
    (tmp_path / "engine" / "transport.py").write_text("import aiohttp\nimport asyncio\n")
    assert offences(tmp_path) == []
    return tmp_path


@pytest.mark.parametrize(
    ("file", "code", "offence"),
    [
        (
            "errors.py",
            "from toapis_async.models import Balance",
            "errors:1 imports toapis_async.models.Balance: the arrow",
        ),
        ("errors.py", "from toapis_async import models", "the arrow points up"),
        ("errors.py", "from . import models", "the arrow points up"),
        ("errors.py", "import toapis_async.models", "the arrow points up"),
        ("events.py", "from toapis_async.settings import Settings", "the arrow points up"),
        ("models.py", "from toapis_async.protocol.wire import Answer", "the arrow points up"),
        (
            "models.py",
            "def f():\n    from .protocol import wire",
            "models:2 imports toapis_async.protocol.wire: the arrow",
        ),
        ("models.py", "if TYPE_CHECKING:\n    from toapis_async.handle import TaskHandle", "the arrow points up"),
        ("errors.py", "if TYPE_CHECKING:\n    from toapis_async.models import Balance", "the arrow points up"),
        ("protocol/wire.py", "from toapis_async.engine.transport import X", "the arrow points up"),
        ("protocol/wire.py", "from ..engine import transport", "the arrow points up"),
        ("protocol/wire.py", "from ..client import ToAPIs", "points up"),
        ("engine/transport.py", "from toapis_async.handle import TaskHandle", "the arrow points up"),
        ("engine/transport.py", "import_module('toapis_async.client')", "the arrow points up"),
        ("handle.py", "from toapis_async.batch.batch import Batch", "the arrow points up"),
        ("batch/batch.py", "from toapis_async.client import ToAPIs", "the arrow points up"),
        ("batch/rows.py", "import toapis_async", "the arrow points up"),
        ("client.py", "import toapis_async.cli", "the arrow points up"),
        ("client.py", "from toapis_async.testing import Scenario", "the arrow points up"),
        (
            "client.py",
            "from toapis_async.sandbox import Sandbox",
            "only the command line and the test kit use the sandbox",
        ),
        ("sandbox/api.py", "from toapis_async.errors import ToAPIsError", "the sandbox uses nothing of the client"),
        ("sandbox/api.py", "from .. import errors", "the sandbox uses nothing of the client"),
        ("sandbox/api.py", "from toapis_async.testing import Scenario", "the sandbox uses nothing of the client"),
        ("sandbox/api.py", "import toapis_async", "the sandbox uses nothing of the client"),
        ("protocol/wire.py", "import asyncio", "it is pure"),
        ("protocol/wire.py", "from time import monotonic", "it is pure"),
        ("protocol/wire.py", "import anyio.to_thread", "it is pure"),
        ("protocol/wire.py", "import os.path", "it is pure"),
        ("protocol/wire.py", "import aiohttp", "only the transport speaks HTTP"),
        ("models.py", "def f():\n    import asyncio", "it is pure"),
        ("protocol/wire.py", "from datetime import datetime\nx = datetime.now()", "protocol.wire:2 reads a clock"),
        ("protocol/wire.py", "import datetime\nx = datetime.datetime.utcnow()", "protocol.wire:2 reads a clock"),
        ("client.py", "import aiohttp", "only the transport speaks HTTP"),
        ("client.py", "from aiohttp import web", "only the transport speaks HTTP"),
        ("receivers.py", "from aiohttp import ClientSession", "only the transport speaks HTTP"),
    ],
)
def test_a_forbidden_import_is_found(house: Path, file: str, code: str, offence: str) -> None:
    (house / file).write_text(code + "\n")
    (found,) = offences(house)
    assert offence in found


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("errors.py", "if TYPE_CHECKING:\n    from toapis_async.task import Billing"),
        ("settings.py", "import os\nif TYPE_CHECKING:\n    from toapis_async.events import Event"),
        ("cli/main.py", "from toapis_async.sandbox import Sandbox\nfrom toapis_async import ToAPIs"),
        ("testing/kit.py", "from toapis_async.sandbox import Sandbox\nfrom toapis_async.client import ToAPIs"),
        ("sandbox/api.py", "import aiohttp\nfrom . import png\nfrom toapis_async.sandbox import Sandbox"),
        ("batch/rows.py", "import asyncio, time\nfrom toapis_async.handle import TaskHandle"),
        ("receivers.py", "def f():\n    from aiohttp import web"),
        ("protocol/retry.py", "from datetime import datetime\nx = datetime.fromtimestamp(0)"),
    ],
)
def test_an_import_that_points_down_is_none_of_its_business(house: Path, file: str, code: str) -> None:
    (house / file).write_text(code + "\n")
    assert offences(house) == []


def test_a_module_without_a_floor_is_noticed(house: Path) -> None:
    (house / "attic.py").write_text("from toapis_async import errors\n")
    with pytest.raises(LookupError, match=r"attic\.py stands on no floor"):
        offences(house)


def test_two_modules_that_name_each_other_are_noticed(house: Path) -> None:
    assert circle(house) == set()
    (house / "batch" / "run.py").write_text("from toapis_async.batch.rows import Row\n")
    (house / "batch" / "rows.py").write_text("if TYPE_CHECKING:\n    from toapis_async.batch.run import Run\n")
    assert offences(house) == []  # both stand on one floor
    assert circle(house) == {"batch.run", "batch.rows"}
