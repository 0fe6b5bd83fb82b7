"""Answers made by hand, and arbitrary JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from toapis_async.protocol.lenient import Answer

DEEP = 100_000
"""More nesting than any reader recurses into."""


def answer(body: object, status: int = 200) -> Answer:
    """An answer with a JSON body (`body` itself when it is bytes)."""
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return Answer(status, {}, content)


def nested(depth: int = DEEP) -> bytes:
    return b'{"id":' + b"[" * depth + b"]" * depth + b"}"


def task(**members: Any) -> Answer:
    """A status answer."""
    return answer({"id": "task_1", "object": "generation.task", "status": "completed", **members})


_WORDS = st.sampled_from(
    ["queued", "completed", "failed", "", "x", "-1", "1e999", "NaN", "https://files.toapis.com/a.png", "\x1b[31m"]
)
_NUMBERS = st.one_of(
    st.integers(),
    st.integers(10**300, 10**400),
    st.floats(),  # NaN and infinities too: Python's JSON reads and writes them
    st.sampled_from([1703884800, 253402300799, 253402300800, -62135596801, 1e18]),
)
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, _WORDS, st.text(max_size=10))
_NAMES = st.sampled_from(
    sorted(
        {"id", "task_id", "status", "model", "client_business_id", "progress", "created_at", "completed_at"}
        | {"expires_at", "error", "fail_reason", "billing", "result", "data", "url", "output", "outputs", "images"}
        | {"message", "detail", "code", "type", "param", "success", "credits", "cost_usd", "size", "mime_type"}
        | {"remain_credits", "used_credits", "remain_balance", "unlimited_quota"}
    )
)
json_values = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_NAMES, inner, max_size=8)),
    max_leaves=20,
)
json_objects = st.dictionaries(_NAMES, json_values, max_size=12)
