"""How work is seen while it goes on."""

from __future__ import annotations

import asyncio

import pytest

from toapis_async.cli.output import Output
from toapis_async.cli.progress import LiveTask, PlainTask, refreshing, task_view
from toapis_async.events import TaskAccepted, TaskPolled
from toapis_async.task import TaskStatus


async def test_a_view_is_refreshed_while_the_body_runs_and_then_closed() -> None:
    seen: list[str] = []
    enough = asyncio.Event()

    class Counting:
        every_s = 0.001

        def show(self) -> None:
            seen.append("refreshing")
            if len(seen) == 3:
                enough.set()

        def close(self) -> None:
            seen.append("closed")

    async with refreshing(Counting()):
        await enough.wait()
    assert seen[:3] == ["refreshing"] * 3
    assert seen[-1] == "closed"


@pytest.mark.usefixtures("on_terminal")
async def test_quiet_means_no_live_display() -> None:
    out = Output(json=False, quiet=True)
    assert isinstance(task_view(out), PlainTask)


@pytest.mark.usefixtures("on_terminal")
async def test_one_task_is_shown_with_its_state_and_progress(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    view = task_view(out)
    assert isinstance(view, LiveTask)
    view.show()
    view.on_event(TaskAccepted(0.0, "task_1", "b1", None))
    view.on_event(TaskPolled(0.0, "task_1", "b1", TaskStatus.IN_PROGRESS, 42, changed=True))
    view.on_event(TaskPolled(0.0, "task_1", "b1", TaskStatus.IN_PROGRESS, None, changed=True))
    view.show()
    view.print_above("a line")
    view.close()
    told = capsys.readouterr().err
    assert "task_1  in progress" in told
    assert "42%" in told


def test_elsewhere_one_task_is_told_once(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainTask(out)
    view.on_event(TaskAccepted(0.0, "task_1", "b1", None))
    view.on_event(TaskPolled(0.0, "task_1", "b1", TaskStatus.IN_PROGRESS, 42, changed=True))
    view.show()
    view.close()
    assert capsys.readouterr().err == "accepted as task_1\n"
