"""`toapis batch --dask`: the same batch on a Dask cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from toapis_async.cli.batch_view import BatchProgress, batch_view
from toapis_async.cli.output import ALL_DONE, SOME_FAILED, CliError, in_cli_terms
from toapis_async.cli.page import make_page
from toapis_async.cli.progress import refreshing
from toapis_async.cli.prompts import checked
from toapis_async.cli.results import FOLDERS, NAME, Results
from toapis_async.cli.run_status import JOURNAL, run_name
from toapis_async.cli.session import settings_of
from toapis_async.cli.summary import BatchSummary, credits_line, section
from toapis_async.protocol.wording import duration, noun_of
from toapis_async.settings import Credentials, Journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from toapis_async.batch.item import BatchItem
    from toapis_async.cli.options import BatchOptions, Caps, Options
    from toapis_async.cli.output import Output
    from toapis_async.cli.prompts import Checked, PromptFile
    from toapis_async.dask import Bulk

LOCAL: Final = "local"


async def cluster_batch(
    options: Options, out: Output, prompts: PromptFile, folder: Path, *, how: BatchOptions, caps: Caps
) -> int:
    """Check everything, then have the cluster send what was not sent yet."""
    bulk = _loaded()
    if options.sandbox:
        raise CliError(
            "--sandbox is inside of this command, where a cluster's workers can't reach it: start `toapis sandbox`, "
            "and give its address with --base-url"
        )
    is_local = how.dask == LOCAL
    if how.same_account and not is_local:
        raise CliError(
            "--same-account is for a journal in --out, which a run on a cluster has with --dask local only; "
            "elsewhere: bulk(…, journal=Journal(path, same_account=True))"
        )
    name = run_name(folder, overwrite=how.overwrite)
    found = await checked(out, prompts)
    if is_local:
        Credentials.resolve(None, options.base_url)  # the workers' are this process's own
    kept: dict[int, Mapping[str, Any]] = {}
    job: Bulk = bulk(
        _rows(prompts, kept),
        run=name,
        cluster=None if is_local else how.dask,
        save_to={kind: (folder / each).absolute() for kind, each in FOLDERS.items()},
        retry_failed=how.retry_failed,
        attempts=how.attempts,
        budget_credits=caps.budget_credits,
        max_images=caps.max_images,
        embed=how.embed,
        base_url=options.base_url,
        settings=evolve(settings_of(options), prices=caps.prices),
        journal=Journal((folder / JOURNAL).absolute(), same_account=how.same_account) if is_local else None,
    )
    run = _Pass(job, out, found, Results(folder.absolute()), kept)  # noqa: ASYNC240  (as the workers name files)
    with run.results.opened():
        try:
            async with job:
                await run.follow(caps)
        finally:
            run.summarise(folder / NAME, caps, how)
    if how.page and is_local:
        for line in section("page", [str(await make_page(out, folder, name, caps.prices))]):
            out.note(line)
    return SOME_FAILED if job.statistics().failed else ALL_DONE


def _loaded() -> Any:
    try:
        from toapis_async.dask import bulk  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise CliError(str(error)) from None
    return bulk


def _rows(prompts: PromptFile, kept: dict[int, Mapping[str, Any]]) -> Iterator[Any]:
    """The rows of a file that was checked; `kept` gets the columns that are kept of them, by their index."""
    for index, line in enumerate(prompts.checked_lines()):
        if line.kept:
            kept[index] = line.kept
        yield line.row


class _Pass:
    """One pass on the cluster, as this command shows it."""

    def __init__(
        self, job: Bulk, out: Output, found: Checked, results: Results, kept: dict[int, Mapping[str, Any]]
    ) -> None:
        self.results = results
        self._job = job
        self._out = out
        self._found = found
        self._kept = kept
        self._summary = BatchSummary()
        self._saved = 0

    async def follow(self, caps: Caps) -> None:
        """Note each row as it ends."""
        progress = BatchProgress(
            total=self._found.rows,
            noun=noun_of(self._found.kinds),
            budget_credits=caps.budget_credits,
            statistics=self._job.statistics,
            saved=lambda: self._saved,
        )
        async with refreshing(batch_view(self._out, progress)):
            async for item in self._job:
                self._note(item)
                progress.note(item)

    def _note(self, item: BatchItem) -> None:
        out = self._out
        self._saved += len(item.files)
        out.record(self.results.add(item, self._kept.pop(item.index, None)))
        self._summary.note(item)
        if out.live is None or not sys.stdout.isatty():  # the view shows what is done
            for file in item.files:
                out.result(str(file))
        if item.error is not None and item.error is self._job.stopped_by:
            out.error(f"stopped, for each further row would meet the same: {in_cli_terms(str(item.error))}")

    def summarise(self, results: Path, caps: Caps, how: BatchOptions) -> None:
        """Print the summary, also of a pass that was interrupted."""
        now, summary, rows = self._job.statistics(), self._summary, self._found.rows
        missing = rows - now.done - now.failed
        others = f", {missing:,} not finished" if missing else ""
        self._out.note(f"{now.done:,} of {rows:,} done, {now.failed:,} failed{others} in {duration(now.elapsed_s)}")
        spent = credits_line(now.credits_spent, caps.budget_credits)
        for line in (
            *section("failed", summary.failed()),
            *section("retry", summary.retry_hint(how.again)),
            *section("budget", summary.past_budget()),
            *section("credits", [spent] if now.credits_spent else []),
            *section("results", [str(results)] if self.results.kept else []),
        ):
            self._out.note(line)
