"""The price list of `GET /v1/pricing`, from the very numbers that the sandbox charges by. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toapis_async.sandbox.catalogue import CREDITS_PER_USD, IMAGE_MODELS, QUALITIES, USD_PER_1M_TOKENS, ImageModel
from toapis_async.sandbox.video_catalogue import VIDEO_MODELS, VideoModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.sandbox.jobs import JsonObject

UNPRICED: Final = {"flux-kontext-max", "viduq3-drama"}
"""Listed without prices, which means unknown, not free."""
PEAK_PRICED: Final = "doubao-seedance-1-0-pro-quality"
"""Listed with a second, dearer price for the hours of its peak windows. The sandbox charges the first."""
_PEAK: Final = {
    "pricing_period": "peak",
    "pricing_timezone": "Asia/Shanghai",
    "pricing_schedule_version": "1",
    "pricing_peak_windows": [{"start": "09:00", "end": "18:00"}],
}


def price_list() -> list[JsonObject]:
    """Every model that has a task endpoint, with its prices."""
    images = [_entry(name, "image", _image_prices(model)) for name, model in IMAGE_MODELS.items()]
    return images + [_entry(name, "video", _video_prices(model)) for name, model in VIDEO_MODELS.items()]


def decimal(credits_: float) -> str:
    """Credits as US dollars in decimal text."""
    return f"{credits_ / CREDITS_PER_USD:.8f}".rstrip("0").rstrip(".") or "0"


def _entry(name: str, kind: str, prices: list[JsonObject]) -> JsonObject:
    return {"id": name, "type": kind, "prices": [] if name in UNPRICED else prices}


def _price(conditions: Mapping[str, object], charge_type: str, basis: str, unit: str, usd: str) -> JsonObject:
    return {
        "group": "default",
        "conditions": dict(conditions),
        "charge_type": charge_type,
        "price_basis": basis,
        "unit": unit,
        "unit_price": usd,
    }


def _image_prices(model: ImageModel) -> list[JsonObject]:
    if model.per_token:
        usd = str(USD_PER_1M_TOKENS)
        tokens = {"text_input": usd, "cached_text_input": usd, "image_input": usd, "cached_image_input": usd}
        price = _price({}, "per_token", "total_tokens", "1m_tokens", usd)
        return [{**price, "image_token_prices": {**tokens, "image_output": usd}}]
    qualities = QUALITIES if model.qualities else (None,)
    return [
        _price(
            {"resolution": resolution, **({} if quality is None else {"quality": quality})},
            "per_request",
            "request",
            "request",
            decimal(model.credits(resolution, quality or model.quality)),
        )
        for resolution in model.prices
        for quality in qualities
    ]


def _video_prices(model: VideoModel) -> list[JsonObject]:
    charge = ("per_request", "request", "request") if model.per_request else ("per_second", "output_seconds", "second")
    place = model.resolution_field.rpartition(".")[2]
    reads_video = "video_with_roles" in model.inputs
    with_video: list[JsonObject] = [{"has_video_input": given} for given in (False, True)] if reads_video else [{}]
    prices = [
        _price({**({place: resolution} if resolution else {}), **more}, *charge, decimal(credits_))
        for resolution, credits_ in model.prices.items()
        for more in with_video
    ]
    if model.name == PEAK_PRICED:
        prices += [
            {**_price({place: resolution}, *charge, decimal(2 * credits_)), **_PEAK}
            for resolution, credits_ in model.prices.items()
        ]
    return prices
