"""Takes API keys out of text for people that others wrote parts of: messages, log lines, pages.

Only out of text for people. Raw answers, links, ids and the journal stay as they came: a link that bears the key works
only with it.
"""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLACEMENT: Final = "sk-***"
PIECE_CHARACTERS: Final = 12
"""As many letters and digits of a key in a row are taken out, wherever in it they stand: texts are cut, and keys with
them."""
_MOST_KEYS: Final = 100
_SHORTEST_LITERAL: Final = 6
"""Shorter keys, which only a sandbox accepts, would be found inside words."""

_ESCAPE: Final = re.compile(
    r"""\\u(?P<u>[0-9a-fA-F]{4})|\\u\{(?P<braces>[0-9a-fA-F]{1,6})\}|\\U(?P<U>[0-9a-fA-F]{8})
    |\\x(?P<x>[0-9a-fA-F]{2})|%(?P<percent>[0-9a-fA-F]{2})
    |&\#[xX](?P<html_hex>[0-9a-fA-F]{1,6});?|&\#(?P<html>[0-9]{1,7});?
    |\\[abfnrtv]|&[a-zA-Z]{2,24};|</?[a-zA-Z]{1,8}\s?/?>""",
    re.VERBOSE,
)
_MOST_LAYERS: Final = 3
"""Escapes may be escaped themselves (`%2525`)."""

_keys: dict[str, frozenset[str]] = {}  # the pieces of each key, its encodings included; the oldest key first
_pieces: frozenset[str] = frozenset()


def protect(key: str) -> None:
    """Take this key out of every text that is scrubbed from now on; of the latest 100 keys."""
    global _pieces  # noqa: PLW0603
    if key in _keys:
        _keys[key] = _keys.pop(key)  # the latest again
        return
    _keys[key] = frozenset(piece for form in _forms(key) for piece in _pieces_of(form))
    while len(_keys) > _MOST_KEYS:
        del _keys[next(iter(_keys))]
    _pieces = frozenset(piece for pieces in _keys.values() for piece in pieces)


def scrub(text: str) -> str:
    """The text without any protected key: also where it is cut, in other letter case, interrupted by characters that
    are no letters (dashes, blanks, zero-width ones, NULs of UTF-16 read as UTF-8), escaped (`\\u002d`, `%2D`, `&#45;`),
    or in base64 or hex."""
    for key in _keys:
        if len(key) >= _SHORTEST_LITERAL:
            text = text.replace(key, REPLACEMENT)
    plain, places = _plain(text)
    parts: list[str] = []
    end = 0
    for first, last in _found(plain):
        parts += (text[end : places[first][0]], REPLACEMENT)
        end = places[last][1]
    return "".join((*parts, text[end:])) if parts else text


def _found(plain: str) -> Iterator[tuple[int, int]]:
    """The first and the last character of each run that pieces of a key cover."""
    first = last = -1
    for start in range(len(plain) - PIECE_CHARACTERS + 1):
        if plain[start : start + PIECE_CHARACTERS] not in _pieces:
            continue
        if first >= 0 and start > last + 1:
            yield first, last
            first = -1
        first = start if first < 0 else first
        last = start + PIECE_CHARACTERS - 1
    if first >= 0:
        yield first, last


def _plain(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The letters and digits of a text in lower case, escapes undone, and where in the text each comes from."""
    places = [(at, at + 1) for at in range(len(text))]
    for _ in range(_MOST_LAYERS):
        decoded, decoded_places = _unescaped(text, places)
        if decoded == text:
            break
        text, places = decoded, decoded_places
    letters: list[str] = []
    kept: list[tuple[int, int]] = []
    for character, place in zip(text, places, strict=True):
        folded = character if character.isascii() else unicodedata.normalize("NFKC", character)
        for letter in folded:
            if letter.isascii() and letter.isalnum():
                letters.append(letter.lower())
                kept.append(place)
    return "".join(letters), kept


def _unescaped(text: str, places: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """One layer of escapes undone; what an escape stands for comes from all of its characters."""
    characters: list[str] = []
    kept: list[tuple[int, int]] = []
    end = 0
    for match in _ESCAPE.finditer(text):
        characters += text[end : match.start()]
        kept += places[end : match.start()]
        end = match.end()
        for character in _meaning(match):
            characters.append(character)
            kept.append((places[match.start()][0], places[end - 1][1]))
    characters += text[end:]
    kept += places[end:]
    return "".join(characters), kept


def _meaning(match: re.Match[str]) -> str:
    """The character an escape stands for; nothing for a tag, a line break and the like."""
    name = match.lastgroup
    if name is not None:
        number = int(match[name], 10 if name == "html" else 16)
        return chr(number) if number <= 0x10FFFF else ""
    return html.unescape(match[0]) if match[0].startswith("&") and html.unescape(match[0]) != match[0] else ""


def _forms(key: str) -> Iterator[str]:
    """The key as it is, in hex, and in base64 wherever in a longer text it stands."""
    content = key.encode()
    yield key
    yield content.hex()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + content).decode().rstrip("=")
        yield encoded[-(-before * 8 // 6) : (before + len(content)) * 8 // 6]


def _pieces_of(form: str) -> Iterator[str]:
    plain = "".join(letter.lower() for letter in form if letter.isascii() and letter.isalnum())
    for start in range(len(plain) - PIECE_CHARACTERS + 1):
        yield plain[start : start + PIECE_CHARACTERS]
