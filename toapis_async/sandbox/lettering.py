"""The caption: the prompt in up to five lines at the foot of a picture, and a small line about the request.

The font is the one inside Pillow, which knows little more than ASCII. A prompt it can't write is written in a
font of this machine, when a common one that can is installed; else accents are dropped, and what is left
becomes dots, so that the picture still tells that there was a prompt and how long it was.
"""

from __future__ import annotations

import threading
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from PIL import ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL import Image

_LIGHT: Final = 250
_DIM: Final = 165
_SHARES: Final = (0.044, 0.036, 0.029, 0.024)
_MOST_LINES: Final = 5
_LONGEST: Final = 600
_LEADING: Final = 1.28
_MACHINE_FONTS: Final = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "Arial Unicode.ttf",
)
_BUILT_IN: Final = ""


@dataclass(frozen=True, slots=True)
class _Block:
    """Text broken into lines for one size of a font."""

    font: ImageFont.FreeTypeFont
    size: int
    lines: list[str]


def write(tones: Image.Image, prompt: str, note: str) -> None:
    """Write the prompt, and a note below it, into the dark foot of a picture."""
    draw = ImageDraw.Draw(tones)
    margin = round(min(tones.size) * 0.05)
    block = _fitted(prompt, tones.width - 2 * margin, tones.height)
    foot = tones.height - round(margin * 0.8)
    small = _font(_BUILT_IN, max(8, round(block.size * 0.5)))
    draw.text((margin, foot), note, fill=_DIM, font=small, anchor="ls")
    y = foot - round(block.size * 1.2)
    for line in reversed(block.lines):
        draw.text((margin, y), line, fill=_LIGHT, font=block.font, anchor="ls")
        y -= round(block.size * _LEADING)


def _fitted(prompt: str, width: int, height: int) -> _Block:
    """The largest of a few sizes at which the prompt finds room; at the smallest, cut with an ellipsis."""
    sayable = prompt[:_LONGEST].encode("utf-8", "replace").decode()
    name, text = _writable(" ".join(sayable.split()))
    side = min(height, width)
    block, room = _Block(_font(name, 9), 9, []), 1
    for share in _SHARES:
        size = max(9, round(side * share))
        font = _font(name, size)
        block = _Block(font, size, _wrapped(text, width, font))
        room = max(1, min(_MOST_LINES, int(height * 0.24 / (size * _LEADING))))
        if len(block.lines) <= room and len(prompt) <= _LONGEST:
            return block
    return _Block(block.font, block.size, _cut(block.lines, room))


def _cut(lines: list[str], room: int) -> list[str]:
    return [*lines[: room - 1], lines[room - 1][:-3].rstrip() + "…"] if len(lines) >= room else lines


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines no wider than `width`, broken between words, or within one that is wider than a line."""
    space = font.getlength(" ")
    lines, used = [""], 0.0
    for word in text.split(" "):
        wide = font.getlength(word)
        if lines[-1] and used + space + wide <= width:
            lines[-1] += " " + word
            used += space + wide
            continue
        pieces = _pieces(word, width, font) if wide > width else [word]
        lines = [*lines, *pieces] if lines[-1] else pieces
        used = wide if len(pieces) == 1 else font.getlength(pieces[-1])
    return lines


def _pieces(word: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """A word that is wider than a line (as all of a Chinese sentence is), cut where the line ends."""
    pieces: list[str] = []
    while font.getlength(word) > width:
        end = max(1, int(len(word) * width / font.getlength(word)))
        while end > 1 and font.getlength(word[:end]) > width:
            end -= 1
        pieces.append(word[:end])
        word = word[end:]
    return [*pieces, word]


def _writable(text: str) -> tuple[str, str]:
    """The font to write a text in, and the text as that font can show it."""
    if text.isascii() or not _missing(_BUILT_IN, text):
        return _BUILT_IN, text
    for name in _machine_fonts():
        if not _missing(name, text):
            return name, text
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    absent = _missing(_BUILT_IN, plain)
    return _BUILT_IN, "".join("·" if char in absent else char for char in plain)


def _missing(name: str, text: str) -> set[str]:
    """The characters that a font has no glyph for: it draws them as it draws what no font has."""
    font = _font(name, 16)
    nothing = _glyph(font, "\uffff")
    return {char for char in set(text) - {" "} if _glyph(font, char) == nothing}


def _glyph(font: ImageFont.FreeTypeFont, char: str) -> bytes:
    # Pillow's own type for a mask does not say that it is a sequence of tones.
    return bytes(cast("Iterable[int]", font.getmask(char)))


@lru_cache
def _machine_fonts() -> tuple[str, ...]:
    return tuple(name for name in _MACHINE_FONTS if _installed(name))


def _installed(name: str) -> bool:
    try:
        ImageFont.truetype(name, 16)
    except OSError:
        return False
    return True


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return _font_of_thread(name, size, threading.get_ident())


@lru_cache(maxsize=64)
def _font_of_thread(name: str, size: int, thread: int) -> ImageFont.FreeTypeFont:
    """A font keeps the state of the glyph it draws: each thread has its own."""
    del thread
    if name:
        return ImageFont.truetype(name, size)
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType: the sandbox can't write prompts with it")
    return font
