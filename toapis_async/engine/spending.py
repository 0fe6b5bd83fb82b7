"""Budgets at work: reserved before a request is sent, settled when its task has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import charge, price_class_of
from toapis_async.errors import BudgetExceeded
from toapis_async.protocol.budget import PriceClass, charge_of, images_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from toapis_async.engine.bills import Bills
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.journal.records import Record
    from toapis_async.protocol.budget import Budget, Charge, Prices, Reservation
    from toapis_async.protocol.pricing import ServicePrices


class Spending:
    """What every request under way may cost, by its client_business_id."""

    def __init__(self, budget: Budget | None, bills: Bills) -> None:
        self.budget = budget  #: the client's own
        self._bills = bills
        self.load_prices: Callable[[], Awaitable[ServicePrices]] | None = None
        """Asks the service for its prices: once, when a budget first meets what the user stated no price for."""
        self._loading = asyncio.Lock()
        self._held: dict[str, list[tuple[Budget, Reservation]]] = {}
        self._waiting: list[asyncio.Future[None]] = []

    async def reserve(self, client_business_id: str, body: Mapping[str, object], budget: Budget | None) -> None:
        """Set aside what a request may cost in the client's budget and in a batch's. A batch's row waits while what
        runs may still come to nothing and be given back; raises `BudgetExceeded` when that can't help."""
        budgets = [each for each in (self.budget, budget) if each is not None]
        if not budgets:
            self.seen_to(client_business_id)
            return
        price_class, images = PriceClass.of(body), images_of(body)
        for each in budgets:
            await self.learn_price(each, price_class)
        while True:
            try:
                self._reserve(client_business_id, price_class, images, budgets)
            except BudgetExceeded:
                if budget is None or not any(each.may_get_back(price_class) for each in budgets):
                    raise
                await self._change()
            else:
                return

    async def learn_price(self, budget: Budget, price_class: PriceClass) -> None:
        """Ask the service for its prices, if only these can give a class one under a cap on credits. Raises
        `AuthenticationFailed`."""
        if budget.asks_service_for(price_class):
            await self.learn_prices(budget.prices)

    async def learn_prices(self, prices: Prices) -> None:
        """Ask the service for its prices, unless that was done. Raises `AuthenticationFailed`."""
        if self.load_prices is None:
            return
        async with self._loading:
            if prices.service is None:
                prices.service = await self.load_prices()

    def _reserve(
        self, client_business_id: str, price_class: PriceClass, images: int, budgets: Sequence[Budget]
    ) -> None:
        held = self._held.get(client_business_id, [])
        known = [each for each, reservation in held if reservation.is_idle]  # another under this id is paid for anew
        taken: list[tuple[Budget, Reservation]] = []
        try:
            for budget in budgets:
                if budget not in known:
                    taken += [(budget, budget.reserve(price_class, images))]
        except BudgetExceeded:
            for budget, reservation in taken:
                budget.give_back(reservation)
            raise
        if taken:
            self._held[client_business_id] = [*held, *taken]
        self.seen_to(client_business_id)

    async def count(self, client_business_id: str, body: Mapping[str, object], budget: Budget | None) -> None:
        """The same for what may be paid for already: it counts, whether it fits or not."""
        price_class, images = PriceClass.of(body), images_of(body)
        for each in (self.budget, budget):
            if each is not None:
                await self.learn_price(each, price_class)
        known = [each for each, _ in self._held.get(client_business_id, ())]
        for each in (self.budget, budget):
            if each is not None and each not in known:
                reservation = each.reserve(price_class, images, forced=True)
                self._held.setdefault(client_business_id, []).append((each, reservation))
        self.seen_to(client_business_id)

    async def count_earlier(
        self, budget: Budget, records: AsyncIterator[Record], ended: Callable[[Record], Entry]
    ) -> None:
        """What earlier sessions paid for, or may have, counts in `budget`, too. `ended` gives the entry of a task whose
        end an earlier session saw."""
        async for record in records:
            await self.learn_price(budget, price_class_of(record))
            reservation = charge(budget, record)
            if reservation is not None and record.state is State.FAILED:
                self.ended_earlier(ended(record), budget, reservation)
            elif reservation is not None:
                self.hold(record.intent.client_business_id, budget, reservation)

    def hold(self, client_business_id: str, budget: Budget, reservation: Reservation) -> None:
        """Something an earlier session sent may still be under way. Until it is `seen_to`, no row waits for it: its
        own row may be gone, or come only after those that would wait."""
        budget.idle(reservation)
        self._held.setdefault(client_business_id, []).append((budget, reservation))

    def seen_to(self, client_business_id: str) -> None:
        """It is looked up or watched, and will be given back or settled."""
        for budget, reservation in self._held.get(client_business_id, ()):
            budget.seen_to(reservation)

    def give_back_latest(self, client_business_id: str) -> None:
        """Nothing was paid: it was not accepted. Another under the same id may have been, and stays reserved."""
        latest = dict(self._held.get(client_business_id, ()))
        for budget, reservation in latest.items():
            self._held[client_business_id].remove((budget, reservation))
            budget.give_back(reservation)
        if not self._held.get(client_business_id):
            self._held.pop(client_business_id, None)
        self._changed()

    def settle(self, client_business_id: str) -> None:
        """Nobody knows whether it was paid: it has to be taken for paid."""
        for budget, reservation in self._held.pop(client_business_id, ()):
            budget.settle(reservation)
        self._changed()

    def ended(self, entry: Entry) -> None:
        """A task is no longer watched. What nobody knows is taken for paid."""
        held = self._held.pop(entry.client_business_id or "", None)
        if held is None:
            return
        snapshot = entry.snapshot if entry.status and entry.status.is_final else None
        charge = charge_of(entry.status, snapshot.billing) if snapshot else charge_of(None, None)
        self._charge(held, charge)
        if charge.is_pending and any(budget.is_capped for budget, _ in held):
            bill = self._bills.ask(entry)
            bill.add_done_callback(lambda bill: self._charge(held, bill.result()))

    def ended_earlier(self, entry: Entry, budget: Budget, reservation: Reservation) -> None:
        """A task failed in an earlier session, and its bill was pending: ask for it once and at once. Rows that don't
        fit wait for this answer, or the same run would never come to know it."""
        budget.seen_to(reservation)
        bill = self._bills.ask(entry, after_s=(0.0,))
        bill.add_done_callback(lambda bill: self._charge([(budget, reservation)], bill.result()))

    def _charge(self, held: Sequence[tuple[Budget, Reservation]], charge: Charge) -> None:
        for budget, reservation in held:
            budget.charge(reservation, charge)
        self._changed()

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
