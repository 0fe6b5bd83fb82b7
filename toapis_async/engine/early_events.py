"""Ends that were told before their task was watched, and ids by which a repetition or a late event is known."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from toapis_async.errors import UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from toapis_async.protocol.end_message import EndMessage
    from toapis_async.protocol.endpoints import Kind
    from toapis_async.task import TaskSnapshot

MOST_REMEMBERED: Final = 10_000
"""Ids of handled events, of ended tasks and of submissions under way that are kept, each; the oldest go first."""
MOST_KEPT: Final = 1_000
"""Events kept for submissions that are not answered yet."""
MOST_KEPT_BYTES: Final = 65_536
"""Another process's answer that is longer (there are images in it) is not kept."""
KEPT_S: Final = 600.0
"""How long an event, or a submission whose answer was lost, is kept: ten times the longest wait for an answer by
default."""

V = TypeVar("V")


class EarlyEvents:
    """Bounded in number and age."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handled: dict[str, None] = {}  # event ids; this and the next are in order of their coming
        self._ended: dict[str, None] = {}  # task ids
        self._unanswered: dict[str, float] = {}  # client_business_id -> when its POST began
        self._kept: dict[str, tuple[float, EndMessage]] = {}  # by task id and by client_business_id

    def was_handled(self, event_id: str) -> bool:
        return event_id in self._handled

    def handled(self, event_id: str) -> None:
        _remember(self._handled, event_id, None, MOST_REMEMBERED)

    def ended(self, task_id: str) -> None:
        """A task ended with an outcome: its event is no news any more, should it still come."""
        _remember(self._ended, task_id, None, MOST_REMEMBERED)

    def have_ended(self, names: Iterable[str]) -> bool:
        return not self._ended.keys().isdisjoint(names)

    def expect(self, client_business_id: str) -> None:
        """A POST begins whose task may end before its answer is here."""
        _remember(self._unanswered, client_business_id, self._loop.time(), MOST_REMEMBERED)

    def answered(self, client_business_id: str) -> None:
        """Whether it was accepted is known now. (While it is not, an event may still tell.)"""
        self._unanswered.pop(client_business_id, None)

    def keep(self, end: EndMessage) -> bool:
        """Keep an end while answers are awaited; whether it is about one of those submissions."""
        now_s = self._loop.time()
        _drop(self._unanswered, lambda since_s: since_s < now_s - KEPT_S)
        _drop(self._kept, lambda kept: kept[0] < now_s - KEPT_S)
        if self._unanswered and len(end.answer or b"") <= MOST_KEPT_BYTES:
            for name in end.names:
                _remember(self._kept, name, (now_s, end), 2 * MOST_KEPT)
        return end.client_business_id in self._unanswered

    def of_submission(self, client_business_id: str, kind: Kind) -> TaskSnapshot | None:
        """The task of an early event with this client_business_id."""
        _, end = self._kept.get(client_business_id, (0.0, None))
        if end is None or end.kind not in {None, kind}:
            return None
        try:
            return end.snapshot()
        except UnreadableAnswer:  # told by another process: a poll will show it
            return None

    def of_task(self, task_id: str, kind: Kind) -> TaskSnapshot | None:
        """The event of a task whose watch begins, which then forgets it. Only by the task's own id: another task of
        the same client_business_id must not lend it its images."""
        snapshot = self.of_submission(task_id, kind)
        if snapshot is not None:
            del self._kept[task_id]
        return snapshot


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
