"""Columns that line up, whatever script they are written in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len, set_cell_size

from toapis_async.cli.output import plain

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

KEY_COLUMNS: Final = 48
"""As much of a key as is shown where there is something beside it."""


def aligned(rows: Sequence[Sequence[str]], *, right: Container[int] = ()) -> list[str]:
    """One line a row, its cells padded to their columns; those of the columns in `right` (from 0) on the left."""
    lines = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(_padded(line, widths, right)).rstrip() for line in lines]


def _padded(line: list[str], widths: list[int], right: Container[int]) -> Iterator[str]:
    for place, (cell, width) in enumerate(zip(line, widths, strict=True)):
        yield " " * (width - cell_len(cell)) + cell if place in right else set_cell_size(cell, width)


def cut(text: str, width: int) -> str:
    """One line of at most so many columns, with `…` where the rest was."""
    line = plain(" ".join(text[: 8 * width].split()))
    return line if cell_len(line) <= width else f"{set_cell_size(line, width - 1).rstrip()}…"
