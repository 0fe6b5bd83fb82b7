"""A warning when the money that is left won't cover a batch whose length is known."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from toapis_async.engine import account
from toapis_async.engine.journal.resume import charge
from toapis_async.errors import ToAPIsError
from toapis_async.events import CreditsShort
from toapis_async.log import logger
from toapis_async.protocol.budget import Budget, PriceClass, images_of
from toapis_async.protocol.wire import decode_balance

if TYPE_CHECKING:
    from toapis_async.engine.core import Engine
    from toapis_async.request import Request


class Funds:
    """What a batch will come to, by the prices known and as if the rows that were not read yet cost what the others do
    on average; held against its budget and the key's balance. Each is warned of once."""

    def __init__(self, engine: Engine, budget: Budget, total: int | None) -> None:
        self._engine = engine
        self._budget = budget
        self._total = total
        self._read = self._ended = 0
        self._classes: Counter[tuple[PriceClass, int]] = Counter()  # of rows that were read, with their images
        self._earlier = Decimal(0)  # what earlier passes of an uncapped run came to
        self._affordable: Decimal | None = None  # what all passes may come to by the key's balance
        self._warned: set[str] = set()

    async def query_balance(self, run: str | None) -> None:
        """Learn what is left on the key. Only where credits matter: under a budget, or where prices are stated."""
        settings = self._engine.settings
        if self._total is None or (self._budget.most_credits is None and not settings.prices):
            return
        try:
            balance = decode_balance(await account.query(self._engine, "balance", "/balance"))
            if balance.unlimited_quota or balance.remain_credits is None:
                return
            committed = self._committed
            if run is not None and not self._budget.is_capped and self._engine.journal is not None:
                counted = Budget(self._budget.prices)  # earlier passes are in the budget only when it is capped
                async for record in self._engine.journal.paid(run):
                    charge(counted, record)
                self._earlier = max(counted.spent + counted.reserved - committed, Decimal(0))
        except ToAPIsError as error:
            logger.debug("the balance is not known: %s", error)
            return
        self._affordable = Decimal(str(balance.remain_credits)) + committed + self._earlier
        self._check()

    @property
    def _committed(self) -> Decimal:
        return self._budget.spent + self._budget.reserved

    def row_read(self, request: Request | None) -> None:
        """A row was read; None is one that can't be sent."""
        if self._total is None:
            return
        self._read += 1
        if request is not None:
            body = request.body()
            self._classes[PriceClass.of(body), images_of(body)] += 1
        if self._read & (self._read - 1) == 0:
            self._check()

    def row_ended(self) -> None:
        """A row ended. (The service's prices come only with the first rows that are sent.)"""
        self._ended += 1
        if self._ended & (self._ended - 1) == 0:
            self._check()

    def _check(self) -> None:
        if self._total is None or not self._read:
            return
        prices = self._budget.prices
        costs = (
            (prices.of(price_class) or Decimal(0)) * images * rows
            for (price_class, images), rows in self._classes.items()
        )
        expected = sum(costs, Decimal(0)) * max(self._total, self._read) / self._read
        self._compare("budget", expected, self._budget.most_credits)
        self._compare("key", expected, self._affordable)

    def _compare(self, of: Literal["budget", "key"], expected: Decimal, most: Decimal | None) -> None:
        assert self._total is not None
        if most is None or expected <= most or of in self._warned or self._ended >= self._total:
            return
        self._warned.add(of)
        committed = self._committed + self._earlier
        left, needed = max(most - committed, Decimal(0)), expected - committed
        rows = self._total - self._ended
        logger.warning("%d rows are left for about %f credits; the %s has %f", rows, needed, of, left)
        self._engine.emit(CreditsShort, of, needed, left, rows)
