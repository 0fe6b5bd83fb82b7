"""Small tools for pictures in one channel, and the one place that calls what Pillow leaves half typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def resized(image: Image.Image, width: int, height: int, *, smooth: bool = True) -> Image.Image:
    """A picture at another size, smoothly or by plain repetition."""
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return image.resize((max(1, width), max(1, height)), how)  # pyright: ignore[reportUnknownMemberType]


def mapped(image: Image.Image, tone_of: Callable[[int], float]) -> Image.Image:
    """A picture with every tone replaced."""
    table = [round(tone_of(tone)) for tone in range(256)]
    return image.point(table)  # pyright: ignore[reportUnknownMemberType]


def column(tones: Iterable[float], width: int) -> Image.Image:
    """Rows of one tone each, from the top."""
    values = bytes(round(tone) for tone in tones)
    return resized(Image.frombytes("L", (1, len(values)), values), width, len(values), smooth=False)
