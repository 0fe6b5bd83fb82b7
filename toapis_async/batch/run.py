"""What a batch does with each row: submit it or take up what is left of it, and see its images onto the disk."""

from __future__ import annotations

import asyncio
import json
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio.to_thread
from attrs import evolve

from toapis_async.engine.journal.file import Intent, State
from toapis_async.engine.journal.resume import billed_in, has_expired, may_be_paid, to_take_up
from toapis_async.engine.submitter import mint_business_id
from toapis_async.errors import ClientStateError, InvalidRequest, ToAPIsError
from toapis_async.handle import TaskHandle
from toapis_async.log import logger
from toapis_async.protocol.budget import PriceClass, images_of
from toapis_async.request import body_of

if TYPE_CHECKING:
    from os import PathLike

    from toapis_async.batch.rows import Row
    from toapis_async.engine.core import Engine
    from toapis_async.engine.fingerprint import Fingerprint
    from toapis_async.engine.journal.file import Record
    from toapis_async.engine.journal.writer import JournalWriter
    from toapis_async.engine.registry import Entry
    from toapis_async.models import Generation
    from toapis_async.protocol.budget import Budget
    from toapis_async.request import ImageRequest

MOST_AHEAD: Final = 1_000
"""Rows of earlier passes that are seen to at once before they come."""
_ENDED_BADLY: Final = frozenset({State.REFUSED, State.FAILED})


class Run:
    """One pass of a batch. With a name, rows that an earlier pass of that name knew are taken up, not paid for anew."""

    def __init__(
        self,
        engine: Engine,
        name: str | None,
        *,
        budget: Budget,
        retry_failed: bool,
        save_to: str | PathLike[str] | None,
    ) -> None:
        if name is not None and (engine.journal is None or not name):
            raise InvalidRequest(
                "run names a batch in the journal: give it a name, and the client a journal (ToAPIs(journal=…))",
                field="run",
            )
        self._engine = engine
        self._name = name
        self._retry = _ENDED_BADLY if retry_failed else frozenset[State]()
        self._folder = Path(save_to) if save_to is not None else None
        self.budget = budget
        self._ahead: dict[str, asyncio.Task[None]] = {}  # what is seen to before its row comes
        self._open: set[str] = set()  # rows that came and were taken up

    def begin(self) -> None:
        """Reserve the name: two passes at once would both find that a row was not sent yet."""
        if self._name in self._engine.runs:
            raise ClientStateError(f"the run {self._name!r} is going on already")
        if self._name is not None:
            self._engine.runs.add(self._name)

    def end(self) -> None:
        """Give the name back."""
        self._engine.runs.discard(self._name or "")

    async def make_folder(self) -> None:
        """Make the folder for the images, or raise `InvalidRequest`."""
        if self._folder is not None:
            await anyio.to_thread.run_sync(_make_folder, self._folder)

    async def count_earlier(self) -> None:
        """What earlier passes of the run paid for, or may have, counts in the budget, too."""
        if self._name is None or not self.budget.is_capped:
            return
        assert self._engine.journal is not None
        async for record in self._engine.journal.paid(self._name):
            if not may_be_paid(record):
                continue
            body = body_of(json.loads(record.intent.request))
            reservation = self.budget.reserve(PriceClass.of(body), images_of(body), forced=True)
            if record.state in {State.COMPLETED, State.FAILED}:
                self.budget.settle(reservation, billed_in(record))
            else:
                self._engine.spending.hold(record.intent.client_business_id, self.budget, reservation)

    async def fetch_ahead(self) -> None:
        """See to what an earlier pass left running or unfetched. Its rows may come late in a long source, or be gone
        from it; but it is paid for, and its images live for a day."""
        if self._name is None or self._folder is None:
            return
        assert self._engine.journal is not None
        turns = asyncio.Semaphore(MOST_AHEAD)
        async with asyncio.TaskGroup() as group:
            async for record in self._engine.journal.paid(self._name, unsaved=True):
                await turns.acquire()
                business_id = record.intent.client_business_id
                if business_id in self._open:
                    turns.release()
                    continue
                seeing = self._ahead[business_id] = group.create_task(self._see_to(record, self._folder))
                seeing.add_done_callback(partial(self._seen_to, business_id, turns))

    def _seen_to(self, business_id: str, turns: asyncio.Semaphore, _: object) -> None:
        self._ahead.pop(business_id, None)
        turns.release()

    async def _see_to(self, record: Record, folder: Path) -> None:
        """A record's images onto the disk; when that fails, its row tries again and tells why."""
        business_id, journal = record.intent.client_business_id, self._engine.journal
        assert journal is not None
        try:
            record = await journal.of_id(business_id) or record  # its row may have come and gone meanwhile
            if record.files:
                return
            if record.state is State.INTENT:
                found = await self._engine.queries.find(business_id)
                journal.accepted(business_id, found.task_id, business_id)
                record = evolve(record, state=State.ACCEPTED, task_id=found.task_id, asked_id=business_id)
            entry = await self._engine.submitter.take_up(record)
            generation = await TaskHandle(entry, self._engine.downloads, asyncio.get_running_loop())
            files = await self._engine.downloads.save(generation, folder, record.intent.stem)
            journal.saved(business_id, [file.name for file in files])
        except Exception as error:  # also a bug, which must not end the batch
            logger.debug("%s is left to its row: %s", business_id, error)

    async def submit(self, row: Row, request: ImageRequest) -> TaskHandle:
        """Submit a row, or take up what an earlier pass left of it."""
        assert row.identity is not None
        given = request.given_business_id
        row.client_business_id = given or mint_business_id()
        try:
            if self._engine.journal is None:
                entry = await self._engine.submit(request, row.client_business_id, budget=self.budget)
            elif given is None:
                entry = await self._take_up_or_submit(self._engine.journal, row, request, row.identity)
            else:
                async with self._engine.submitter.alone(given):
                    entry = await self._take_up_or_submit(self._engine.journal, row, request, row.identity)
        except ToAPIsError as error:  # also the journal's own, before anything is submitted
            error.concerning(client_business_id=row.client_business_id)
            raise
        self._engine.unclaimed.claim(row.client_business_id)
        return TaskHandle(entry, self._engine.downloads, asyncio.get_running_loop())

    async def _take_up_or_submit(
        self, journal: JournalWriter, row: Row, request: ImageRequest, identity: Fingerprint
    ) -> Entry:
        row.record = await self._record(journal, row, identity, request.given_business_id)
        assert row.client_business_id is not None
        intent = Intent(
            row.client_business_id,
            identity.digest,
            identity.text,
            run=self._name,
            place=row.index,
            key=row.given_key,
            occurrence=row.occurrence,
            stem=row.stem,
        )
        return await self._engine.submit(request, row.client_business_id, intent, row.record, self.budget)

    async def _record(
        self, journal: JournalWriter, row: Row, identity: Fingerprint, given: str | None
    ) -> Record | None:
        """What is to be taken up of a row; settles the id it goes by."""
        known: Record | None = None
        if self._name is not None:
            known = await journal.of_row(self._name, row.given_key, identity.digest, row.occurrence)
        if known is None and given is not None:
            known = await journal.of_id(given)
        if known is None:
            return None
        business_id = known.intent.client_business_id
        row.known_id = business_id
        self._open.add(business_id)
        # A look-up is waited for here; a task that is watched already would hold up the rows behind it (see `save`).
        looked_up = known.state is State.INTENT and await self._seen_ahead(business_id)
        if await self._engine.submitter.settled(business_id) or looked_up:
            known = await journal.of_id(business_id)
        row.client_business_id = business_id
        by_key = row.given_key is not None and known is not None and known.intent.key == row.given_key
        known_by = "key" if by_key else "client_business_id"
        record = to_take_up(known, identity.digest, known_by=known_by, retry=self._retry)
        if record is not None and self._retry and await self._is_lost(record):
            record = None
        if record is None:
            row.client_business_id = given or mint_business_id()
            if given is not None and await journal.of_id(given) is not None:
                # The caller's own id is the failed task's for good.
                row.client_business_id = f"{given[:500]}~{secrets.token_hex(4)}"
        return record

    async def _seen_ahead(self, business_id: str) -> bool:
        """Wait for what is seen to ahead of its row; False when there is nothing."""
        ahead = self._ahead.get(business_id)
        if ahead is not None:
            await asyncio.wait([ahead])
        return ahead is not None

    async def _is_lost(self, record: Record) -> bool:
        """Whether a row failed for good in that its images were not fetched before their links expired."""
        if self._folder is None or not has_expired(record):
            return False
        return not await _are_files(self._files_of(self._folder, record))

    def _files_of(self, folder: Path, record: Record | None) -> tuple[Path, ...]:
        return tuple(folder / name for name in (record.files if record else ()))

    def ended(self, row: Row) -> None:
        """The row is done with."""
        self._open.discard(row.known_id or "")

    async def save(self, row: Row, generation: Generation) -> tuple[Path, ...]:
        """Fetch a row's images, unless an earlier pass has; nothing without a folder."""
        if self._folder is None:
            return ()
        journal = self._engine.journal
        if journal is not None and row.record is not None and await self._seen_ahead(row.client_business_id or ""):
            row.record = await journal.of_id(row.record.intent.client_business_id)
        kept = self._files_of(self._folder, row.record)
        if len(kept) == len(generation.images) and await _are_files(kept):
            return kept
        files = await self._engine.downloads.save(generation, self._folder, row.stem)
        if journal is not None and row.client_business_id is not None:
            journal.saved(row.client_business_id, [file.name for file in files])
        return files


async def _are_files(paths: tuple[Path, ...]) -> bool:
    """Whether there are some, and all of them are on disk."""
    return bool(paths) and await anyio.to_thread.run_sync(lambda: all(path.is_file() for path in paths))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest(f"save_to: can't use {folder}: {reason}; nothing was sent", field="save_to") from error
