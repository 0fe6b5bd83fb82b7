"""The image models whose pages we know [docs], [field]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toapis_async.request.catalogue import PIXELS, RATIO, KnownModel, flag, one_of, shaped, table, text, whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from toapis_async.request.catalogue import Rule

VIP: Final = "gpt-image-2-vip"
RATIOS: Final = ("1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "2:1", "1:2", "21:9", "9:21")
RESOLUTIONS: Final = ("1k", "2k", "4k")
QUALITIES: Final = ("low", "medium", "high")
MAX_PROMPT_CHARACTERS: Final = 32_000
MOST_SEEDREAM_IMAGES: Final = 15  #: references and images together

_PROMPT: Final = {"prompt": text(MAX_PROMPT_CHARACTERS)}
_RATIO: Final = shaped("a ratio such as 16:9", RATIO + "|auto")
_PIXELS: Final = shaped("pixels such as 1024x1024", PIXELS)
_ONE: Final = one_of(1, default=1)
_TEN: Final = whole(1, 10, default=1)
_FEW: Final = one_of(1, 2, 4, default=1)
_OLD: Final = ("image_urls",)
_BOTH: Final = ("reference_images", "image_urls")


def _model(
    name: str,
    rules: Mapping[str, Rule],
    *references: str,
    most: int | None = None,
    needs: tuple[str, ...] = (),
    edits: Literal["only", "multipart"] | None = None,
) -> KnownModel:
    return KnownModel(name, "image", rules, dict.fromkeys(references, most), needs, edits)


def _gpt_image_2() -> list[KnownModel]:
    sized = {"size": one_of(*RATIOS, "auto", default="1:1"), "resolution": one_of(*RESOLUTIONS, default="1k")}
    made = {
        "n": _TEN,
        "quality": one_of(*QUALITIES, default="high"),
        "output_format": one_of("png", "jpeg"),
        "output_compression": whole(0, 100),
    }
    vip = {
        **_PROMPT,
        "resolution": one_of(*RESOLUTIONS, default="1k", exact=True),
        "quality": one_of(*QUALITIES, default="medium", exact=True),
        "n": whole(1, None, default=1),
    }
    standard = {**_PROMPT, **sized, **made, "background": one_of("transparent")}
    return [
        _model(VIP, vip, "reference_images"),  # its size is checked apart: any ratio to 3:1 passes
        KnownModel("gpt-image-2", "image", standard, {"reference_images": 6, "image_urls": 16}),
        _model("gpt-image-2-official", {**_PROMPT, **sized, **made}, *_OLD, most=16),
    ]


def _gpt_image_2_5() -> list[KnownModel]:
    ratios = one_of("1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "21:9")
    standard = {
        **_PROMPT,
        "size": ratios,
        "resolution": one_of("1K", "2K", "4K"),
        "quality": one_of("high", default="high"),
        "n": _ONE,
    }
    by_token = {
        **_PROMPT,
        "size": _PIXELS,
        "quality": one_of("auto", "low", "medium", "high", "xhigh", "max", default="high"),
        "n": _ONE,
    }
    models: list[KnownModel] = []
    for name in ("gpt-image-2.5-flare", "gpt-image-2.5-sunburst"):
        models += [
            _model(name, standard, *_BOTH),
            _model(f"{name}-vip", by_token, *_BOTH, edits="multipart"),
            _model(f"{name}-official", by_token, *_OLD),
        ]
    return models


def _gemini() -> list[KnownModel]:
    shared = {"size": _RATIO, "n": _ONE, "metadata.resolution": one_of("1K", "2K", "4K")}
    small_too = {**shared, "metadata.resolution": one_of("0.5K", "1K", "2K", "4K")}
    searches = {"metadata.google_search": flag(), "metadata.google_image_search": flag()}

    def rules(name: str) -> dict[str, Rule]:
        return small_too if "3.1" in name else shared

    bases = ("gemini-2.5-flash-image", "gemini-3-pro-image", "gemini-3.1-flash-image")
    standard = tuple(f"{base}{preview}" for base in bases for preview in ("-preview", ""))  # written both ways [docs]
    official = tuple(f"{name}-official" for name in standard)
    return [
        *(_model(name, {**rules(name), **searches}, *_OLD, most=14) for name in standard),
        *(_model(name, rules(name), *_OLD, most=3 if "2.5" in name else 14) for name in official),
    ]


def _seedream() -> list[KnownModel]:
    shared = {
        "size": _RATIO,
        "metadata.watermark": flag(),
        "metadata.sequential_image_generation": one_of("auto", "disabled"),
    }
    standard = {**shared, "n": whole(1, MOST_SEEDREAM_IMAGES, default=1)}
    names = ("doubao-seedream-4-0", "doubao-seedream-4-5", "doubao-seedream-5-0")
    return [
        *(_model(name, standard, *_OLD, most=10) for name in names),
        _model("doubao-seedream-5-0-pro", {**shared, "n": _TEN}, *_OLD, most=10),
    ]


def _others() -> list[KnownModel]:
    flux = {"size": _RATIO, "metadata.resolution": one_of("1K", "2K")}
    kontext = {"size": _RATIO, "metadata.safety_tolerance": whole(0, None, default=2)}
    kontext["metadata.prompt_upsampling"] = flag()
    few = {"size": _RATIO, "n": _FEW}
    vidu = {
        "size": shaped("a ratio such as 16:9, or pixels such as 1024*1024", RATIO + r"|auto|[0-9]{2,5}[*xX][0-9]{2,5}"),
        "metadata.watermark": flag(),
    }
    qwen = {"size": _PIXELS, "metadata.prompt_extend": flag()}
    return [
        *(_model(name, flux, *_OLD, most=8) for name in ("flux-2-pro", "flux-2-flex")),
        *(_model(name, kontext, *_OLD, most=1) for name in ("flux-kontext-pro", "flux-kontext-max")),
        *(_model(name, few, *_OLD, most=5) for name in ("gpt-4o-image", "grok-4-1-image", "grok-4-2-image")),
        _model("grok-imagine-1.0", {"size": _RATIO, "n": _TEN}),
        _model("grok-imagine-1.0-edit", {"n": _TEN}, *_OLD, needs=_OLD, edits="only"),
        _model("viduq2-fast", {**vidu, "metadata.resolution": one_of("1K")}, *_OLD),
        *(_model(name, vidu, *_OLD) for name in ("viduq2-pro", "viduq3-fast", "vidu-image")),
        _model("qwen-image-3.0-pro", qwen, *_OLD, most=3),
    ]


IMAGE_MODELS: Final = table([*_gpt_image_2(), *_gpt_image_2_5(), *_gemini(), *_seedream(), *_others()])
"""By name, as their pages list them."""
