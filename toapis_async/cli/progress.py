"""How work is seen while it goes on: live with rich on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.text import Text

from toapis_async.cli.output import plain
from toapis_async.display.terminal import stderr_console
from toapis_async.events import TaskAccepted, TaskPolled
from toapis_async.protocol.wording import duration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rich.progress import Task

    from toapis_async.cli.output import Output
    from toapis_async.events import Event

REDRAW_S: Final = 0.2
PLAIN_LINE_S: Final = 5.0
_STATE_COLUMNS: Final = 56  #: what a task's state, bar, per cent and time may take


class View(Protocol):
    """Something that shows work. `every_s` is how often it wants to be told to."""

    every_s: float

    def show(self) -> None: ...

    def close(self) -> None: ...


@asynccontextmanager
async def refreshing(view: View) -> AsyncGenerator[None]:
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


class _Took(ProgressColumn):
    """The time, as people read it."""

    def render(self, task: Task) -> Text:
        return Text(duration(task.elapsed or 0.0))


class PlainTask:
    """Says once that the task was taken."""

    every_s = PLAIN_LINE_S

    def __init__(self, out: Output) -> None:
        self._out = out

    def on_event(self, event: Event) -> None:
        if isinstance(event, TaskAccepted):
            self._out.note(f"accepted as {event.task_id}")

    def show(self) -> None:
        pass

    def close(self) -> None:
        pass


class LiveTask:
    """A spinner, the task's id where there is room for it, its state, its progress in per cent and the time; other
    lines go above it."""

    every_s = REDRAW_S

    def __init__(self, out: Output, sandbox: str | None = None) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(20, complete_style="green", finished_style="green"),
            TextColumn("{task.completed:>3.0f}%", markup=False),
            _Took(),
        )
        self._sandbox = sandbox
        self._progress = Progress(
            *columns, console=stderr_console(), transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._task = self._progress.add_task("", total=100)
        self._task_id = ""
        self._completed = 0
        self._state = "submitting"
        self._out = out
        out.live = self
        self._progress.start()

    def on_event(self, event: Event) -> None:
        if isinstance(event, TaskAccepted):
            self._task_id, self._state = event.task_id, "queued"
        elif isinstance(event, TaskPolled):
            self._state = event.status.replace("_", " ")
            self._completed = event.progress or self._completed

    def show(self) -> None:
        room = self._progress.console.width - _STATE_COLUMNS
        names = [name for name in (self._sandbox, self._task_id) if name]
        while names and sum(len(name) + 2 for name in names) > room:
            names.pop()
        description = "  ".join([*names, self._state])
        self._progress.update(self._task, completed=self._completed, description=plain(description))

    def print_above(self, line: str) -> None:
        self._progress.console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        self._out.live = None
        self._progress.stop()


def task_view(out: Output, sandbox: str | None = None) -> PlainTask | LiveTask:
    """The view that suits where stderr goes; `sandbox` is what the sandbox is called, if it is one."""
    return LiveTask(out, sandbox) if out.on_terminal and not out.quiet else PlainTask(out)
