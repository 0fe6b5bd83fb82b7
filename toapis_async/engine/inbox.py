"""Events that were pushed to us, matched with the tasks they are about.

An event and a look race: both report to the registry, and the first outcome wins. Everything here happens in one step
of the loop, so an event is handled whole or not at all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from toapis_async.models import WebhookOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.engine.registry import Entry, Registry
    from toapis_async.protocol.polling.schedule import Schedule
    from toapis_async.protocol.webhook import WebhookEvent
    from toapis_async.task import TaskSnapshot

MOST_REMEMBERED: Final = 10_000
"""Ids of handled events, of ended tasks and of submissions under way that are kept, each; the oldest go first."""
MOST_KEPT: Final = 1_000
"""Events kept for submissions that are not answered yet."""
KEPT_S: Final = 600.0
"""How long an event, or a submission whose answer was lost, is kept: ten times the longest wait for an answer by
default."""

V = TypeVar("V")


class Inbox:
    """Events by what they are about: a task that is watched, one that was, one that is being submitted, or a stranger.

    An event's id is remembered only once it was handled, so that one whose delivery failed may come again; that of
    a stranger's event never is, so that the application can pass on a repetition as it did the first.
    """

    def __init__(self, registry: Registry, schedule: Schedule[Entry]) -> None:
        self._registry = registry
        self._schedule = schedule
        self._loop = asyncio.get_running_loop()
        self._handled: dict[str, None] = {}  # event ids; this and the next are in order of their coming
        self._ended: dict[str, None] = {}  # task ids
        self._unanswered: dict[str, float] = {}  # client_business_id -> when its POST began
        self._kept: dict[str, tuple[float, TaskSnapshot]] = {}  # by task id and by client_business_id

    def receive(self, event: WebhookEvent) -> WebhookOutcome:
        """Do what an event asks for."""
        snapshot = event.snapshot
        if event.is_test:
            return WebhookOutcome.TEST_EVENT
        if event.event_id in self._handled:
            return WebhookOutcome.DUPLICATE
        if snapshot is None:
            return WebhookOutcome.IGNORED
        outcome = self._match(snapshot)
        if outcome is not WebhookOutcome.UNKNOWN_TASK:
            _remember(self._handled, event.event_id, None, MOST_REMEMBERED)
        return outcome

    def _match(self, snapshot: TaskSnapshot) -> WebhookOutcome:
        names = [name for name in (snapshot.task_id, snapshot.client_business_id) if name is not None]
        entry = next((found for name in names if (found := self._registry.get(name))), None)
        if entry is not None:
            self._registry.saw(entry, snapshot)
            self._schedule.finished(entry, self._loop.time(), by_event=True)
            return WebhookOutcome.RESOLVED
        if not self._ended.keys().isdisjoint(names):  # a look was quicker
            self._schedule.backstop.ended(by_event=True)
            return WebhookOutcome.DUPLICATE
        self._forget_old()
        if self._unanswered:
            for name in names:
                _remember(self._kept, name, (self._loop.time(), snapshot), 2 * MOST_KEPT)
        awaited = snapshot.client_business_id in self._unanswered
        return WebhookOutcome.EARLY if awaited else WebhookOutcome.UNKNOWN_TASK

    def expect(self, client_business_id: str) -> None:
        """A POST begins whose task may end before its answer is here."""
        _remember(self._unanswered, client_business_id, self._loop.time(), MOST_REMEMBERED)

    def answered(self, client_business_id: str) -> None:
        """Whether it was accepted is known now. (While it is not, an event may still tell.)"""
        self._unanswered.pop(client_business_id, None)

    def told_of(self, client_business_id: str) -> TaskSnapshot | None:
        """The task of an early event with this id."""
        kept = self._kept.get(client_business_id)
        return None if kept is None else kept[1]

    def claim(self, entry: Entry) -> None:
        """A watch begins: the task's event may be here already. Only under the name it is watched by: another task of
        the same client_business_id must not lend it its images."""
        kept = self._kept.pop(entry.task_id, None)
        if kept is not None and not entry.ended:
            self._registry.saw(entry, kept[1])
            self._schedule.backstop.ended(by_event=True)

    def ended(self, entry: Entry) -> None:
        """A watch ended. If with an outcome, the task's event is no news any more, should it still come."""
        if entry.status is not None and entry.status.is_final:
            _remember(self._ended, entry.task_id, None, MOST_REMEMBERED)

    def _forget_old(self) -> None:
        oldest_s = self._loop.time() - KEPT_S
        _drop(self._unanswered, lambda since_s: since_s < oldest_s)
        _drop(self._kept, lambda kept: kept[0] < oldest_s)


def _remember(memory: dict[str, V], name: str, value: V, most: int) -> None:
    """Keep it as the latest, and no more than `most`."""
    memory.pop(name, None)
    memory[name] = value
    if len(memory) > most:
        del memory[next(iter(memory))]


def _drop(memory: dict[str, V], is_old: Callable[[V], bool]) -> None:
    """Forget the oldest as long as they are too old."""
    while memory and is_old(memory[name := next(iter(memory))]):
        del memory[name]
