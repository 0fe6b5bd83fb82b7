"""Webhook events that came before their task was watched, and ids by which a repetition or a late event is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from toapis_async.protocol.endpoints import Kind
    from toapis_async.task import TaskSnapshot

MOST_REMEMBERED: Final = 10_000
"""Ids of handled events, of ended tasks and of submissions under way that are kept, each; the oldest go first."""
MOST_KEPT: Final = 1_000
"""Events kept for submissions that are not answered yet."""
KEPT_S: Final = 600.0
"""How long an event, or a submission whose answer was lost, is kept: ten times the longest wait for an answer by
default."""

V = TypeVar("V")


class EarlyEvents:
    """Bounded in number and age."""

    def __init__(self) -> None:
        self._handled: dict[str, None] = {}  # event ids; this and the next are in order of their coming
        self._ended: dict[str, None] = {}  # task ids
        self._unanswered: dict[str, float] = {}  # client_business_id -> when its POST began
        self._kept: dict[str, tuple[float, Kind | None, TaskSnapshot]] = {}  # by task id and by client_business_id

    def was_handled(self, event_id: str) -> bool:
        return event_id in self._handled

    def handled(self, event_id: str) -> None:
        _remember(self._handled, event_id, None, MOST_REMEMBERED)

    def ended(self, task_id: str) -> None:
        """A task ended with an outcome: its event is no news any more, should it still come."""
        _remember(self._ended, task_id, None, MOST_REMEMBERED)

    def have_ended(self, names: Iterable[str]) -> bool:
        return not self._ended.keys().isdisjoint(names)

    def expect(self, client_business_id: str, now_s: float) -> None:
        _remember(self._unanswered, client_business_id, now_s, MOST_REMEMBERED)

    def answered(self, client_business_id: str) -> None:
        self._unanswered.pop(client_business_id, None)

    def keep(self, snapshot: TaskSnapshot, kind: Kind | None, names: Iterable[str], now_s: float) -> bool:
        """Keep an event while answers are awaited; whether it is about one of those submissions. `kind` is the task's,
        where the event tells it."""
        _drop(self._unanswered, lambda since_s: since_s < now_s - KEPT_S)
        _drop(self._kept, lambda kept: kept[0] < now_s - KEPT_S)
        if self._unanswered:
            for name in names:
                _remember(self._kept, name, (now_s, kind, snapshot), 2 * MOST_KEPT)
        return snapshot.client_business_id in self._unanswered

    def of_submission(self, client_business_id: str, kind: Kind) -> TaskSnapshot | None:
        _, told_kind, snapshot = self._kept.get(client_business_id, (0.0, None, None))
        return snapshot if told_kind in {None, kind} else None

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
