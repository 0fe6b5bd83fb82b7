"""Scenes in one channel: skies, ridges, hills, seas and cities drawn as tones from 0 (near, dark) to 255
(light).

A palette turns tones into colours afterwards. Staying in one channel keeps a scene of a million pixels within
a few milliseconds, and smoothing an edge is plain arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageDraw

from toapis_async.sandbox.tones import column, mapped, resized

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

Points = list[tuple[float, float]]

_SKY_SCALE: Final = 8
_STEPS: Final = 96
_CAPTION_SHARE: Final = 0.34


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where a scene is drawn, and the numbers it is made of."""

    rng: random.Random
    tones: Image.Image
    draw: ImageDraw.ImageDraw
    width: int
    height: int
    sky_bottom: int
    """The tone of the sky at the horizon, which mist takes on."""


def landscape(rng: random.Random, prompt: str, width: int, height: int) -> Image.Image:
    """A scene of this size, of a kind that the prompt names or of any, its lower third for the caption."""
    night = rng.random() < 0.4
    top, bottom = (rng.randint(45, 80), rng.randint(140, 175)) if night else (rng.randint(120, 165), 232)
    tones = _sky(rng, width, height, top, bottom)
    canvas = Canvas(rng, tones, ImageDraw.Draw(tones), width, height, bottom)
    if night:
        _stars(canvas)
    _kind(rng, prompt)(canvas)
    smooth = _softened(tones)
    _darken_bottom(smooth)
    return smooth


def _kind(rng: random.Random, prompt: str) -> Callable[[Canvas], None]:
    words = set(prompt.lower().replace(",", " ").split())
    for named, kind in _NAMED.items():
        if words & named:
            return kind
    return rng.choice((_mountains, _mountains, _hills, _sea, _city))


def _sky(rng: random.Random, width: int, height: int, top: int, bottom: int) -> Image.Image:
    """A gradient with a sun or moon in it, painted small: nothing in a sky has edges but the disc."""
    small = (max(2, width // _SKY_SCALE), max(2, height // _SKY_SCALE))
    horizon = small[1] * 0.7
    sky = column((top + (bottom - top) * min(1.0, y / horizon) ** 1.4 for y in range(small[1])), small[0])
    radius = max(1, round(min(small) * rng.uniform(0.06, 0.12)))
    x, y = round(small[0] * rng.uniform(0.18, 0.82)), round(small[1] * rng.uniform(0.16, 0.42))
    _glow(sky, x, y, radius * 6)
    tones = resized(sky, width, height)
    disc = [(x - radius) * width / small[0], (y - radius) * height / small[1]]
    across = 2 * radius * width / small[0]
    ImageDraw.Draw(tones).ellipse((disc[0], disc[1], disc[0] + across, disc[1] + across), fill=252)
    return tones


def _glow(sky: Image.Image, x: int, y: int, radius: int) -> None:
    light = mapped(resized(Image.radial_gradient("L"), 2 * radius, 2 * radius), _fading)
    sky.paste(250, (x - radius, y - radius), light)


def _fading(distance: int) -> float:
    return 150 * max(0.0, 1 - distance / 180) ** 2


def _stars(canvas: Canvas) -> None:
    size = max(1, canvas.width // 900)
    for _ in range(110):
        x = canvas.rng.uniform(0, canvas.width)
        y = canvas.height * 0.5 * canvas.rng.random() ** 1.5
        tone = canvas.rng.randint(170, 250)
        canvas.draw.rectangle((x, y, x + canvas.rng.choice((0, size)), y + (size - 1)), fill=tone)


def _mountains(canvas: Canvas) -> None:
    _layers(canvas, 5, 0.40, lambda depth: _ridge(canvas, rough=0.62, swing=0.30 - 0.16 * depth))
    _pines(canvas)


def _hills(canvas: Canvas) -> None:
    _layers(canvas, 5, 0.50, lambda depth: _waves(canvas, swing=0.10 - 0.03 * depth))
    if canvas.rng.random() < 0.6:
        _pines(canvas)
    _birds(canvas)


def _sea(canvas: Canvas) -> None:
    """An island or two before the sun, and water with light on it."""
    level = canvas.height * canvas.rng.uniform(0.52, 0.6)
    _layers(canvas, 2, 0.44, lambda depth: _ridge(canvas, rough=0.55, swing=0.2 - 0.1 * depth))
    canvas.draw.rectangle((0, level, canvas.width, canvas.height), fill=100)
    _mist(canvas, level, canvas.height * 0.16, 130, from_above=True)
    for _ in range(150):
        below = canvas.rng.random() ** 1.7
        y = level + below * (canvas.height - level)
        half = canvas.width * canvas.rng.uniform(0.01, 0.05) * (0.4 + below)
        x, tone = canvas.rng.gauss(0.5, 0.3) * canvas.width, canvas.rng.choice((125, 150, 175, 78))
        canvas.draw.rectangle((x - half, y, x + half, y + canvas.height * 0.0016 * (1 + below)), fill=tone)
    _birds(canvas)


def _city(canvas: Canvas) -> None:
    """Rows of towers, the nearest with lit windows."""
    for row, tone in enumerate((160, 110, 66, 26)):
        base = canvas.height * (0.46 + 0.11 * row)
        x = -canvas.width * canvas.rng.random() * 0.05
        while x < canvas.width:
            wide = canvas.width * canvas.rng.uniform(0.025, 0.07) * (0.8 + 0.2 * row)
            top = base - canvas.height * 0.28 * canvas.rng.random() ** 2
            canvas.draw.rectangle((x, top, x + wide, canvas.height), fill=tone)
            if canvas.rng.random() < 0.25:
                middle = x + wide / 2
                canvas.draw.rectangle((middle, top - canvas.height * 0.04, middle + 1, top), fill=tone)
            if row >= 2:
                _windows(canvas, x, top, wide)
            x += wide * canvas.rng.uniform(0.95, 1.25)
        if row < 3:
            _mist(canvas, base - canvas.height * 0.04, canvas.height * 0.2, 70, from_above=False)


def _windows(canvas: Canvas, x: float, top: float, wide: float) -> None:
    size = canvas.height / 130
    for line in range(1, 12):
        for place in range(1, int(wide / (2 * size))):
            if canvas.rng.random() < 0.3:
                left, upper = x + 2 * size * place - size / 2, top + 2.2 * size * line
                tone = canvas.rng.choice((150, 190, 220, 240))
                canvas.draw.rectangle((left, upper, left + size * 0.8, upper + size), fill=tone)


def _layers(canvas: Canvas, count: int, start: float, outline: Callable[[float], list[float]]) -> None:
    """Outlines behind each other, darker as they come nearer, with mist in the valleys between."""
    for layer in range(count):
        depth = layer / max(1, count - 1)
        base = canvas.height * (start + (0.86 - start) * depth**1.1)
        heights = outline(depth)
        points: Points = [
            (canvas.width * step / _STEPS, base - canvas.height * height) for step, height in enumerate(heights)
        ]
        tone = round((canvas.sky_bottom - 48) * (1 - depth) ** 1.25 + 18)
        canvas.draw.polygon([(0, canvas.height), *points, (canvas.width, canvas.height)], fill=tone)
        if layer < count - 1:
            _mist(canvas, base - canvas.height * 0.06, canvas.height * 0.24, 105, from_above=False)


def _ridge(canvas: Canvas, *, rough: float, swing: float) -> list[float]:
    """A mountain ridge by midpoint displacement: heights at evenly spaced steps."""
    heights = [canvas.rng.uniform(-0.3, 0.6), canvas.rng.uniform(-0.3, 0.6)]
    spread = 1.0
    while len(heights) <= _STEPS:
        spread *= rough
        middles = [(left + right) / 2 + canvas.rng.uniform(-spread, spread) for left, right in pairwise(heights)]
        heights = [height for pair in zip(heights, middles, strict=False) for height in pair] + heights[-1:]
    return [height * swing for height in heights[: _STEPS + 1]]


def _waves(canvas: Canvas, *, swing: float) -> list[float]:
    """Rolling hills: three sines."""
    sines = [(canvas.rng.uniform(0.6, 1.4) * 2**k, canvas.rng.uniform(0, 7), 0.55**k) for k in range(3)]
    return [
        swing * sum(size * math.sin(turns * 6.283 * step / _STEPS + phase) for turns, phase, size in sines)
        for step in range(_STEPS + 1)
    ]


def _mist(canvas: Canvas, top: float, tall: float, strength: int, *, from_above: bool) -> None:
    """Lighten a band towards the tone of the horizon; the next layer covers where it ends."""
    rows = max(1, round(tall))
    mask = column((strength * (rows - y if from_above else y) / rows for y in range(rows)), canvas.width)
    canvas.tones.paste(canvas.sky_bottom, (0, round(top)), mask)


def _pines(canvas: Canvas) -> None:
    """A line of trees at the foot of the picture, where the caption's dark begins."""
    x = 0.0
    while x < canvas.width:
        tall = canvas.height * canvas.rng.uniform(0.04, 0.13)
        foot = canvas.height * canvas.rng.uniform(0.80, 0.86)
        for part in range(3):
            top, half = foot - tall * (1 - 0.24 * part), tall * (0.1 + 0.07 * part)
            low = foot - tall * (0.62 - 0.31 * part)
            canvas.draw.polygon([(x, top), (x - half, low), (x + half, low)], fill=10)
        x += canvas.width * canvas.rng.uniform(0.008, 0.05)
    canvas.draw.rectangle((0, canvas.height * 0.82, canvas.width, canvas.height), fill=12)


def _birds(canvas: Canvas) -> None:
    size = canvas.height * 0.012
    x, y = canvas.rng.uniform(0.2, 0.7) * canvas.width, canvas.rng.uniform(0.12, 0.34) * canvas.height
    for _ in range(canvas.rng.randint(3, 8)):
        a, b = x + canvas.rng.uniform(-9, 9) * size, y + canvas.rng.uniform(-4, 4) * size
        wings = [(a - size, b - size * 0.4), (a, b), (a + size, b - size * 0.5)]
        canvas.draw.line(wings, fill=30, width=max(1, canvas.height // 500))


def _softened(tones: Image.Image) -> Image.Image:
    """Half a pixel of blur each way: all that hard edges need, far cheaper than drawing at twice the size."""
    across = Image.blend(tones, ImageChops.offset(tones, 1, 0), 0.5)
    smooth = Image.blend(across, ImageChops.offset(across, 0, 1), 0.5)
    # An offset wraps around: without this the foot of the picture would show as a line along its top.
    smooth.paste(tones.crop((0, 0, 1, tones.height)), (0, 0))
    smooth.paste(tones.crop((0, 0, tones.width, 1)), (0, 0))
    return smooth


def _darken_bottom(tones: Image.Image) -> None:
    """Room for the caption."""
    rows = round(tones.height * _CAPTION_SHARE)
    mask = column((235 * min(1.0, 1.9 * y / rows) for y in range(rows)), tones.width)
    tones.paste(6, (0, tones.height - rows), mask)


_NAMED: Final = {
    frozenset({"city", "neon", "street", "skyline", "tower", "towers", "building", "downtown"}): _city,
    frozenset({"sea", "ocean", "lake", "island", "beach", "harbour", "harbor", "boat", "lighthouse"}): _sea,
    frozenset({"mountain", "mountains", "alps", "fjord", "peak", "glacier", "forest"}): _mountains,
    frozenset({"hill", "hills", "field", "meadow", "desert", "dunes", "kite"}): _hills,
}
