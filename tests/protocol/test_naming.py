"""Names of rows and files, against keys made to escape."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol.naming import digest, file_stem, hashed_stem, plain_stem, row_key, slug

RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])\s*", re.IGNORECASE)
HASHED = re.compile(r"~[0-9a-f]{8}$")

nasty = st.one_of(
    st.text(max_size=200),
    st.text(st.sampled_from('./\\:*?"<>|-~ 0aA\0\n\u202eé\u0301ß²\ud800\u200dÅ\u0130\u0307क्\ufe0f'), max_size=12),
    st.sampled_from(["con", "COM", "lpt", "nul", "aux"]).flatmap(
        lambda name: st.text(st.sampled_from("0123456789.² x"), max_size=3).map(lambda rest: name + rest)
    ),
)


@pytest.mark.parametrize(
    "key",
    [
        "kite",
        "Kite_7",
        "a b.c~d-e",
        "风筝",
        "été",
        "kite-2b",
        "2",
        "kite~2",
        "a..b",
        "row-1x",
        "v1.2",
        "_con",
        "हिन्दी",
        "தமிழ்",
        "ภาษาไทย",
        "বাংলা",
        "שָׁלוֹם",
        "မြန်မာ",
    ],
)
def test_a_safe_key_is_its_own_file_name(key: str) -> None:
    assert file_stem(key) == key


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("kite-2", "kite-2"),
        ("kite-007", "kite-007"),
        ("kite-٣", "kite-٣"),
        ("a/b", "a_b"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("a\\b", "a_b"),
        ("C:x", "C_x"),
        ("..", ""),
        (".", ""),
        ("", ""),
        (" ", ""),
        (".hidden", "hidden"),
        ("kite.", "kite"),
        ("kite ", "kite"),
        (" kite", "kite"),
        ("a\0b\nc", "a_b_c"),
        ("e\u0301te\u0301", "été"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ("COM²", "_COM²"),
        ("aux .x", "_aux .x"),
        ("हिन्दी/தமிழ்", "हिन्दी_தமிழ்"),
        ("क्\u200dष", "क्ष"),
        ("e\u200d\u0301", "é"),
        ("kite \u2764\ufe0f", "kite _"),
        ("x" * 200, "x" * 120),
        ("风" * 100, "风" * 40),
        ("a" + "风" * 100, "a" + "风" * 39),
        ("x" * 119 + ".y", "x" * 119 + "."),
    ],
)
def test_an_altered_name_bears_a_hash_of_its_key(key: str, stem: str) -> None:
    assert file_stem(key) == f"{stem}~{digest(key)}"


@settings(max_examples=200)
@given(key=nasty)
def test_no_key_escapes_its_folder_or_names_a_device(key: str) -> None:
    stem = file_stem(key)
    for name in (f"{stem}.png", f"{stem}-2.jpg"):
        assert not set(name) & set('/\\:*?"<>|')
        assert not any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in name)
        assert not name.startswith(".")
        assert not RESERVED.fullmatch(name.partition(".")[0])
        assert len(name.encode()) <= 255
    assert stem
    assert stem == stem.strip(" ").rstrip(".")
    assert stem == unicodedata.normalize("NFC", stem)
    assert not re.search(r"-\d+$", stem)  # the name of another key's second image


@settings(max_examples=200)
@given(first=nasty, second=nasty)
def test_two_keys_never_meet_in_one_file(first: str, second: str) -> None:
    if first != second and not (HASHED.search(first) or HASHED.search(second)):
        assert file_stem(first) != file_stem(second)


@pytest.mark.parametrize(
    ("first", "second"), [("a/b", "a\\b"), ("é", "e\u0301"), ("kite", "kite "), ("x" * 121, "x" * 122), (".", "..")]
)
def test_keys_that_look_alike_when_made_safe_stay_apart(first: str, second: str) -> None:
    assert file_stem(first) != file_stem(second)


def test_a_stem_taken_by_another_case_is_told_apart_by_its_key() -> None:
    assert hashed_stem("Kite", "Kite") == f"Kite~{digest('Kite')}"
    assert hashed_stem("Kite", "Kite") != hashed_stem("kite", "kite")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A red kite over the sea", "a-red-kite-over-the"),
        ("  Kite!  ", "kite"),
        ("a_b/c\\..", "a_b-c"),
        ("海上的红色风筝", "海上的红色风筝"),
        ("\uff26\uff55ll width", "full-width"),
        ("समुद्र के ऊपर लाल पतंग", "समुद्र-के-ऊपर-लाल"),
        ("ว่าวสีแดง", "ว่าวสีแดง"),
        ("சிவப்பு பட்டம்", "சிவப்பு-பட்டம்"),
        ("\u0130stanbul", "i\u0307stanbul"),
        ("", "image"),
        ("!!! …", "image"),
        ("\ud800", "image"),
        ("x" * 500, "x" * 48),
        ("风" * 30, "风" * 16),
    ],
)
def test_a_slug_is_the_first_words(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


@pytest.mark.parametrize(
    ("occurrence", "expected"),
    [(1, "a-red-kite~0a1b2c3d"), (2, "a-red-kite~0a1b2c3d.2"), (11, "a-red-kite~0a1b2c3d.11")],
)
def test_the_key_of_a_row_without_one(occurrence: int, expected: str) -> None:
    assert row_key("A red kite", "0a1b2c3d", occurrence) == expected


@settings(max_examples=150)
@given(prompt=st.one_of(nasty, st.text(max_size=60)), occurrence=st.integers(1, 1_000))
def test_a_made_key_is_a_file_name_as_it_is(prompt: str, occurrence: int) -> None:
    key = row_key(prompt, digest(prompt), occurrence)
    slug_, _, rest = key.rpartition("~")
    assert slug_
    assert all(c.isalnum() or c in "_-" or unicodedata.category(c).startswith("M") for c in slug_)
    assert re.fullmatch(r"[0-9a-f]{8}(\.[1-9]\d*)?", rest)
    assert file_stem(key) == key


@pytest.mark.parametrize("stem", ["kite", "हिन्दी", "हिन्दी-2", "", "\ud800"])
def test_another_name_is_one_that_every_file_system_holds(stem: str) -> None:
    assert re.fullmatch(r"image~[0-9a-f]{8}", plain_stem(stem))
    assert plain_stem(stem) != plain_stem(f"{stem}-2")
    assert file_stem(plain_stem(stem)) == plain_stem(stem)


@pytest.mark.parametrize("text", ["", "kite", b"kite", "风筝", "\ud800"])
def test_a_digest_is_eight_hex_digits(text: str | bytes) -> None:
    assert re.fullmatch(r"[0-9a-f]{8}", digest(text))


def test_a_digest_is_the_same_everywhere_and_tells_texts_apart() -> None:
    assert digest("kite") == digest(b"kite") == "8e8c7d42"
    assert len({digest(str(number)) for number in range(1_000)}) == 1_000
