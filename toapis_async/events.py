"""What happens inside, told as frozen records to `Settings(on_event=…)`.

Durations are seconds. No record holds a key, and none a prompt unless `Settings(events_with_prompts=True)`; but a path
holds its file's name, and with it whatever the file was named after (a prompt's first words, where one is used so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from toapis_async.task import TaskStatus


@frozen
class RequestDone:
    """One HTTP exchange ended. `status` is None when no answer came; `sent` counts how often it went out."""

    kind: str  #: submit, query, upload, balance, models
    status: int | None
    duration_s: float
    sent: int


@frozen
class TaskAccepted:
    """The service took a task."""

    task_id: str
    client_business_id: str | None
    model: str | None
    prompt: str | None = None


@frozen
class TaskChanged:
    """A look at a task showed something new."""

    task_id: str
    status: TaskStatus
    progress: int | None


@frozen
class TaskEnded:
    """Watching a task ended: with `status` the service's final state, or None and the `reason` otherwise."""

    task_id: str
    status: TaskStatus | None
    age_s: float
    looks: int
    reason: str | None = None


@frozen
class SubmitRetried:
    """A submission that was certainly not accepted will be tried again."""

    client_business_id: str
    reason: str
    wait_s: float


@frozen
class SubmitInDoubt:
    """A submission may have been accepted, its answer was lost: it is being looked up."""

    client_business_id: str
    reason: str


@frozen
class SubmitAgain:
    """A submission in doubt was not to be found through the whole window: it is sent again, under the same id."""

    client_business_id: str
    times: int  #: how often so far, from 1


@frozen
class SubmitLost:
    """Nobody knows whether a submission was accepted, and nothing more is done about it."""

    client_business_id: str
    reason: str


@frozen
class Throttled:
    """The service said 429 or a pause; requests of this category wait."""

    category: str  #: submit or query
    pause_s: float


@frozen
class FileSaved:
    """An image is whole and on disk."""

    task_id: str
    path: str
    size_bytes: int
    attempts: int


Event: TypeAlias = (
    RequestDone
    | TaskAccepted
    | TaskChanged
    | TaskEnded
    | SubmitRetried
    | SubmitInDoubt
    | SubmitAgain
    | SubmitLost
    | Throttled
    | FileSaved
)
