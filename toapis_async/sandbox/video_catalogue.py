"""Video models: what each reads, its ranges, and a model of its price and time. Pure.

Names, fields and ranges are the provider's published ones; prices and service times are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from toapis_async.sandbox.jobs import Charge

if TYPE_CHECKING:
    from collections.abc import Mapping

PIXELS_OF: Final = {
    "480p": 480, "512p": 512, "540p": 540, "720p": 720, "768p": 768, "1080p": 1080, "2k": 1440, "4k": 2160, "std": 720,
    "pro": 1080,
}  # fmt: skip
"""The shorter side, by resolution in lower case (or Kling's mode)."""
SIX: Final = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16")
_FIVE: Final = ("16:9", "9:16", "1:1", "4:3", "3:4")
_TWO: Final = ("16:9", "9:16")
_FRAMES: Final[dict[str, int | None]] = {"first_frame": 1, "last_frame": 1}
_PRICE: Final = {480: 0.5, 512: 0.6, 540: 0.7, 720: 1.0, 768: 1.1, 1080: 2.0, 1440: 3.0, 2160: 5.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoModel:
    """What the service reads and charges for one model. An empty tuple: nothing is published, anything sane passes."""

    name: str
    owned_by: str
    durations: tuple[int, ...]
    duration: int = 5
    """The default, and what `0` and `-1` (automatic) become."""
    resolutions: tuple[str, ...] = ()
    resolution: str = "720p"
    """The default."""
    resolution_field: str = "resolution"
    """Where it stands: a field, or `metadata.` and a field."""
    ratios: tuple[str, ...] = ()
    ratio: str = "16:9"
    ratio_field: str = "aspect_ratio"
    inputs: Mapping[str, int | None] = field(default_factory=dict[str, int | None])
    """The fields that it reads URLs from, with how many each may hold; those of `metadata` with the prefix."""
    first_only: bool = False
    """Of `image_urls` the first is read, whatever follows."""
    roles: Mapping[str, int | None] = field(default_factory=dict[str, int | None])
    """The roles that `image_with_roles` may have, with how many of each. Empty: any."""
    needs: tuple[str, ...] = ()
    """At least one of these inputs must be given."""
    apart: tuple[str, ...] = ()
    """Inputs of which only one may be given."""
    actions: tuple[str, ...] = ()
    prompt_limit: int | None = None
    most: int = 1
    """`metadata.n` at most."""
    credits: float = 20.0
    """A second at 720p, or a whole video if `per_request`."""
    per_request: bool = False
    median_s: float = 120.0
    remixes: bool = False
    extends: bool = False
    audio_needs_pro: bool = False
    longest_1080p_s: int | None = None

    @property
    def prices(self) -> dict[str, float]:
        """Credits by resolution, a second or a video."""
        if not self.resolutions:
            return {"": self.credits}
        return {name: round(self.credits * _PRICE[PIXELS_OF[name.lower()]], 4) for name in self.resolutions}

    def charge(self, resolution: str, duration_s: int, n: int, searches: int) -> Charge:
        """What a submission costs."""
        price = self.prices.get(resolution, self.credits) * n
        total = round(price if self.per_request else price * duration_s, 4)
        return Charge(total, total, {"tool_usage": {"web_search": searches}} if searches else None)


def _span(first: int, last: int, *more: int) -> tuple[int, ...]:
    return (*range(first, last + 1), *more)


def _seedance(
    name: str, durations: tuple[int, ...], resolutions: tuple[str, ...], images: int, others: int | None
) -> VideoModel:
    inputs: dict[str, int | None] = {
        "image_with_roles": images, "video_with_roles": others, "audio_with_roles": others, "image_urls": None,
    }  # fmt: skip
    return VideoModel(
        name=name, owned_by="bytedance", durations=durations, resolutions=resolutions, ratios=(*SIX, "adaptive"),
        inputs=inputs, roles={**_FRAMES, "reference_image": images}, median_s=180,
    )  # fmt: skip


def _seedance_1(name: str, durations: tuple[int, ...], median_s: float, where: str = "resolution") -> VideoModel:
    return VideoModel(
        name=name, owned_by="bytedance", durations=durations, resolutions=("480p", "720p", "1080p"), ratios=SIX,
        resolution_field=where, inputs={"image_with_roles": None, "image_urls": None},
        roles={**_FRAMES, "reference_image": None}, median_s=median_s, credits=10,
    )  # fmt: skip


def _kling(name: str, durations: tuple[int, ...], inputs: Mapping[str, int | None]) -> VideoModel:
    return VideoModel(
        name=name, owned_by="kling", durations=durations, resolutions=("std", "pro"), resolution="std",
        resolution_field="mode", ratios=("16:9", "9:16", "1:1"), inputs=inputs, roles=_FRAMES, credits=14,
        audio_needs_pro=name == "kling-v2-6",
    )  # fmt: skip


def _hailuo(name: str, *resolutions: str, needs: tuple[str, ...] = ()) -> VideoModel:
    return VideoModel(
        name=name, owned_by="minimax", durations=(6, 10), duration=6, resolutions=resolutions, resolution="768P",
        inputs={"image_urls": 1, "metadata.last_frame_image": 1}, needs=needs, prompt_limit=2_000, longest_1080p_s=6,
        credits=10,
    )  # fmt: skip


def _sora(name: str, ratio: str, *, remixes: bool = False, most: int = 1) -> VideoModel:
    return VideoModel(
        name=name, owned_by="openai", durations=(4, 8, 12), duration=4, ratios=_TWO, ratio=ratio,
        inputs={"image_urls": None}, first_only=name == "sora-2-official", remixes=remixes, most=most, credits=20,
    )  # fmt: skip


def _veo(name: str, credits_: float) -> VideoModel:
    return VideoModel(
        name=name, owned_by="google", durations=(8,), duration=8, resolutions=("720p", "1080p", "4k"),
        resolution_field="metadata.resolution", ratios=_TWO, inputs={"image_urls": 3},
        credits=credits_, per_request=True,
    )  # fmt: skip


def _veo_official(name: str, credits_: float) -> VideoModel:
    inputs: dict[str, int | None] = {"image_urls": None, "metadata.referenceImages": 3, "metadata.lastFrame": 1}
    return VideoModel(
        name=name, owned_by="google", durations=(4, 6, 8), duration=8, resolutions=("720p", "1080p", "4k"), ratios=_TWO,
        ratio_field="size", inputs=inputs, first_only=True, credits=credits_,
    )  # fmt: skip


def _vidu(
    name: str, durations: tuple[int, ...], inputs: Mapping[str, int | None], *, needs: tuple[str, ...] = ()
) -> VideoModel:
    plain = name in {"viduq3-pro", "viduq3-turbo", "viduq3"}
    return VideoModel(
        name=name, owned_by="vidu", durations=durations,
        resolutions=("540p", "720p", "1080p") if plain else ("720P", "1080P"), resolution="720p" if plain else "720P",
        inputs=inputs, needs=needs, prompt_limit=5_000 if plain else None, credits=12,
    )  # fmt: skip


_GROK: Final = ("16:9", "9:16", "3:2", "2:3", "1:1")
_VIDU_MORE: Final[dict[str, int | None]] = {"image_urls": None, "url": 1, "video_list": None}
_KLING_MORE: Final = {"metadata.image_list": None, "metadata.element_list": None, "video_list": 1}
_MODELS: Final = (
    _sora("sora-2", "16:9", remixes=True),
    _sora("sora-2-vvip", "16:9", most=4),
    _sora("sora-2-official", "9:16", remixes=True),
    _veo("veo3.1-fast", 60),
    _veo("veo3.1-quality", 200),
    _veo("veo3.1-lite", 30),
    _veo_official("Veo3.1-quality-official", 80),
    _veo_official("Veo3.1-fast-official", 30),
    _veo_official("Veo3.1-lite-official", 10),
    _seedance("seedance-2", _span(4, 15, 0, -1), ("480p", "720p", "1080p", "4k"), 9, None),
    _seedance("seedance-2-fast", _span(4, 15, 0, -1), ("480p", "720p"), 9, None),
    _seedance("seedance-2-mini", _span(4, 15), ("480p", "720p"), 9, 3),
    _seedance("seedance-2-5", _span(4, 30, -1), ("480p", "720p"), 30, 10),
    _seedance("seedance-2-5-cn", _span(4, 30, -1), ("480p", "720p"), 30, 10),
    _seedance("seedance-2-5-global", _span(4, 30, -1), ("480p", "720p"), 30, 10),
    _seedance_1("doubao-seedance-1-0-pro-fast", _span(2, 12), 60),
    _seedance_1("doubao-seedance-1-0-pro-quality", _span(2, 12), 180),
    _seedance_1("doubao-seedance-1-5-pro", _span(4, 12), 150, "metadata.resolution"),
    _kling("kling-v2-6", (5, 10), {"reference_images": None, "image_with_roles": 2}),
    _kling("kling-v3", _span(3, 15), {"reference_images": None, "image_with_roles": 2}),
    VideoModel(
        name="kling-3.0-turbo", owned_by="kling", durations=_span(3, 15), resolutions=("720p", "1080p"),
        ratios=("16:9", "9:16", "1:1"), inputs={"reference_images": None}, credits=10,
    ),
    _kling("kling-v3-omni", _span(3, 15), _KLING_MORE),
    _kling("kling-video-o1", _span(3, 10), _KLING_MORE),
    VideoModel(
        name="MiniMax-H3", owned_by="minimax", durations=_span(4, 15), resolutions=("2K", "768p"), resolution="2K",
        ratios=(*SIX, "adaptive"), inputs={"image_with_roles": 9, "video_with_roles": 3, "audio_with_roles": 3},
        prompt_limit=7_000,
    ),
    _hailuo("MiniMax-Hailuo-02", "512P", "768P", "1080P"),
    _hailuo("MiniMax-Hailuo-2.3", "768P", "1080P"),
    _hailuo("MiniMax-Hailuo-2.3-Fast", "768P", "1080P", needs=("image_urls",)),
    VideoModel(
        name="wan2.6", owned_by="alibaba", durations=(5, 10, 15), resolutions=("720p", "1080p"), resolution="1080p",
        ratios=_FIVE, inputs={"image_urls": 1, "metadata.reference_urls": None},
        apart=("image_urls", "metadata.reference_urls"),
    ),
    VideoModel(
        name="wan2.6-flash", owned_by="alibaba", durations=(5, 10, 15), resolutions=("720p", "1080p"),
        resolution="1080p", ratios=_FIVE, inputs={"image_urls": 1, "metadata.reference_urls": None}, credits=10,
        needs=("image_urls", "metadata.reference_urls"), apart=("image_urls", "metadata.reference_urls"),
    ),
    VideoModel(
        name="wan3.0-video", owned_by="alibaba", durations=_span(2, 30), resolutions=("480p", "720p", "1080p"),
        resolution="1080p", ratio_field="ratio",
        inputs={"reference_images": 10, "video_list": 5, "audio_with_roles": 5},
    ),
    _vidu("viduq3-pro", _span(1, 16), {"image_urls": 2}),
    _vidu("viduq3-turbo", _span(1, 16), {"image_urls": 2}),
    _vidu("viduq3", _span(3, 16), {"image_urls": 7}, needs=("image_urls",)),
    *(_vidu(f"viduq3-{name}", (), _VIDU_MORE) for name in ("pro-fast", "ad", "drama", "mix")),
    VideoModel(
        name="grok-video-1.0", owned_by="xai", durations=_span(1, 15), duration=8, resolutions=("480p", "720p"),
        ratios=_GROK, inputs={"image": 1, "reference_images": 8}, remixes=True, extends=True,
    ),
    VideoModel(
        name="grok-video-1.5", owned_by="xai", durations=_span(1, 15), duration=8, resolutions=("480p", "720p"),
        ratios=_GROK, inputs={"image": 1}, needs=("image",),
    ),
    VideoModel(
        name="grok-imagine-1.0-video", owned_by="xai", durations=_span(6, 30), duration=6, resolutions=("480p", "720p"),
        resolution="480p", resolution_field="quality", ratios=_GROK, inputs={"image_urls": 7}, credits=8,
    ),
    VideoModel(
        name="gemini-omni-flash", owned_by="google", durations=(4, 6, 10), duration=6, resolutions=("720p", "1080p"),
        ratios=_TWO, inputs={"image_urls": 3, "video_list": 3}, apart=("image_urls", "video_list"),
    ),
    VideoModel(
        name="gemini-omni-flash-preview-official", owned_by="google", durations=_span(1, 10), duration=6,
        resolutions=("720p", "1080p"), ratios=_TWO, inputs={"image_urls": 10, "video_list": 3},
        apart=("image_urls", "video_list"),
    ),
    VideoModel(
        name="happyhorse-1.1", owned_by="alibaba", durations=_span(3, 15), resolutions=("720P", "1080P"),
        resolution="1080P", ratios=_FIVE, inputs={"image_urls": 1, "reference_images": 9, "url": 1},
        actions=("text-to-video", "image-to-video", "reference-to-video", "video-edit"),
    ),
)  # fmt: skip
VIDEO_MODELS: Final = {model.name: model for model in _MODELS}
