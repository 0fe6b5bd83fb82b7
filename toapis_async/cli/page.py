"""`toapis report`, and the page at the end of a batch: what the journal and the results know, as a page."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from toapis_async.cli.output import ALL_DONE, CliError, error_record
from toapis_async.cli.references import references_in
from toapis_async.cli.results import FOLDERS, NAME
from toapis_async.cli.run_status import JOURNAL
from toapis_async.cli.summary import service_s
from toapis_async.engine.journal.reader import latest_run, records, run_status
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import Done, Refused, Send, course_of, decide
from toapis_async.protocol.budget import PriceClass, Prices, charge_of, images_of
from toapis_async.protocol.pricing import given_in
from toapis_async.protocol.wording import count
from toapis_async.report import ReportRow, RowError, write_report
from toapis_async.request import body_of
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from decimal import Decimal
    from pathlib import Path

    from toapis_async.cli.output import Output
    from toapis_async.engine.journal.records import Record
    from toapis_async.protocol.wire import Course
    from toapis_async.report.rows import RowStatus

TOLD_AFTER_S: Final = 2.0
TOLD_AGAIN_S: Final = 5.0
_LATE_S: Final = 10.0
_NOT_REASONS: Final = frozenset({"StillRunning", "BudgetExceeded"})
"""What results.jsonl tells of rows that no page is about: they run, or were never sent."""


class _LeftError(Exception):
    """Nobody waits for the page any more."""


async def report(out: Output, folder: Path, prices: Mapping[str, Decimal]) -> int:
    """Make the page of a batch that has ended, was cut short or still runs."""
    run = latest_run(folder / JOURNAL)
    if run is None:
        raise CliError(f"{folder} holds no run: there is no journal {folder / JOURNAL}")
    page = await make_page(out, folder, run, prices)
    out.result(str(page))
    out.record({"page": str(page)})
    return ALL_DONE


async def make_page(out: Output, folder: Path, run: str, prices: Mapping[str, Decimal]) -> Path:
    """Make the page of a run in a worker thread. Cancelled, it ends with the pictures that were begun, and an
    earlier page stays.

    Raises `OSError` and `JournalError`.
    """
    left, written = threading.Event(), _Count()
    making = asyncio.ensure_future(asyncio.to_thread(_write, folder, run, prices, left, written))
    try:
        await asyncio.wait([making], timeout=TOLD_AFTER_S)
        rows = 0 if making.done() else (await asyncio.to_thread(run_status, folder / JOURNAL, run)).rows
        while not making.done():
            out.note(f"making the page: {written.number:,} of {count(rows, 'row')} (Ctrl-C leaves without it)")
            await asyncio.wait([making], timeout=TOLD_AGAIN_S)
    except asyncio.CancelledError:
        left.set()
        await asyncio.wait([making])
        making.exception()  # marks it retrieved: the cancellation goes first
        raise
    return making.result()


class _Count:
    """How far the thread that writes the page has come."""

    number = 0


def _write(folder: Path, run: str, prices: Mapping[str, Decimal], left: threading.Event, written: _Count) -> Path:
    def rows() -> Generator[ReportRow]:
        with closing(rows_of(folder, run, prices)) as known:  # sqlite wants to be closed in the thread that opened it
            for row in known:
                if left.is_set():
                    raise _LeftError
                yield row
                written.number += 1

    with closing(rows()) as shown:
        return write_report(folder, shown, title=folder.resolve().name)


def rows_of(folder: Path, run: str, prices: Mapping[str, Decimal]) -> Generator[ReportRow]:
    """The rows of a run: as its journal knows them, with the reasons that only results.jsonl tells."""
    stated = Prices(prices) if prices else None
    reasons = {str(row["client_business_id"] or f"row {row['index']}"): row for row in _failed(folder / NAME)}
    for record in records(folder / JOURNAL, run):
        known = reasons.pop(record.intent.client_business_id, None)
        yield row_of(record, stated, _reason(known["error"]) if known else None, folder)
    for row in reasons.values():  # what failed before it could be sent
        yield ReportRow(index=row["index"], key=row["key"], status="failed", prompt="", error=_reason(row["error"]))


def _failed(results: Path) -> Iterator[dict[str, Any]]:
    """The failed rows of results.jsonl, which may be being written; lines that are none of ours are passed over."""
    try:
        file = results.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            match row:
                case {
                    "index": int(),
                    "key": str(),
                    "client_business_id": _,
                    "error": {"type": kind, "code": _, "message": _},
                } if str(kind) not in _NOT_REASONS:
                    yield row
                case _:
                    pass


def row_of(record: Record, prices: Prices | None, reason: RowError | None, folder: Path | None = None) -> ReportRow:
    """A record as the page shows it; `reason` is why the latest pass gave it up, if it did."""
    fields = body_of(json.loads(record.intent.request))
    course = course_of(record) if record.state in {State.COMPLETED, State.FAILED} else None
    status, error = _status(record, reason)
    cost, files = None, FOLDERS[record.intent.kind]
    if status == "done":
        cost = charge_of(TaskStatus.COMPLETED, course.billing).credits if course else None
        if cost is None and prices is not None and (price := prices.of(PriceClass.of(fields))) is not None:
            cost = price * images_of(fields)
    return ReportRow(
        index=record.intent.place or 0,
        key=record.intent.key or record.intent.stem or record.intent.client_business_id,
        status=status,
        prompt=str(fields.get("prompt", "")),
        kind=record.intent.kind,
        references=() if folder is None else references_in(folder, fields),
        model=_first_text(fields, "model"),
        size=_first_text(fields, "size", "aspect_ratio", "ratio"),
        resolution=_first_text(fields, "resolution"),
        quality=_first_text(fields, "quality", "mode"),
        duration_s=_number(fields.get("duration")),
        n=_number(given_in(fields, "n")),
        files=tuple(f"{files}/{name}" for _, name in sorted(record.files.items())),
        task_id=record.task_id,
        client_business_id=record.intent.client_business_id,
        credits=cost,
        submitted_at=_moment(record.intended_at),
        completed_at=_completed_at(record, course),
        saved_at=_moment(record.saved_at),
        service_s=service_s(course),
        error=error,
    )


def _status(record: Record, reason: RowError | None) -> tuple[RowStatus, RowError | None]:
    verdict = decide(record)
    if isinstance(verdict, Done):
        return "done", None
    reason = _reason(error_record(verdict.error)) if isinstance(verdict, Refused) else reason
    if reason is not None:
        return "failed", reason
    return "waiting" if isinstance(verdict, Send) else "running", None


def _completed_at(record: Record, course: Course | None) -> datetime | None:
    """When the task ended. The service tells whole seconds and we saw it soon after, so our moment is finer; but not
    when nobody was looking."""
    seen = _moment(record.ended_at) if course else None
    stated = course.completed_at if course else None
    return stated if seen and stated and (seen - stated).total_seconds() > _LATE_S else seen


def _reason(error: Mapping[str, Any]) -> RowError:
    return RowError(str(error["type"]), str(error["code"] or ""), str(error["message"]))


def _moment(unix_s: float | None) -> datetime | None:
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)


def _first_text(fields: Mapping[str, object], *names: str) -> str | None:
    """The first of these fields that was given, also within `metadata`."""
    for name in names:
        if (value := given_in(fields, name)) is not None:
            return str(value)
    return None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
