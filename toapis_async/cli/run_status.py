"""The status of a batch's folder by its journal: `toapis status DIR`, and the line that a further pass begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from toapis_async.cli.output import ALL_DONE, CliError, error_record
from toapis_async.cli.results import NAME
from toapis_async.cli.summary import RETRY_HINT
from toapis_async.cli.table import KEY_COLUMNS, aligned, cut
from toapis_async.engine.journal.reader import latest_run, records, run_status
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import error_of
from toapis_async.protocol.wording import count

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.cli.output import Output
    from toapis_async.engine.journal.reader import RunStatus
    from toapis_async.engine.journal.records import Record

JOURNAL: Final = "journal.sqlite"
FIRST_RUN: Final = "1"
MOST_SHOWN: Final = 10  #: of those that failed, and of those that have not ended
_ENDED_BADLY: Final = frozenset({State.FAILED, State.REFUSED})
_STATE_NAMES: Final = {State.INTENT: "in doubt", State.WITHDRAWN: "not accepted", State.ACCEPTED: "running"}


def run_name(folder: Path, *, overwrite: bool) -> str:
    """The run to go on with, or a new one's name. Raises `CliError` for results that have no journal."""
    latest = latest_run(folder / JOURNAL)
    if overwrite and latest is not None and latest.isdecimal():
        return str(int(latest) + 1)
    results = folder / NAME
    if not (folder / JOURNAL).exists() and not overwrite and results.exists() and results.stat().st_size:
        raise CliError(
            f"{results} holds results, but there is no journal beside it to go on from: nothing was sent, so that "
            "nothing is paid for twice. Take another --out, or --overwrite to do it all again"
        )
    return latest or FIRST_RUN


def note_earlier_passes(out: Output, now: RunStatus) -> None:
    """Print what earlier passes of the run did."""
    if now.rows:
        out.note(f"going on with {count(now.rows, 'row')}: {_parts(now)}")


def status(out: Output, folder: Path) -> int:
    """Print the status of the latest run in `folder`, from its journal alone; no request is sent.

    Returns the exit code. Raises `CliError` when there is no run, `JournalError` when the journal can't be read.
    """
    name = latest_run(folder / JOURNAL)
    if name is None:
        raise CliError(f"{folder} holds no run: there is no journal {folder / JOURNAL}")
    now = run_status(folder / JOURNAL, name)
    out.result(f"{count(now.rows, 'row')} sent: {_parts(now)}")
    lines_of: dict[str, list[tuple[str, str, str]]] = {"failed": [], "open": []}
    for record in records(folder / JOURNAL, name):
        out.record(_record(record))
        if record.state is not State.COMPLETED:
            kind = lines_of["failed" if record.state in _ENDED_BADLY else "open"]
            if len(kind) < MOST_SHOWN:
                kind.append(_line(record))
    lines = [*lines_of["failed"], *lines_of["open"]]
    for line in aligned(lines):
        out.result(f"  {line}")
    others = now.rows - now.saved - now.completed - len(lines)
    if others > 0:
        out.result(f"  … and {others:,} more; all of them with --json")
    if now.completed + now.running + now.in_doubt + now.withdrawn:
        out.note("the same command as before goes on with it")
    if now.failed + now.refused:
        out.note(RETRY_HINT)
    return ALL_DONE


def _parts(now: RunStatus) -> str:
    parts = {
        "done": now.saved,
        "to fetch": now.completed,
        "running": now.running,
        "in doubt": now.in_doubt,
        "not accepted": now.withdrawn,
        "failed": now.failed,
        "refused": now.refused,
    }
    return ", ".join(f"{number:,} {name}" for name, number in parts.items() if number) or "none"


def _line(record: Record) -> tuple[str, str, str]:
    error = error_of(record)
    message = "" if error is None else error_record(error)["message"]
    state = _STATE_NAMES.get(record.state, record.state.value)
    name = record.intent.key or record.intent.stem or record.intent.client_business_id
    return state, cut(name, KEY_COLUMNS), message or record.task_id or record.intent.client_business_id


def _record(record: Record) -> dict[str, Any]:
    error = error_of(record)
    return {
        "index": record.intent.place,
        "key": record.intent.key,
        "state": record.state.value,
        "task_id": record.task_id,
        "client_business_id": record.intent.client_business_id,
        "files": [name for _, name in sorted(record.files.items())],
        "error": error_record(error) if error else None,
    }
