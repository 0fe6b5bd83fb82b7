"""The plain submissions that an earlier process left in the journal: unfinished, or finished and not saved."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from attrs import evolve

from toapis_async.engine.entry import Entry
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import endpoint_of, snapshot_of
from toapis_async.errors import JournalError, ToAPIsError, UnreadableAnswer
from toapis_async.events import JournalTakenOver
from toapis_async.log import logger
from toapis_async.protocol.endpoints import ENDPOINTS
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toapis_async.engine.emitter import Emitter
    from toapis_async.engine.journal.records import Record
    from toapis_async.engine.journal.writer import JournalWriter
    from toapis_async.engine.tasks import Tasks
    from toapis_async.protocol.token import Token


TAKES_OVER_EVERY_S: Final = 60.0
"""How often a process looks for others that are gone."""


class Recovery:
    """Their entries, watched from the first call on. The answer of one that is finished is read when it is wanted.

    Beside other processes there are more of them whenever one of those is gone.
    """

    def __init__(self, journal: JournalWriter, records: Sequence[Record], number: int) -> None:
        self._journal = journal
        self._records = [*records]  # those that no call has listed yet
        self._entries: tuple[Entry, ...] = ()
        self._taking_over: asyncio.Task[None] | None = None
        self.number: int = number  #: how many there are, the ones beyond the newest 10,000 included

    @classmethod
    async def of(cls, journal: JournalWriter) -> Recovery:
        """What is in a journal now. Raises `JournalError`."""
        return cls(journal, *await journal.recoverable())

    def start(self, emit: Emitter) -> None:
        """From now on take over what processes leave that are gone. To be ended by `aclose`, or by `stop`."""
        if self._journal.is_shared:
            self._taking_over = asyncio.get_running_loop().create_task(self._take_over(emit), name="toapis-take-over")

    def stop(self) -> None:
        """End that, without waiting."""
        if self._taking_over is not None:
            self._taking_over.cancel()

    async def aclose(self) -> None:
        """End that."""
        self.stop()
        if self._taking_over is not None:
            await asyncio.wait([self._taking_over])

    async def _take_over(self, emit: Emitter) -> None:
        number = self.number
        while True:
            if number:
                emit(JournalTakenOver, number)
            await asyncio.sleep(TAKES_OVER_EVERY_S)
            try:
                records, number = await self._journal.recoverable()
            except Exception as error:  # also a bug: nobody awaits this task, and the next time may do
                is_bug = not isinstance(error, ToAPIsError)
                logger.warning("could not look for processes that are gone: %s", error, exc_info=is_bug)
                number = 0
                continue
            self._records += records
            self.number += number

    def entries(self, tasks: Tasks) -> tuple[Entry, ...]:
        """The same at each call, and after them what was taken over since."""
        records, self._records = self._records, []
        self._entries += tuple(self._entry(record, tasks) for record in records)
        return self._entries

    def _entry(self, record: Record, tasks: Tasks) -> Entry:
        business_id = record.intent.client_business_id
        task_id = record.task_id or business_id
        if record.state is State.COMPLETED:
            kind = record.intent.kind
            return Entry.unread(task_id, business_id, ENDPOINTS[kind], tasks.forecast_of(kind))
        return tasks.watch(
            endpoint_of(record),
            task_id,
            start="unknown",
            query_id=record.query_id,
            client_business_id=business_id,
            was_seen=True,
        )

    async def read(self, entry: Entry) -> None:
        """Read the answer of a finished one. Raises `JournalError` when it is gone or damaged, and `SessionClosed`."""
        assert entry.client_business_id is not None
        try:
            record = await self._journal.of_id(entry.client_business_id)
            snapshot = snapshot_of(record) if record is not None and record.answer is not None else None
        except UnreadableAnswer:
            snapshot = None
        except ToAPIsError as error:
            error.concerning(entry.task_id, entry.client_business_id)
            raise
        if snapshot is None or snapshot.status is not TaskStatus.COMPLETED:
            unread = JournalError(f"the journal has no answer of task {entry.task_id} that can be read")
            raise unread.concerning(entry.task_id, entry.client_business_id)
        entry.update(snapshot)


def watch_again(tasks: Tasks, token: Token) -> Entry:
    """The entry of the task that a token names, at the age that it has by now."""
    return tasks.watch(
        evolve(ENDPOINTS[token.kind], age_factor=token.age_factor),
        token.task_id,
        start="unknown",
        query_id=token.query_id,
        client_business_id=token.client_business_id,
        request_class=token.request_class,
        since_s=asyncio.get_running_loop().time() - max(0.0, time.time() - token.submitted_at),
    )
