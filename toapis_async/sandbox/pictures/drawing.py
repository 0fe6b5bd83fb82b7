"""Pictures: tones of one channel, from 0 (near, dark) to 255 (light), coloured by a palette. Needs Pillow; blocking."""

from __future__ import annotations

import hashlib
import io
import math
import random
import threading
from functools import lru_cache
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Final, cast

from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from toapis_async.sandbox.jobs import Job

_SCENE_PIXELS, _STEPS, _LONGEST, _LEADING = 600_000, 384, 600, 1.28
_FONTS: Final = ("", "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "msyh.ttc", "PingFang.ttc")
"""Fonts to try: the one inside Pillow, which knows little more than ASCII, then common ones of this machine."""
_FONT_IN_USE: Final = threading.Lock()  # a font keeps the state of the glyph it draws
_PALETTES: Final = (
    "170b3b 4a1c63 a3326f ee6f57 ffbd6f fff3d0",  # dusk
    "08203a 124e78 3a8fb7 8fcfd6 dff0e0 fffdf0",  # lagoon
    "10231c 1f4a38 4d8053 a9bf68 efe2a0 fff8e0",  # forest
    "2a0f14 6b1e26 b8432f ea8a4a f9cf8a fff4da",  # desert
    "05060f 141b41 28407c 5d7fc0 b2c7ee f4f6ff",  # moonlight
)
_SCENES: Final = {
    "city": (4, 0.46, 0.84, 0.0, "neon street skyline tower towers building buildings downtown"),
    "sea": (2, 0.44, 0.60, 0.58, "ocean lake island beach harbour harbor boat lighthouse"),
    "mountains": (5, 0.40, 0.84, 0.58, "mountain alps fjord peak glacier forest"),
    "hills": (5, 0.50, 0.84, 0.45, "hill field meadow desert dunes kite"),
}
"""How many outlines, where the first and the last stand, how rough they are, and the words that choose the scene."""


def draw(job: Job, index: int, reference: bytes | None) -> bytes:
    """Picture `index` of a job as PNG, or as JPEG if it asked for that."""
    stream, (mode, kind) = io.BytesIO(), ("RGB", "JPEG") if job.output_format == "jpeg" else ("P", "PNG")
    paint(job, index, reference).convert(mode).save(stream, kind, quality=85, compress_level=1)
    return stream.getvalue()


def paint(job: Job, index: int, reference: bytes | None) -> Image.Image:
    """A scene that follows from the work alone, its reference hung in a corner, the prompt below; in palette mode."""
    rng = random.Random(hashlib.blake2b(f"{job.digest}/{index}".encode()).digest())
    picture, palette = _scene(rng, job.prompt, job.width, job.height), bytes.fromhex(rng.choice(_PALETTES))
    palette = bytes(max(0, min(255, value + rng.randint(-9, 9))) for value in palette)
    if reference is not None:
        _hang(picture, reference)
    write(picture, job.prompt, job.label)
    picture.putpalette(_resized(Image.frombytes("RGB", (6, 1), palette), 256, 1).tobytes())
    return picture


def _scene(rng: random.Random, prompt: str, width: int, height: int) -> Image.Image:
    """Outlines behind each other, darker as they come nearer, with mist between, and a dark foot for the caption."""
    times = max(2, math.ceil(math.sqrt(width * height / _SCENE_PIXELS)))
    across, down = -(-width // times), -(-height // times)
    words = set(prompt.lower().replace(",", " ").split())
    name = next((name for name in _SCENES if words & {name, *_SCENES[name][4].split()}), rng.choice([*_SCENES]))
    count, start, end, rough, _ = _SCENES[name]
    tones, horizon = _sky(rng, across, down)
    pen = ImageDraw.Draw(tones)
    for depth in (layer / (count - 1) for layer in range(count)):
        base = start + (end - start) * depth**1.1
        rises = _towers(rng, depth) if name == "city" else _ridge(rng, depth, rough)
        points = [(across * step / _STEPS, down * (base - rise)) for step, rise in enumerate(rises)]
        pen.polygon([(0, down), *points, (across, down)], fill=round((horizon - 48) * (1 - depth) ** 1.25 + 18))
        if name == "city" and depth > 0.5:
            _windows(pen, rng, points, down)
        _shade(tones, base - 0.06, 0.24, horizon, 0, 105 if depth < 1 else 0)
    if name == "sea":
        _water(tones, pen, rng)
    elif name != "city":
        _pines(pen, rng, across, down)
    _shade(tones, 0.66, 0.34, 6, 0, 110, 225, 235, 235, 235)
    return _resized(tones, across * times, down * times).crop((0, 0, width, height))


def _sky(rng: random.Random, width: int, height: int) -> tuple[Image.Image, int]:
    """A gradient with a glowing sun or moon, and at night with stars; and the tone of its horizon."""
    night = rng.random() < 0.4
    top, horizon = (rng.randint(45, 80), rng.randint(140, 175)) if night else (rng.randint(120, 165), 232)
    sky = _column(width, height, top, (2 * top + horizon) // 3, horizon, horizon)
    x, y = rng.uniform(0.18, 0.82) * width, rng.uniform(0.16, 0.42) * height
    radius = max(1.0, rng.uniform(0.06, 0.12) * min(width, height))
    pen = ImageDraw.Draw(sky)
    for _ in range(110 if night else 0):
        pen.point((rng.uniform(0, width), rng.random() ** 1.5 * height / 2), fill=rng.randint(170, 250))
    light = _resized(Image.radial_gradient("L"), round(12 * radius), round(12 * radius))
    fading = [round(150 * max(0.0, 1 - distance / 180) ** 2) for distance in range(256)]
    sky.paste(250, (round(x - 6 * radius), round(y - 6 * radius)), light.point(fading))  # pyright: ignore[reportUnknownMemberType]
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=252)
    return sky, horizon


def _ridge(rng: random.Random, depth: float, rough: float) -> list[float]:
    """Mountains or hills by midpoint displacement: heights at evenly spaced steps, in shares of the picture's."""
    heights, spread = [rng.uniform(-0.3, 0.6), rng.uniform(-0.3, 0.6)], 1.0
    while len(heights) <= _STEPS:
        spread *= rough
        middles = [(a + b) / 2 + rng.uniform(-spread, spread) for a, b in pairwise(heights)]
        heights = [height for pair in zip(heights, middles, strict=False) for height in pair] + heights[-1:]
    return [height * (0.30 - 0.16 * depth) for height in heights[: _STEPS + 1]]


def _towers(rng: random.Random, depth: float) -> list[float]:
    towers = ([0.3 * rng.random() ** 2] * round(rng.uniform(10, 24) * (0.8 + 0.5 * depth)) for _ in range(_STEPS))
    return list(islice(chain.from_iterable(towers), _STEPS + 1))


def _windows(pen: ImageDraw.ImageDraw, rng: random.Random, points: list[tuple[float, float]], height: int) -> None:
    for (x, top), (_, end) in zip(points[1::5], points[4::5], strict=False):
        for y in (top + height * 0.017 * line for line in range(1, 12 if top == end else 0)):
            if rng.random() < 0.3:
                pen.rectangle((x, y, x + height / 140, y + height / 130), fill=rng.choice((150, 190, 220, 240)))


def _water(tones: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0.57 * tones.height, tones.width, tones.height), fill=100)
    _shade(tones, 0.57, 0.16, 190, 130, 0)
    for _ in range(150):
        below = rng.random() ** 1.7
        x, y = rng.gauss(0.5, 0.3) * tones.width, (0.57 + below * 0.43) * tones.height
        half = tones.width * rng.uniform(0.01, 0.05) * (0.4 + below)
        pen.line((x - half, y, x + half, y), fill=rng.choice((125, 150, 175, 78)))


def _pines(pen: ImageDraw.ImageDraw, rng: random.Random, width: int, height: int) -> None:
    x = 0.0
    while x < width:
        tall, foot = height * rng.uniform(0.04, 0.13), height * rng.uniform(0.80, 0.86)
        for part in (0.0, 0.3, 0.6):
            low, half = foot - tall * (0.6 - part), tall * (0.08 + part / 4)
            pen.polygon([(x, low - tall * 0.4), (x - half, low), (x + half, low)], fill=10)
        x += max(1.0, width * rng.uniform(0.008, 0.05))


def _hang(tones: Image.Image, reference: bytes) -> None:
    """Hang a reference in the upper right corner, in a light frame, if it can be decoded."""
    side, margin = round(min(tones.size) * 0.2), round(min(tones.size) * 0.04)
    try:
        with Image.open(io.BytesIO(reference), formats=("JPEG", "PNG", "WEBP", "GIF")) as opened:
            opened.draft("L", (2 * side, 2 * side))
            inset = opened.convert("L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return
    inset.thumbnail((side, side))
    frame = max(2, side // 40)
    tones.paste(ImageOps.expand(inset, frame, 245), (tones.width - margin - inset.width - 2 * frame, margin))


def _shade(tones: Image.Image, top: float, tall: float, tone: int, *strengths: int) -> None:
    """Blend a band towards a tone, with strengths (0 to 255) that run from the band's top to its foot."""
    tones.paste(tone, (0, round(top * tones.height)), _column(tones.width, round(tall * tones.height), *strengths))


def _column(width: int, height: int, *tones: int) -> Image.Image:
    """A gradient from the top to the foot."""
    return _resized(Image.frombytes("L", (1, len(tones)), bytes(tones)), width, height)


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((max(1, width), max(1, height)), Image.Resampling.BILINEAR)  # pyright: ignore[reportUnknownMemberType]


def write(tones: Image.Image, prompt: str, note: str) -> None:
    """Write the prompt, and a note below it, into the dark foot of a picture of one channel."""
    draw = ImageDraw.Draw(tones)
    margin = round(min(tones.size) * 0.05)
    with _FONT_IN_USE:
        font, lines = _fitted(prompt, tones.width - 2 * margin, tones.height)
        y = tones.height - round(margin * 0.8)
        draw.text((margin, y), note, fill=165, font=_font("", max(8, round(font.size * 0.5))), anchor="ls")
        y -= round(font.size * 1.2)
        for line in reversed(lines):
            draw.text((margin, y), line, fill=250, font=font, anchor="ls")
            y -= round(font.size * _LEADING)


def _fitted(prompt: str, width: int, height: int) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """The largest font in which the prompt finds room, and its lines; cut with an ellipsis at the smallest."""
    name, text = _writable(" ".join(prompt[:_LONGEST].encode("utf-8", "replace").decode().split()))
    for share in (0.044, 0.036, 0.029, 0.024):
        font = _font(name, max(9, round(min(height, width) * share)))
        lines, room = _wrapped(text, width, font), max(1, min(5, int(height * 0.24 / (font.size * _LEADING))))
        if len(lines) <= room and len(prompt) <= _LONGEST:
            return font, lines
    return font, [*lines[: room - 1], lines[room - 1][:-3].rstrip() + "…"] if len(lines) >= room else lines


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines no wider than `width`, broken at the last blank, or within a word that is wider than a line."""
    lines, line = list[str](), ""
    for char in text:
        if line and font.getlength(line + char) > width:
            end = max(line.rfind(" "), 0) if char != " " else 0
            lines.append(line[: end or len(line)])
            line = line[end or len(line) :]
        line = (line + char).lstrip()
    return [*lines, line]


def _writable(text: str) -> tuple[str, str]:
    """A font that can write a text; if none can, what has no glyph becomes dots."""
    for name in _FONTS:
        if not _missing(name, text):
            return name, text
    absent = _missing("", text)
    return "", "".join("·" if char in absent else char for char in text)


def _missing(name: str, text: str) -> set[str]:
    """The characters that a font can't draw: all, when it is not installed; else those drawn like none at all."""
    try:
        glyphs = {char: bytes(cast("list[int]", _font(name, 16).getmask(char))) for char in {*text, "\uffff"}}
    except OSError:
        return set(text)
    return {char for char in set(text) - {" "} if glyphs[char] == glyphs["\uffff"]}


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(name, size) if name else cast("ImageFont.FreeTypeFont", ImageFont.load_default(size))
