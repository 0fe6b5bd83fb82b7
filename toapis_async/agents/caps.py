"""A client whose caps are the operator's, and hold over all sessions of its journal."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Self

from toapis_async.client import ToAPIs
from toapis_async.engine.journal.writer import JournalWriter
from toapis_async.errors import JournalLocked, ToAPIsError
from toapis_async.protocol.budget import Budget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from decimal import Decimal

    from toapis_async.engine.journal.records import Record
    from toapis_async.protocol.budget import PriceClass


JOURNAL_WITHIN_S: Final = 5.0
PRICES_WITHIN_S: Final = 5.0
"""How long an answer waits for the service's prices."""


class CappedClient(ToAPIs):
    """A client that sends nothing which could bring what its whole journal has paid for over a cap: a host starts a
    server anew with every conversation, so a cap on one session would be none."""

    def __init__(self, *args: Any, most_credits: Decimal | None, most_images: int | None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._most_credits = most_credits
        self._most_images = most_images

    async def start(self) -> Self:
        """Open the client, and count what earlier sessions have paid for, or may have. A host may start a server while
        the last one is still ending: its journal is waited for."""
        give_up_s = asyncio.get_running_loop().time() + JOURNAL_WITHIN_S
        while True:
            try:
                await super().start()
                break
            except JournalLocked:
                if asyncio.get_running_loop().time() > give_up_s:
                    raise
            await asyncio.sleep(0.2)
        engine = self._open_engine()
        journal = engine.journal
        budget = Budget(engine.prices, most_credits=self._most_credits, most_images=self._most_images)
        engine.spending.budget = budget
        if budget.is_capped and isinstance(journal, JournalWriter):
            try:
                await engine.spending.count_earlier(budget, journal.paid(None), engine.submitter.ended)
            except BaseException:
                await self.aclose()
                raise
        return self

    @property
    def budget(self) -> Budget:
        """What is spent and reserved, and the caps."""
        budget = self._used_engine().spending.budget
        assert budget is not None
        return budget

    async def price_of(self, price_class: PriceClass) -> Decimal | None:
        """What an image or video costs in credits: by bills, by the operator's prices, or by the service's. None where
        nobody says."""
        prices = self.budget.prices
        if prices.of(price_class) is None and prices.service is None:
            with contextlib.suppress(ToAPIsError, TimeoutError):
                async with asyncio.timeout(PRICES_WITHIN_S):
                    await self._open_engine().spending.learn_prices(prices)
        return prices.of(price_class)

    async def keep(self, name: str, value: str) -> None:
        """Write something down in the journal, unless something is there under this name."""
        journal = self._open_engine().journal
        assert isinstance(journal, JournalWriter)
        await journal.fact(name, value)

    def unsaved(self) -> AsyncIterator[Record]:
        """What the journal knows as paid for, perhaps, and not on disk: the oldest first."""
        journal = self._open_engine().journal
        assert isinstance(journal, JournalWriter)
        return journal.paid(None, unsaved=True)
