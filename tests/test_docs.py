"""The documentation is whole: every public name is in the reference, every error on the page about errors."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import toapis_async
from toapis_async import ToAPIsError

DOCS = Path(__file__).parents[1] / "docs"


def test_every_public_name_is_in_the_reference_and_nothing_else_is() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    shown = re.findall(r"^::: toapis_async\.(\w+)$", pages, re.MULTILINE)
    assert sorted([*shown, "__version__"]) == sorted([*toapis_async.__all__, "errors", "events"])


def test_every_error_is_told_what_to_do_about() -> None:
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    public = {name: getattr(toapis_async, name) for name in toapis_async.__all__}
    errors = {name for name, value in public.items() if isinstance(value, type) and issubclass(value, ToAPIsError)}
    assert {name for name in errors if f"`{name}`" not in page} == set()


def test_the_tables_of_models_are_the_catalogues() -> None:
    spec = spec_from_file_location("model_tables", DOCS / "tools" / "model_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = module_from_spec(spec)
    spec.loader.exec_module(tables)
    for name, models in tables.PAGES.items():
        page = (DOCS / name).read_text(encoding="utf-8")
        assert page == tables.written(page, models), f"run python docs/tools/model_tables.py: {name} is out of date"
        assert all(f"`{model}`" in page for model in models)
