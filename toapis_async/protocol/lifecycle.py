"""The life of a task: which words mean what, and which steps are legal.

Other gateways of the same family end their tasks with words of their own [field]. Such a word alone ends nothing: the
body must bear it out (files for a success; an error and no files for a failure), which `claimed_status` of a snapshot
says, and a second poll must say the same. The poller then decodes the answer with `believe=True`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from toapis_async.errors import TaskFailed
from toapis_async.task import TaskError, TaskStatus

if TYPE_CHECKING:
    from toapis_async.task import TaskSnapshot

WORDS = MappingProxyType(
    {
        "queued": TaskStatus.QUEUED,
        "submitted": TaskStatus.QUEUED,
        "pending": TaskStatus.QUEUED,
        "in_progress": TaskStatus.IN_PROGRESS,
        "processing": TaskStatus.IN_PROGRESS,
        "completed": TaskStatus.COMPLETED,
        "failed": TaskStatus.FAILED,
        "": TaskStatus.QUEUED,
    }
)
"""Every status word of the service that was documented or seen; videos are submitted with an empty one [field]."""

CLAIMS = MappingProxyType(
    {
        **dict.fromkeys(("success", "succeeded", "finished", "done"), TaskStatus.COMPLETED),
        **dict.fromkeys(
            ("failure", "error", "cancelled", "canceled", "expired", "rejected"),
            TaskStatus.FAILED,
        ),
    }
)
"""Words of other gateways for the end; the first of each are also those of webhook events, which are signed."""

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


def claim_of(word: str) -> TaskStatus | None:
    """The end that another gateway's word stands for; None for any other word."""
    return CLAIMS.get(word.strip().lower())


def is_confirmed(before: TaskStatus | None, now: TaskSnapshot) -> bool:
    """Whether a claimed end is to be believed: the poll before, an interval ago, claimed the same."""
    return now.claimed_status is not None and before is now.claimed_status


def is_unknown(word: str) -> bool:
    """Whether nobody knows what a status word means."""
    known = word.strip().lower()
    return known not in WORDS and known not in CLAIMS


def may_become(now: TaskStatus | None, then: TaskStatus) -> bool:
    """Whether a task seen as `now` (None: never seen) may be shown as `then`.

    A final state never changes again, and a task at work does not go back to the queue: such an answer is older
    than what we know (a replica that lags), and is passed over.
    """
    return then in _NEXT[now]


def failure_of(snapshot: TaskSnapshot) -> TaskFailed | None:
    """The error of a failed task; None for any other."""
    if snapshot.status is not TaskStatus.FAILED:
        return None
    error = snapshot.error or TaskError("", "the service gave no reason")
    return TaskFailed(
        error.message,
        task_id=snapshot.task_id,
        client_business_id=snapshot.client_business_id,
        code=error.code,
        billing=snapshot.billing,
    )
