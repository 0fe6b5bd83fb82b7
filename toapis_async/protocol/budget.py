"""How much may be spent: credits are reserved before anything is sent, and given back when it came to nothing.

Prices are the user's, or else the service's own (`pricing`), and what a task's `billing` says afterwards corrects them
for its class. An image may so cost more than was reserved; the cap can be passed by that difference, and by no more.
"""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import define, frozen

from toapis_async.errors import BudgetExceeded
from toapis_async.protocol.pricing import ANY, PriceClass, given_in
from toapis_async.request import DEFAULT_MODEL
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.errors import ToAPIsError
    from toapis_async.protocol.pricing import ServicePrices
    from toapis_async.task import Billing

__all__ = ["ANY", "Budget", "Charge", "PriceClass", "Prices", "Reservation", "charge_of", "images_of"]


def images_of(body: Mapping[str, object]) -> int:
    """How many images or videos a request's fields ask for, which is what is charged up front [docs]."""
    number = given_in(body, "n")
    is_vip = (body.get("model") or DEFAULT_MODEL) == DEFAULT_MODEL
    if isinstance(number, str) and not is_vip and number.isdecimal() and len(number) < 4:
        number = int(number)
    return number if isinstance(number, int) and number > 0 else 1


@frozen
class Charge:
    """What a task came to."""

    credits: Decimal | None = None  #: None: nobody has said, which is never free
    is_pending: bool = False  #: the service has not decided yet; it may be asked again
    has_failed: bool = False

    @property
    def is_free_failure(self) -> bool:
        """Whether there is no image, and certainly nothing was paid."""
        return self.has_failed and not self.is_pending and self.credits == 0


def charge_of(status: TaskStatus | None, billing: Billing | None) -> Charge:
    """What a task came to by its end and its bill. `status` is None when nobody saw the end.

    A refund is 0, and so is a failure without any bill. A bill that is not decided, or of an amount that can't be,
    says nothing.
    """
    has_failed = status is TaskStatus.FAILED
    if billing is None:
        return Charge(Decimal(0) if has_failed else None, has_failed=has_failed)
    word = billing.status.strip().lower()
    if word == "refunded":
        return Charge(Decimal(0), has_failed=has_failed)
    if word == "settled":
        known = billing.credits is not None and billing.credits >= 0
        return Charge(billing.credits if known else None, has_failed=has_failed)
    return Charge(is_pending=True, has_failed=has_failed)


class Prices:
    """Credits an image or a video, by class: as `billing` corrected them, as the user stated them, or as the service
    tells them, in this order."""

    def __init__(self, stated: Mapping[str, Decimal], service: ServicePrices | None = None) -> None:
        self._stated = stated
        self._billed: dict[PriceClass, Decimal] = {}
        self.service = service  #: None: not asked for yet, or not to be had

    def of(self, price_class: PriceClass) -> Decimal | None:
        """Credits an image or a video; None when nobody has said."""
        billed = self._billed.get(price_class)
        if billed is not None:
            return billed
        stated = self.stated(price_class)
        return stated if stated is not None or self.service is None else self.service.of(price_class)

    def stated(self, price_class: PriceClass) -> Decimal | None:
        """What the user said; None when that is nothing, and the service may be asked."""
        return next((self._stated[name] for name in price_class.names if name in self._stated), None)

    def billed(self, price_class: PriceClass, images: int, credits_: Decimal) -> None:
        """A task of this class was settled at so much. The dearest counts: a cheap one (a discount, or a part of its
        images) must not let the next ones be sent for less than they may cost."""
        price = credits_ / images
        if price > 0:
            self._billed[price_class] = max(price, self._billed.get(price_class, price))


@define(eq=False)
class Reservation:
    """What one request may cost, until it is known."""

    price_class: PriceClass
    images: int
    credits: Decimal
    is_idle: bool = False  #: it may never be settled, so that no other request may wait for it
    charged: Decimal | None = None  #: once it is settled


class Budget:
    """Caps on credits, on images, or on neither: then it only counts."""

    def __init__(self, prices: Prices, *, most_credits: Decimal | None = None, most_images: int | None = None) -> None:
        self.prices = prices
        self.most_credits = most_credits
        self.most_images = most_images
        self.spent: Decimal = Decimal(0)
        self.images: int = 0  #: paid for
        self.reserved: Decimal = Decimal(0)
        self.reserved_images: int = 0
        self._idle_images = 0
        self.closed_by: ToAPIsError | None = None  #: the service's refusal that every further request would meet

    @property
    def is_capped(self) -> bool:
        """Whether there is anything it refuses."""
        return self.most_credits is not None or self.most_images is not None

    def check_open(self, client_business_id: str) -> None:
        """Raise what another request was refused with, if this one would be refused likewise."""
        if self.closed_by is not None:
            error = copy.copy(self.closed_by)
            error.task_id, error.client_business_id = None, client_business_id
            raise error

    def asks_service_for(self, price_class: PriceClass) -> bool:
        """Whether only the service's prices, which were not asked for yet, may let such a request through."""
        return self.most_credits is not None and self.prices.service is None and self.prices.of(price_class) is None

    def reserve(self, price_class: PriceClass, images: int, *, forced: bool = False) -> Reservation:
        """Set aside what a request may cost. Raises `BudgetExceeded` when that could pass a cap, or when there is a cap
        on credits and no price; not when `forced`, for what was paid already."""
        price = self.prices.of(price_class)
        if price is None and self.most_credits is not None and not forced:
            raise BudgetExceeded(
                f"a budget needs a price for {price_class}, and the service has told none that is known beforehand "
                "(it may bill by token, or by the second of an open length): state it in credits apiece with "
                f"Settings(prices={{{str(price_class)!r}: …}}) or --price {price_class}=…"
            )
        credits_ = (price or Decimal(0)) * images
        if not forced:
            self._check(credits_, images)
        self.reserved += credits_
        self.reserved_images += images
        return Reservation(price_class, images, credits_)

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

    def idle(self, reservation: Reservation) -> None:
        """No other request may wait for it."""
        if not reservation.is_idle:
            reservation.is_idle = True
            self._idle_images += reservation.images

    def seen_to(self, reservation: Reservation) -> None:
        """Others may wait for it (again)."""
        if reservation.is_idle:
            reservation.is_idle = False
            self._idle_images -= reservation.images

    def charge(self, reservation: Reservation, charge: Charge) -> None:
        """The task came to this. A failure whose bill is pending stays reserved, and no other request waits for it."""
        if charge.is_free_failure:
            self.give_back(reservation)
        elif charge.has_failed and charge.is_pending:
            self.idle(reservation)
        else:
            self.settle(reservation, charge.credits)

    def settle(self, reservation: Reservation, billed: Decimal | None = None) -> None:
        """The request was paid for: as billed, or else as reserved. A later bill replaces an earlier one."""
        if reservation.charged is None:
            self.give_back(reservation)
            self.images += reservation.images
        else:
            self.spent -= reservation.charged
        reservation.charged = reservation.credits if billed is None else billed
        self.spent += reservation.charged
        if billed is not None and reservation.images:
            self.prices.billed(reservation.price_class, reservation.images, billed)

    def give_back(self, reservation: Reservation) -> None:
        """The request came to nothing."""
        self.seen_to(reservation)
        self.reserved -= reservation.credits
        self.reserved_images -= reservation.images
