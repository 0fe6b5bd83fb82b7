"""Numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from decimal import Decimal


def duration(seconds: float, *, whole: bool = False) -> str:
    """Seconds as people read them: `0.4 s` (`whole`: `0 s`), `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95 and not whole:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3_600:
        return f"{rounded // 60} min {rounded % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def count(number: int, noun: str) -> str:
    """`1 image`, `1,200 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def noun_of(kinds: Collection[str]) -> str:
    """What files of these kinds are called: `image`, `video`, or `file` when they are of both."""
    return next(iter(kinds), "image") if len(kinds) < 2 else "file"


def amount(credits_: Decimal) -> str:
    """Credits with thousands separators and without trailing zeros: `1,024`, `0.38`."""
    text = f"{credits_:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
