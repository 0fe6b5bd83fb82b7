"""The summary of a batch that has ended: the slowest rows, and the failed ones by reason."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from attrs import define, field

from toapis_async.cli.output import error_record, in_cli_terms
from toapis_async.cli.table import KEY_COLUMNS, aligned, cut
from toapis_async.engine.journal.resume import end_of
from toapis_async.errors import AuthenticationFailed, BudgetExceeded, InsufficientQuota, LinkExpired, TaskFailed
from toapis_async.protocol.budget import images_of
from toapis_async.protocol.wording import amount, count, duration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from toapis_async.batch.item import BatchItem
    from toapis_async.models import Balance, Generation
    from toapis_async.protocol.wire import Course

RETRY_HINT: Final = "the same command with --retry-failed sends the failed rows again; they cost again"
RETRY_COMMAND: Final = "sends the failed rows again; they cost again:"
MOST_REASONS: Final = 5
MOST_SLOW: Final = 3
_MOST_NAMED: Final = 3  #: rows that failed for one reason


@define
class FailureGroup:
    """Rows that failed with the same error type and code."""

    message: str  #: of the first row
    keys: list[str] = field(factory=list)  #: of the first few
    rows: int = 0

    def lines(self) -> list[str]:
        names = [cut(key, KEY_COLUMNS) for key in self.keys]
        if self.rows == 1:
            return [f"{names[0]}: {self.message}"]
        return [f"{count(self.rows, 'row')}: {self.message}", *(f"  {name}" for name in names), *self._more()]

    def _more(self) -> list[str]:
        return ["  …"] if self.rows > len(self.keys) else []


class BatchSummary:
    """Totals of a batch's items, collected one by one; keeps only a few items."""

    def __init__(self) -> None:
        self.over_budget: BatchItem | None = None  #: the first
        self.rows_over_budget: int = 0
        self.rows_stopped: int = 0  #: met the 401 or 402 themselves
        self.rows_to_retry: int = 0  #: that ended without an image and are sent again on request only
        self.rows_with_fewer: int = 0  #: images than they asked for
        self._fewer: list[str] = []
        self._reasons: dict[tuple[str, str], FailureGroup] = {}
        self._slowest: list[tuple[float, int, str]] = []

    def note(self, item: BatchItem) -> None:
        if isinstance(item.error, BudgetExceeded):
            self.over_budget = self.over_budget or item
            self.rows_over_budget += 1
        elif isinstance(item.error, AuthenticationFailed | InsufficientQuota):
            self.rows_stopped += 1
        elif item.error is not None:
            self._note_failure(item)
        else:
            self._note_success(item)

    def _note_success(self, item: BatchItem) -> None:
        came, asked = len(item.files), images_of(item.request.body()) if item.request else 0
        if came < asked:
            self.rows_with_fewer += 1
            if len(self._fewer) < _MOST_NAMED:
                self._fewer.append(f"{cut(item.key, KEY_COLUMNS)}: {came} of {asked}")
        if (took_s := service_s(item.generation)) is not None:
            slow = took_s, -item.index, item.key
            (heapq.heappush if len(self._slowest) < MOST_SLOW else heapq.heappushpop)(self._slowest, slow)

    def _note_failure(self, item: BatchItem) -> None:
        assert item.error is not None
        self.rows_to_retry += isinstance(item.error, TaskFailed | LinkExpired) or end_of(item.error)[0] == "refused"
        record = error_record(item.error)
        code = f" ({record['code']})" if record["code"] else ""
        kind = record["type"], record["code"] or ""
        reason = self._reasons.setdefault(kind, FailureGroup(in_cli_terms(f"{record['message']}{code}")))
        reason.rows += 1
        if len(reason.keys) < _MOST_NAMED:
            reason.keys.append(item.key)

    def slowest(self) -> list[str]:
        """The rows that the service took longest for."""
        rows = sorted(self._slowest, reverse=True)
        return aligned([(duration(took_s, whole=True), cut(key, KEY_COLUMNS)) for took_s, _, key in rows], right={0})

    def failed(self) -> list[str]:
        """Why rows failed, the most frequent reason first."""
        reasons = sorted(self._reasons.values(), key=lambda reason: -reason.rows)
        largest, others = reasons[:MOST_REASONS], sum(reason.rows for reason in reasons[MOST_REASONS:])
        lines = [line for reason in largest for line in reason.lines()]
        return [*lines, f"{count(others, 'row')} for other reasons"] if others else lines

    @property
    def rows_unsent(self) -> int:
        """Rows that ended without being sent."""
        return self.rows_over_budget + self.rows_stopped

    def retry_hint(self, again: str = "") -> list[str]:
        """How the rows that ended without an image are sent again, by the command `again` if that is known; nothing
        when there are none."""
        if not self.rows_to_retry:
            return []
        return [RETRY_COMMAND, again] if again else [RETRY_HINT]

    def fewer(self) -> list[str]:
        """The rows for which the service made fewer images than asked for."""
        if not self.rows_with_fewer:
            return []
        more = "" if self.rows_with_fewer == len(self._fewer) else ", …"
        return [f"images than asked for came for {count(self.rows_with_fewer, 'row')}: {', '.join(self._fewer)}{more}"]

    def past_budget(self) -> list[str]:
        """How many rows did not fit into the budget, and the error of the first."""
        if self.over_budget is None:
            return []
        rows = count(self.rows_over_budget, "row")
        return [f"{rows} not sent; the first, {cut(self.over_budget.key, KEY_COLUMNS)}: {self.over_budget.error}"]


def service_s(task: Course | Generation | None) -> float | None:
    """How long the service worked on a task, by its own clock; None when it did not say."""
    if task is None or task.created_at is None or task.completed_at is None:
        return None
    return max((task.completed_at - task.created_at).total_seconds(), 0.0)


def section(name: str, lines: Iterable[str]) -> list[str]:
    """Lines under a name, which stands before the first."""
    return [f"  {name if place == 0 else '':<8} {line}" for place, line in enumerate(lines)]


def credits_line(spent: Decimal, budget: Decimal | None) -> str:
    """What was spent, as the batch counted it."""
    of = f" of {amount(budget)}" if budget is not None else ""
    return f"{amount(spent)}{of} spent, by the stated prices and billing"


def balance_line(balance: Balance, when: str) -> str | None:
    """The account's balance as the service states it; None when it states none."""
    if balance.unlimited_quota:
        return f"unlimited {when}"
    return None if balance.remain_credits is None else f"{balance.remain_credits:,.2f} credits {when}"
