"""A key is found in shown text however it is written there."""

from __future__ import annotations

import base64
import html
import json
import logging
import random
import string
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.log import logger
from toapis_async.protocol.lenient import shorten
from toapis_async.scrub import REPLACEMENT, protect, scrub

LETTERS = string.ascii_letters + string.digits
SECRET = "f00d" + "".join(random.Random(7).choices(LETTERS, k=44))  # hex digits after the dash, as after an escape
KEY = f"sk-{SECRET}"
SHORT = "sk-try"


@pytest.fixture(autouse=True)
def _protected() -> None:
    protect(KEY)
    protect(SHORT)


def utf16(text: str, encoding: str = "utf-16") -> str:
    """How a body in UTF-16 looks when it is read as UTF-8."""
    return text.encode(encoding).decode("utf-8", "replace")


ECHOES = {
    "plain": KEY,
    "upper-case": KEY.upper(),
    "json-dash": KEY.replace("-", "\\u002d"),
    "json-all": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "json-escaped-twice": json.dumps(json.dumps("".join(f"\\u{ord(c):04X}" for c in KEY))),
    "hex-escapes": "".join(f"\\x{ord(c):02x}" for c in KEY),
    "braces": "".join(f"\\u{{{ord(c):x}}}" for c in KEY),
    "percent": quote(KEY.replace("-", "\x2d"), safe="").replace("-", "%2D"),
    "percent-all": "".join(f"%{ord(c):02X}" for c in KEY),
    "percent-twice": "".join(f"%25{ord(c):02X}" for c in KEY),
    "percent-thrice": "".join(f"%2525{ord(c):02X}" for c in KEY),
    "html-dash": KEY.replace("-", "&#45;"),
    "html-all": "".join(f"&#x{ord(c):x};" for c in KEY),
    "html-soft-hyphens": "&shy;".join(KEY),
    "html-tags": "<wbr>".join(KEY),
    "html-title": f"<title>{html.escape(KEY)}</title>",
    "utf-16": utf16(KEY),
    "utf-16-be": utf16(KEY, "utf-16-be"),
    "utf-32": utf16(KEY, "utf-32"),
    "zero-width": f"{KEY[:20]}\u200b{KEY[20:]}",
    "joiners": "\u2060".join(KEY),
    "full-width": "".join(chr(ord(c) + 0xFEE0) for c in KEY),
    "blanks": " ".join(KEY),
    "line-breaks": f"{KEY[:25]}\r\n\t{KEY[25:]}",
    "escaped-line-break": f"{KEY[:25]}\\n{KEY[25:]}",
    "quoted-parts": f'"{KEY[:25]}" + "{KEY[25:]}"',
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64-shifted": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "base64-inside": base64.urlsafe_b64encode(f'{{"key": "{KEY}", "ok": 1}}'.encode()).decode(),
    "hex": KEY.encode().hex(),
    "cut": KEY[:30],
    "tail": KEY[-30:],
    "in-a-link": f"https://files.example/a.png?token={quote(KEY)}&x=1",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
@pytest.mark.parametrize("frame", ["{}", "bad key {}, try again", '{{"error": "{}"}}', "中文{}中文"])
def test_an_echo_of_the_key_is_taken_out_and_what_is_around_it_stays(echo: str, frame: str) -> None:
    text = frame.format(echo)
    scrubbed = scrub(text)
    assert REPLACEMENT in scrubbed
    before, after = frame.format("\0").split("\0")
    assert scrubbed.startswith(before)
    assert scrubbed.endswith(after)
    assert longest_piece(scrubbed) < 12
    assert longest_piece(shorten(text)) < 12


def longest_piece(text: str) -> int:
    """How many letters and digits of the key in a row can be read in a text."""
    letters = "".join(c for c in text if c.isalnum()).lower()
    plain = KEY.replace("-", "").lower()
    sizes = range(1, len(plain) + 1)
    return max((n for n in sizes if any(plain[at : at + n] in letters for at in range(len(plain) - n + 1))), default=0)


def test_a_key_across_the_cut_of_a_long_text_is_not_shown() -> None:
    for padding in range(2_330, 2_420):
        assert longest_piece(shorten("\x00" * padding + KEY)) < 12


def test_two_echoes_are_two_and_the_words_between_them_stay() -> None:
    assert scrub(f"{KEY} or {KEY.upper()}?") == f"{REPLACEMENT} or {REPLACEMENT}?"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "task not found",
        "sk-other" + SECRET[::-1],
        "100% sure, 50%25 &amp; more \\u002d \\n <b>bold</b>",
        "当前分组上游负载已饱和",
        "https://files.example/a%20b.png?sig=%2F%3D",
        "try",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert scrub(text) == text


def test_a_short_key_is_taken_out_as_it_is() -> None:
    assert scrub(f"bad key {SHORT}!") == f"bad key {REPLACEMENT}!"


def test_a_log_line_shows_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logger.warning("task %s failed: %s", KEY, "\u200b".join(KEY))
    assert caplog.messages == [f"task {REPLACEMENT} failed: {REPLACEMENT}"]


@settings(max_examples=150)
@given(text=st.text(st.sampled_from([*r"\ux%&#;<>{}0aF2d-", "\u200b", "é", "\ufb00", "\ud800"])))
def test_any_text_is_scrubbed_without_an_error_and_kept(text: str) -> None:
    assert scrub(text) == text
