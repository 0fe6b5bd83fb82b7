"""The run as a whole: counts, money and times, gathered row by row so that no row need be kept."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from toapis_async.protocol.wording import count, duration, noun_of
from toapis_async.report.figures import amount, took

if TYPE_CHECKING:
    from decimal import Decimal

    from toapis_async.report.rows import ReportRow, RequestClass, RowStatus
    from toapis_async.request import Kind

_MOST_REASONS: Final = 8
NOT_KNOWN: Final = "—"


@frozen
class Figure:
    """One number of the summary, with the words beneath it."""

    name: str
    value: str
    note: str = ""


@frozen
class Reason:
    """Rows that failed with the same code, and the message of the first."""

    rows: int
    code: str
    message: str


@define
class RunTotals:
    """What the rows so far come to. Holds a few numbers a row."""

    statuses: Counter[RowStatus] = field(factory=Counter)
    files: Counter[Kind] = field(factory=Counter)
    missing: int = 0  #: files that were asked for and did not come, of rows that are done
    credits: float = 0.0
    priced: int = 0  #: rows whose credits are known
    starts: array[float] = field(factory=lambda: array("d"))  #: Unix seconds, of rows whose course is known
    ends: array[float] = field(factory=lambda: array("d"))  #: of the same rows; infinity while one runs
    good_ends: array[float] = field(factory=lambda: array("d"))
    first: float = math.inf
    last: float = -math.inf
    service: dict[RequestClass, array[float]] = field(factory=dict)  #: seconds
    _reasons: Counter[str] = field(factory=Counter)
    _messages: dict[str, str] = field(factory=dict)

    def add(self, row: ReportRow) -> None:
        self.statuses[row.status] += 1
        self.files[row.kind] += len(row.files)
        self.missing += max((row.n or 0) - len(row.files), 0) if row.status == "done" else 0
        price = finite(row.credits)
        if price is not None:
            self.credits += price
            self.priced += 1
        service_s = finite(row.service_s)
        if service_s is not None and service_s >= 0:
            self.service.setdefault(row.request_class, array("d")).append(service_s)
        if row.error is not None:
            code = row.error.code or row.error.type
            self._reasons[code] += 1
            self._messages.setdefault(code, row.error.message)
        self._follow(row)

    def _follow(self, row: ReportRow) -> None:
        moments = [m.timestamp() for m in (row.submitted_at, row.completed_at, row.saved_at) if m is not None]
        if not moments:
            return
        self.first, self.last = min(self.first, *moments), max(self.last, *moments)
        end = row.completed_at or row.saved_at
        if row.submitted_at is None or (end is None and row.status != "running"):
            return
        start = row.submitted_at.timestamp()
        # The service's clock is not ours: no task ends before it began.
        finish = math.inf if end is None else max(start, end.timestamp())
        self.starts.append(start)
        self.ends.append(finish)
        if row.status == "done":
            self.good_ends.append(finish)

    @property
    def rows(self) -> int:
        return self.statuses.total()

    @property
    def wall_s(self) -> float | None:
        """From the first submission to the last thing that is known to have happened."""
        return self.last - self.first if self.last >= self.first else None

    def figures(self) -> list[Figure]:
        """The summary, in the order it is shown."""
        wall_s = self.wall_s
        files, name = self.files.total(), f"{noun_of(self.files).capitalize()}s"
        rate = amount(round(60 * files / wall_s, 1)) if wall_s and files else NOT_KNOWN
        times = [t for seconds in self.service.values() for t in seconds]
        fewer = f"; {self.missing:,} fewer than asked for" if self.missing else ""
        known = "" if self.priced == self.rows else f"known for {self.priced:,} of {count(self.rows, 'row')}"
        return [
            Figure(name, f"{files:,}", f"from {count(self.rows, 'row')}{fewer}"),
            Figure(f"{name} a minute", rate),
            Figure("Wall time", NOT_KNOWN if wall_s is None else duration(wall_s)),
            Figure(
                "Service time",
                took(median(times)) if times else NOT_KNOWN,
                f"median; slowest {took(max(times))}" if times else "",
            ),
            Figure(
                "Credits",
                amount(self.credits) if self.priced else NOT_KNOWN,
                known if self.priced else "no price known",
            ),
        ]

    def reasons(self) -> list[Reason]:
        """Why rows failed, the most frequent first; a last one for the rest."""
        common = self._reasons.most_common(_MOST_REASONS)
        largest = [Reason(rows, code, self._messages[code]) for code, rows in common]
        rest = self._reasons.total() - sum(reason.rows for reason in largest)
        return [*largest, Reason(rest, "", "other reasons")] if rest else largest


def finite(number: Decimal | float | None) -> float | None:
    """The number as a page can show it; None for none, and for what is past all bounds."""
    value = math.nan if number is None else float(number)
    return value if math.isfinite(value) else None
