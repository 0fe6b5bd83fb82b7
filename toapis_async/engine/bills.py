"""Bills that were pending when their task had ended, asked for again: a query of the task at the pace of its polls.

Only a budget or a row that may be sent anew wants to know, so that nothing runs here before the first of these asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
from typing import TYPE_CHECKING, Final

from attrs import define, field

from toapis_async.errors import ToAPIsError
from toapis_async.log import logger
from toapis_async.protocol.budget import Charge, charge_of
from toapis_async.protocol.wire import decode_task
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toapis_async.engine.entry import Entry
    from toapis_async.engine.journal.port import JournalPort
    from toapis_async.engine.queries import Queries
    from toapis_async.protocol.endpoints import Endpoint
    from toapis_async.task import Billing

ASKED_AFTER_S: Final = (10.0, 60.0, 300.0, 900.0)
"""When a pending bill is asked for, from the end of its task on; what is pending then is left so."""


@define(eq=False)
class _Bill:
    """What is needed to ask; the task's entry may hold its files, and is not kept."""

    task_id: str
    query_id: str
    client_business_id: str | None
    endpoint: Endpoint
    status: TaskStatus | None
    charge: asyncio.Future[Charge]
    times_s: list[float]  #: loop times at which it is still to be asked for, the latest first
    number: int = field(kw_only=True)

    def __lt__(self, other: _Bill) -> bool:
        return (self.times_s[-1], self.number) < (other.times_s[-1], other.number)


class Bills:
    """One task asks for all of them, in turns of the query gate that are not urgent. It is ended by `aclose`."""

    def __init__(self, queries: Queries, journal: JournalPort | None) -> None:
        self._queries = queries
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._known: dict[tuple[str, str], _Bill] = {}
        self._due: list[_Bill] = []
        self._sooner = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._closed = False
        self._number = 0

    def ask(self, entry: Entry, after_s: Sequence[float] = ASKED_AFTER_S) -> asyncio.Future[Charge]:
        """The future of what a task that ended came to, shared by all who ask: still pending when the service has not
        decided by the last of these times from now, or the client closes."""
        name, now_s = (entry.endpoint.kind, entry.task_id), self._loop.time()
        times_s = [now_s + time_s for time_s in reversed(after_s)]
        bill = self._known.get(name)
        if bill is not None:
            bill.times_s[:0] = [time_s for time_s in times_s if not bill.times_s or time_s > bill.times_s[0]]
            return bill.charge
        self._number += 1
        bill = _Bill(
            entry.task_id,
            entry.query_id,
            entry.client_business_id,
            entry.endpoint,
            entry.status,
            self._loop.create_future(),
            times_s,
            number=self._number,
        )
        if self._closed:
            self._end(bill)
        else:
            self._known[name] = bill
            self._plan(bill)
        return bill.charge

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        if self._asking is not None:
            self._asking.cancel()
        for bill in tuple(self._known.values()):
            self._end(bill)

    async def aclose(self) -> None:
        """The same, and wait for the end of it."""
        self.close()
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def _plan(self, bill: _Bill) -> None:
        heapq.heappush(self._due, bill)
        self._sooner.set()
        if self._asking is None:
            self._asking = self._loop.create_task(self._run(), name="toapis-bills")
            self._asking.add_done_callback(self._ended)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as queries:
            while True:
                await self._wait_due()
                await self._queries.gate.acquire()
                queries.create_task(self._query(heapq.heappop(self._due)))

    async def _wait_due(self) -> None:
        while (due_s := self._due[0].times_s[-1] if self._due else math.inf) > self._loop.time():
            self._sooner.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_s if due_s < math.inf else None):
                    await self._sooner.wait()

    async def _query(self, bill: _Bill) -> None:
        """Ask once. Neither an error nor an answer without a bill says anything."""
        bill.times_s.pop()
        billing: Billing | None = None
        try:
            answer = await self._queries.query(bill.query_id, bill.endpoint)
            billing = decode_task(answer, bill.query_id, kind=bill.endpoint.kind).billing
        except ToAPIsError as error:
            logger.debug("the bill of task %s could not be asked for: %s", bill.task_id, error)
        charge = _still_pending(bill) if billing is None else charge_of(bill.status, billing)
        if billing is not None and not charge.is_pending:
            if self._journal is not None and bill.client_business_id is not None:
                self._journal.billed(bill.client_business_id, billing)
            self._end(bill, charge)
        elif bill.times_s:
            self._plan(bill)
        else:
            self._end(bill)

    def _end(self, bill: _Bill, charge: Charge | None = None) -> None:
        self._known.pop((bill.endpoint.kind, bill.task_id), None)
        if not bill.charge.done():
            bill.charge.set_result(charge or _still_pending(bill))

    def _ended(self, asking: asyncio.Task[None]) -> None:
        if not asking.cancelled() and asking.exception() is not None:
            logger.critical("asking for bills ended by a bug; they stay pending", exc_info=asking.exception())
            self.close()


def _still_pending(bill: _Bill) -> Charge:
    return Charge(is_pending=True, has_failed=bill.status is TaskStatus.FAILED)
