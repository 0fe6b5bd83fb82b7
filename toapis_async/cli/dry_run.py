"""`toapis batch --dry-run`: what the same command without it would send, and what that would cost."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import define, field

from toapis_async.batch.rows import RowReader
from toapis_async.cli.output import ALL_DONE
from toapis_async.cli.prices import checked_prices
from toapis_async.cli.prompts import checked
from toapis_async.cli.run_status import JOURNAL, run_name
from toapis_async.cli.session import settings_of
from toapis_async.cli.summary import service_s
from toapis_async.cli.table import aligned, cut
from toapis_async.engine.journal.reader import record_finder, records
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import (
    ENDED_BADLY,
    Changed,
    Done,
    Fetch,
    LookUp,
    Refused,
    Send,
    Watch,
    charge,
    course_of,
    decide,
)
from toapis_async.errors import BudgetExceeded
from toapis_async.protocol.budget import Budget, PriceClass, images_of
from toapis_async.protocol.wording import amount, count, duration, noun_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from toapis_async.batch.rows import Row
    from toapis_async.cli.options import BatchOptions, Caps, Options
    from toapis_async.cli.output import Output
    from toapis_async.cli.prompts import PromptFile
    from toapis_async.engine.journal.records import Record
    from toapis_async.engine.journal.resume import Verdict
    from toapis_async.protocol.budget import Prices
    from toapis_async.request import Kind
    from toapis_async.settings import Settings

Outcome: TypeAlias = Literal["send", "over budget", "look up", "running", "fetch", "done", "failed", "changed"]
Find: TypeAlias = "Callable[[str | None, str, int, str | None], Record | None]"

MOST_PROMPTS_SHOWN: Final = 5
PROMPT_COLUMNS: Final = 60
_USUAL_S: Final[Mapping[Kind, tuple[float, float]]] = {"image": (30.0, 120.0), "video": (60.0, 300.0)}
"""How long tasks usually take: of images as seen [field], of videos as the service says [docs]."""
_ENOUGH_TIMES: Final = 5
"""Tasks of earlier passes whose times are believed rather."""
_OUTCOMES: Final[dict[type[Verdict], Outcome]] = {
    LookUp: "look up",
    Watch: "running",
    Fetch: "fetch",
    Done: "done",
    Refused: "failed",
    Changed: "changed",
}
_TEXTS: Final[dict[Outcome, str]] = {
    "done": "done already",
    "running": "sent already, to be waited for",
    "fetch": "done already, to be fetched",
    "look up": "perhaps sent already, to be looked up first",
    "failed": "failed already (--retry-failed sends them again)",
    "changed": "changed since they were sent, and refused: give them other keys",
    "over budget": "not sent: past the budget",
}


@define
class Costs:
    """What the rows of one class come to."""

    rows: int = 0
    files: int = 0  #: images or videos


Line: TypeAlias = "tuple[str, Costs, Decimal | None]"
"""The name of a class, what its rows come to, and credits a file."""


@define
class Plan:
    """What would be sent, gathered row by row."""

    outcomes: Counter[Outcome] = field(factory=Counter)
    classes: dict[PriceClass, Costs] = field(factory=dict)
    kinds: set[Kind] = field(factory=set)
    prompts: list[tuple[str, str]] = field(factory=list)  #: key and prompt of the first few
    times_s: list[float] = field(factory=list)  #: which tasks of earlier passes took

    def lines(self, prices: Prices) -> list[Line]:
        """What is sent, by the names and prices of its classes: those that differ in nothing that is shown are one."""
        found: dict[tuple[str, Decimal | None], Costs] = {}
        for kind, costs in self.classes.items():
            line = found.setdefault((str(kind), prices.of(kind)), Costs())
            line.rows += costs.rows
            line.files += costs.files
        return [(name, costs, price) for (name, price), costs in found.items()]

    def add(self, row: Row, fields: dict[str, Any], outcome: Outcome) -> None:
        assert row.request is not None
        self.outcomes[outcome] += 1
        self.kinds.add(row.request.kind)
        if outcome == "send":
            costs = self.classes.setdefault(PriceClass.of(fields), Costs())
            costs.rows += 1
            costs.files += images_of(fields)
            if len(self.prompts) < MOST_PROMPTS_SHOWN:
                self.prompts.append((row.key, str(fields.get("prompt", ""))))


async def dry_run(
    options: Options, out: Output, prompts: PromptFile, folder: Path, *, how: BatchOptions, caps: Caps
) -> int:
    """Tell what would be sent, and what it would cost and how long take. Makes nothing. Needs no key; with one, the
    service is asked for the prices that are not stated."""
    name = run_name(folder, overwrite=how.overwrite)
    found = await checked(out, prompts)
    journal = folder / JOURNAL
    prices = await checked_prices(options, out, found, caps)
    budget = Budget(prices, most_credits=caps.budget_credits, most_images=caps.max_images)
    plan, reader = Plan(), RowReader(None)
    with contextlib.ExitStack() as stack:
        stack.callback(reader.close)
        find: Find | None = None
        if journal.exists():
            find = stack.enter_context(record_finder(journal, name))
            for record in records(journal, name):
                charge(budget, record)
                took_s = service_s(course_of(record)) if record.state is State.COMPLETED else None
                plan.times_s += [] if took_s is None else [took_s]
        for raw in prompts.rows():
            row = await reader.read(raw)
            assert row.request is not None  # all were checked
            fields = row.request.body()
            outcome = _outcome(row, fields, find, budget, retry_failed=how.retry_failed)
            plan.add(row, fields, outcome)
            out.record(_record(row, fields, outcome, budget))
    _print_plan(out, plan, budget, options)
    return ALL_DONE


def _outcome(row: Row, fields: dict[str, Any], find: Find | None, budget: Budget, *, retry_failed: bool) -> Outcome:
    assert row.identity is not None
    assert row.request is not None
    digest = row.identity.digest
    known = find(row.given_key, digest, row.occurrence, row.request.given_business_id) if find else None
    verdict = decide(known, digest, retry=ENDED_BADLY if retry_failed else ())
    if not isinstance(verdict, Send):
        return _OUTCOMES[type(verdict)]
    try:
        budget.reserve(PriceClass.of(fields), images_of(fields))
    except BudgetExceeded:
        return "over budget"
    return "send"


def _record(row: Row, fields: dict[str, Any], outcome: Outcome, budget: Budget) -> dict[str, Any]:
    kind = PriceClass.of(fields)
    price = budget.prices.of(kind)
    return {
        "index": row.index,
        "key": row.key,
        "would": outcome,
        "prompt": fields.get("prompt"),
        "class": str(kind),
        "images": images_of(fields),
        "credits": None if price is None else str(price * images_of(fields)),
    }


def _print_plan(out: Output, plan: Plan, budget: Budget, options: Options) -> None:
    rows, sent = plan.outcomes.total(), plan.outcomes["send"]
    noun, files = noun_of(plan.kinds), sum(costs.files for costs in plan.classes.values())
    lines = plan.lines(budget.prices)
    known = [price * costs.files for _, costs, price in lines if price is not None]
    cost = f", {amount(sum(known, Decimal(0)))} credits" if known else ""
    unknown = " and what has no price" if known and len(known) < len(lines) else ""
    out.result(f"{sent:,} of {count(rows, 'row')} would be sent: {count(files, noun)}{cost}{unknown}")
    others = [(f"  {plan.outcomes[outcome]:,}", text) for outcome, text in _TEXTS.items() if plan.outcomes[outcome]]
    for line in aligned(others, right={0}):
        out.result(line)
    if sent:
        out.result(f"  takes about {_time(plan, settings_of(options), options.time_factor)}")
    if lines:
        _print_classes(out, lines, noun)
        out.result("")
        for line in aligned([(f"  {key}", cut(prompt, PROMPT_COLUMNS)) for key, prompt in plan.prompts]):
            out.result(line)
        if sent > len(plan.prompts):
            out.result(f"  … and {sent - len(plan.prompts):,} more")
    out.note("a dry run: nothing was sent")


def _time(plan: Plan, settings: Settings, factor: float) -> str:
    """How long it all takes, and why: by the rate limits, by how many tasks go at once, and by what one takes."""
    sent, limits = plan.outcomes["send"], settings.rate_limits
    if len(plan.times_s) >= _ENOUGH_TIMES:
        task_s, source = (median(plan.times_s), max(plan.times_s)), "as in earlier passes"
    else:
        kinds = set(_USUAL_S) & plan.kinds
        task_s = min(_USUAL_S[kind][0] for kind in kinds), max(_USUAL_S[kind][1] for kind in kinds)
        source = "as usual"
    submitting_s = max(sent - limits.submit_burst, 0) / limits.submit_per_s
    rounds = math.ceil(sent / settings.max_in_flight)
    shortest, longest = (max(submitting_s, (rounds - 1) * factor * each) + factor * each for each in task_s)
    parts = [f"a task {_span(*(factor * each for each in task_s))}, {source}"]
    if submitting_s:
        parts.append(f"{limits.submit_per_s:.3g} submissions a second after the first {limits.submit_burst:,.0f}")
    if rounds > 1:
        parts.append(f"{settings.max_in_flight:,} tasks at once")
    return f"{_span(shortest, longest)}: {'; '.join(parts)}"


def _span(shortest_s: float, longest_s: float) -> str:
    first, last = duration(shortest_s), duration(longest_s)
    return first if first == last else f"{first} to {last}"


def _print_classes(out: Output, lines: list[Line], noun: str) -> None:
    table = [["  class", "rows", f"{noun}s", "each", "credits"]]
    for kind, costs, price in lines:
        each, all_ = ("?", "?") if price is None else (amount(price), amount(price * costs.files))
        table.append([f"  {kind}", f"{costs.rows:,}", f"{costs.files:,}", each, all_])
    if all(price is None for *_, price in lines):
        table = [row[:3] for row in table]
    out.result("")
    for line in aligned(table, right={1, 2, 3, 4}):
        out.result(line)
