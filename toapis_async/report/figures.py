"""Amounts, and round numbers for axes."""

from __future__ import annotations

import math
from typing import Final

from toapis_async.protocol.wording import duration

_STEPS_S: Final = tuple(
    step * unit
    for unit, steps in ((1, (1, 2, 5, 10, 20, 30)), (60, (1, 2, 5, 10, 20, 30)), (3_600, (1, 2, 3, 6, 12)))
    for step in steps
)


def amount(number: float) -> str:
    """`0.38`, `12.5`, `1,746`: three digits where it is small, whole where it is large."""
    decimals = 0 if number >= 1_000 else 1 if number >= 100 else 2
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def took(seconds: float) -> str:
    """A service time with the precision that it has: the service tells whole seconds."""
    return duration(seconds, whole=float(seconds).is_integer())


def step_s(span_s: float, most: int) -> float:
    """The seconds between the ticks of an axis: round, and at most `most` of them in `span_s`."""
    for step in _STEPS_S:
        if span_s <= step * most:
            return _decimal_step(span_s, most) if span_s < most else step
    days = math.ceil(span_s / most / 86_400)
    return days * 86_400


def _decimal_step(span: float, most: int) -> float:
    """1, 2 or 5 times a power of ten."""
    base = 10.0 ** math.floor(math.log10(span / most))
    return next(base * factor for factor in (1, 2, 5, 10) if span <= base * factor * most * (1 + 1e-9))


def tick(seconds: float, step: float) -> str:
    """A moment on an axis whose ticks are `step` seconds apart: `0`, `0.5 s`, `80 s`, `2 min`, `3 h`, `2 d`."""
    if seconds == 0:
        return "0"
    for unit_s, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if step >= unit_s:
            return f"{seconds / unit_s:g} {name}"
    return f"{seconds:g} s"
