"""Tables of the service: models, pixel sizes, prices, service times. Pure data and functions of it.

Names, limits and pixel sizes are the provider's published ones. Prices and service times are a model of ours,
anchored where something was seen (`gpt-image-2-vip` 1k low about $0.0019, `gpt-image-2` 1k about $0.015; 5-30
s typical, over 120 s at high quality or 4k): they make the sandbox behave plausibly and are never facts about
the live service.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

CREDITS_PER_USD: Final = 200
FILES_LIVE_S: Final = 24 * 3600.0
UPLOAD_LIMIT_BYTES: Final = 10_000_000
"""Published as "10MB": the strict reading is the one a client can rely on, so more is refused here."""

RESOLUTIONS: Final = ("1k", "2k", "4k")
QUALITIES: Final = ("low", "medium", "high")
LONGEST_RATIO: Final = 3.0
MOST_IMAGES: Final = 100
"""None is published for vip; this one only keeps a slip of the keyboard from filling the memory."""

PIXELS: Final[dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]] = {
    "1:1": ((1024, 1024), (2048, 2048), (2880, 2880)),
    "3:2": ((1536, 1024), (2048, 1360), (3520, 2336)),
    "4:3": ((1024, 768), (2048, 1536), (3312, 2480)),
    "5:4": ((1280, 1024), (2560, 2048), (3216, 2576)),
    "16:9": ((1536, 864), (2048, 1152), (3840, 2160)),
    "2:1": ((2048, 1024), (2688, 1344), (3840, 1920)),
    "21:9": ((2016, 864), (2688, 1152), (3840, 1648)),
}
_RATIO = re.compile(r"([1-9]\d{0,4}):([1-9]\d{0,4})")
_PIXEL_SIZE = re.compile(r"([1-9]\d{0,4})[x*]([1-9]\d{0,4})", re.IGNORECASE)
_SHORTEST_SIDE, _LONGEST_SIDE = 64, 4096


@dataclass(frozen=True, slots=True)
class ImageModel:
    """What the service reads and charges for one model; limits are `None` where nothing is published."""

    name: str
    owned_by: str
    prompt_limit: int | None = None
    n_limit: int = MOST_IMAGES
    references_limit: int | None = None
    strict: bool = False
    """vip: only documented values pass. Other pages disagree with their own samples: anything sane does."""
    reads_quality: bool = True
    credits_1k: float = 4.0
    pace: float = 1.0
    """Service times in multiples of those of vip."""


def _models(*models: ImageModel) -> dict[str, ImageModel]:
    return {model.name: model for model in models}


IMAGE_MODELS: Final = _models(
    ImageModel("gpt-image-2-vip", "openai", 32_000, strict=True, credits_1k=0.38),
    ImageModel("gpt-image-2", "openai", 32_000, n_limit=10, reads_quality=False, credits_1k=1.2, pace=1.3),
    ImageModel("gpt-image-2-official", "openai", 32_000, n_limit=10, references_limit=16, credits_1k=2.0),
    ImageModel("gpt-4o-image", "openai", 1_000, n_limit=4, credits_1k=2.0, pace=1.5),
    ImageModel("gemini-2.5-flash-image-preview", "google", n_limit=1, credits_1k=2.5, pace=0.6),
    ImageModel("gemini-2.5-flash-image-official", "google", n_limit=1, credits_1k=5.0, pace=0.6),
    ImageModel("gemini-3-pro-image-preview", "google", n_limit=1, credits_1k=6.0, pace=1.2),
    ImageModel("gemini-3-pro-image-preview-official", "google", n_limit=1, credits_1k=12.0, pace=1.2),
    ImageModel("gemini-3.1-flash-image-preview", "google", n_limit=1, credits_1k=3.0, pace=0.7),
    ImageModel("gemini-3.1-flash-image-preview-official", "google", n_limit=1, credits_1k=6.0, pace=0.7),
    ImageModel("doubao-seedream-4-0", "bytedance", n_limit=15, credits_1k=2.0, pace=0.8),
    ImageModel("doubao-seedream-4-5", "bytedance", n_limit=15, credits_1k=2.4, pace=0.8),
    ImageModel("doubao-seedream-5-0", "bytedance", n_limit=15, credits_1k=2.8, pace=0.9),
    ImageModel("doubao-seedream-5-0-pro", "bytedance", n_limit=15, credits_1k=4.0, pace=1.1),
    ImageModel("flux-2-pro", "black-forest-labs", credits_1k=3.0, pace=0.7),
    ImageModel("flux-2-flex", "black-forest-labs", credits_1k=5.0, pace=0.9),
    ImageModel("flux-kontext-pro", "black-forest-labs", credits_1k=3.0, pace=0.7),
    ImageModel("flux-kontext-max", "black-forest-labs", credits_1k=6.0, pace=0.9),
    ImageModel("grok-4-1-image", "xai", credits_1k=2.5, pace=0.7),
    ImageModel("grok-imagine-1.0", "xai", credits_1k=2.0, pace=0.6),
    ImageModel("grok-imagine-1.0-edit", "xai", credits_1k=2.0, pace=0.7),
    ImageModel("viduq2-fast", "vidu", credits_1k=2.0, pace=0.8),
    ImageModel("viduq3-fast", "vidu", credits_1k=2.4, pace=0.8),
)
TEXT_MODELS: Final = {"gpt-5.5": "openai", "claude-opus-4-6": "anthropic", "deepseek-v3.2": "deepseek"}
"""Enough for `GET /v1/models` without a `type`, which lists text models only."""

_RESOLUTION_PRICE = {"1k": 1.0, "2k": 1.8, "4k": 3.5}
_QUALITY_PRICE = {"low": 1.0, "medium": 2.5, "high": 6.0}
_MEDIAN_S = {
    "1k": {"low": 8.0, "medium": 13.0, "high": 24.0},
    "2k": {"low": 13.0, "medium": 21.0, "high": 42.0},
    "4k": {"low": 28.0, "medium": 44.0, "high": 78.0},
}


def price_credits(model: ImageModel, resolution: str, quality: str, n: int) -> float:
    """What a submission costs, in credits, charged up front for all `n` images."""
    return round(model.credits_1k * _RESOLUTION_PRICE[resolution] * _QUALITY_PRICE[quality] * n, 4)


def median_service_s(model: ImageModel, resolution: str, quality: str, n: int) -> float:
    """The median service time in seconds at speed 1; further images of one task are made almost at once."""
    return _MEDIAN_S[resolution][quality] * model.pace * (1 + 0.12 * (n - 1))


def pixel_size(size: str, resolution: str) -> tuple[int, int] | None:
    """Width and height of a ratio (documented, or custom up to 3:1) at a resolution; `None` for others."""
    tier = RESOLUTIONS.index(resolution)
    if size in PIXELS:
        return PIXELS[size][tier]
    match = _RATIO.fullmatch(size)
    if match is None:
        return None
    width, height = int(match[1]), int(match[2])
    swapped = f"{height}:{width}"
    if swapped in PIXELS:
        across, down = PIXELS[swapped][tier]
        return down, across
    if max(width, height) > LONGEST_RATIO * min(width, height):
        return None
    return _same_area(width / height, PIXELS["1:1"][tier][0])


def loose_pixel_size(size: str, resolution: str) -> tuple[int, int]:
    """The same for models that also read `auto` and pixel sizes (`1024x1024`, `1024*1024`); never refuses."""
    found = pixel_size(size, resolution)
    if found is not None:
        return found
    match = _PIXEL_SIZE.fullmatch(size)
    if match is None:
        return PIXELS["1:1"][RESOLUTIONS.index(resolution)]
    return _within_reason(int(match[1])), _within_reason(int(match[2]))


def _within_reason(side: int) -> int:
    return max(_SHORTEST_SIDE, min(_LONGEST_SIDE, side))


def _same_area(ratio: float, square_side: int) -> tuple[int, int]:
    width = round(square_side * math.sqrt(ratio) / 16) * 16
    height = round(square_side / math.sqrt(ratio) / 16) * 16
    return width, height
