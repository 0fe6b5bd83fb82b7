"""Pictures small enough for a host."""

from __future__ import annotations

import io
import random
import sys

import pytest
from PIL import Image

from toapis_async.agents.preview import MOST_BYTES, preview


def picture(mode: str, size: tuple[int, int], kind: str = "PNG") -> bytes:
    """Noise, which hardly compresses."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    content = io.BytesIO()
    noise = random.Random(7).randbytes(size[0] * size[1] * channels)
    Image.frombytes(mode, size, noise).save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize(("mode", "mime_type"), [("RGB", "image/jpeg"), ("RGBA", "image/webp"), ("L", "image/jpeg")])
def test_a_large_picture_is_scaled_down_until_it_fits(mode: str, mime_type: str) -> None:
    made = preview(picture(mode, (1_600, 1_200)))
    assert made is not None
    assert made.mime_type == mime_type
    assert 1_000 < len(made.content) <= MOST_BYTES
    with Image.open(io.BytesIO(made.content)) as image:
        assert abs(image.size[0] / image.size[1] - 4 / 3) < 0.01


def test_a_small_picture_is_given_as_it_is() -> None:
    content = picture("RGB", (100, 100))
    made = preview(content)
    assert made is not None
    assert made.content == content


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + b"x" * 200_000, b"\0\0\0\x18ftypisom" + b"\0" * 50]
)
def test_what_is_no_whole_picture_has_none(content: bytes) -> None:
    assert preview(content) is None


def test_without_pillow_only_small_pictures_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = picture("RGB", (1_600, 1_200)), picture("RGB", (100, 100))
    monkeypatch.delitem(sys.modules, "toapis_async.report.thumbs", raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert preview(large) is None
    assert preview(small) is not None
