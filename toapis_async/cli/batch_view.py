"""A batch while it runs: a bar, its figures and the rows that ended last; plain lines where nobody watches."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import define, field
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from toapis_async.cli.output import plain
from toapis_async.cli.progress import PLAIN_LINE_S, REDRAW_S, View
from toapis_async.cli.summary import service_s
from toapis_async.display.terminal import stderr_console, wrapped
from toapis_async.protocol.wording import amount, duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from rich.console import RenderableType

    from toapis_async.batch.item import BatchItem, BatchStatistics
    from toapis_async.cli.output import Output

LAST_SHOWN: Final = 4
_MOST_CHARACTERS: Final = 300  #: of a prompt, which is cut to the terminal's width later


@define
class BatchProgress:
    """The figures of a batch that a view shows."""

    total: int
    statistics: Callable[[], BatchStatistics]
    saved: Callable[[], int]  #: files
    noun: str = "image"  #: what one of the files is called
    unsent: Callable[[], int] = lambda: 0  #: rows that ended without being sent, which the statistics count as failed
    retries: Callable[[], int] = lambda: 0  #: of submissions
    sandbox: str | None = None  #: what it is called, if it is one
    ended_earlier: int = 0  #: rows that an earlier pass saw the end of
    budget_credits: Decimal | None = None
    last: deque[BatchItem] = field(factory=lambda: deque(maxlen=LAST_SHOWN))

    def note(self, item: BatchItem) -> None:
        """A row has ended."""
        self.last.append(item)

    @property
    def ended(self) -> int:
        return self.statistics().ended

    def figures(self) -> list[str]:
        """The figures as texts, in a fixed order, padded so that they keep their width."""
        now, unsent, width = self.statistics(), self.unsent(), len(f"{self.total:,}")
        rate = f"{60 * self.saved() / now.elapsed_s:,.0f}" if now.elapsed_s else "0"
        figures = [
            f"{now.done:>{width},}/{self.total:,} done",
            f"{now.failed - unsent:>{width},} failed",
            f"{now.in_flight + now.saving:>{width},} in flight",
            f"{rate:>5} {self.noun}s/min",
        ]
        for number, name in ((unsent, "not sent"), (self.retries(), "tried again")):
            figures += [f"{number:,} {name}"] if number else []
        if now.elapsed_s:
            figures.append(f"{duration(now.elapsed_s, whole=True)} elapsed")
        left_s = self._left_s(now)
        if left_s is not None:
            figures.append(f"{duration(left_s, whole=True)} left")
        if now.credits_spent or self.budget_credits is not None:
            of = "" if self.budget_credits is None else f"/{amount(self.budget_credits)}"
            figures.append(f"{amount(now.credits_spent)}{of} credits")
        return [*figures, self.sandbox] if self.sandbox else figures

    def _left_s(self, now: BatchStatistics) -> float | None:
        """By the pace of the rows that are this pass's own: those of an earlier one take no time."""
        own = now.ended - self.ended_earlier
        return now.elapsed_s * (self.total - now.ended) / own if own > 0 and now.ended < self.total else None


class PlainBatch:
    """A line every few seconds, for logs."""

    every_s = PLAIN_LINE_S

    def __init__(self, out: Output, progress: BatchProgress) -> None:
        self._out = out
        self._progress = progress

    def show(self) -> None:
        self._out.note("  ".join(self._progress.figures()))

    def close(self) -> None:
        pass


class LiveBatch:
    """A display that is redrawn; other lines go above it, and at the end the summary takes its place."""

    every_s = REDRAW_S

    def __init__(self, out: Output, progress: BatchProgress) -> None:
        self._out = out
        self._progress = progress
        self._console = stderr_console()
        self._live = Live(
            get_renderable=self._drawn,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        out.live = self
        self._live.start(refresh=True)

    def show(self) -> None:
        self._live.refresh()

    def print_above(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        self._out.live = None
        self._live.stop()

    def _drawn(self) -> RenderableType:
        progress, width = self._progress, self._console.width - 1
        now = progress.statistics()
        figures = Text("\n".join(wrapped(progress.figures(), width)), no_wrap=True)
        figures.highlight_regex(r"[1-9][\d,]* failed", "red")
        figures.highlight_regex(r"[1-9][\d,]* not sent", "yellow")
        return Group(_last(progress), _bar(width, progress.total, now.done, now.failed), figures)


def _bar(width: int, total: int, done: int, failed: int) -> Text:
    """What went well in green, what did not in red; a single failure is seen, too."""
    red = max(width * failed // max(total, 1), 1) if failed else 0
    green = min(width * done // max(total, 1), width - red)
    return Text.assemble(("━" * green, "green"), ("━" * red, "red"), ("━" * (width - green - red), "bright_black"))


def _last(progress: BatchProgress) -> Table:
    """The rows that ended last, the newest at the bottom: their prompts, and how long they took or what went wrong."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=6, no_wrap=True)
    table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    if any(not item.ok for item in progress.last):
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True, min_width=7)
    for item in progress.last:
        prompt = (item.request and item.request.prompt) or item.key
        took_s = service_s(item.generation)
        cells = [
            Text("done", "green") if item.ok else Text("failed", "red"),
            Text(plain(" ".join(prompt[:_MOST_CHARACTERS].split()))),
            Text("" if took_s is None else duration(took_s, whole=True), "dim"),
        ]
        if len(table.columns) > len(cells):
            cells.insert(2, Text(plain(str(item.error)[:_MOST_CHARACTERS]) if item.error else "", "dim"))
        table.add_row(*cells)
    return table


def batch_view(out: Output, progress: BatchProgress) -> View:
    """The view that suits where stderr goes."""
    return LiveBatch(out, progress) if out.on_terminal and not out.quiet else PlainBatch(out, progress)
