"""What a batch does with the rows of a part of a run: their ids are derived, and others may have had them before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from toapis_async.batch.run import Run
from toapis_async.engine.journal.records import End, State
from toapis_async.engine.journal.resume import LookUp, Send, answer_of
from toapis_async.errors import TaskNotFound
from toapis_async.protocol.endpoints import endpoint_of
from toapis_async.protocol.rowids import row_id, row_name
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from toapis_async.batch.options import BatchOptions
    from toapis_async.batch.rows import Row
    from toapis_async.engine.core import Engine
    from toapis_async.engine.fingerprint import Fingerprint
    from toapis_async.engine.journal.port import JournalPort
    from toapis_async.engine.journal.records import Intent
    from toapis_async.engine.journal.resume import Verdict
    from toapis_async.request import Request
    from toapis_async.task import TaskSnapshot


class Memory(Protocol):
    """How far the journal's silence about a row can be believed."""

    @property
    def is_complete(self) -> bool:
        """Whether a row that the journal does not know was certainly never sent. One that was emptied, or is new, may
        have forgotten it."""
        ...

    async def looked_up(self, *, was_found: bool) -> bool:
        """Told what a look-up of such a row gave; returns whether "not found" may still be wrong, because the row may
        have been sent moments ago."""
        ...


def name_of(run: str, row: Row) -> str:
    """What a row that became a request is known by."""
    assert row.identity is not None
    return row_name(run, row.given_key, row.identity.digest, row.occurrence)


class PartRun(Run):
    """A part of a run. The driver of the run sees to what concerns all of it: its name, its budget."""

    def __init__(self, engine: Engine, options: BatchOptions, memory: Memory) -> None:
        super().__init__(engine, options)
        self._memory = memory

    def begin(self) -> None:
        """Nothing: parts of one run are done side by side."""

    async def claim(self) -> None:
        """Nothing: see `begin`."""

    def end(self) -> None:
        """Nothing: see `begin`."""

    async def count_earlier(self) -> None:
        """Nothing: the driver counts."""

    async def fetch_ahead(self) -> None:
        """Nothing: each part sees to its own rows."""

    def _name(self, row: Row) -> str | None:
        assert self.name is not None
        return name_of(self.name, row)

    def _new_id(self, row: Row, given: str | None = None) -> str:
        assert self.name is not None
        assert row.identity is not None
        if given is not None:
            return super()._new_id(row, given)
        return row_id(self.name, row.given_key, row.identity.digest, row.occurrence, row.attempts)

    async def _verdict(self, journal: JournalPort, row: Row, identity: Fingerprint, request: Request) -> Verdict:
        verdict = await super()._verdict(journal, row, identity, request)
        own_id = self._new_id(row, request.given_business_id) if request.given_business_id is None else None
        if isinstance(verdict, Send) and own_id not in {None, row.client_business_id}:
            # It may be sent under the id of what it asked for before; its own can be worked out again.
            row.client_business_id = own_id
            return await self._verdict_on_new(row, request)
        return verdict

    async def _verdict_on_new(self, row: Row, request: Request) -> Verdict:
        if self._memory.is_complete:
            return Send(None)
        journal = self._engine.journal
        assert journal is not None
        assert row.identity is not None
        assert row.client_business_id is not None
        intent, endpoint = self._intent(row, request), endpoint_of(request)
        business_id, queries = row.client_business_id, self._engine.queries
        try:
            found, _ = await self._engine.retried(lambda: queries.find(business_id, (endpoint,)))
        except TaskNotFound:
            if not await self._memory.looked_up(was_found=False):
                return Send(None)
            await journal.intend(intent)
            record = await journal.of_id(business_id)
            assert record is not None
            return LookUp(record)
        await self._memory.looked_up(was_found=True)
        await _write_down(journal, intent, found)
        return await self._verdict(journal, row, row.identity, request)


async def _write_down(journal: JournalPort, intent: Intent, found: TaskSnapshot) -> None:
    """Give the journal back what it forgot of a task."""
    business_id = intent.client_business_id
    await journal.intend(intent)
    journal.accepted(business_id, found.task_id, business_id)
    answer = answer_of(found)
    if answer is None or not found.status.is_final:
        return
    if found.status is TaskStatus.FAILED or found.files:
        state = State.FAILED if found.status is TaskStatus.FAILED else State.COMPLETED
        journal.ended(business_id, End(state, found.task_id, answer, len(found.files)))
