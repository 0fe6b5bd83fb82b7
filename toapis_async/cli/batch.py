"""`toapis batch`: a file of prompts, from lines to a folder of images and results.jsonl."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from attrs import frozen

from toapis_async.cli.output import ALL_DONE, SOME_FAILED, CliError, count, duration, error_record
from toapis_async.cli.progress import batch_view, shown
from toapis_async.cli.results import IMAGES, NAME, Results
from toapis_async.cli.session import SANDBOX_FOLDER, Session
from toapis_async.cli.standing import JOURNAL, run_name, tell_standing
from toapis_async.engine.journal_reader import standing
from toapis_async.settings import Journal

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.batch import Batch
    from toapis_async.cli.options import Options
    from toapis_async.cli.output import Output
    from toapis_async.cli.prompts import Checked, PromptFile
    from toapis_async.client import ToAPIs
    from toapis_async.models import BatchItem

MOST_FAILURES_SHOWN = 5


@frozen
class Again:
    """What to do with what an earlier run left."""

    overwrite: bool = False  #: begin anew
    retry_failed: bool = False
    same_account: bool = False


async def batch(options: Options, out: Output, prompts: PromptFile, folder: Path, again: Again = Again()) -> int:
    """Check everything, then send what was not sent yet."""
    journal = folder / JOURNAL
    name = run_name(folder, overwrite=again.overwrite)
    checked = await prompts.check()
    _refuse(checked, out)
    session = Session(options, out)
    results = Results(folder)
    run = _Run(checked.rows, folder, name, retry_failed=again.retry_failed)
    if journal.exists():
        tell_standing(out, standing(journal, name))
    results.make_folders()
    try:
        with ExitStack() as writing:
            try:
                async with session.opened(folder / SANDBOX_FOLDER, Journal(journal, same_account=again.same_account)):
                    writing.enter_context(results.opened())  # not before the journal is ours: another run may write it
                    _clear_parts(folder / IMAGES)
                    await run.send(session, prompts, results)
            finally:
                await run.leave(session, results)
    finally:
        run.summarise(out, results)
    return SOME_FAILED if run.failures else ALL_DONE


def _refuse(checked: Checked, out: Output) -> None:
    """Report every bad line and stop, before anything is sent."""
    for line in checked.problems:
        out.error(f"line {line.number}: {line.problem}")
    if checked.bad > len(checked.problems):
        out.error(f"… and {checked.bad - len(checked.problems):,} more")
    if checked.bad:
        raise CliError(f"{checked.bad:,} of {count(checked.rows, 'row')} can't be right; nothing was sent")
    if not checked.rows:
        raise CliError("there is no prompt in the input")


class _Run:
    """One pass over checked prompts, and what is told of it at its end."""

    def __init__(self, total: int, folder: Path, name: str, *, retry_failed: bool) -> None:
        self.total = total
        self.folder = folder
        self._name = name
        self._retry_failed = retry_failed
        self.failures: list[BatchItem] = []  #: the first few
        self._batch: Batch | None = None
        self._client: ToAPIs | None = None

    async def send(self, session: Session, prompts: PromptFile, results: Results) -> None:
        """Submit, save, and note each row as it completes."""
        client, out = session.client, session.out
        images = self.folder / IMAGES
        async with client.batch(
            prompts.rows(), save_to=images, run=self._name, retry_failed=self._retry_failed
        ) as batch:
            self._client, self._batch = client, batch
            view = batch_view(out, self.total, batch.statistics, lambda: client.statistics().saved_files)
            async with shown(view):
                async for item in batch:
                    self._note(item, session, results)

    def _note(self, item: BatchItem, session: Session, results: Results) -> None:
        session.out.record(results.add(item))
        session.pending.settled(item.task_id, item.client_business_id)
        for file in item.files:
            session.out.result(str(file))
        if not item.ok and len(self.failures) < MOST_FAILURES_SHOWN:
            self.failures.append(item)

    async def leave(self, session: Session, results: Results) -> None:
        """Write down what was sent and has no row yet, after a run that was left early and its client's closing."""
        if self._batch is None:
            return
        try:
            while self._batch.statistics().waiting_for_consumer:
                self._note(await anext(self._batch), session, results)
            left = session.pending.sent(self._batch.running())
            for item in left:
                session.out.record(results.add_running(item, _standing(item)))
                session.pending.settled(item.task_id, item.client_business_id)
            if left:
                session.out.warn(_left(left))
        finally:
            session.pending.tell(session.out, session.ask())  # what could not be written

    def summarise(self, out: Output, results: Results) -> None:
        """How it went; also when it was interrupted."""
        if self._batch is None or self._client is None:
            return
        now, counts = self._batch.statistics(), self._client.statistics()
        missing = self.total - now.done - now.failed
        out.note(
            f"{now.done:,} of {self.total:,} done, {now.failed:,} failed"
            f"{f', {missing:,} not finished' if missing else ''} in {duration(now.elapsed_s)}"
        )
        for item in self.failures:
            out.note(f"  failed   {item.key}: {_reason(item)}")
        if now.failed > len(self.failures):
            out.note(f"  … and {now.failed - len(self.failures):,} more in {self.folder / NAME}")
        throttled = counts.throttled_submits + counts.throttled_queries
        if throttled:
            times = "once" if throttled == 1 else f"{throttled:,} times"
            out.note(f"  the service said 429 (too fast) {times}")
        size = f"{count(counts.saved_files, 'file')}, {counts.saved_bytes / 1e6:,.1f} MB"
        out.note(f"  images   {self.folder / IMAGES}  ({size})")
        if results.kept:
            out.note(f"  results  {self.folder / NAME}")


def _clear_parts(images: Path) -> None:
    """Remove what a process that was killed left half-written; the journal's lock says that it is nobody else's."""
    for part in images.glob(".*.part"):
        part.unlink(missing_ok=True)


def _reason(item: BatchItem) -> str:
    assert item.error is not None
    told = error_record(item.error)
    code = f" ({told['code']})" if told["code"] else ""
    return f"{told['message']}{code}"


def _left(left: list[BatchItem]) -> str:
    lost = sum(item.task_id is None for item in left)
    parts = {
        f"{count(len(left) - lost, 'task')} still running or not fetched yet, and paid for": len(left) - lost,
        f"{count(lost, 'submission')} perhaps accepted, nobody knows": lost,
    }
    told = "; ".join(part for part, number in parts.items() if number)
    return f"{told}: the same command picks them up"


def _standing(item: BatchItem) -> str:
    if item.task_id is not None:
        return "interrupted while the service worked on it; still paid for: the same command picks it up"
    return "interrupted while it was submitted; nobody knows whether it was accepted: the same command looks it up"
