"""Digests of requests as they stand in journals. A digest that changes makes a journalled row be bought again, so these
are literals, computed by 0.1.0's first code: never adjust them."""

from __future__ import annotations

from typing import Any

import pytest

from toapis_async.engine.fingerprint import fingerprint
from toapis_async.request import ImageRequest

LINK = "https://files.toapis.com/a.png"
OTHER = "https://files.toapis.com/b.png"
FLUX = "fd6fda7d383e3423fbab6332ef844b43a5e163bc3d4dbaffb38d3c7e381d3199"


@pytest.mark.parametrize(
    ("fields", "digest"),
    [
        ({}, "c2f4ed40f821e05231ef330a76f4cc4a489424462b592ab04ca8f9ff0261c311"),
        ({"model": "flux-2-pro", "image_urls": [LINK]}, FLUX),
        ({"model": "flux-2-pro", "reference_images": [LINK]}, FLUX),
        (
            {"reference_images": [LINK], "image_urls": [OTHER]},
            "cef91f49bd841f2fb9f04dfd97a580230dfcdc2957d72c01d1314fdd81df9f2a",
        ),
        (
            {"model": "nobody-knows-it", "image_urls": [LINK, b"\x89PNG"]},
            "71604bfc3d4f6a667ec8367d10eb35828e3dd62151ce4b4582e5bd5068d1c7a2",
        ),
        (
            {"model": "gpt-image-2", "image_urls": [LINK], "size": "16:9", "n": 2, "extra": {"mask_url": OTHER}},
            "4c8967bfb129760194fc6bfef97094fde1a24928b826f69d0301ea9c4f123e0a",
        ),
        (
            {
                "model": "gemini-3-pro-image-preview",
                "image_urls": [{"url": LINK}],
                "metadata": {"resolution": "2K"},
                "client_business_id": "row-7",
            },
            "67fefea138cee7e6ada37c75769c514709290a7a403635d4fb348ab5e0e2ad84",
        ),
        (
            {
                "size": "16:9",
                "resolution": "4k",
                "quality": "high",
                "n": 3,
                "response_format": "url",
                "background": "transparent",
                "callback_url": "https://me.example/hook",
                "metadata": {"a": [1, None, "é"]},
                "extra": {"sede": 5},
            },
            "ac3f0b31bf54ccac6f277f3f502a2f69543d1075b30f725fd01d7288b5e84f41",
        ),
    ],
)
async def test_the_digest_of_a_request_is_what_it_was_in_the_first_journals(
    fields: dict[str, Any], digest: str
) -> None:
    assert (await fingerprint(ImageRequest("a red kite", **fields))).digest == digest
