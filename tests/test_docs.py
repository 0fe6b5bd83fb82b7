"""The documentation is whole: every public name is in the reference, every error on the page about errors."""

from __future__ import annotations

import asyncio
import re
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isclass, isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import toapis_async
from toapis_async import ServiceError, ToAPIs, ToAPIsError

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[1] / "docs"


def test_every_public_name_is_in_the_reference_and_nothing_else_is() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    shown = re.findall(r"^::: toapis_async\.(\w+)$", pages, re.MULTILINE)
    assert sorted([*shown, "__version__"]) == sorted([*toapis_async.__all__, "errors", "events"])


@pytest.mark.parametrize("name", ["dask", "parts", "receivers", "report", "sandbox", "sse", "telemetry", "testing"])
def test_every_public_name_of_a_public_module_is_in_the_reference(name: str) -> None:
    module = import_module(f"toapis_async.{name}")
    own = [n for n, v in vars(module).items() if isfunction(v) or isclass(v) if v.__module__ == module.__name__]
    public = getattr(module, "__all__", [n for n in own if not n.startswith("_")])
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    shown = re.findall(rf"^::: toapis_async\.{name}\.(\w+)$", pages, re.MULTILINE)
    assert sorted(shown) == sorted(public)


async def test_the_page_about_a_requests_way_lists_every_frame_of_it() -> None:
    frames: list[str] = []

    async def submit(request: web.Request) -> web.Response:
        names = {"toapis-submit": 1, "the-caller": 0}
        tasks = sorted((names[task.get_name()], task) for task in asyncio.all_tasks() if task.get_name() in names)
        frames.extend(frame for _, task in tasks for frame in frames_of(task.get_coro()))
        return web.json_response({"error": {"code": "invalid_request", "message": "no"}}, status=400)

    app = web.Application()
    app.router.add_post("/v1/images/generations", submit)
    async with TestServer(app) as server, ToAPIs("sk-any", base_url=str(server.make_url("/"))) as client:
        caller = asyncio.create_task(client.generate("a red kite"), name="the-caller")
        await asyncio.wait([caller])
    assert isinstance(caller.exception(), ServiceError)
    page = (DOCS / "engine.md").read_text(encoding="utf-8")
    assert frames == re.findall(r"^(\w+\.\w+)(?:  |$)", page, re.MULTILINE)
    assert len(frames) <= 8
    assert len({frame.partition(".")[0] for frame in frames}) <= 4


def test_the_page_about_a_requests_way_names_every_part_of_the_engine() -> None:
    engine = Path(toapis_async.__file__).parent / "engine"
    parts = {path.stem for path in engine.iterdir() if not path.stem.startswith("__")}
    page = (DOCS / "engine.md").read_text(encoding="utf-8")
    rows = [line for line in page.partition("The rules they follow")[0].splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)/?`", row.split("|")[1])}
    assert named == parts - {"core"}


def frames_of(coroutine: Any) -> Iterator[str]:
    """This package's functions that a coroutine is suspended in, the outermost first."""
    while hasattr(coroutine, "cr_code"):
        if "/toapis_async/" in coroutine.cr_code.co_filename:
            yield coroutine.cr_code.co_qualname
        coroutine = coroutine.cr_await


def test_every_error_is_told_what_to_do_about() -> None:
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    public = {name: getattr(toapis_async, name) for name in toapis_async.__all__}
    errors = {name for name, value in public.items() if isinstance(value, type) and issubclass(value, ToAPIsError)}
    assert {name for name in errors if f"`{name}`" not in page} == set()


def tool(name: str) -> Any:
    """One of the programs that write parts of the pages."""
    spec = spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_command_line_is_what_the_commands_say() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert page == tool("command_line").page(), "run python docs/tools/command_line.py: cli.md is out of date"


def test_the_tables_of_models_are_the_catalogues() -> None:
    tables = tool("model_tables")
    for name, models in tables.PAGES.items():
        page = (DOCS / name).read_text(encoding="utf-8")
        assert page == tables.written(page, models), f"run python docs/tools/model_tables.py: {name} is out of date"
        assert all(f"`{model}`" in page for model in models)
