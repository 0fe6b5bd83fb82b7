"""What a batch does with each row: submit it or take up what is left of it, and see its images onto the disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio.to_thread
from attrs import evolve

from toapis_async.engine.journal_file import Intent, State
from toapis_async.engine.recovery import billed_in, to_take_up
from toapis_async.engine.submitter import mint_business_id
from toapis_async.errors import ClientStateError, InvalidRequest, ToAPIsError
from toapis_async.handle import TaskHandle
from toapis_async.protocol.budget import PriceClass, images_of

if TYPE_CHECKING:
    from os import PathLike

    from toapis_async.engine.core import Engine
    from toapis_async.engine.fingerprint import Fingerprint
    from toapis_async.engine.journal import JournalWriter
    from toapis_async.engine.journal_file import Record
    from toapis_async.models import Generation
    from toapis_async.protocol.budget import Budget
    from toapis_async.request import ImageRequest
    from toapis_async.rows import Row

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
        self.budget = budget
        self._ahead: dict[str, asyncio.Task[None]] = {}

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
        for record in await self._engine.journal.paid(self._name):
            body = json.loads(record.intent.request)
            body |= body.get("extra", {})
            reservation = self.budget.reserve(PriceClass.of(body), images_of(body), forced=True)
            if record.state is State.COMPLETED:
                self.budget.settle(reservation, billed_in(record))
            else:
                self._engine.spending.hold(record.intent.client_business_id, self.budget, reservation)

    async def fetch_ahead(self, group: asyncio.TaskGroup) -> None:
        """Begin to see to what an earlier pass left running or unfetched. Its rows may come late in a long source, or
        be gone from it; but it is paid for, and its images live for a day."""
        if self._name is None or self._folder is None:
            return
        assert self._engine.journal is not None
        for record in await self._engine.journal.left_behind(self._name):
            self._ahead[record.intent.client_business_id] = group.create_task(self._see_to(record, self._folder))

    async def _see_to(self, record: Record, folder: Path) -> None:
        """A record's images onto the disk; when that fails, its row tries again and tells why."""
        business_id, journal = record.intent.client_business_id, self._engine.journal
        assert journal is not None
        with contextlib.suppress(ToAPIsError):
            if record.state is State.INTENT:
                found = await self._engine.queries.find(business_id)
                journal.accepted(business_id, found.task_id, business_id)
                record = evolve(record, state=State.ACCEPTED, task_id=found.task_id, asked_id=business_id)
            entry = await self._engine.submitter.take_up(record)
            generation = await TaskHandle(entry, self._engine.downloads, asyncio.get_running_loop())
            files = await self._engine.downloads.save(generation, folder, record.intent.stem)
            journal.saved(business_id, [file.name for file in files])

    async def submit(self, row: Row, request: ImageRequest) -> TaskHandle:
        """Submit a row, or take up what an earlier pass left of it."""
        assert row.identity is not None
        row.client_business_id = request.given_business_id or mint_business_id()
        intent: Intent | None = None
        if self._engine.journal is not None:
            row.record = await self._record(self._engine.journal, row, row.identity)
            intent = Intent(
                row.client_business_id,
                row.identity.digest,
                row.identity.text,
                run=self._name,
                place=row.index,
                key=row.given_key,
                occurrence=row.occurrence,
                stem=row.stem,
            )
        entry = await self._engine.submit(request, row.client_business_id, intent, row.record, self.budget)
        self._engine.submitter.claim(row.client_business_id)
        return TaskHandle(entry, self._engine.downloads, asyncio.get_running_loop())

    async def _record(self, journal: JournalWriter, row: Row, identity: Fingerprint) -> Record | None:
        """What is to be taken up of a row; settles the id it goes by."""
        assert row.client_business_id is not None
        known: Record | None = None
        if self._name is not None:
            known = await journal.of_row(self._name, row.given_key, identity.digest, row.occurrence)
        if known is None:
            known = await journal.of_id(row.client_business_id)
        ahead = self._ahead.pop(known.intent.client_business_id, None) if known else None
        if known is not None and ahead is not None:
            await asyncio.wait([ahead])
            known = await journal.of_id(known.intent.client_business_id)
        record = to_take_up(known, identity.digest, retry=self._retry)
        if record is not None:
            row.client_business_id = record.intent.client_business_id
        elif known is not None and known.intent.client_business_id == row.client_business_id:
            # The caller's own id is the failed task's for good.
            row.client_business_id = f"{row.client_business_id[:500]}~{secrets.token_hex(4)}"
        return record

    async def save(self, row: Row, generation: Generation) -> tuple[Path, ...]:
        """Fetch a row's images, unless an earlier pass has; nothing without a folder."""
        if self._folder is None:
            return ()
        kept = tuple(self._folder / name for name in (row.record.files if row.record else ()))
        if kept and len(kept) == len(generation.images) and await anyio.to_thread.run_sync(_are_files, kept):
            return kept
        files = await self._engine.downloads.save(generation, self._folder, row.stem)
        if self._engine.journal is not None and row.client_business_id is not None:
            self._engine.journal.saved(row.client_business_id, [file.name for file in files])
        return files


def _are_files(paths: tuple[Path, ...]) -> bool:
    return all(path.is_file() for path in paths)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest(f"save_to: can't use {folder}: {reason}; nothing was sent", field="save_to") from error
