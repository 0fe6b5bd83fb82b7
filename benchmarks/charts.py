"""Small SVG charts by hand, readable on a light and on a dark page."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 48, 52
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #737d88 }
.title { font-size: 15px; font-weight: 600 }
.axis { stroke: #999; stroke-width: 1 }
.grid { stroke: #999; stroke-opacity: .25 }
.line { fill: none; stroke-width: 2 }
"""
# One grey that is read on white and on black: a page's own dark mode is unknown to a picture in it.
COLOURS = ("#1f6feb", "#e36209", "#8250df", "#2da44e")


@dataclass(frozen=True)
class Series:
    """Points of one policy, joined by a line when there are several."""

    name: str
    points: tuple[tuple[float, float], ...]


def scatter(title: str, across: str, up: str, series: Sequence[Series]) -> str:
    """Two quantities against each other; both axes begin at 0."""
    most_x = _round_up(max(x for one in series for x, _ in one.points))
    most_y = _round_up(max(y for one in series for _, y in one.points))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / most_x * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / most_y * (HEIGHT - TOP - BOTTOM),
        )

    parts = [*_axes((most_x, most_y), (across, up))]
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        spots = [place(x, y) for x, y in sorted(one.points)]
        if len(spots) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
            parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in spots]
        x, y = WIDTH - RIGHT - 120, TOP + 6 + 20 * number
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 12}" y="{y}">{escape(one.name)}</text>')
    return _svg(title, parts, HEIGHT)


def bars(title: str, values: Mapping[str, float], unit: str) -> str:
    """One bar a name, longest value full width."""
    height = TOP + 34 * len(values) + 12
    most = max(values.values())
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y = TOP + 34 * number
        length = max(value / most * (WIDTH - 150 - 110), 1.0)
        colour = COLOURS[0] if name == "toapis-async" else "#8c959f"
        parts.append(f'<text x="142" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="150" y="{y}" width="{length:.1f}" height="22" rx="3" fill="{colour}"/>')
        parts.append(f'<text x="{158 + length:.1f}" y="{y + 16}">{value:.3g} {escape(unit)}</text>')
    return _svg(title, parts, height)


def write_all(folder: Path, details: Mapping[str, Any]) -> None:
    """Every chart there are figures for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, points in details.get("frontier", {}).items():
        text = scatter(f"Polls against lag: {name}", "GETs per task", "mean lag (s)", _by_policy(points))
        (folder / f"frontier-{name.replace(' ', '-')}.svg").write_text(text)
    if "peers" in details:
        for key, title, unit in (
            ("cpu_ms_per_task", "Client CPU per task", "ms"),
            ("gets_per_task", "Status queries per task", "GETs"),
        ):
            runs = ((name, run[key]) for name, run in details["peers"].items())
            values = dict(sorted(runs, key=lambda pair: pair[1]))
            (folder / f"{key.replace('_', '-')}.svg").write_text(bars(title, values, unit))
    if "instructions" in details:
        counts = details["instructions"]
        values = {"bare aiohttp": counts["bare_life"] / 1e6, "toapis-async": counts["life"] / 1e6}
        text = bars("Instructions of a life: a submission and three polls", values, "million")
        (folder / "instructions-of-a-life.svg").write_text(text)


def _by_policy(points: Sequence[tuple[str, float, float, float]]) -> list[Series]:
    names = sorted({name for name, *_ in points}, key=["ours", "best possible", "fixed 5 s", "back-off"].index)
    return [
        Series(_label(name), tuple((polls, lag_s) for policy, polls, lag_s, _ in points if policy == name))
        for name in names
    ]


def _label(name: str) -> str:
    return {"ours": "toapis-async", "naive": "naive loop"}.get(name, name)


def _axes(most: tuple[float, float], names: tuple[str, str]) -> list[str]:
    """Both axes with four steps each, from 0 to their most."""
    (most_x, most_y), (across, up) = most, names
    left, bottom, right, top = LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, TOP
    parts = []
    for step in range(5):
        x, y = left + step / 4 * (right - left), bottom + step / 4 * (top - bottom)
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{step / 4 * most_y:g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{step / 4 * most_x:g}</text>')
    parts.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">{escape(across)}</text>')
    parts.append(
        f'<text transform="rotate(-90 18 {(top + bottom) / 2})" x="18" y="{(top + bottom) / 2}" '
        f'text-anchor="middle">{escape(up)}</text>'
    )
    return parts


def _svg(title: str, parts: Sequence[str], height: int) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">\n<style>{STYLE}</style>\n'
        f'<text class="title" x="{WIDTH / 2}" y="26" text-anchor="middle">{escape(title)}</text>\n{body}\n</svg>\n'
    )


def _round_up(number: float) -> float:
    """The next number that is four round steps."""
    for step in (0.5, 1, 2, 4, 5, 10, 20, 25, 50, 100, 200, 500, 1_000):
        if 4 * step >= number:
            return 4.0 * step
    return number
