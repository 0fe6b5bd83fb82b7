"""Image models, pixel sizes, service times and prices. Pure.

Names, limits, fields and pixel sizes are the provider's published ones. Prices (but those of gpt-image-2.5) and service
times are a model of ours, anchored where something was seen: they are never facts about the live service.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from toapis_async.sandbox.jobs import Charge

if TYPE_CHECKING:
    from collections.abc import Mapping

CREDITS_PER_USD: Final = 200
FILES_LIVE_S: Final = 24 * 3600.0
RESOLUTIONS: Final = ("1k", "2k", "4k")
QUALITIES: Final = ("low", "medium", "high")
LONGEST_RATIO: Final = 3.0
MOST_IMAGES: Final = 100
"""Where no limit is published: only keeps a slip of the keyboard from filling the memory."""

PIXELS: Final[dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]] = {
    "1:1": ((1024, 1024), (2048, 2048), (2880, 2880)),
    "3:2": ((1536, 1024), (2048, 1360), (3520, 2336)),
    "4:3": ((1024, 768), (2048, 1536), (3312, 2480)),
    "5:4": ((1280, 1024), (2560, 2048), (3216, 2576)),
    "16:9": ((1536, 864), (2048, 1152), (3840, 2160)),
    "2:1": ((2048, 1024), (2688, 1344), (3840, 1920)),
    "21:9": ((2016, 864), (2688, 1152), (3840, 1648)),
}
"""Width and height at 1k, 2k and 4k; a portrait ratio swaps them."""
RATIOS: Final = (*PIXELS, *(":".join(reversed(ratio.split(":"))) for ratio in PIXELS if ratio != "1:1"))
_RATIO = re.compile(r"([1-9]\d{0,4}):([1-9]\d{0,4})")
_PIXEL_SIZE = re.compile(r"([1-9]\d{0,4})[x*]([1-9]\d{0,4})", re.IGNORECASE)
_SHORTEST_SIDE, _LONGEST_SIDE = 64, 4096

_RESOLUTION_PRICE = {"0.5k": 0.7, "1k": 1.0, "2k": 1.8, "4k": 3.5}
_QUALITY_FACTOR = {"low": 1.0, "medium": 2.5, "high": 6.0, "auto": 6.0, "xhigh": 9.0, "max": 12.0}
_TOKENS = {"low": 272, "medium": 1_056, "high": 4_160, "auto": 4_160, "xhigh": 6_240, "max": 8_320}
"""Output tokens of a picture of 1024x1024."""
USD_PER_1M_TOKENS: Final = 40
_MEDIAN_S = {
    "0.5k": {"low": 7.0, "medium": 11.0, "high": 20.0},
    "1k": {"low": 8.0, "medium": 13.0, "high": 24.0},
    "2k": {"low": 13.0, "medium": 21.0, "high": 42.0},
    "4k": {"low": 28.0, "medium": 44.0, "high": 78.0},
}


def _by_resolution(credits_1k: float, *resolutions: str) -> dict[str, float]:
    return {name: round(credits_1k * _RESOLUTION_PRICE[name], 4) for name in resolutions or ("1k",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModel:
    """What the service reads and charges for one model. `None`: nothing is published, anything sane passes."""

    name: str
    owned_by: str
    prices: Mapping[str, float]
    """Credits an image, by resolution; at low quality where quality is read."""
    references: Mapping[str, int | None] = field(default_factory=lambda: {"image_urls": None})
    """The fields that it reads references from, and how many each may hold."""
    folds: bool = False
    """Both fields may come together: `image_urls` is folded into `reference_images`."""
    needs_reference: bool = False
    prompt_limit: int | None = None
    counts: tuple[int, ...] = tuple(range(1, MOST_IMAGES + 1))
    most_in_and_out: int | None = None
    """How many references and images there may be together."""
    sizes: tuple[str, ...] | None = None
    custom_ratio: bool = False
    pixels_only: bool = False
    missing: tuple[tuple[str, str], ...] = ()
    """Pairs of size and resolution that there are not."""
    resolution_in_metadata: bool = False
    resolution_exact: bool = False
    """Upper case is refused."""
    qualities: tuple[str, ...] = ()
    """Empty: the field is not read."""
    quality: str = "medium"
    """The default."""
    backgrounds: tuple[str, ...] | None = None
    reads_mask: bool = False
    reads_output_format: bool = False
    per_token: bool = False
    only_edits: bool = False
    multipart_edits: bool = False
    """Also taken by POST /v1/images/edits, as multipart/form-data."""
    pace: float = 1.0
    """Service times in multiples of those of vip."""

    @property
    def resolutions(self) -> tuple[str, ...]:
        """The resolutions that it knows, the default first (2k for Seedream)."""
        return tuple(self.prices)

    def credits(self, resolution: str, quality: str) -> float:
        """What one image costs."""
        return self.prices[resolution] * (_QUALITY_FACTOR[quality] if self.qualities else 1.0)

    def charge(self, resolution: str, quality: str, n: int, area: int, prompt: str) -> Charge:
        """What a submission costs; by token it is charged a quarter too high at first."""
        if not self.per_token:
            total = round(self.credits(resolution, quality) * n, 4)
            return Charge(total, total)
        text, image = max(1, len(prompt) // 4), n * max(1, round(_TOKENS[quality] * area / 1024**2))
        settled = round((text + image) * USD_PER_1M_TOKENS / 1e6 * CREDITS_PER_USD, 4)
        return Charge(round(settled * 1.25, 4), settled, _usage(text, image))

    def median_s(self, resolution: str, quality: str, n: int) -> float:
        """The median service time in seconds at speed 1; further images of one task are made almost at once."""
        times = _MEDIAN_S[resolution]
        return times.get(quality, times["high"]) * self.pace * (1 + 0.12 * (n - 1))


def _usage(text: int, image: int) -> dict[str, object]:
    """Token counts of an answer; the cached ones are part of the input."""
    nothing_cached: dict[str, object] = {
        "cached_tokens": 0,
        "cached_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    }
    return {
        "input_tokens": text,
        "output_tokens": image,
        "total_tokens": text + image,
        "input_tokens_details": {"text_tokens": text, "image_tokens": 0, **nothing_cached},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": image},
    }


def pixel_size(size: str, resolution: str) -> tuple[int, int] | None:
    """Width and height of a ratio (documented, or custom up to 3:1) at a resolution; `None` for others."""
    if resolution == "0.5k":
        whole = pixel_size(size, "1k")
        return None if whole is None else (whole[0] // 2, whole[1] // 2)
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


def loose_pixel_size(size: str, resolution: str) -> tuple[int, int] | None:
    """The same for models that also read `auto`, ratios to 8:1 and pixel sizes (`1024x1024`, `1024*1024`)."""
    found = pixel_size(size, resolution)
    if found is not None:
        return found
    pixels, ratio = _PIXEL_SIZE.fullmatch(size), _RATIO.fullmatch(size)
    if pixels is not None:
        return _within_reason(int(pixels[1])), _within_reason(int(pixels[2]))
    if ratio is not None and 1 / 8 <= int(ratio[1]) / int(ratio[2]) <= 8:
        square = pixel_size("1:1", resolution)
        assert square is not None, "the square has every resolution"
        return _same_area(int(ratio[1]) / int(ratio[2]), square[0])
    return pixel_size("1:1", resolution) if size == "auto" else None


def is_pixel_size(size: str) -> bool:
    """Whether it is written as `1024x1024`."""
    return _PIXEL_SIZE.fullmatch(size) is not None


def _within_reason(side: int) -> int:
    return max(_SHORTEST_SIDE, min(_LONGEST_SIDE, side))


def _same_area(ratio: float, square_side: int) -> tuple[int, int]:
    width = round(square_side * math.sqrt(ratio) / 16) * 16
    height = round(square_side / math.sqrt(ratio) / 16) * 16
    return width, height


_ALL: Final = RESOLUTIONS
_FROM_HALF: Final = ("1k", "0.5k", "2k", "4k")
_LISTED_25: Final = ("1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "21:9")
_EITHER: Final[Mapping[str, int | None]] = {"reference_images": None, "image_urls": None}
_QUALITIES_25: Final = ("auto", "low", "medium", "high", "xhigh", "max")
_STANDARD_25: Final = {"1k": 3.0, "2k": 4.0, "4k": 5.0}
_ONE: Final = (1,)
_FEW: Final = (1, 2, 4)


def _to(most: int) -> tuple[int, ...]:
    return tuple(range(1, most + 1))


def _gemini(name: str, credits_1k: float, resolutions: tuple[str, ...], most: int) -> ImageModel:
    return ImageModel(
        name=name,
        owned_by="google",
        prices=_by_resolution(credits_1k, *resolutions),
        references={"image_urls": most},
        counts=_ONE,
        resolution_in_metadata=True,
        pace=6.0,
    )


def _seedream(name: str, credits_1k: float, counts: tuple[int, ...], pace: float) -> ImageModel:
    return ImageModel(
        name=name,
        owned_by="bytedance",
        prices=_by_resolution(credits_1k, "2k", "1k", "4k"),
        references={"image_urls": 10},
        counts=counts,
        most_in_and_out=15,
        resolution_in_metadata=True,
        pace=pace,
    )


def _flux(name: str, credits_1k: float, most: int, *resolutions: str) -> ImageModel:
    return ImageModel(
        name=name,
        owned_by="black-forest-labs",
        prices=_by_resolution(credits_1k, *resolutions),
        references={"image_urls": most},
        resolution_in_metadata=True,
        pace=0.8,
    )


def _grok(name: str, references: Mapping[str, int | None], counts: tuple[int, ...]) -> ImageModel:
    edits = name.endswith("-edit")
    return ImageModel(
        name=name,
        owned_by="xai",
        prices=_by_resolution(2.0),
        references=references,
        needs_reference=edits,
        only_edits=edits,
        counts=counts,
        pace=0.7,
    )


def _vidu(name: str, *resolutions: str) -> ImageModel:
    prices = _by_resolution(2.0, *resolutions)
    return ImageModel(name=name, owned_by="vidu", prices=prices, resolution_in_metadata=True, pace=0.8)


def _gpt_25(flavour: str) -> tuple[ImageModel, ...]:
    name = f"gpt-image-2.5-{flavour}"
    return (
        ImageModel(
            name=name, owned_by="openai", prices=_STANDARD_25, references=_EITHER, prompt_limit=32_000, counts=_ONE,
            sizes=_LISTED_25, quality="high", pace=1.9,
        ),
        ImageModel(
            name=f"{name}-vip", owned_by="openai", prices={"1k": 0.0}, references=_EITHER, prompt_limit=32_000,
            qualities=_QUALITIES_25, multipart_edits=True, pixels_only=True, quality="high", counts=_ONE,
            per_token=True, pace=1.9,
        ),
        ImageModel(
            name=f"{name}-official", owned_by="openai", prices={"1k": 0.0}, prompt_limit=32_000,
            qualities=_QUALITIES_25, pixels_only=True, quality="high", counts=_ONE, per_token=True, pace=1.9,
        ),
    )  # fmt: skip


_MODELS: Final = (
    ImageModel(
        name="gpt-image-2-vip", owned_by="openai", prices=_by_resolution(0.38, *_ALL), references=_EITHER, folds=True,
        prompt_limit=32_000, sizes=RATIOS, custom_ratio=True, resolution_exact=True, qualities=QUALITIES,
    ),
    ImageModel(
        name="gpt-image-2", owned_by="openai", prices=_by_resolution(3.0, *_ALL), folds=True,
        references={"reference_images": 6, "image_urls": 16}, prompt_limit=32_000, counts=_to(10),
        sizes=(*RATIOS, "auto"), backgrounds=("transparent",), reads_mask=True, reads_output_format=True, pace=1.3,
    ),
    ImageModel(
        name="gpt-image-2-official", owned_by="openai", prices=_by_resolution(2.0, *_ALL), prompt_limit=32_000,
        references={"image_urls": 16}, counts=_to(10), sizes=(*RATIOS, "auto"), missing=(("1:1", "4k"),),
        qualities=QUALITIES, quality="high", reads_mask=True, reads_output_format=True,
    ),
    *_gpt_25("flare"),
    *_gpt_25("sunburst"),
    ImageModel(
        name="gpt-4o-image", owned_by="openai", prices=_by_resolution(2.0), references={"image_urls": 5},
        prompt_limit=1_000, counts=_FEW, reads_mask=True, pace=1.5,
    ),
    *(_gemini(f"gemini-2.5-flash-image{name}", 2.5, ("1k",), 14) for name in ("", "-preview")),
    *(_gemini(f"gemini-2.5-flash-image{name}-official", 5.0, ("1k",), 3) for name in ("", "-preview")),
    *(_gemini(f"gemini-3-pro-image{name}", 6.0, _ALL, 14) for name in ("", "-preview")),
    *(_gemini(f"gemini-3-pro-image{name}-official", 12.0, _ALL, 14) for name in ("", "-preview")),
    *(_gemini(f"gemini-3.1-flash-image{name}", 3.0, _FROM_HALF, 14) for name in ("", "-preview")),
    *(_gemini(f"gemini-3.1-flash-image{name}-official", 6.0, _FROM_HALF, 14) for name in ("", "-preview")),
    _seedream("doubao-seedream-4-0", 2.0, _to(15), 0.8),
    _seedream("doubao-seedream-4-5", 2.4, _to(15), 0.8),
    _seedream("doubao-seedream-5-0", 2.8, _to(15), 0.9),
    _seedream("doubao-seedream-5-0-pro", 4.0, _to(10), 1.1),
    _flux("flux-2-pro", 3.0, 8, "1k", "2k"),
    _flux("flux-2-flex", 5.0, 8, "1k", "2k"),
    _flux("flux-kontext-pro", 3.0, 1),
    _flux("flux-kontext-max", 6.0, 1),
    _grok("grok-4-1-image", {"image_urls": 5}, _FEW),
    _grok("grok-4-2-image", {"image_urls": 5}, _FEW),
    _grok("grok-imagine-1.0", {}, _to(10)),
    _grok("grok-imagine-1.0-edit", {"image_urls": None}, _to(10)),
    _vidu("viduq2-fast"),
    _vidu("viduq2-pro", *_ALL),
    _vidu("viduq3-fast", *_ALL),
    _vidu("vidu-image", *_ALL),
    ImageModel(
        name="qwen-image-3.0-pro", owned_by="alibaba", prices=_by_resolution(4.0), references={"image_urls": 3},
        pace=1.2,
    ),
)  # fmt: skip
IMAGE_MODELS: Final = {model.name: model for model in _MODELS}
TEXT_MODELS: Final = {"gpt-5.5": "openai", "claude-opus-4-6": "anthropic", "deepseek-v3.2": "deepseek"}
"""Enough for `GET /v1/models` without a `type`, which lists text models only."""
