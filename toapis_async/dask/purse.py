"""The budget of a run on a cluster: kept by its driver, who hands out no row that may not fit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from toapis_async.batch.part_run import name_of
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import charge
from toapis_async.errors import BudgetExceeded, SubmitUncertain, TaskFailed, TaskOverdue, WaitTimeout
from toapis_async.protocol.budget import PriceClass, charge_of, images_of
from toapis_async.protocol.rowids import row_name
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from toapis_async.batch.item import BatchItem
    from toapis_async.batch.rows import Row
    from toapis_async.engine.journal.records import Record
    from toapis_async.protocol.budget import Budget, Reservation
    from toapis_async.protocol.pricing import ServicePrices

_TAKEN_FOR_PAID = (SubmitUncertain, TaskOverdue, WaitTimeout)


class Purse:
    """Reserves what rows may cost before they are handed out, and settles it when their items are there."""

    def __init__(self, budget: Budget, run: str, *, retry_failed: bool) -> None:
        self.budget = budget
        self._run = run
        self._retry_failed = retry_failed
        self._held: dict[str, Reservation] = {}  # by the rows' names
        self._counted: set[str] = set()  # rows that an earlier pass paid for
        self._settled = asyncio.Event()

    async def count_earlier(self, records: AsyncIterable[Record]) -> None:
        """What earlier passes of a capped run paid for, or may have."""
        if not self.budget.is_capped:
            return
        async for record in records:
            reservation, intent = charge(self.budget, record), record.intent
            name = row_name(self._run, intent.key, intent.digest, intent.occurrence)
            if reservation is not None:
                self.budget.idle(reservation)  # until its row comes nobody sees to it
                self._held[name] = reservation
            elif record.state is not State.FAILED or not self._retry_failed:
                self._counted.add(name)

    async def admit(
        self, rows: tuple[Row, ...], load_prices: Callable[[], Awaitable[ServicePrices]]
    ) -> tuple[list[Row], list[tuple[Row, BudgetExceeded]], tuple[Row, ...]]:
        """Of these rows those that fit, those that never will with why, and those from a row on that may fit when more
        of what is out has ended. When nothing else is left, that is waited for."""
        fit: list[Row] = []
        refused: list[tuple[Row, BudgetExceeded]] = []
        for place, row in enumerate(rows):
            while True:
                try:
                    await self._reserve(row, load_prices)
                except BudgetExceeded as error:
                    if not self._may_get_back(row):
                        refused.append((row, error))
                        break
                    if fit or refused:
                        return fit, refused, rows[place:]
                    self._settled.clear()
                    await self._settled.wait()
                else:
                    fit.append(row)
                    break
        return fit, refused, ()

    def _may_get_back(self, row: Row) -> bool:
        assert row.request is not None
        return self.budget.may_get_back(PriceClass.of(row.request.body()))

    async def _reserve(self, row: Row, load_prices: Callable[[], Awaitable[ServicePrices]]) -> None:
        if row.request is None or row.identity is None:
            return
        name, body = name_of(self._run, row), row.request.body()
        if name in self._counted:
            return
        if name in self._held:
            self.budget.seen_to(self._held[name])
            return
        price_class = PriceClass.of(body)
        if self.budget.asks_service_for(price_class):
            self.budget.prices.service = await load_prices()
        self._held[name] = self.budget.reserve(price_class, images_of(body))

    def ended(self, row: Row, item: BatchItem) -> None:
        """A row that was handed out has its item."""
        reservation = self._held.pop(name_of(self._run, row), None) if row.identity is not None else None
        if reservation is not None:
            self._settle(reservation, item)
        self._settled.set()

    def _settle(self, reservation: Reservation, item: BatchItem) -> None:
        error, budget = item.error, self.budget
        if item.generation:
            budget.charge(reservation, charge_of(TaskStatus.COMPLETED, item.generation.billing))
        elif isinstance(error, TaskFailed):
            budget.charge(reservation, charge_of(TaskStatus.FAILED, error.billing))
        elif isinstance(error, _TAKEN_FOR_PAID) or item.task_id is not None:
            budget.settle(reservation)
        else:  # it was not accepted
            budget.give_back(reservation)
