"""The shapes of the charts; page.html draws them. Widths are percent of the chart, so that text keeps its size."""

from __future__ import annotations

import math
from bisect import bisect_right
from statistics import median
from typing import TYPE_CHECKING, Final

from attrs import frozen

from toapis_async.protocol.wording import count, duration
from toapis_async.report.figures import step_s, tick, took

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toapis_async.report.rows import RequestClass
    from toapis_async.report.summary import RunTotals

_SAMPLES: Final = 240
_BINS: Final = 36
_MOST_CLASSES: Final = 6
_TICKS: Final = 5


@frozen
class Tick:
    """A mark on the axis of time."""

    x: float  #: percent
    text: str


@frozen
class TimeLine:
    """How many rows were submitted, running and done at each moment: SVG points in a box of 240 by 100."""

    submitted: str
    running: str
    done: str
    most: int
    most_running: int
    ticks: tuple[Tick, ...]
    description: str  #: the chart in words


@frozen
class Bar:
    x: float
    width: float
    height: float
    description: str


@frozen
class Histogram:
    """One class's service times."""

    name: str
    short: str  #: the class in few words
    description: str  #: … and in more
    bars: tuple[Bar, ...]
    median_x: float


@frozen
class Histograms:
    """A histogram a class, above one axis."""

    common: str  #: the model of all of them; "" when they differ
    classes: tuple[Histogram, ...]
    ticks: tuple[Tick, ...]


def time_line(totals: RunTotals, now: float) -> TimeLine | None:
    """The run over time; None when too little is known to draw a line."""
    if not totals.starts:
        return None
    starts, ends, good = sorted(totals.starts), sorted(totals.ends), sorted(totals.good_ends)
    begin = starts[0]
    end = max(now, begin) if ends[-1] == math.inf else ends[-1]
    if end <= begin:
        return None
    moments = [begin + (end - begin) * i / _SAMPLES for i in range(_SAMPLES + 1)]
    submitted = [bisect_right(starts, moment) for moment in moments]
    running = [given - bisect_right(ends, moment) for given, moment in zip(submitted, moments, strict=True)]
    done = [bisect_right(good, moment) for moment in moments]
    most = submitted[-1]
    return TimeLine(
        submitted=_points(submitted, most),
        running=_points(running, most),
        done=_points(done, most),
        most=most,
        most_running=max(running),
        ticks=_ticks(end - begin),
        description=f"{count(most, 'row')} submitted, at most {max(running):,} running at once, {done[-1]:,} done, "
        f"in {duration(end - begin)}",
    )


def histograms(totals: RunTotals) -> Histograms | None:
    """Service times by class; None when none is known."""
    if not totals.service:
        return None
    models = {model for model, _, _ in totals.service}
    common = models.pop() if len(models) == 1 else None
    classes = [(name, sorted(times)) for name, times in _busiest(totals.service, bool(common))]
    span_s = _span_s(sorted(seconds for _, times in classes for seconds in times))
    return Histograms(
        common=common or "",
        classes=tuple(_histogram(name, times, span_s) for name, times in classes),
        ticks=_ticks(span_s),
    )


def _busiest(service: Mapping[RequestClass, Sequence[float]], without_model: bool) -> list[tuple[str, Sequence[float]]]:
    """The classes with most rows, and the others as one, with their names."""
    ranked = sorted(service.items(), key=lambda item: -len(item[1]))
    own = len(ranked) if len(ranked) <= _MOST_CLASSES else _MOST_CLASSES - 1
    named = [(" · ".join(filter(None, one[without_model:])) or "default", times) for one, times in ranked[:own]]
    rest = [seconds for _, times in ranked[own:] for seconds in times]
    return [*named, (f"{len(ranked) - own:,} other classes", rest)] if rest else [*named]


def _span_s(times: Sequence[float]) -> float:
    """What the axis covers: all but the slowest hundredth, which the last bar collects."""
    high = times[math.ceil(0.99 * len(times)) - 1] or 1.0
    step = step_s(high, _TICKS)
    return step * math.ceil(high / step + 1e-9)


def _histogram(name: str, times: Sequence[float], span_s: float) -> Histogram:
    width_s = span_s / _BINS
    counts = [0] * _BINS
    for seconds in times:
        counts[min(int(seconds / width_s), _BINS - 1)] += 1
    middle = median(times)
    return Histogram(
        name=name,
        short=f"{count(len(times), 'row')}, median {took(middle)}",
        description=f"{count(len(times), 'row')}, median {took(middle)}, slowest {took(times[-1])}",
        bars=tuple(
            Bar(
                x=100 * i / _BINS,
                width=100 / _BINS,
                height=100 * number / max(counts),
                description=f"{_interval(i, width_s)}: {count(number, 'row')}",
            )
            for i, number in enumerate(counts)
            if number
        ),
        median_x=min(100 * middle / span_s, 100),
    )


def _interval(i: int, width_s: float) -> str:
    if i == _BINS - 1:
        return f"{duration(i * width_s)} and more"
    return f"{duration(i * width_s)} to {duration((i + 1) * width_s)}"


def _points(values: Sequence[int], most: int) -> str:
    return " ".join(f"{x},{100 - 100 * value / most:.2f}".rstrip("0").rstrip(".") for x, value in enumerate(values))


def _ticks(span_s: float) -> tuple[Tick, ...]:
    step = step_s(span_s, _TICKS)
    moments = (i * step for i in range(math.floor(span_s / step + 1e-9) + 1))
    return tuple(Tick(100 * moment / span_s, tick(moment, step)) for moment in moments)
