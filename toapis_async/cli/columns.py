"""Columns of a prompt file that are no fields of a request: ignored, kept with the results, or words of the prompt."""

from __future__ import annotations

import difflib
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from toapis_async.batch.cells import folded_name, is_nameless
from toapis_async.batch.rows import KEY_COLUMN
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten
from toapis_async.request import ROW_FIELDS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from toapis_async.batch.template import PromptTemplate

COLUMNS: Final = (KEY_COLUMN, *ROW_FIELDS)
_KNOWN: Final = frozenset(map(folded_name, COLUMNS))


@frozen
class Columns:
    """What is done with the columns that the user named. Letter case does not matter in any of them."""

    ignored: Collection[str] = ()
    kept: Collection[str] = ()
    template: PromptTemplate | None = None

    @cached_property
    def _ignored(self) -> frozenset[str]:
        return frozenset(map(folded_name, self.ignored))

    @cached_property
    def _kept(self) -> frozenset[str]:
        return frozenset(map(folded_name, self.kept))

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(map(folded_name, self.template.columns if self.template else ()))

    @cached_property
    def _all_known(self) -> frozenset[str]:
        return _KNOWN | self._ignored | self._kept | self._words

    def is_known(self, name: str) -> bool:
        """Whether a column is a field of a request, or was named."""
        return folded_name(name) in self._all_known

    def header_problem(self, names: list[str]) -> str | None:
        """What is wrong with the names in a header."""
        for place, name in enumerate(names):
            if not self.is_known(name) and not is_nameless(name):
                return (
                    f"the header: {unknown_column(name)}; --ignore-columns '{name}' leaves it out, --keep-columns "
                    "keeps it in results.jsonl"
                )
            if name in names[:place] and not is_nameless(name):
                return f"the header has {name!r} twice"
        here = set(map(folded_name, names))
        wanted = [*self.kept, *(self.template.columns if self.template else ())]
        missing = next((name for name in wanted if folded_name(name) not in here), None)
        if missing is not None:
            return f"the header has no column {missing!r}, but {', '.join(repr(name) for name in names)}"
        if self.template is None and ("prompt" not in here or "prompt" in self._ignored):
            return "the header has no column 'prompt' (--prompt-template makes prompts of other columns)"
        return None

    def split(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """A row's fields of the request, and what is kept of it. Raises `InvalidRequest`."""
        kept = {name: value for name, value in row.items() if folded_name(name) in self._kept}
        set_aside = self._ignored | ((self._words | self._kept) - _KNOWN)
        fields = {name: value for name, value in row.items() if folded_name(name) not in set_aside}
        if self.template is not None:
            own = next((name for name in fields if folded_name(name) == "prompt"), None)
            if own is not None and fields.pop(own) and "prompt" not in self._words:
                raise InvalidRequest(
                    "the row has a prompt of its own, which --prompt-template does not use: write {prompt} into it, "
                    "or --ignore-columns prompt"
                )
            fields["prompt"] = self.template.prompt(row)
        return fields, kept


def unknown_column(name: str) -> str:
    """The problem of a name that is no column of a row, with the nearest that is."""
    near = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(COLUMNS)}"
    return f"unknown field {shorten(name, 40)!r}: {hint} (`extra`, an object, sends any field unchecked)"
