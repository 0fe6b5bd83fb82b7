"""Bodies are told by what they are; labels are sometimes wrong."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.protocol.encoding import decoded

JSON = b'{"id": "task_1"}'
GZIPPED = gzip.compress(JSON, mtime=0)


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize(
    ("body", "label"),
    [
        (JSON, ""),
        (JSON, "gzip"),
        (JSON, "deflate"),
        (JSON, "br"),
        (JSON, "utf-8"),
        (JSON, "\xff, gzip"),
        (GZIPPED, "gzip"),
        (GZIPPED, "GZIP, identity"),
        (GZIPPED, ""),
        (GZIPPED, "br"),
        (GZIPPED + b"trailing", "gzip"),
        (zlib.compress(JSON), "deflate"),
        (raw_deflate(JSON), "deflate"),
    ],
)
def test_the_body_comes_out_whatever_the_label_says(body: bytes, label: str) -> None:
    assert decoded(body, label, 1_000) == JSON


def test_no_more_is_unpacked_than_shows_that_it_is_too_long() -> None:
    assert len(decoded(gzip.compress(b"x" * 10_000_000), "gzip", 1_000)) == 1_001


@settings(max_examples=100)
@given(body=st.binary(max_size=60), label=st.sampled_from(["", "gzip", "deflate", "br"]), cut=st.integers(0, 60))
def test_nothing_is_raised_for_any_bytes(body: bytes, label: str, cut: int) -> None:
    for content in (body, gzip.compress(body)[:cut], b"\x1f\x8b" + body):
        assert isinstance(decoded(content, label, 1_000), bytes)
