"""What a batch does with each row: submit it or take up what is left of it, and see its images onto the disk."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import evolve

from toapis_async.batch.places import Files
from toapis_async.engine.describing import asked_of
from toapis_async.engine.journal.port import TakenMeanwhile
from toapis_async.engine.journal.records import Intent, State
from toapis_async.engine.journal.resume import (
    ENDED_BADLY,
    Fetch,
    LookUp,
    Refused,
    Send,
    Watch,
    decide,
)
from toapis_async.engine.submitter import mint_business_id
from toapis_async.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    ClientStateError,
    InsufficientQuota,
    InvalidRequest,
    ToAPIsError,
)
from toapis_async.handle import TaskHandle
from toapis_async.log import logger
from toapis_async.protocol.endpoints import ENDPOINTS

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.batch.options import BatchOptions
    from toapis_async.batch.rows import Row
    from toapis_async.engine.core import Engine
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.fingerprint import Fingerprint
    from toapis_async.engine.journal.port import JournalPort
    from toapis_async.engine.journal.records import Record
    from toapis_async.engine.journal.resume import Verdict
    from toapis_async.models import Generation
    from toapis_async.protocol.budget import Budget
    from toapis_async.request import Request

MOST_AHEAD: Final = 1_000
"""Rows of earlier passes that are seen to at once before they come."""


class Run:
    """One pass of a batch. With a name, rows that an earlier pass of that name knew are taken up, not paid for anew."""

    def __init__(self, engine: Engine, options: BatchOptions) -> None:
        self.name: str | None = options.run
        name = self.name
        if name is not None and (engine.journal is None or not name):
            raise InvalidRequest(
                "run names a batch in the journal: give it a name, and the client a journal (ToAPIs(journal=…))",
                field="run",
            )
        self._engine = engine
        self._retry = ENDED_BADLY if options.retry_failed else frozenset[State]()
        self._attempts = options.attempts
        self._places = options.save_to
        self._embed = options.embed
        self.budget: Budget = options.budget(engine.prices)
        self._ahead: dict[str, asyncio.Task[None]] = {}  # what is seen to before its row comes
        self._open: set[str] = set()  # rows that came and were taken up
        self._is_claimed = False

    def begin(self) -> None:
        """Reserve the name: two passes at once would both find that a row was not sent yet."""
        if self.name in self._engine.runs:
            raise ClientStateError(f"the run {self.name!r} is going on already")
        if self.name is not None:
            self._engine.runs.add(self.name)

    async def claim(self) -> None:
        """The same towards other processes. Raises `JournalLocked` while the run is going on in one of them."""
        if self.name is not None and self._engine.journal is not None:
            await self._engine.journal.begin_run(self.name)
            self._is_claimed = True

    def end(self) -> None:
        """Give the name back."""
        self._engine.runs.discard(self.name or "")
        if self._is_claimed and self.name is not None and self._engine.journal is not None:
            self._engine.journal.end_run(self.name)

    async def prepare_places(self) -> None:
        """Make the places for the files ready, or raise `InvalidRequest`."""
        for place in {*self._places.values()}:
            await place.prepare()

    async def count_earlier(self) -> None:
        """What earlier passes of the run paid for, or may have, counts in the budget, too."""
        if self.name is None or not self.budget.is_capped:
            return
        assert self._engine.journal is not None
        earlier = self._engine.journal.paid(self.name)
        await self._engine.spending.count_earlier(self.budget, earlier, self._engine.submitter.ended)

    async def fetch_ahead(self) -> None:
        """Fetch what an earlier pass left running or unfetched, before its rows come: they may come late in a long
        source, or be gone from it, while its links live for a day."""
        if self.name is None or not self._places:
            return
        assert self._engine.journal is not None
        turns = asyncio.Semaphore(MOST_AHEAD)
        async with asyncio.TaskGroup() as group:
            async for record in self._engine.journal.paid(self.name, unsaved=True):
                await turns.acquire()
                business_id = record.intent.client_business_id
                if business_id in self._open:
                    turns.release()
                    continue
                fetching = self._ahead[business_id] = group.create_task(self._fetch_one(record))
                fetching.add_done_callback(partial(self._fetch_ended, business_id, turns))

    def _fetch_ended(self, business_id: str, turns: asyncio.Semaphore, _: object) -> None:
        self._ahead.pop(business_id, None)
        turns.release()

    async def _fetch_one(self, record: Record) -> None:
        """Save a record's files. A failure is only logged: the row tries again, and its item has the error."""
        business_id, journal = record.intent.client_business_id, self._engine.journal
        place = self._places.get(record.intent.kind)
        assert journal is not None
        if place is None:
            return
        try:
            record = await journal.of_id(business_id) or record  # its row may have come and gone meanwhile
            verdict = decide(record)
            if isinstance(verdict, LookUp):
                found, _ = await self._engine.queries.find(business_id, (ENDPOINTS[record.intent.kind],))
                journal.accepted(business_id, found.task_id, business_id)
                verdict = Watch(evolve(record, state=State.ACCEPTED, task_id=found.task_id, query_id=business_id))
            if isinstance(verdict, Watch | Fetch):
                generation = await self._handle(await self._engine.submitter.take_up(verdict))
                await place.save(self._engine.saving, Files(generation, record.intent.stem, record, self._embed))
        except Exception as error:  # also a bug, which must not end the batch
            logger.debug("%s is left to its row: %s", business_id, error)

    def _handle(self, entry: Entry) -> TaskHandle:
        return TaskHandle(entry, self._engine.saving, asyncio.get_running_loop())

    async def take(self, row: Row, request: Request) -> TaskHandle:
        """Submit a row, or take up what an earlier pass left of it."""
        given = request.given_business_id
        row.attempts, row.most_attempts = 1, self._attempts
        row.client_business_id = given or self._new_id(row)
        alone = given or self._name(row)
        try:
            if self._engine.journal is None:
                submitting = self._engine.submitter.submit(request, row.client_business_id, budget=self.budget)
                entry = await submitting
            elif alone is None:
                entry = await self._take_up_or_submit(self._engine.journal, row, request)
            else:
                async with self._engine.submitter.alone(alone):
                    entry = await self._take_up_or_submit(self._engine.journal, row, request)
        except (BudgetExceeded, InvalidRequest):  # nothing was sent
            row.attempts -= 1
            raise
        return self._taken(row, entry)

    def _taken(self, row: Row, entry: Entry) -> TaskHandle:
        self._engine.unclaimed.claim(row.client_business_id or entry.task_id)
        row.entry = entry
        return self._handle(entry)

    async def take_anew(self, row: Row, request: Request) -> TaskHandle:
        """Submit a row whose task failed once more, under an id of its own. Raises `BudgetExceeded` when that does not
        fit: the row is then as it was."""
        self.ended(row)
        before, failed = row.client_business_id, row.handle
        row.attempts += 1
        row.client_business_id = self._new_id(row, request.given_business_id)
        row.known_id = row.record = row.handle = None
        intent = self._intent(row, request) if self._engine.journal is not None else None
        try:
            verdict = await self._verdict_on_new(row, request)
            entry = await self._engine.submitter.submit(
                request, row.client_business_id, intent=intent, verdict=verdict, budget=self.budget
            )
        except BudgetExceeded:
            row.client_business_id, row.handle = before, failed
            row.attempts -= 1
            raise
        return self._taken(row, entry)

    async def _take_up_or_submit(self, journal: JournalPort, row: Row, request: Request) -> Entry:
        assert row.identity is not None
        assert row.client_business_id is not None
        submitter = self._engine.submitter
        while True:
            try:
                verdict = await self._verdict(journal, row, row.identity, request)
            except ToAPIsError as error:
                error.concerning(client_business_id=row.client_business_id)
                raise
            intent = self._intent(row, request)
            try:
                return await submitter.submit(
                    request, row.client_business_id, intent=intent, verdict=verdict, budget=self.budget
                )
            except TakenMeanwhile:
                await submitter.settled(row.client_business_id)

    def _new_id(self, row: Row, given: str | None = None) -> str:
        """A client_business_id that nothing was sent under; it tells of the caller's `given`, if there is one."""
        return mint_business_id() if given is None else f"{given[:500]}~{secrets.token_hex(4)}"

    def _name(self, row: Row) -> str | None:
        """What a row is known by while it is submitted, so that it is done once at a time; None: nobody else has it."""
        return None

    async def _verdict_on_new(self, row: Row, request: Request) -> Verdict:
        """What is to be done about a row whose id the journal does not know."""
        return Send(None)

    def _intent(self, row: Row, request: Request) -> Intent:
        assert row.identity is not None
        assert row.client_business_id is not None
        return Intent(
            row.client_business_id,
            row.identity.digest,
            row.identity.text,
            run=self.name,
            place=row.index,
            key=row.given_key,
            occurrence=row.occurrence,
            stem=row.stem,
            kind=request.kind,
        )

    async def _verdict(self, journal: JournalPort, row: Row, identity: Fingerprint, request: Request) -> Verdict:
        """What is to be done about a row; settles the id it goes by."""
        given = request.given_business_id
        record: Record | None = None
        if self.name is not None:
            record = await journal.of_row(self.name, row.given_key, identity.digest, row.occurrence)
        if record is None and given is not None:
            record = await journal.of_id(given)
        if record is None:
            return await self._verdict_on_new(row, request)
        row.client_business_id = row.known_id = record.intent.client_business_id
        earlier = record.earlier
        self._open.add(row.known_id)
        # A look-up is waited for here; a task that is watched already would hold up the rows behind it (see `save`).
        looked_up = record.state is State.INTENT and await self._is_fetched_ahead(row.known_id)
        if await self._engine.submitter.settled(row.known_id) or looked_up:
            record = await journal.of_id(row.known_id) or record
        by_key = row.given_key is not None and record.intent.key == row.given_key
        judge = partial(
            decide, digest=identity.digest, retry=self._retry, known_by="key" if by_key else "client_business_id"
        )
        verdict = judge(await self._as_there(record))
        if isinstance(verdict, Fetch) and self._retry and self._places.get(record.intent.kind) is not None:
            # Whether its links are dead shows when its files are fetched; only then is it paid for anew.
            if not await self._is_fetched_ahead(row.known_id):
                await self._fetch_one(record)
            record = await journal.of_id(row.known_id) or record
            verdict = judge(await self._as_there(record))
        row.record = None if isinstance(verdict, Send) else record
        changed = record.intent.digest != identity.digest
        row.attempts = earlier + (2 if verdict == Send(None) and not changed else 1)
        if self._retry:
            row.most_attempts = row.attempts - 1 + self._attempts
        elif self.name is None and isinstance(verdict, Refused):
            row.most_attempts = 1  # outside of a run, what came after it can't be found
        if verdict != Send(None):
            return verdict
        # The caller's own id is the failed task's for good.
        is_used = given is not None and await journal.of_id(given) is not None
        row.client_business_id = given if given is not None and not is_used else self._new_id(row, given)
        return await self._verdict_on_new(row, request)

    async def _as_there(self, record: Record) -> Record:
        """A record without the files that are not in their place any more."""
        place = self._places.get(record.intent.kind)
        if place is None or not record.files:
            return record
        return await place.as_there(record)

    async def _is_fetched_ahead(self, business_id: str) -> bool:
        """Wait until `fetch_ahead` is done with a row's record; False when it is not at work on it."""
        ahead = self._ahead.get(business_id)
        if ahead is not None:
            await asyncio.wait([ahead])
        return ahead is not None

    def meets_all(self, row: Row, error: ToAPIsError) -> bool:
        """Whether every other row would be refused likewise. A single task that may not be polled says nothing of the
        others."""
        if not isinstance(error, AuthenticationFailed | InsufficientQuota):
            return False
        return row.handle is None or self._engine.tasks.are_refused

    def ended(self, row: Row) -> None:
        """The row is done with."""
        self._open.discard(row.known_id or "")

    async def save(self, row: Row, generation: Generation) -> tuple[Path, ...]:
        """Fetch a row's files, unless an earlier pass has; nothing without a place for them."""
        place = self._places.get(row.request.kind) if row.request is not None else None
        if place is None:
            return ()
        journal = self._engine.journal
        if journal is not None and row.record is not None:
            if await self._is_fetched_ahead(row.known_id or ""):
                row.record = await journal.of_id(row.record.intent.client_business_id) or row.record
            kept = await self._as_there(row.record)
            if len(kept.files) == len(generation.files):
                return tuple(place.file(name) for _, name in sorted(kept.files.items()))
        asked = asked_of(row.request) if self._embed and row.request is not None else None
        return await place.save(self._engine.saving, Files(generation, row.stem, row.record, self._embed, asked))
