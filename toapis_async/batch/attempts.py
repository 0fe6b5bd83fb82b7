"""Rows that are submitted anew, because their task failed and cost nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from anyio import CancelScope

from toapis_async.engine.bills import ASKED_AFTER_S
from toapis_async.protocol.budget import charge_of
from toapis_async.protocol.refusals import is_about_content
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from toapis_async.batch.rows import Row
    from toapis_async.engine.bills import Bills
    from toapis_async.errors import TaskFailed


class Attempts:
    """The rows of one pass that wait for another attempt."""

    def __init__(self, bills: Bills) -> None:
        self._bills = bills
        self._waiting: set[CancelScope] = set()
        self._stopped = False

    async def another(self, row: Row, failure: TaskFailed, admitted: Callable[[], Awaitable[bool]]) -> bool:
        """Whether a row whose task failed is submitted anew: when attempts are left to it, another may end otherwise,
        the failure was free, and it is then `admitted`. It holds no permit until that, and `stop` ends the wait."""
        if self._stopped or row.attempts >= row.most_attempts or is_about_content(failure.code, str(failure)):
            return False
        with CancelScope() as scope:
            self._waiting.add(scope)
            try:
                return await self._was_free(row, failure) and await admitted() and not scope.cancel_called
            finally:
                self._waiting.discard(scope)
        return False

    async def _was_free(self, row: Row, failure: TaskFailed) -> bool:
        """Whether the failed task certainly cost nothing. A pending bill is asked for, up to 15 minutes; at once, too,
        when an earlier pass saw the failure."""
        charge = charge_of(TaskStatus.FAILED, failure.billing)
        if charge.is_pending and row.entry is not None:
            bill = self._bills.ask(row.entry, ASKED_AFTER_S if row.record is None else (0.0, *ASKED_AFTER_S))
            await asyncio.wait([bill])  # a row that is cancelled must not cancel it
            charge = bill.result()
        return charge.is_free_failure

    def stop(self) -> None:
        """Submit none of them."""
        self._stopped = True
        for scope in self._waiting:
            scope.cancel()
