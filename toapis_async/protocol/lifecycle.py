"""The life of a task: which words mean what, and which steps are legal."""

from __future__ import annotations

from types import MappingProxyType

from toapis_async.task import TaskStatus

WORDS = MappingProxyType(
    {
        "queued": TaskStatus.QUEUED,
        "submitted": TaskStatus.QUEUED,
        "pending": TaskStatus.QUEUED,
        "in_progress": TaskStatus.IN_PROGRESS,
        "processing": TaskStatus.IN_PROGRESS,
        "completed": TaskStatus.COMPLETED,
        "failed": TaskStatus.FAILED,
        "success": TaskStatus.COMPLETED,
        "failure": TaskStatus.FAILED,
    }
)
"""Every status word that was documented or seen; the last two are those of webhook events."""

_NEXT = MappingProxyType(
    {
        None: frozenset(TaskStatus),
        TaskStatus.QUEUED: frozenset(TaskStatus),
        TaskStatus.IN_PROGRESS: frozenset(TaskStatus) - {TaskStatus.QUEUED},
        TaskStatus.COMPLETED: frozenset[TaskStatus](),
        TaskStatus.FAILED: frozenset[TaskStatus](),
    }
)


def status_of(word: str) -> TaskStatus:
    """The status a service's word stands for; a word nobody knows is a task still at work, never an error."""
    return WORDS.get(word.strip().lower(), TaskStatus.IN_PROGRESS)


def may_become(now: TaskStatus | None, then: TaskStatus) -> bool:
    """Whether a task seen as `now` (None: never seen) may be shown as `then`.

    A final state never changes again, and a task at work does not go back to the queue: such an answer is older
    than what we know (a replica that lags), and is passed over.
    """
    return then in _NEXT[now]
