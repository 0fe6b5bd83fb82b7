"""Prices as the service tells them (`GET /v1/pricing` [docs]): this key's own, discounts included; no quote, no lock.

What a request may cost by them is the dearest of the rows that may apply to it. A row applies unless one of its
conditions says otherwise; a condition on what we don't know of the request rules nothing out. There is no price where
any row that may apply is per token, or per second of a length that is open.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Final, cast

from attrs import frozen

from toapis_async.models import Price
from toapis_async.protocol.lenient import (
    JsonObject,
    as_object,
    read_decimal,
    read_object,
    read_text,
    read_text_or_none,
    unreadable,
)
from toapis_async.protocol.refusals import check_refusal
from toapis_async.request import DEFAULT_MODEL, VIDEO_MODELS
from toapis_async.request.catalogue import member_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from toapis_async.protocol.lenient import Answer

PRICING_PATH: Final = "/pricing"
PRICES_A_PAGE: Final = 100  #: the most the service gives at once [docs]
CREDITS_PER_USD: Final = Decimal(200)
"""What the balance says when it says nothing else [docs]."""
ANY: Final = "*"
_REFERENCES: Final = ("reference_images", "image_urls", "image", "image_with_roles")
_VIDEOS: Final = ("video_with_roles", "video_list", "url")


@frozen
class PricePage:
    """One page of prices, and the cursor of the next; None on the last."""

    prices: tuple[Price, ...]
    next_after: str | None = None


def decode_prices(answer: Answer) -> PricePage:
    """A page of prices. A row whose price can't be read as an amount of USD from 0 is left out: it is unknown, not
    free. Raises `UnreadableAnswer` for what is no list."""
    body = read_object(answer)
    entries = body.get("data")
    if not isinstance(entries, list):
        check_refusal(answer)
        raise unreadable(answer, "no list of prices", "$.data")
    is_usd = read_text(body.get("currency")).upper() in {"", "USD"}
    prices = tuple(
        price
        for entry in map(as_object, cast("list[object]", entries))
        if entry is not None and is_usd
        for price in _prices_of(entry)
    )
    return PricePage(prices, read_text_or_none(body.get("next_after")) if body.get("has_more") is True else None)


def _prices_of(entry: JsonObject) -> Iterable[Price]:
    model, rows = read_text(entry.get("id")), entry.get("prices")
    if not model or not isinstance(rows, list):
        return
    for row in map(as_object, cast("list[object]", rows)):
        amount = read_decimal(row.get("unit_price")) if row is not None else None
        if row is not None and amount is not None and amount >= 0:
            yield Price(
                model=model,
                type=read_text(entry.get("type")),
                conditions=as_object(row.get("conditions")) or {},
                charge_type=read_text(row.get("charge_type")),
                price_basis=read_text(row.get("price_basis")),
                unit=read_text(row.get("unit")),
                unit_price=amount,
                raw=row,
            )


# ---------------------------------------------------------------------------------------------- what a request costs


@frozen
class PriceClass:
    """What the price of an image or a video depends on; None: left to the service, and unknown."""

    model: str
    resolution: str | None = None
    quality: str | None = None  #: of a video, its length: `5s`
    seconds: int | None = None  #: of a video; None for images, and where the service chooses
    has_video_input: bool = False
    input_images: int = 0

    @classmethod
    def of(cls, body: Mapping[str, object]) -> PriceClass:
        """The class of a request's fields. What vip is not told it takes as 1k and medium [seed]; what a known video
        model is not told, as its page says."""
        model = str(body.get("model") or DEFAULT_MODEL)
        if "duration" in body or body.get("kind") == "video" or model in VIDEO_MODELS:
            return cls._of_video(model, body)
        is_vip = model == DEFAULT_MODEL
        resolution, quality = given_in(body, "resolution"), given_in(body, "quality")
        return cls(
            model,
            str(resolution) if resolution else ("1k" if is_vip else None),
            str(quality) if quality else ("medium" if is_vip else None),
            input_images=sum(_count(body.get(name)) for name in _REFERENCES),
        )

    @classmethod
    def _of_video(cls, model: str, body: Mapping[str, object]) -> PriceClass:
        known = VIDEO_MODELS.get(model)
        values: dict[str, object] = {}
        for name in ("resolution", "metadata.resolution", "quality", "mode", "duration"):
            values[name] = member_of(body, name) or (known.default_of(name) if known is not None else None)
        duration = values.pop("duration")
        seconds = duration if type(duration) is int and duration > 0 else None
        resolution = next((str(value) for value in values.values() if value), None)
        return cls(
            model,
            resolution,
            None if seconds is None else f"{seconds}s",
            seconds,
            has_video_input=any(body.get(name) for name in _VIDEOS),
            input_images=sum(_count(body.get(name)) for name in _REFERENCES),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names a price may stand under, the most exact first."""
        parts = [self.model, self.resolution, self.quality]
        while parts[-1] is None:
            parts.pop()
        shown = [part or ANY for part in parts]
        return *("/".join(shown[:length]) for length in range(len(shown), 0, -1)), ANY

    def __str__(self) -> str:
        return self.names[0]


def given_in(body: Mapping[str, object], name: str) -> object:
    """A field; models other than vip read it in `metadata`, too [docs]."""
    value = body.get(name)
    if value is None and (body.get("model") or DEFAULT_MODEL) != DEFAULT_MODEL:
        return member_of(body, f"metadata.{name}")
    return value


def _count(value: object) -> int:
    if isinstance(value, list | tuple):
        return len(cast("list[object]", value))
    return 1 if value else 0


class ServicePrices:
    """What images and videos cost by the service's prices."""

    def __init__(self, prices: Iterable[Price], credits_per_usd: Decimal | None = None) -> None:
        self._rows: dict[str, list[Price]] = defaultdict(list)
        self._credits_per_usd = credits_per_usd or CREDITS_PER_USD
        for price in prices:
            self._rows[price.model].append(price)

    def of(self, price_class: PriceClass) -> Decimal | None:
        """Credits that an image or a video of this class may cost at most; None when they don't say."""
        rows = [row for row in self._rows.get(price_class.model, ()) if _may_apply(row, price_class)]
        amounts = [_usd(row, price_class) for row in rows]
        known = [amount for amount in amounts if amount is not None]
        return max(known) * self._credits_per_usd if known and len(known) == len(amounts) else None


def _may_apply(price: Price, price_class: PriceClass) -> bool:
    known: dict[str, object] = {
        "resolution": price_class.resolution,
        "mode": price_class.resolution if price_class.seconds is not None else None,
        "quality": price_class.quality if price_class.seconds is None else None,
        "duration": price_class.seconds,
        "has_video_input": price_class.has_video_input,
        "has_image_input": price_class.input_images > 0,
    }
    for name, wanted in price.conditions.items():
        own = known.get(name)
        if own is not None and wanted is not None and _plain(own) != _plain(wanted):
            return False
    return True


def _plain(value: object) -> str:
    return str(value).strip().casefold()


def _usd(price: Price, price_class: PriceClass) -> Decimal | None:
    """USD of one image or video; None for a price per token, per second of an open length, or of an unknown unit."""
    raw = price.raw
    if price.unit == "second" or price.charge_type == "per_second":
        if price_class.seconds is None or price.price_basis not in {"", "output_seconds"}:
            return None
        cost = price.unit_price * price_class.seconds
    elif price.charge_type == "per_request" and price.unit in {"", "request"}:
        cost = price.unit_price
    else:
        return None
    free = read_decimal(raw.get("free_input_image_count")) or Decimal(0)
    each = read_decimal(raw.get("input_image_unit_price")) or Decimal(0)
    cost += max(Decimal(0), price_class.input_images - free) * max(Decimal(0), each)
    return max(cost, read_decimal(raw.get("minimum_charge_usd")) or Decimal(0))
