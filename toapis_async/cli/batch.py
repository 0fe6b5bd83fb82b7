"""`toapis batch`: a file of prompts, from lines to a folder of images and videos, and results.jsonl."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from rich import filesize

from toapis_async.cli.batch_view import BatchProgress, batch_view
from toapis_async.cli.cluster import cluster_batch
from toapis_async.cli.dry_run import dry_run
from toapis_async.cli.output import ALL_DONE, SOME_FAILED, in_cli_terms
from toapis_async.cli.page import make_page
from toapis_async.cli.prices import checked_prices
from toapis_async.cli.progress import refreshing
from toapis_async.cli.prompts import checked
from toapis_async.cli.references import keep_references, local_files_in
from toapis_async.cli.results import FOLDERS, NAME, Results
from toapis_async.cli.run_status import JOURNAL, note_earlier_passes, run_name
from toapis_async.cli.session import SANDBOX_FOLDER, Session
from toapis_async.cli.summary import BatchSummary, balance_line, credits_line, section
from toapis_async.engine.journal.reader import run_status
from toapis_async.errors import AuthenticationFailed, ToAPIsError
from toapis_async.events import FileSaved
from toapis_async.protocol.wording import count, duration, noun_of
from toapis_async.report.page import NAME as PAGE
from toapis_async.report.pictures import THUMBS, Thumbnails
from toapis_async.settings import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from toapis_async.batch.batch import Batch
    from toapis_async.batch.item import BatchItem, RunningRow
    from toapis_async.cli.options import BatchOptions, Caps, Options
    from toapis_async.cli.output import Output
    from toapis_async.cli.prompts import Checked, PromptFile
    from toapis_async.client import ToAPIs
    from toapis_async.events import Event

BALANCE_S: Final = 5.0
"""Time-out of the balance query, which only the summary shows."""


async def batch(
    options: Options, out: Output, prompts: PromptFile, folder: Path, *, how: BatchOptions, caps: Caps
) -> int:
    """Check everything, then send what was not sent yet."""
    if how.dry_run:
        return await dry_run(options, out, prompts, folder, how=how, caps=caps)
    if how.dask is not None:
        return await cluster_batch(options, out, prompts, folder, how=how, caps=caps)
    journal = folder / JOURNAL
    name = run_name(folder, overwrite=how.overwrite)
    found = await checked(out, prompts)
    session = Session(options, out, caps.prices)
    if caps.budget_credits is not None:
        await checked_prices(options, out, found, caps)
    results = Results(folder)
    run = _Run(found, folder, name, caps, how)
    try:
        with results.opened():
            try:
                async with session.opened(folder / SANDBOX_FOLDER, Journal(journal, same_account=how.same_account)):
                    _clear_parts(folder)
                    earlier = run_status(journal, name)  # not before: opening it may bring it up to date
                    note_earlier_passes(out, earlier)
                    run.ended_earlier = earlier.saved + earlier.failed + earlier.refused
                    await run.send(session, prompts, results)
            finally:
                await run.leave(session, results)
    finally:
        run.summarise(out, results)
        if how.page:
            await run.show(out)
    return SOME_FAILED if run.failed else ALL_DONE


class _Rows:
    """The rows of a file that was checked, and so has a length."""

    def __init__(self, prompts: PromptFile, total: int) -> None:
        self._prompts = prompts
        self._total = total
        self.kept: dict[int, Mapping[str, Any]] = {}  #: columns of rows that are on their way, by their index
        self.local_files: set[Path] = set()  #: that rows refer to

    def __iter__(self) -> Iterator[Any]:
        for index, line in enumerate(self._prompts.checked_lines()):
            if line.kept:
                self.kept[index] = line.kept
            self.local_files.update(local_files_in(line.row))
            yield line.row

    def __len__(self) -> int:
        return self._total


class _Run:
    """One pass over checked prompts, and its summary at the end."""

    def __init__(self, found: Checked, folder: Path, name: str, caps: Caps, how: BatchOptions) -> None:
        self.total = found.rows
        self.folder = folder
        self.ended_earlier = 0
        self._noun = noun_of(found.kinds)
        self._saved_files, self._saved_bytes = Counter[str](), Counter[str]()  #: by the name of their folder
        self._name = name
        self._caps = caps
        self._how = how
        self._summary = BatchSummary()
        self._batch: Batch | None = None
        self._client: ToAPIs | None = None
        self._progress: BatchProgress | None = None
        self._thumbnails = Thumbnails(folder) if how.page else None
        self._balances: list[str] = []
        self._kept: dict[int, Mapping[str, Any]] = {}
        self._local_files: set[Path] = set()

    @property
    def failed(self) -> bool:
        """Whether any row did."""
        return self._batch is not None and self._batch.statistics().failed > 0

    async def send(self, session: Session, prompts: PromptFile, results: Results) -> None:
        """Submit, save, and note each row as it completes."""
        client, out, caps = session.client, session.out, self._caps
        session.watch = self._note_event
        await self._query_balance(client, "before")
        rows = _Rows(prompts, self.total)
        self._kept, self._local_files = rows.kept, rows.local_files
        async with client.batch(
            rows,
            save_to={kind: self.folder / name for kind, name in FOLDERS.items()},
            run=self._name,
            retry_failed=self._how.retry_failed,
            attempts=self._how.attempts,
            embed=self._how.embed,
            budget_credits=caps.budget_credits,
            max_images=caps.max_images,
        ) as batch:
            self._client, self._batch = client, batch
            self._progress = BatchProgress(
                total=self.total,
                noun=self._noun,
                ended_earlier=self.ended_earlier,
                budget_credits=caps.budget_credits,
                statistics=batch.statistics,
                saved=self._saved_files.total,
                unsent=lambda: self._summary.rows_unsent,
                retries=lambda: session.notices.retries,
                sandbox=session.sandbox_name,
            )
            async with refreshing(batch_view(out, self._progress)):
                async for item in batch:
                    self._note(item, session, results)
        await self._query_balance(client, "after")

    def _note_event(self, event: Event) -> None:
        if isinstance(event, FileSaved):
            folder = PurePath(event.path).parent.name
            self._saved_files[folder] += 1
            self._saved_bytes[folder] += event.size_bytes

    def _note(self, item: BatchItem, session: Session, results: Results) -> None:
        assert self._batch is not None
        out = session.out
        out.record(results.add(item, self._kept.pop(item.index, None)))
        session.pending.settled(item.task_id, item.client_business_id)
        self._summary.note(item)
        if self._progress is not None:
            self._progress.note(item)
        if self._thumbnails is not None:
            self._thumbnails.make([file.relative_to(self.folder).as_posix() for file in item.files])
        if out.live is None or not sys.stdout.isatty():  # the view shows what is done
            for file in item.files:
                out.result(str(file))
        if self._batch.stopped_by is not None and item.error is self._batch.stopped_by:
            out.error(f"stopped, for each further row would meet the same: {in_cli_terms(str(item.error))}")

    async def _query_balance(self, client: ToAPIs, when: str) -> None:
        """Keep the account's balance for the summary, if it comes within `BALANCE_S`."""
        try:
            async with asyncio.timeout(BALANCE_S):
                line = balance_line(await client.balance(), when)
        except (ToAPIsError, TimeoutError):
            return
        self._balances += [line] if line else []

    async def leave(self, session: Session, results: Results) -> None:
        """Write down what was sent and has no row yet, after a run that was left early and its client's closing."""
        if self._thumbnails is not None:
            await self._thumbnails.aclose()
        if self._batch is None:
            return
        try:
            while self._batch.statistics().waiting_for_consumer:
                self._note(await anext(self._batch), session, results)
            left = session.pending.sent(self._batch.running())
            for item in left:
                session.out.record(results.add_running(item, _running_message(item), self._kept.get(item.index)))
                session.pending.settled(item.task_id, item.client_business_id)
            if left:
                session.out.warn(_left_message(left))
        finally:
            session.pending.warn(  # what could not be written
                session.out, lambda ids: session.fetch_command(ids, self.folder)
            )

    def summarise(self, out: Output, results: Results) -> None:
        """Print the summary, also of a pass that was interrupted."""
        if self._batch is None or self._client is None:
            return
        now = self._batch.statistics()
        unsent = self._summary.rows_unsent
        failed, missing = now.failed - unsent, self.total - now.done - now.failed
        stopped = self._batch.stopped_by is not None
        unsent += missing if stopped else 0
        parts = {f"{unsent:,} not sent": unsent, f"{missing:,} not finished": 0 if stopped else missing}
        others = "".join(f", {part}" for part, rows in parts.items() if rows)
        out.note(f"{now.done:,} of {self.total:,} done, {failed:,} failed{others} in {duration(now.elapsed_s)}")
        for line in self._lines(self._client, results):
            out.note(line)

    def _lines(self, client: ToAPIs, results: Results) -> list[str]:
        assert self._batch is not None
        now, counts, summary = self._batch.statistics(), client.statistics(), self._summary
        throttled = counts.throttled_submits + counts.throttled_queries
        times = "once" if throttled == 1 else f"{throttled:,} times"
        spent = credits_line(now.credits_spent, self._caps.budget_credits)
        return [
            *section("slowest", summary.slowest() if self._how.verbose else []),
            *section("failed", summary.failed()),
            *section("fewer", summary.fewer()),
            *section("retry", summary.retry_hint(self._how.again)),
            *section("stopped", self._why_stopped()),
            *section("budget", summary.past_budget()),
            *([f"  the service said 429 (too fast) {times}"] if throttled else []),
            *section("credits", [spent] if now.credits_spent else []),
            *section("balance", self._balances if len(self._balances) == 2 else []),
            *(line for name in FOLDERS.values() for line in section(name, self._new_files(name))),
            *section("results", [str(self.folder / NAME)] if results.kept else []),
        ]

    def _new_files(self, name: str) -> list[str]:
        """One of the folders and what came into it; nothing when it is not there."""
        folder, new = self.folder / name, self._saved_files[name]
        size = f"  ({count(new, 'new file')}, {filesize.decimal(self._saved_bytes[name])})" if new else ""
        return [f"{folder}{size}"] if folder.is_dir() else []

    def _why_stopped(self) -> list[str]:
        assert self._batch is not None
        error = self._batch.stopped_by
        if error is None:
            return []
        way_out = "see to the key" if isinstance(error, AuthenticationFailed) else "top the account up"
        return [in_cli_terms(str(error)), f"{way_out}; the same command then sends the rest"]

    async def show(self, out: Output) -> None:
        """Make the page, unless Ctrl-C came twice. Whatever becomes of it, the batch went as it went."""
        running = asyncio.current_task()
        assert running is not None
        if self._batch is None or running.cancelling() > 1:
            return
        again = f"`toapis report {self.folder}` makes it"
        try:
            await asyncio.to_thread(keep_references, self.folder, self._local_files)
            page = await make_page(out, self.folder, self._name, self._caps.prices)
        except asyncio.CancelledError:
            running.uncancel()
            out.note(f"left without the page: {again}")
        except Exception as error:  # a bug, too, must not change what the command says of the batch
            out.warn(f"the page could not be made: {error}")
        else:
            for line in section("page", [str(page)]):
                out.note(line)


def _clear_parts(folder: Path) -> None:
    """Remove the files, thumbnails and pages that a process that was killed left half-written; the journal's lock says
    that they are no other batch's."""
    parts = [(folder / name).glob(".*.part") for name in FOLDERS.values()]
    parts += [(folder / THUMBS).rglob(".*.part"), folder.glob(f".{PAGE}.*.part")]
    for part in itertools.chain(*parts):
        part.unlink(missing_ok=True)


def _left_message(left: list[RunningRow]) -> str:
    lost = sum(item.task_id is None for item in left)
    parts = {
        f"{count(len(left) - lost, 'task')} still running or not fetched yet, and paid for": len(left) - lost,
        f"{count(lost, 'submission')} perhaps accepted, nobody knows": lost,
    }
    message = "; ".join(part for part, number in parts.items() if number)
    return f"{message}: the same command picks them up"


def _running_message(item: RunningRow) -> str:
    if item.task_id is not None:
        return "interrupted while the service worked on it; still paid for: the same command picks it up"
    return "interrupted while it was submitted; nobody knows whether it was accepted: the same command looks it up"
