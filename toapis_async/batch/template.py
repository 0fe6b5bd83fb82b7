"""Prompts made of a row's columns: `a {colour} {noun}`."""

from __future__ import annotations

from string import Formatter
from typing import TYPE_CHECKING, Self

from attrs import frozen

from toapis_async.batch.cells import folded_name, text_of_value
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping


@frozen
class PromptTemplate:
    """A text with the names of columns in braces; `{{` and `}}` are braces."""

    parts: tuple[tuple[str, str | None], ...]
    """Text, and the column that follows it."""

    @classmethod
    def of(cls, text: str) -> Self:
        """Raises `InvalidRequest` for what is no such text. Names alone are taken: no attributes, indexes, conversions
        or formats, which would reach into Python."""
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise InvalidRequest(f"the prompt template {shorten(text, 60)!r} can't be read: {error}") from None
        for _, name, form, conversion in parsed:
            if name is None:
                continue
            if form or conversion or not name.strip() or name.strip().isdigit() or set(name) & set(".[]{}"):
                given = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise InvalidRequest(
                    f"the prompt template has {{{shorten(given, 40)}}}: only the name of a column may stand in braces, "
                    "such as {colour} (a brace itself is written twice)"
                )
        template = cls(tuple((before, name) for before, name, _, _ in parsed))
        if not template.columns:
            raise InvalidRequest("the prompt template names no column: write its name in braces, such as {colour}")
        return template

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs, as it writes them."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name is not None))

    def prompt(self, row: Mapping[str, object]) -> str:
        """The prompt of a row. Raises `InvalidRequest` when the row has no such column, or nothing in it."""
        cells = {folded_name(name): value for name, value in row.items()}
        made: list[str] = []
        for before, name in self.parts:
            made.append(before)
            if name is not None:
                text = text_of_value(cells.get(folded_name(name))).strip()
                if not text:
                    raise InvalidRequest(f"the prompt template needs {name!r}, which is empty here", field="prompt")
                made.append(text)
        return "".join(made)
