"""The documentation is whole: every public name is in the reference, every error on the page about errors."""

from __future__ import annotations

import re
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
