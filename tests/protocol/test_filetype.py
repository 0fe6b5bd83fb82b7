"""First and last bytes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from toapis_async.protocol.filetype import (
    AVIF,
    BMP,
    GIF,
    HEAD_BYTES,
    HEIC,
    JPEG,
    JXL,
    MOV,
    MP4,
    PNG,
    SVG,
    TIFF,
    UPLOADABLE,
    UPLOADABLE_VIDEOS,
    WEBM,
    WEBP,
    FileType,
    labelled,
    looks_whole,
    sniff,
)

KINDS = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP, "GIF": GIF, "AVIF": AVIF, "BMP": BMP, "TIFF": TIFF}
SAYS_NO_END = (AVIF, BMP, TIFF)


def picture(name: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (31, 17), (200, 30, 30)).save(file, name)
    return file.getvalue()


@pytest.fixture(scope="module", params=KINDS)
def real(request: pytest.FixtureRequest) -> tuple[FileType, bytes]:
    return KINDS[request.param], picture(request.param)


def whole(kind: FileType, content: bytes) -> bool:
    return looks_whole(kind, io.BytesIO(content), len(content))


def test_a_real_picture_is_known_by_its_head(real: tuple[FileType, bytes]) -> None:
    kind, content = real
    assert sniff(content[:HEAD_BYTES]) is kind
    assert sniff(content) is kind


def test_a_real_picture_looks_whole(real: tuple[FileType, bytes]) -> None:
    assert whole(*real)


def test_a_picture_that_broke_off_does_not_look_whole(real: tuple[FileType, bytes]) -> None:
    kind, content = real
    says_where_it_ends = kind not in SAYS_NO_END
    for end in range(16, len(content) - 12, 3):
        assert whole(kind, content[:end]) != says_where_it_ends


@pytest.mark.parametrize("kind", [PNG, WEBP], ids=["png", "webp"])
def test_a_format_that_ends_exactly_looks_broken_off_at_every_place_but_its_end(kind: FileType) -> None:
    content = picture(kind.extension[1:].upper())
    wholes = [end for end in range(16, len(content) + 1) if whole(kind, content[:end])]
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
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", AVIF),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", HEIC),
        (b"\0\0\0\x20ftypheic\0\0\0\0", HEIC),
        (b"\0\0\0\x20ftypisom\0\0\2\0", MP4),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", MP4),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", MOV),
        (b"\0\0\0\x08wide\0\0\0\0mdat", MOV),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm", WEBM),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska", None),
        (b"\xff\x0a" + b"\x10" * 14, JXL),
        (b"\0\0\0\x0cJXL \r\n\x87\n", JXL),
        (b"II*\0\x08\0\0\0", TIFF),
        (b"MM\0*\0\0\0\x08", TIFF),
        (b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", BMP),
        (b"<?xml version='1.0'?>\n<!-- " + b"x" * 500 + b" -->\n<svg xmlns='http://www.w3.org/2000/svg'>", SVG),
        (b"\xef\xbb\xbf \n<svg width='1'>", SVG),
        (b"<html><body><svg width='1'>", None),
        (b"see <svg>", None),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"GIF88a" + b"\0" * 10, None),
        (b"<html><body>not found", None),
        (b"<svg xmlns='http://www", SVG),
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
    ("kind", "content", "expected"),
    [
        (PNG, picture("PNG") + b"\0\0", True),
        (PNG, picture("PNG") + b"Exif" * 100, True),
        (PNG, b"\x89PNG\r\n\x1a\n\0\0\0\0IDAT", False),
        (PNG, b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIDAT" + b"\0" * 100, False),
        (PNG, b"\x89PNG", False),
        (JPEG, b"\xff\xd8\xff" + b"\0" * 100 + b"\xff\xd9", True),
        (JPEG, b"\xff\xd8\xff" + b"\0" * 100 + b"\xff\xd9\r\n", True),
        (JPEG, b"\xff\xd8\xff" + b"\0" * 100 + b"\xff", False),
        (WEBP, b"RIFF\x10\0\0\0WEBP" + b"\0" * 12, True),
        (WEBP, b"RIFF\x10\0\0\0WEBP" + b"\0" * 13, True),
        (WEBP, b"RIFF\x10\0\0\0WEBP" + b"\0" * 11, False),
        (WEBP, b"RIFF\xff\xff\xff\xffWEBP" + b"\0" * 1000, False),
        (GIF, b"GIF89a\0;", True),
        (GIF, b"GIF89a\0;\0\0", True),
        (GIF, b"GIF89a\0\0", False),
        (AVIF, b"", True),
    ],
)
def test_a_file_looks_whole_when_it_ends_as_its_format_ends(kind: FileType, content: bytes, expected: bool) -> None:
    assert whole(kind, content) is expected


def box(name: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


FTYP = box(b"ftyp", b"isom\0\0\2\0isom")
LONG_MDAT = b"\0\0\0\1mdat" + (36).to_bytes(8, "big") + b"\0" * 20
REST_MDAT = b"\0\0\0\0mdat" + b"\0" * 20


@pytest.mark.parametrize(
    ("content", "shortest"),
    [
        (FTYP + box(b"moov", b"x" * 30) + box(b"mdat", b"y" * 30), None),
        (FTYP + box(b"mdat", b"y" * 30) + box(b"free") + box(b"moov", b"x" * 30), None),
        (FTYP + LONG_MDAT + box(b"moov", b"x" * 30), None),
        (FTYP + box(b"moov", b"x" * 30) + REST_MDAT, len(FTYP) + 38 + 8),
    ],
)
def test_a_video_looks_whole_when_its_boxes_are_there_to_their_ends(content: bytes, shortest: int | None) -> None:
    wholes = [end for end in range(16, len(content) + 1) if whole(MP4, content[:end])]
    assert wholes == list(range(shortest or len(content), len(content) + 1))
    assert whole(MP4, content + b"trailing")
    assert not whole(MP4, FTYP + b"\0\0\0\7mdat" + content)


@pytest.mark.parametrize(
    ("label", "head", "extension"),
    [
        ("image/heif", b"\1\2\3", ".heif"),
        ("image/vnd.microsoft.icon", b"\0\0\1\0", ".ico"),
        ("image/png", b"\1\2\3", None),
        ("image/x-../../evil", b"\1\2\3", ".bin"),
        ("video/x-matroska", b"\x1aE\xdf\xa3", ".mkv"),
        ("video/x-new", b"\1\2\3", ".bin"),
        ("image/png", b"<html>not found", None),
        ("image/png", b' {"error": 1}', None),
        ("image/png", b"", None),
        ("application/octet-stream", b"\1\2\3", None),
        ("text/html", b"\1\2\3", None),
        ("", b"\1\2\3", None),
    ],
)
def test_a_label_counts_where_the_bytes_tell_nothing(label: str, head: bytes, extension: str | None) -> None:
    assert sniff(head) is None
    kind = labelled(label, head)
    assert (kind.extension if kind else None) == extension


@settings(max_examples=200)
@given(content=st.binary(max_size=100))
def test_any_bytes_are_a_known_format_or_none(content: bytes) -> None:
    kind = sniff(content)
    if kind is not None:
        assert isinstance(whole(kind, content), bool)


def test_what_the_service_takes_and_how_files_are_called() -> None:
    assert UPLOADABLE == (JPEG, PNG, WEBP, GIF)
    assert UPLOADABLE_VIDEOS == (MP4, WEBM, MOV)
    assert {kind.extension: kind.mime_type for kind in KINDS.values()} == {
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".webp": "image/webp",
        ".gif": "image/gif",
        ".avif": "image/avif",
        ".bmp": "image/bmp",
        ".tiff": "image/tiff",
    }
