"""How work is seen while it goes on: live with rich on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.text import Text

from toapis_async.cli.output import duration, plain
from toapis_async.events import TaskAccepted, TaskChanged

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from rich.progress import Task

    from toapis_async.batch import BatchStatistics
    from toapis_async.cli.output import Output
    from toapis_async.events import Event

REDRAW_S: Final = 0.2
PLAIN_LINE_S: Final = 5.0


class View(Protocol):
    """Something that shows work. `every_s` is how often it wants to be told to."""

    every_s: float

    def show(self) -> None: ...

    def close(self) -> None: ...


@asynccontextmanager
async def shown(view: View) -> AsyncGenerator[None]:
    """Keep a view up to date while the body runs."""

    async def refresh() -> None:
        while True:
            await asyncio.sleep(view.every_s)
            view.show()

    refreshing = asyncio.get_running_loop().create_task(refresh())
    try:
        yield
    finally:
        refreshing.cancel()
        await asyncio.wait([refreshing])
        view.close()


# ---------------------------------------------------------------------------------------------- batch


def batch_line(total: int, now: BatchStatistics, images: int) -> str:
    """How a batch stands, in figures that keep their places while they grow."""
    width = len(f"{total:,}")
    ended = now.done + now.failed
    rate = f"{60 * images / now.elapsed_s:,.0f}" if now.elapsed_s else "0"
    left = f"  {duration(now.elapsed_s * (total - ended) / ended)} left" if 0 < ended < total else ""
    return (
        f"{now.done:>{width},}/{total:,} done  {now.failed:>{width},} failed  "
        f"{now.in_flight + now.saving:>{width},} in flight  {rate:>5} images/min{left}"
    )


class PlainBatch:
    """A line every few seconds, for logs."""

    every_s = PLAIN_LINE_S

    def __init__(self, out: Output, line: Callable[[], str]) -> None:
        self._out = out
        self._line = line

    def show(self) -> None:
        self._out.note(self._line())

    def close(self) -> None:
        pass


class Live:
    """A rich display on stderr; other lines go above it."""

    every_s = REDRAW_S

    def __init__(self, out: Output, *columns: ProgressColumn, total: int, transient: bool = False) -> None:
        self._out = out
        # Nothing here may read markup into what it shows: a prompt like "[bold]" is text.
        console = Console(stderr=True, markup=False, highlight=False, emoji=False, force_terminal=True)
        self._progress = Progress(
            *columns, console=console, transient=transient, redirect_stdout=False, redirect_stderr=False
        )
        self._task = self._progress.add_task("", total=total)
        out.live = self
        self._progress.start()

    def update(self, completed: int, description: str) -> None:
        self._progress.update(self._task, completed=completed, description=plain(description))

    def print_above(self, line: str) -> None:
        self._progress.console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        self._out.live = None
        self._progress.stop()


class LiveBatch(Live):
    """A bar and the figures of `batch_line`."""

    def __init__(self, out: Output, total: int, ended: Callable[[], int], line: Callable[[], str]) -> None:
        super().__init__(out, BarColumn(None), TextColumn("{task.description}", markup=False), total=total)
        self._ended = ended
        self._line = line

    def show(self) -> None:
        self.update(self._ended(), self._line())

    def close(self) -> None:
        self.show()
        super().close()


def batch_view(out: Output, total: int, statistics: Callable[[], BatchStatistics], images: Callable[[], int]) -> View:
    """The view that suits where stderr goes."""

    def line() -> str:
        return batch_line(total, statistics(), images())

    def ended() -> int:
        now = statistics()
        return now.done + now.failed

    if out.on_terminal and not out.quiet:
        return LiveBatch(out, total, ended, line)
    return PlainBatch(out, line)


# ---------------------------------------------------------------------------------------------- one task


class _Took(ProgressColumn):
    """The time, as people read it."""

    def render(self, task: Task) -> Text:
        return Text(duration(task.elapsed or 0.0))


class PlainTask:
    """Says once that the task was taken."""

    every_s = PLAIN_LINE_S

    def __init__(self, out: Output) -> None:
        self._out = out

    def heard(self, event: Event) -> None:
        if isinstance(event, TaskAccepted):
            self._out.note(f"accepted as {event.task_id}")

    def show(self) -> None:
        pass

    def close(self) -> None:
        pass


class LiveTask(Live):
    """A spinner, the task's state, its progress in per cent and the time."""

    def __init__(self, out: Output) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            TextColumn("{task.completed:>3.0f}%", markup=False),
            _Took(),
        )
        super().__init__(out, *columns, total=100, transient=True)
        self._task_id = ""
        self._completed = 0
        self._state = "submitting"

    def heard(self, event: Event) -> None:
        if isinstance(event, TaskAccepted):
            self._task_id, self._state = f"{event.task_id}  ", "queued"
        elif isinstance(event, TaskChanged):
            self._state = event.status.replace("_", " ")
            self._completed = event.progress or self._completed

    def show(self) -> None:
        self.update(self._completed, f"{self._task_id}{self._state}")


def task_view(out: Output) -> PlainTask | LiveTask:
    """The view that suits where stderr goes."""
    return LiveTask(out) if out.on_terminal and not out.quiet else PlainTask(out)
