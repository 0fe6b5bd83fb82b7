"""One row per measure, a table of them, and the file that keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One number with its spread over the repetitions, and what it should come to."""

    measure: int  #: its number in the table of the project's goals
    what: str
    values: tuple[float, ...]  #: one a repetition; none when it can't be measured here
    reach: float | None = None  #: at most this; None for a number without a goal
    note: str = ""
    got: float | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "got", median(self.values) if self.values else None)

    @property
    def met(self) -> bool | None:
        return None if self.reach is None or self.got is None else self.got <= self.reach + 1e-9

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third of the values, of which there are two or more."""
        first, _, third = quantiles(self.values, n=4, method="inclusive")
        return first, third

    def cells(self) -> tuple[str, str, str, str, str]:
        spread = f" ({' .. '.join(map(_short, self.quartiles))})" if len(self.values) > 1 else ""
        reach = "" if self.reach is None else f"<= {_short(self.reach)}"
        got = "" if self.got is None else _short(self.got)
        met = {None: "", True: "met", False: "NOT MET"}[self.met]
        note = f"  [{self.note}]" if self.note else ""
        return str(self.measure), self.what + note, reach, got + spread, met

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


@dataclass
class Findings:
    """Rows for the table, and whatever the charts and the file want beside them."""

    rows: list[Row] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        self.rows += other.rows
        self.details |= other.details


def table(rows: Iterable[Row]) -> str:
    """The rows as aligned text."""
    lines = [("#", "measure", "reach", "median (quartiles)", ""), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def write_json(path: Path, rows: Sequence[Row], about: dict[str, Any], details: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"about": about, "rows": [row.as_dict() for row in rows], "details": details}
    path.write_text(json.dumps(kept, indent=1) + "\n")


def _short(number: float) -> str:
    if number == int(number) and abs(number) >= 10:
        return f"{int(number):,}"
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:.3g}" if abs(number) >= 10 else f"{number:.3f}"
