"""What a picture says of how it was made: read back by Pillow, with every pixel as it was."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from toapis_async.protocol.metadata import described

FACTS: dict[str, Any] = {
    "prompt": 'a "red" kite <over> 海 & sea\x00\n',
    "model": "gpt-image-2-vip",
    "settings": {"size": "16:9"},
    "task_id": "task_1",
    "completed_at": "2026-11-26T00:00:00+00:00",
    "software": "toapis-async 1",
}


def picture(form: str, mode: str = "RGB", **options: Any) -> bytes:
    image = Image.effect_mandelbrot((33, 17), (-2, -1, 1, 1), 20).convert(mode)
    image.save(file := io.BytesIO(), form, **options)
    return file.getvalue()


PICTURES = {
    "png": picture("PNG"),
    "jpeg": picture("JPEG"),
    "jpeg with exif": picture("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "webp": picture("WEBP"),
    "webp lossless": picture("WEBP", lossless=True),
    "webp with alpha": picture("WEBP", "RGBA"),
    "webp with icc": picture("WEBP", icc_profile=b"profile"),
}


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def told(content: bytes) -> dict[str, Any]:
    """The facts in a file, and its prompt under the name that is standard."""
    image = opened(content)
    if image.format == "PNG":
        text = getattr(image, "text")  # noqa: B009
        return {"facts": json.loads(text["toapis"]), "prompt": text["Description"]}
    root = ElementTree.fromstring(re.sub(rb"^<\?xpacket.*?\?>|<\?xpacket[^>]*>$", b"", image.info["xmp"]))  # noqa: S314
    [facts] = [value for node in root.iter() for name, value in node.items() if name.endswith("}generation")]
    [prompt] = [node.text for node in root.iter() if node.tag.endswith("}li")]
    return {"facts": json.loads(facts), "prompt": prompt}


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_written_is_read_back_and_no_pixel_changes(name: str) -> None:
    content = PICTURES[name]
    written = described(content, FACTS)
    assert written is not None
    read = told(written)
    assert read["facts"]["task_id"] == "task_1"
    assert read["facts"] == json.loads(json.dumps(FACTS)) or "\\u0000" in json.dumps(FACTS)
    assert read["prompt"].startswith('a "red" kite <over> 海 & sea')
    before, after = opened(content), opened(written)
    assert (before.size, before.mode, before.tobytes()) == (after.size, after.mode, after.tobytes())
    assert before.info.get("exif") == after.info.get("exif")
    assert before.info.get("icc_profile") == after.info.get("icc_profile")


def with_chunk(content: bytes, name: bytes, data: bytes) -> bytes:
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content[:33] + chunk + content[33:]


@pytest.mark.parametrize(
    "content",
    [
        with_chunk(PICTURES["png"], b"caBX", b"\0\0\0\x20jumb\0\0\0\x1ejumdc2pa"),
        PICTURES["jpeg"][:2] + b"\xff\xeb\0\x12JP\0\1\0\0\0\1jumbc2pa" + PICTURES["jpeg"][2:],
        PICTURES["webp"] + b"C2PA\x08\0\0\0jumbc2pa",
    ],
)
def test_a_signed_file_is_left_alone(content: bytes) -> None:
    assert described(content, FACTS) is None


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_xmp_that_is_there_is_not_replaced(name: str) -> None:
    once = described(PICTURES[name], FACTS)
    assert once is not None
    assert described(once, FACTS) is None


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_broken_is_left_alone(name: str) -> None:
    content = PICTURES[name]
    for end in (0, 2, 5, 12, 16, 20, 24, 30):
        described(content[:end], FACTS)  # never raises
    assert described(picture("GIF", "P"), FACTS) is None
    assert described(b"no picture", FACTS) is None


def test_a_prompt_that_a_jpeg_can_not_hold_goes_elsewhere() -> None:
    assert described(PICTURES["jpeg"], FACTS | {"prompt": "海" * 32_000}) is None
    assert described(PICTURES["png"], FACTS | {"prompt": "海" * 32_000}) is not None
