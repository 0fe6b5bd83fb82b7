"""The room for a status query of many ids: one turn of the gate, one request, many tasks."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from toapis_async import Settings, TaskNotFound
from toapis_async.engine.agenda import Agenda
from toapis_async.engine.emitter import Emitter
from toapis_async.engine.pacer import RateGate
from toapis_async.engine.poller import Poller
from toapis_async.engine.tasks import Tasks
from toapis_async.protocol.endpoints import IMAGES
from toapis_async.protocol.pacing import TokenBucket
from toapis_async.protocol.polling.schedule import Schedule

from .kit import answer, task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from toapis_async.engine.entry import Entry
    from toapis_async.errors import ToAPIsError
    from toapis_async.protocol.lenient import Answer


class ManyAtOnce:
    """A service that answers for 100 ids at once; `lost` it does not know."""

    ids_per_request = 100

    def __init__(self) -> None:
        self.gate = RateGate(TokenBucket(10, 1, asyncio.get_running_loop().time(), most_unanswered=10))
        self.queried: list[list[str]] = []

    async def query_all(self, entries: Sequence[Entry]) -> Sequence[Answer | ToAPIsError]:
        self.queried.append([entry.query_id for entry in entries])
        self.gate.answered(latency_s=0.1)
        return [
            TaskNotFound("no", status=404)
            if entry.query_id == "lost"
            else answer(200, task(entry.query_id, "completed"))
            for entry in entries
        ]


@pytest.mark.looptime
async def test_tasks_due_together_are_asked_for_together_and_each_hears_its_own() -> None:
    settings = Settings(vanish_grace_s=0)
    port, emit = ManyAtOnce(), Emitter(())
    agenda = Agenda({"image": Schedule(first_s=5, interval_s=5, jitter=0, rng=random.Random(1))})
    tasks = Tasks(agenda, settings, emit)
    poller = Poller(port=port, agenda=agenda, tasks=tasks, settings=settings, emit=emit)
    names = [f"task_{number}" for number in range(149)] + ["lost"]
    entries = [tasks.watch(IMAGES, name, start="new") for name in names]
    polling = asyncio.create_task(poller.run())
    await asyncio.gather(*(entry.waiter_for_end() for entry in entries))
    polling.cancel()
    await asyncio.wait([polling])

    assert sorted(map(len, port.queried)) == [50, 100]
    assert sorted(name for names in port.queried for name in names) == sorted(names)
    assert [entry.task_id for entry in entries if entry.error is not None] == ["lost"]
    assert all(entry.status == "completed" for entry in entries[:-1])


class OneAfterTheOther(ManyAtOnce):
    """Asks for one at a time; while a poll is under way, the next task becomes due."""

    ids_per_request = 1

    def __init__(self, then: list[str]) -> None:
        super().__init__()
        self.then = then
        self.workers: set[asyncio.Task[None] | None] = set()
        self.watch: Callable[[str], object] = lambda _: None

    async def query_all(self, entries: Sequence[Entry]) -> Sequence[Answer | ToAPIsError]:
        self.workers.add(asyncio.current_task())
        if self.then:
            self.watch(self.then.pop(0))
        return await super().query_all(entries)


@pytest.mark.looptime
async def test_a_worker_goes_on_with_what_became_due_during_its_poll() -> None:
    settings, emit = Settings(), Emitter(())
    port = OneAfterTheOther(["b", "c", "d"])
    agenda = Agenda({"image": Schedule(first_s=5, interval_s=5, jitter=0, rng=random.Random(1))})
    tasks = Tasks(agenda, settings, emit)
    port.watch = lambda name: tasks.watch(IMAGES, name, start="unknown")
    polling = asyncio.create_task(Poller(port=port, agenda=agenda, tasks=tasks, settings=settings, emit=emit).run())
    await tasks.watch(IMAGES, "a", start="new").waiter_for_end()
    await asyncio.sleep(1)
    polling.cancel()
    await asyncio.wait([polling])

    assert port.queried == [["a"], ["b"], ["c"], ["d"]]
    assert len(port.workers) == 1
    assert len(tasks) == 0
