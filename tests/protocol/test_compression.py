"""Compressed answers come back as they were."""

from __future__ import annotations

import json
import sys

from hypothesis import example, given
from hypothesis import strategies as st

from toapis_async.protocol.compression import compress, decompress


@given(body=st.binary(max_size=5_000))
@example(b"")
@example(b'{"id": "x"}' * 100_000)
def test_every_body_comes_back_as_it_was(body: bytes) -> None:
    assert decompress(compress(body)) == body


def test_a_usual_answer_takes_a_third_of_its_memory() -> None:
    answer = {
        "id": "task_img_0198c2a7f3d1e4b59a6c",
        "object": "generation.task",
        "model": "gpt-image-2-vip",
        "status": "queued",
        "progress": 0,
        "created_at": 1763800000,
        "metadata": {},
    }
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps(answer, separators=separators).encode()
        assert sys.getsizeof(compress(body)) < 0.45 * sys.getsizeof(body)


def test_json_that_was_not_packed_is_given_as_it_is() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"):
        body = ' {"id": "x"}'.encode(encoding)
        assert decompress(body) == body
