"""The video models whose pages we know [docs], [field]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toapis_async.request.catalogue import RATIO, KnownModel, flag, one_of, shaped, table, text, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from toapis_async.request.catalogue import Rule

    _Roles = Mapping[str, Mapping[str, int | None]]

_WIDE: Final = one_of("16:9", "9:16")
_SQUARE_TOO: Final = one_of("16:9", "9:16", "1:1", default="16:9")
_RATIO: Final = shaped("a ratio such as 16:9", RATIO + "|adaptive|auto", default="16:9")
_SEEDANCE_RATIO: Final = one_of("21:9", "16:9", "4:3", "1:1", "3:4", "9:16", "adaptive")
_HD: Final = one_of("720p", "1080p", default="720p")
_SD: Final = one_of("480p", "720p", default="720p")
_FRAMES: Final = {"first_frame": 1, "last_frame": 1}


def _models(
    names: Iterable[str],
    rules: Mapping[str, Rule],
    *,
    lists: Mapping[str, int | None] | None = None,
    roles: _Roles | None = None,
    needs: tuple[str, ...] = (),
) -> list[KnownModel]:
    """Models with one page; `lists`: the most members of lists of links, `roles`: of each role, `needs`: fields of
    which one must be given."""
    return [KnownModel(name, "video", rules, lists or {}, needs=needs, roles=roles or {}) for name in names]


def _sora_and_veo() -> list[KnownModel]:
    seconds = one_of(4, 8, 12, default=4)
    sora = {"duration": seconds, "aspect_ratio": _WIDE, "metadata.n": whole(1, 4, default=1)}
    veo = {
        "duration": one_of(8, default=8),
        "aspect_ratio": _WIDE,
        "metadata.resolution": one_of("720p", "1080p", "4k"),
        "metadata.generation_type": one_of("frame", "reference"),
        "metadata.enable_gif": flag(),
    }
    official = {"duration": one_of(4, 6, 8, default=8), "resolution": one_of("720p", "1080p", "4k"), "size": _WIDE}
    return [
        *_models(["sora-2", "sora-2-vvip"], sora),
        *_models(["sora-2-official"], {"duration": seconds, "aspect_ratio": _WIDE}),
        *_models(["veo3.1-fast", "veo3.1-quality", "veo3.1-lite"], veo, lists={"image_urls": 3}),
        *_models(["Veo3.1-quality-official", "Veo3.1-fast-official", "Veo3.1-lite-official"], official),
    ]


def _seedance() -> list[KnownModel]:
    roles: _Roles = {
        "image_with_roles": {**_FRAMES, "reference_image": 9},
        "video_with_roles": {"reference_video": 3},
        "audio_with_roles": {"reference_audio": None},
    }
    many: _Roles = {
        "image_with_roles": {**_FRAMES, "reference_image": 30},
        "video_with_roles": {"reference_video": 10},
        "audio_with_roles": {"reference_audio": 10},
    }
    any_length = whole(4, 15, 0, -1, default=0)
    fast = {"duration": any_length, "resolution": _SD, "aspect_ratio": _SEEDANCE_RATIO}
    full = {**fast, "resolution": one_of("480p", "720p", "1080p", "4k", default="720p")}
    later = {
        "duration": whole(4, 30, -1),
        "resolution": one_of("480p", "720p"),
        "aspect_ratio": _SEEDANCE_RATIO,
        "video_operation": one_of("generate", "edit", "extend"),
        "output_format": one_of("mp4", "mov"),
    }
    former = {
        "duration": whole(2, 12, default=5),
        "resolution": one_of("480p", "720p", "1080p", default="720p"),
        "aspect_ratio": _RATIO,
    }
    former_1_5 = {
        "duration": whole(4, 12, default=5),
        "metadata.resolution": one_of("480p", "720p", "1080p", default="720p"),
        "aspect_ratio": _RATIO,
    }
    return [
        *_models(["seedance-2"], full, roles=roles),
        *_models(["seedance-2-fast"], fast, roles=roles),
        *_models(["seedance-2-mini"], {**fast, "duration": whole(4, 15)}, roles=roles),
        *_models(["seedance-2-5", "seedance-2-5-cn", "seedance-2-5-global"], later, roles=many),
        *_models(["doubao-seedance-1-0-pro-fast", "doubao-seedance-1-0-pro-quality"], former),
        *_models(["doubao-seedance-1-5-pro"], former_1_5),
    ]


def _kling() -> list[KnownModel]:
    mode = one_of("std", "pro")
    v2 = {"duration": one_of(5, 10, default=5), "mode": mode, "aspect_ratio": _SQUARE_TOO}
    v3 = {"duration": whole(3, 15, default=5), "mode": mode, "aspect_ratio": _SQUARE_TOO}
    turbo = {"duration": whole(3, 15, default=5), "resolution": one_of("720p", "1080p"), "aspect_ratio": _SQUARE_TOO}
    o1 = {**v3, "duration": whole(3, 10, default=5)}
    return [
        *_models(["kling-v2-6"], v2),
        *_models(["kling-v3"], v3),
        *_models(["kling-3.0-turbo"], turbo),
        *_models(["kling-v3-omni"], v3, lists={"video_list": 1}),
        *_models(["kling-video-o1"], o1, lists={"video_list": 1}),
    ]


def _minimax() -> list[KnownModel]:
    h3 = {
        "duration": whole(4, 15, default=5),
        "resolution": one_of("2K", "768p", default="2K"),
        "aspect_ratio": _RATIO,
        "prompt": text(7_000),
    }
    counts: _Roles = {
        "image_with_roles": {"": 9},
        "video_with_roles": {"": 3},
        "audio_with_roles": {"": 3},
    }
    hailuo = {
        "duration": one_of(6, 10, default=6),
        "resolution": one_of("768P", "1080P", default="768P"),
        "prompt": text(2_000),
    }
    hailuo_02 = {**hailuo, "resolution": one_of("512P", "768P", "1080P", default="768P")}
    return [
        *_models(["MiniMax-H3"], h3, roles=counts),
        *_models(["MiniMax-Hailuo-02"], hailuo_02),
        *_models(["MiniMax-Hailuo-2.3"], hailuo),
        *_models(["MiniMax-Hailuo-2.3-Fast"], hailuo, needs=("image_urls",)),
    ]


def _wan_and_vidu() -> list[KnownModel]:
    wan = {
        "duration": one_of(5, 10, 15, default=5),
        "resolution": one_of("720p", "1080p", default="1080p"),
        "aspect_ratio": _RATIO,
    }
    wan_3 = {
        "duration": whole(2, 30),
        "resolution": one_of("480p", "720p", "1080p", default="1080p"),
        "ratio": shaped("a ratio such as 16:9", RATIO + "|adaptive", default="adaptive"),
    }
    vidu = {
        "duration": whole(1, 16, default=5),
        "resolution": one_of("540p", "720p", "1080p", default="720p"),
        "prompt": text(5_000),
        "metadata.off_peak": flag(),
    }
    return [
        *_models(["wan2.6"], wan, lists={"image_urls": 1}),
        *_models(["wan2.6-flash"], wan, lists={"image_urls": 1}, needs=("image_urls", "metadata.reference_urls")),
        *_models(
            ["wan3.0-video"],
            wan_3,
            lists={"reference_images": 10, "video_list": 5},
            roles={"audio_with_roles": {"": 5}},
        ),
        *_models(["viduq3-pro", "viduq3-turbo"], vidu, lists={"image_urls": 2}),
        *_models(
            ["viduq3"], {**vidu, "duration": whole(3, 16, default=5)}, lists={"image_urls": 7}, needs=("image_urls",)
        ),
        *_models(
            ["viduq3-pro-fast", "viduq3-ad", "viduq3-drama", "viduq3-mix"],
            {"resolution": one_of("720P", "1080P", default="720P")},
        ),
    ]


def _others() -> list[KnownModel]:
    grok = {
        "duration": whole(1, 15, default=8),
        "resolution": _SD,
        "aspect_ratio": one_of("16:9", "9:16", "3:2", "2:3", "1:1"),
    }
    imagine = {
        "duration": whole(6, 30, default=6),
        "quality": one_of("480p", "720p", default="480p"),
        "aspect_ratio": _RATIO,
    }
    omni = {"duration": one_of(4, 6, 10, default=6), "resolution": _HD, "aspect_ratio": _WIDE}
    happyhorse = {
        "duration": whole(3, 15, default=5),
        "resolution": one_of("720P", "1080P", default="1080P"),
        "aspect_ratio": _RATIO,
        "action": one_of("text-to-video", "image-to-video", "reference-to-video", "video-edit"),
        "watermark": flag(default=True),
    }
    return [
        *_models(["grok-video-1.0"], grok, lists={"reference_images": 8}),
        *_models(["grok-video-1.5"], grok, needs=("image",)),
        *_models(["grok-imagine-1.0-video"], imagine, lists={"image_urls": 7}),
        *_models(["gemini-omni-flash"], omni, lists={"image_urls": 3, "video_list": 3}),
        *_models(["gemini-omni-flash-preview-official"], omni, lists={"image_urls": 10, "video_list": 3}),
        *_models(["happyhorse-1.1"], happyhorse, lists={"image_urls": 1, "reference_images": 9}),
    ]


VIDEO_MODELS: Final = table([*_sora_and_veo(), *_seedance(), *_kling(), *_minimax(), *_wan_and_vidu(), *_others()])
"""By name, as their pages list them."""
