"""A body's JSON: what is read at a glance is what the standard library reads."""

from __future__ import annotations

import json

import pytest

from toapis_async.protocol.lenient import Answer, json_of

TEXT = '{"id": "täsk \U0001f680", "n": 1e400, "odd": NaN, "huge": 123456789012345678901234567890, "id": "again"}'
BODIES = {
    "utf-8": TEXT.encode(),
    "bom": TEXT.encode("utf-8-sig"),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16-le": TEXT.encode("utf-16-le"),
    "utf-16-be": TEXT.encode("utf-16-be"),
    "utf-32-le": TEXT.encode("utf-32-le"),
    "utf-32-be": TEXT.encode("utf-32-be"),
    "blank-behind": TEXT.encode() + b"\r\n \t",
    "blank-before": b" \n" + TEXT.encode(),
    "blank-within": b'{ "id": 1 }',
    "lone-surrogate": b'{"id": "\xed\xa0\x80"}',
    "empty-object": b"{}",
    "list": b'["id"]',
    "deep": b'{"a":' * 500 + b"1" + b"}" * 500,
}
NONE = {
    "empty": b"",
    "more-behind": TEXT.encode() + b"}",
    "two": TEXT.encode() * 2,
    "cut": TEXT.encode()[:-3],
    "brace-and-quote": b'{"',
    "no-utf-8": b'{"id": "\xff"}',
    "too-deep": b'{"a":' * 200_000,
    "endless-number": b'{"n": ' + b"9" * 10_000 + b"}",
    "html": b"<html>",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_is_read_as_the_standard_library_reads_it(body: bytes) -> None:
    assert repr(json_of(body)) == repr(json.loads(body))  # NaN is no equal of itself
    assert json_of(body) is not None


@pytest.mark.parametrize("body", NONE.values(), ids=NONE.keys())
def test_what_is_no_json_is_none(body: bytes) -> None:
    assert json_of(body) is None
    with pytest.raises((ValueError, RecursionError)):
        json.loads(body)


def test_an_answer_is_read_once() -> None:
    answer = Answer(200, {}, b'{"id": "a"}')
    assert answer.json is answer.json
    assert Answer(200, {}, b"no").json is None
    assert answer == Answer(200, {}, b'{"id": "a"}')
