"""How a batch's folder stands, as its journal tells: `toapis status DIR`, and what a run begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from toapis_async.cli.output import ALL_DONE, CliError, count, error_record
from toapis_async.cli.results import NAME
from toapis_async.engine.journal_file import State
from toapis_async.engine.journal_reader import latest_run, records, standing
from toapis_async.engine.recovery import error_of_record

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.cli.output import Output
    from toapis_async.engine.journal_file import Record
    from toapis_async.engine.journal_reader import Standing

JOURNAL: Final = "journal.sqlite"
FIRST_RUN: Final = "1"
MOST_SHOWN: Final = 20


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


def tell_standing(out: Output, now: Standing) -> None:
    """What is taken up, before it is."""
    if now.rows:
        out.note(f"going on with {count(now.rows, 'row')}: {_parts(now)}")


def status(out: Output, folder: Path) -> int:
    """Tell how a run stands, from its journal alone; nothing is asked of the service."""
    name = latest_run(folder / JOURNAL)
    if name is None:
        raise CliError(f"{folder} holds no run: there is no journal {folder / JOURNAL}")
    now = standing(folder / JOURNAL, name)
    out.result(f"{count(now.rows, 'row')} sent: {_parts(now)}")
    shown = 0
    for record in records(folder / JOURNAL, name):
        out.record(_record(record))
        if record.state is State.COMPLETED or out.json:
            continue
        shown += 1
        if shown <= MOST_SHOWN:
            out.result(_line(record))
    if shown > MOST_SHOWN:
        out.result(f"… and {shown - MOST_SHOWN:,} more; all of them with --json")
    if now.completed + now.running + now.in_doubt + now.withdrawn:
        out.note("the command that began this run goes on with it")
    return ALL_DONE


def _parts(now: Standing) -> str:
    words = {
        "done": now.saved,
        "to fetch": now.completed,
        "running": now.running,
        "in doubt": now.in_doubt,
        "not accepted": now.withdrawn,
        "failed": now.failed,
        "refused": now.refused,
    }
    return ", ".join(f"{number:,} {word}" for word, number in words.items() if number) or "none"


def _line(record: Record) -> str:
    error = error_of_record(record)
    told = f"  {error}" if error else ""
    name = record.intent.key or f"row {(record.intent.place or 0) + 1}"
    return f"{record.state.value:<9}  {name}  {record.task_id or record.intent.client_business_id}{told}"


def _record(record: Record) -> dict[str, Any]:
    error = error_of_record(record)
    return {
        "index": record.intent.place,
        "key": record.intent.key,
        "state": record.state.value,
        "task_id": record.task_id,
        "client_business_id": record.intent.client_business_id,
        "files": list(record.files),
        "error": error_record(error) if error else None,
    }
