"""The pictures: a scene in a palette of its own, with the prompt written below. Needs Pillow; blocking.

Everything is drawn in one channel, as tones, and 256 colours turn the tones into a dusk, a lagoon, a forest.
A picture thus costs one byte a pixel, and its PNG is compressed in one go. The scene is composed at a whole
fraction of the size and enlarged; the caption is drawn at full size. All of it follows from a hash of the
work.
"""

from __future__ import annotations

import hashlib
import io
import random
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from PIL import Image, UnidentifiedImageError

from toapis_async.sandbox import landscape, lettering, png
from toapis_async.sandbox.tones import resized

if TYPE_CHECKING:
    from toapis_async.sandbox.validation import ImageJob

_SCENE_PIXELS: Final = 600_000
_INSET_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")

_UNDECODABLE: Final = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

_RAMPS: Final = (
    ("#170b3b", "#4a1c63", "#a3326f", "#ee6f57", "#ffbd6f", "#fff3d0"),  # dusk
    ("#08203a", "#124e78", "#3a8fb7", "#8fcfd6", "#dff0e0", "#fffdf0"),  # lagoon
    ("#10231c", "#1f4a38", "#4d8053", "#a9bf68", "#efe2a0", "#fff8e0"),  # forest
    ("#1c1233", "#3c2a70", "#6a5acd", "#a99be8", "#f0c8e6", "#fff5fb"),  # lavender
    ("#2a0f14", "#6b1e26", "#b8432f", "#ea8a4a", "#f9cf8a", "#fff4da"),  # desert
    ("#071724", "#0f3b4f", "#19716f", "#5fb58c", "#c7e3a4", "#fbfce4"),  # fjord
    ("#1a1423", "#47305a", "#8c5471", "#d0837c", "#f3c3a2", "#fdf3e7"),  # rose
    ("#05060f", "#141b41", "#28407c", "#5d7fc0", "#b2c7ee", "#f4f6ff"),  # moonlight
)

_BELL: Final = [4 * (tone / 255) * (1 - tone / 255) for tone in range(256)]
"""How far a turn of the ramp reaches: not to its ends, where the caption is light on dark."""


def draw(job: ImageJob, index: int, reference: bytes | None) -> bytes:
    """Picture `index` of a job as PNG (or JPEG, if it asked for that), its reference hung in a corner."""
    rng = random.Random(hashlib.blake2b(f"{job.digest}/{index}".encode()).digest())
    palette = _palette(rng)
    tones = _scene(rng, job.prompt, job.width, job.height)
    if reference is not None:
        _hang(tones, reference)
    lettering.write(tones, job.prompt, f"{job.model} · {job.width}x{job.height} · {job.quality}")
    if job.output_format == "jpeg":
        return _jpeg(tones, palette)
    return png.encoded(job.width, job.height, palette, tones.tobytes())


def _scene(rng: random.Random, prompt: str, width: int, height: int) -> Image.Image:
    """A landscape of this size: composed small, enlarged twofold smoothly, and further by repetition."""
    times = 2
    while width * height > _SCENE_PIXELS * times * times:
        times += 2
    across, down = -(-width // times), -(-height // times)
    tones = landscape.landscape(rng, prompt, across, down)
    tones = resized(tones, 2 * across, 2 * down)
    if times > 2:
        tones = resized(tones, across * times, down * times, smooth=False)
    return tones if tones.size == (width, height) else tones.crop((0, 0, width, height))


def _palette(rng: random.Random) -> png.Palette:
    """256 colours along a ramp, each ramp a little turned so that two dusks differ."""
    ramp = _ramp(rng.randrange(len(_RAMPS)))
    turns = [rng.uniform(-14, 14) for _ in ramp]
    red, green, blue = (
        [max(0, min(255, round(value + turn * bell))) for value, bell in zip(channel, _BELL, strict=True)]
        for channel, turn in zip(ramp, turns, strict=True)
    )
    return list(zip(red, green, blue, strict=True))


@lru_cache
def _ramp(number: int) -> tuple[list[float], ...]:
    """The three channels of a ramp at all 256 tones."""
    stops = [bytes.fromhex(colour[1:]) for colour in _RAMPS[number]]
    return tuple([_between([stop[place] for stop in stops], tone / 255) for tone in range(256)] for place in range(3))


def _between(stops: list[int], share: float) -> float:
    place = share * (len(stops) - 1)
    below = min(int(place), len(stops) - 2)
    return stops[below] + (stops[below + 1] - stops[below]) * (place - below)


def _hang(tones: Image.Image, reference: bytes) -> None:
    """Hang a reference in the upper right corner, in the picture's own tones and in a light frame."""
    side = round(min(tones.size) * 0.2)
    try:
        with Image.open(io.BytesIO(reference), formats=_INSET_FORMATS) as opened:
            opened.draft("L", (2 * side, 2 * side))
            inset = opened.convert("L")
    except _UNDECODABLE:
        # An upload is known by its first bytes only; what can't be decoded is not shown.
        return
    inset.thumbnail((side, side))
    frame, margin = max(2, side // 40), round(min(tones.size) * 0.04)
    left = tones.width - margin - inset.width
    tones.paste(245, (left - frame, margin - frame, left + inset.width + frame, margin + inset.height + frame))
    tones.paste(inset, (left, margin))


def _jpeg(tones: Image.Image, palette: png.Palette) -> bytes:
    tones.putpalette([channel for colour in palette for channel in colour])
    stream = io.BytesIO()
    tones.convert("RGB").save(stream, "JPEG", quality=85)
    return stream.getvalue()
