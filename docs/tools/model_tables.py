"""Writes the tables of docs/models.md and docs/videos.md from the catalogue: `python docs/tools/model_tables.py`.
tests/test_docs.py holds the pages to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from toapis_async.request import IMAGE_MODELS, VIDEO_MODELS
from toapis_async.request.catalogue import facts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.request.catalogue import KnownModel

DOCS = Path(__file__).parents[1]
PAGES = {"models.md": IMAGE_MODELS, "videos.md": VIDEO_MODELS}
_TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", re.DOTALL)


def table(models: Mapping[str, KnownModel]) -> str:
    """The models in the catalogue's order, those with the same page in one row."""
    rows: dict[str, list[str]] = {}
    for name, model in models.items():
        facts = "; ".join(f"`{field}` {words}" for field, words in facts_of(model))
        rows.setdefault(facts, []).append(f"`{name}`")
    lines = [f"| {', '.join(names)} | {facts} |" for facts, names in rows.items()]
    return "\n".join(["| model | takes |", "| --- | --- |", *lines, ""])


def written(page: str, models: Mapping[str, KnownModel]) -> str:
    """A page's text with its table as it should be."""
    return _TABLE.sub(lambda found: found[1] + table(models) + found[2], page)


if __name__ == "__main__":
    for name, models in PAGES.items():
        path = DOCS / name
        path.write_text(written(path.read_text(encoding="utf-8"), models), encoding="utf-8")
