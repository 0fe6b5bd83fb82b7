"""Budgets at work: reserved before a request is sent, settled when its task has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from toapis_async.errors import BudgetExceeded
from toapis_async.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from toapis_async.engine.registry import Entry
    from toapis_async.models import Billing
    from toapis_async.protocol.budget import Budget, PriceClass, Reservation


class Spending:
    """What every request under way may cost, by its client_business_id."""

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget  #: the client's own
        self._held: dict[str, list[tuple[Budget, Reservation]]] = {}
        self._waiting: list[asyncio.Future[None]] = []

    async def reserve(
        self, client_business_id: str, price_class: PriceClass, images: int, budget: Budget | None
    ) -> None:
        """Set aside what a request may cost in the client's budget and in a batch's. A batch's row waits while what
        runs may still come to nothing and be given back; raises `BudgetExceeded` when that can't help."""
        budgets = [each for each in (self._budget, budget) if each is not None]
        while True:
            try:
                self._reserve(client_business_id, price_class, images, budgets)
            except BudgetExceeded:
                if budget is None or not any(each.may_get_back(price_class) for each in budgets):
                    raise
                await self._change()
            else:
                return

    def _reserve(
        self, client_business_id: str, price_class: PriceClass, images: int, budgets: Sequence[Budget]
    ) -> None:
        taken: list[tuple[Budget, Reservation]] = []
        try:
            for budget in budgets:
                taken += [(budget, budget.reserve(price_class, images))]
        except BudgetExceeded:
            for budget, reservation in taken:
                budget.give_back(reservation)
            raise
        if taken:
            self._held.setdefault(client_business_id, []).extend(taken)

    def count(self, client_business_id: str, price_class: PriceClass, images: int, budget: Budget | None) -> None:
        """The same for what may be paid for already: it counts, whether it fits or not."""
        self.take_up(client_business_id)
        known = [each for each, _ in self._held.get(client_business_id, ())]
        for each in (self._budget, budget):
            if each is not None and each not in known:
                self.hold(client_business_id, each, each.reserve(price_class, images, forced=True))

    def hold(self, client_business_id: str, budget: Budget, reservation: Reservation) -> None:
        """Something an earlier session sent is still under way."""
        self._held.setdefault(client_business_id, []).append((budget, reservation))

    def take_up(self, client_business_id: str) -> None:
        """Somebody sees to what an earlier session left: from now on it is worth waiting for."""
        for budget, reservation in self._held.get(client_business_id, ()):
            budget.wake(reservation)

    def give_back(self, client_business_id: str) -> None:
        """Nothing was paid: it was not accepted, or it failed."""
        for budget, reservation in self._held.pop(client_business_id, ()):
            budget.give_back(reservation)
        self._changed()

    def settle(self, client_business_id: str, billed: Decimal | None = None) -> None:
        """It was paid, or has to be taken for paid."""
        for budget, reservation in self._held.pop(client_business_id, ()):
            budget.settle(reservation, billed)
        self._changed()

    def ended(self, entry: Entry) -> None:
        """A task is no longer watched. Only a failure is free; what nobody knows is taken for paid."""
        if entry.client_business_id not in self._held:
            return
        snapshot = entry.snapshot if entry.status and entry.status.is_final else None
        billing = snapshot.billing if snapshot else None
        if entry.status is TaskStatus.FAILED and not (billing and billing.status == "settled"):
            self.give_back(entry.client_business_id)
        else:
            self.settle(entry.client_business_id, billed_credits(billing))

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _changed(self) -> None:
        """Wake those who wait, in their order."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


def billed_credits(billing: Billing | None) -> Decimal | None:
    """What a task cost by the service's own word; None when it did not say."""
    return billing.credits if billing is not None and billing.status == "settled" else None
