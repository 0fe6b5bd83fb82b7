"""Where each request goes, and where its task is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from toapis_async.protocol.endpoints import IMAGE_EDITS, IMAGES, VIDEOS, endpoint_of
from toapis_async.protocol.wire import encode_request, form_of
from toapis_async.request import request_of

LINK = "https://files.toapis.com/a.png"


@pytest.mark.parametrize(
    ("fields", "submit_path", "is_form"),
    [
        ({"prompt": "a"}, "/images/generations", False),
        ({"prompt": "a", "endpoint": "edits"}, "/images/edits", False),
        ({"prompt": "a", "model": "grok-imagine-1.0-edit", "image_urls": [LINK]}, "/images/edits", False),
        ({"prompt": "a", "model": "gpt-image-2.5-flare-vip", "image_urls": [LINK]}, "/images/generations", False),
        (
            {"prompt": "a", "model": "gpt-image-2.5-flare-vip", "image_urls": [LINK], "endpoint": "edits"},
            "/images/edits",
            True,
        ),
        ({"prompt": "a", "model": "gpt-image-2", "image_urls": [LINK]}, "/images/generations", False),
        ({"kind": "video", "model": "m"}, "/videos/generations", False),
        ({"kind": "video", "model": "m", "remix_of": "v 1/é"}, "/videos/v%201%2F%C3%A9/remix", False),
        ({"kind": "video", "model": "m", "extend_of": "v1"}, "/videos/v1/extend", False),
    ],
)
def test_the_endpoint_follows_from_the_request(fields: dict[str, Any], submit_path: str, is_form: bool) -> None:
    endpoint = endpoint_of(request_of(fields))
    kind = fields.get("kind", "image")
    assert (endpoint.kind, endpoint.submit_path, endpoint.is_form) == (kind, submit_path, is_form)
    assert endpoint.task_path("a/b") == f"/{kind}s/generations/a%2Fb"


def test_videos_are_polled_half_as_often_and_watched_longer_off_peak_two_days() -> None:
    assert (IMAGES.interval_factor, IMAGES.age_factor) == (1, 1)
    assert (IMAGE_EDITS.interval_factor, IMAGE_EDITS.age_factor) == (1, 1)
    assert (VIDEOS.interval_factor, VIDEOS.age_factor) == (2, 2)
    off_peak = request_of({"kind": "video", "model": "viduq3-pro", "metadata": {"off_peak": True}})
    assert endpoint_of(off_peak).age_factor == 48


def test_a_form_has_text_parts_alone() -> None:
    request = request_of(
        {
            "prompt": "a",
            "model": "gpt-image-2.5-flare-vip",
            "image_urls": [b"file"],
            "endpoint": "edits",
            "n": 1,
            "size": "1024x1024",
        }
    )
    assert form_of(encode_request(request, [LINK], "biz")) == {
        "model": "gpt-image-2.5-flare-vip",
        "prompt": "a",
        "image": LINK,
        "n": "1",
        "size": "1024x1024",
        "client_business_id": "biz",
    }
