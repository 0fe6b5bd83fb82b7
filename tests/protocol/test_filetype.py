"""First and last bytes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from toapis_async.protocol.filetype import (
    AVIF,
    ENDS_EXACTLY,
    GIF,
    HEAD_BYTES,
    JPEG,
    PNG,
    UPLOADABLE,
    WEBP,
    FileType,
    looks_whole,
    sniff,
)

KINDS = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP, "GIF": GIF, "AVIF": AVIF}


def picture(name: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (31, 17), (200, 30, 30)).save(file, name)
    return file.getvalue()


@pytest.fixture(scope="module", params=KINDS)
def real(request: pytest.FixtureRequest) -> tuple[FileType, bytes]:
    return KINDS[request.param], picture(request.param)


def whole(kind: FileType, content: bytes) -> bool:
    return looks_whole(kind, content[:HEAD_BYTES], content[-64:], len(content))


def test_a_real_picture_is_known_by_its_head(real: tuple[FileType, bytes]) -> None:
    kind, content = real
    assert sniff(content[:HEAD_BYTES]) is kind
    assert sniff(content) is kind


def test_a_real_picture_looks_whole(real: tuple[FileType, bytes]) -> None:
    assert whole(*real)


def test_a_picture_that_broke_off_does_not_look_whole(real: tuple[FileType, bytes]) -> None:
    kind, content = real
    says_where_it_ends = kind is not AVIF
    for end in range(HEAD_BYTES, len(content) - 12, 3):
        assert whole(kind, content[:end]) != says_where_it_ends


@pytest.mark.parametrize("kind", ENDS_EXACTLY, ids=["png", "webp"])
def test_a_format_that_ends_exactly_looks_broken_off_at_every_place_but_its_end(kind: FileType) -> None:
    content = picture(kind.extension[1:].upper())
    wholes = [end for end in range(HEAD_BYTES, len(content) + 1) if whole(kind, content[:end])]
    assert wholes == [len(content)]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 8, PNG),
        (b"\xff\xd8\xff\xe0" + b"\0" * 12, JPEG),
        (b"\xff\xd8\xff\xdb" + b"\0" * 12, JPEG),
        (b"RIFF\x10\0\0\0WEBPVP8 ", WEBP),
        (b"GIF87a" + b"\0" * 10, GIF),
        (b"GIF89a" + b"\0" * 10, GIF),
        (b"\0\0\0\x20ftypavif\0\0\0\0", AVIF),
        (b"\0\0\0\x20ftypheic\0\0\0\0", None),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"GIF88a" + b"\0" * 10, None),
        (b"<html><body>not found", None),
        (b"<svg xmlns='http://www", None),
        (b'{"error": {"code": 1}', None),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", None),
        (b"BM" + b"\0" * 14, None),
        (b"", None),
    ],
)
def test_a_format_is_known_by_its_first_bytes_alone(head: bytes, kind: FileType | None) -> None:
    assert sniff(head) is kind


@pytest.mark.parametrize(
    ("head", "needed"),
    [
        (b"\x89PNG\r\n\x1a\n", 8),
        (b"\xff\xd8\xff", 3),
        (b"RIFF\0\0\0\0WEBP", 12),
        (b"GIF89a", 6),
        (b"\0\0\0 ftypavif", 12),
    ],
)
def test_a_head_too_short_to_tell_is_no_format(head: bytes, needed: int) -> None:
    assert [sniff(head[:length]) is not None for length in range(len(head) + 1)].index(True) == needed <= HEAD_BYTES


@pytest.mark.parametrize(
    ("kind", "head", "tail", "size_bytes", "expected"),
    [
        (PNG, b"", b"\0\0\0\0IEND\xaeB`\x82", 100, True),
        (PNG, b"", b"\0\0\0\0IEND\xaeB`\x82\0\0", 100, True),
        (PNG, b"", b"\0\0\0\0IDAT", 100, False),
        (JPEG, b"", b"\xff\xd9", 100, True),
        (JPEG, b"", b"\xff\xd9\r\n", 100, True),
        (JPEG, b"", b"\xff", 100, False),
        (WEBP, b"RIFF\x10\0\0\0WEBP", b"", 24, True),
        (WEBP, b"RIFF\x10\0\0\0WEBP", b"", 25, True),
        (WEBP, b"RIFF\x10\0\0\0WEBP", b"", 23, False),
        (WEBP, b"RIFF\xff\xff\xff\xffWEBP", b"", 10_000, False),
        (GIF, b"", b"\0;", 100, True),
        (GIF, b"", b"\0;\0\0", 100, True),
        (GIF, b"", b"\0\0", 100, False),
        (AVIF, b"", b"", 100, True),
    ],
)
def test_a_file_looks_whole_when_it_ends_as_its_format_ends(
    kind: FileType, head: bytes, tail: bytes, size_bytes: int, expected: bool
) -> None:
    assert looks_whole(kind, head, tail, size_bytes) is expected


@settings(derandomize=True, max_examples=200, deadline=None)
@given(content=st.binary(max_size=100))
def test_any_bytes_are_a_known_format_or_none(content: bytes) -> None:
    kind = sniff(content)
    if kind is not None:
        assert isinstance(whole(kind, content), bool)


def test_what_the_service_takes_and_how_files_are_called() -> None:
    assert UPLOADABLE == (JPEG, PNG, WEBP, GIF)
    assert {kind.extension: kind.mime_type for kind in KINDS.values()} == {
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".webp": "image/webp",
        ".gif": "image/gif",
        ".avif": "image/avif",
    }
