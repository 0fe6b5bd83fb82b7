"""How much may be spent: credits are reserved before anything is sent, and given back when it came to nothing.

The service tells no reliable prices [docs, field]: the user states them, and what a task's `billing` says afterwards
corrects them for its class. An image may so cost more than was reserved; the cap can be passed by that difference, and
by no more.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import define, frozen

from toapis_async.errors import BudgetExceeded
from toapis_async.request import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

ANY = "*"


@frozen
class PriceClass:
    """What an image's price depends on; None: left to the service, and unknown."""

    model: str
    resolution: str | None = None
    quality: str | None = None

    @classmethod
    def of(cls, body: Mapping[str, object]) -> PriceClass:
        """The class of a request's fields. What vip is not told it takes as 1k and medium [seed]."""
        model, resolution, quality = (body.get(name) for name in ("model", "resolution", "quality"))
        is_vip = (model or DEFAULT_MODEL) == DEFAULT_MODEL
        return cls(
            str(model or DEFAULT_MODEL),
            str(resolution) if resolution else ("1k" if is_vip else None),
            str(quality) if quality else ("medium" if is_vip else None),
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


def images_of(body: Mapping[str, object]) -> int:
    """How many images a request's fields ask for, which is what is charged up front [docs]."""
    number = body.get("n")
    return number if isinstance(number, int) and number > 0 else 1


class Prices:
    """Credits an image, by class: as stated, and as `billing` corrected them."""

    def __init__(self, stated: Mapping[str, Decimal]) -> None:
        self._stated = stated
        self._billed: dict[PriceClass, Decimal] = {}

    def of(self, price_class: PriceClass) -> Decimal | None:
        """Credits an image; None when nobody has said."""
        billed = self._billed.get(price_class)
        if billed is not None:
            return billed
        return next((self._stated[name] for name in price_class.names if name in self._stated), None)

    def billed(self, price_class: PriceClass, images: int, credits_: Decimal) -> None:
        """A task of this class was settled at so much."""
        self._billed[price_class] = credits_ / images


@define(eq=False)
class Reservation:
    """What one request may cost, until it is known."""

    price_class: PriceClass
    images: int
    credits: Decimal
    idle: bool = False  #: left by an earlier session, and nobody sees to it yet


class Budget:
    """Caps on credits, on images, or on neither: then it only counts."""

    def __init__(self, prices: Prices, *, most_credits: Decimal | None = None, most_images: int | None = None) -> None:
        self.prices = prices
        self.most_credits = most_credits
        self.most_images = most_images
        self.spent = Decimal(0)
        self.images = 0  #: paid for
        self.reserved = Decimal(0)
        self.reserved_images = 0
        self._idle_images = 0  #: of those reserved

    @property
    def is_capped(self) -> bool:
        """Whether there is anything it refuses."""
        return self.most_credits is not None or self.most_images is not None

    def reserve(self, price_class: PriceClass, images: int, *, forced: bool = False, idle: bool = False) -> Reservation:
        """Set aside what a request may cost. Raises `BudgetExceeded` when that could pass a cap, or when there is a cap
        on credits and no price; not when `forced`, for what was paid already."""
        price = self.prices.of(price_class)
        if price is None and self.most_credits is not None and not forced:
            raise BudgetExceeded(
                f"a budget needs a price for {price_class}: state it in credits an image with "
                f"Settings(prices={{{str(price_class)!r}: …}}) or --price {price_class}=…"
            )
        credits_ = (price or Decimal(0)) * images
        if not forced:
            self._check(credits_, images)
        self.reserved += credits_
        self.reserved_images += images
        self._idle_images += images * idle
        return Reservation(price_class, images, credits_, idle)

    def _check(self, credits_: Decimal, images: int) -> None:
        committed = self.spent + self.reserved
        if self.most_credits is not None and committed + credits_ > self.most_credits:
            raise BudgetExceeded(
                f"not sent: {images} more image{'s' * (images != 1)} for {credits_:f} credits could pass the budget of "
                f"{self.most_credits:f} credits, of which {committed:f} are spent or reserved"
            )
        taken = self.images + self.reserved_images
        if self.most_images is not None and taken + images > self.most_images:
            raise BudgetExceeded(
                f"not sent: {images} more image{'s' * (images != 1)} could pass the cap of {self.most_images:,}, "
                f"of which {taken:,} are made or on their way"
            )

    def may_get_back(self, price_class: PriceClass) -> bool:
        """Whether waiting may help a request of this class that did not fit."""
        priced = self.most_credits is None or self.prices.of(price_class) is not None
        return priced and self.reserved_images > self._idle_images

    def wake(self, reservation: Reservation) -> None:
        """Somebody sees to it now."""
        self._idle_images -= reservation.images * reservation.idle
        reservation.idle = False

    def settle(self, reservation: Reservation, billed: Decimal | None = None) -> None:
        """The request was paid for: as billed, or else as reserved."""
        self.give_back(reservation)
        self.spent += reservation.credits if billed is None else billed
        self.images += reservation.images
        if billed is not None and reservation.images:
            self.prices.billed(reservation.price_class, reservation.images, billed)

    def give_back(self, reservation: Reservation) -> None:
        """The request came to nothing."""
        self.wake(reservation)
        self.reserved -= reservation.credits
        self.reserved_images -= reservation.images
