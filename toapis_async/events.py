"""What happens inside, as frozen records for `Settings(on_event=…)`.

`at_s` is the event loop's monotonic time in seconds; other durations are seconds, too. Every record about a task bears
both its ids, as far as they are known. No record holds a key, and none a prompt unless
`Settings(events_with_prompts=True)`; but a path holds its file's name, and with it whatever the file was named after (a
prompt's first words, where one is used so).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from toapis_async.task import TaskStatus, Usage


@frozen
class RequestDone:
    """One HTTP exchange ended. `status` is None when no answer came; `sent` counts how often it went out."""

    at_s: float
    kind: str  #: submit, query, upload, balance, models, prices
    status: int | None
    duration_s: float
    sent: int


@frozen
class SubmitQueued:
    """A submission waits for its turn. It has no task id yet."""

    at_s: float
    client_business_id: str
    model: str | None
    prompt: str | None = None
    task_id: None = None
    kind: str = "image"  #: or "video"
    images: int = 1  #: how many it asks for


@frozen
class SubmitSent:
    """A submission's POST begins."""

    at_s: float
    client_business_id: str
    attempt: int  #: which POST of this submission it is, from 1
    task_id: None = None


@frozen
class SubmitRetried:
    """A submission that was certainly not accepted will be tried again."""

    at_s: float
    client_business_id: str
    reason: str
    wait_s: float
    task_id: None = None


@frozen
class SubmitInDoubt:
    """A submission may have been accepted, its answer was lost: it is being looked up."""

    at_s: float
    client_business_id: str
    reason: str
    task_id: None = None


@frozen
class SubmitAgain:
    """A submission in doubt was not to be found through the whole window: it is sent again, under the same id."""

    at_s: float
    client_business_id: str
    times: int  #: how often so far, from 1
    task_id: None = None


@frozen
class SubmitLost:
    """Nobody knows whether a submission was accepted, and nothing more is done about it."""

    at_s: float
    client_business_id: str
    reason: str
    task_id: None = None


@frozen
class SubmitFailed:
    """A submission ended without a task: it was refused, or was not sent at all."""

    at_s: float
    client_business_id: str
    reason: str  #: the error's class, `CancelledError` when its caller left before it was sent
    code: str | None = None  #: the service's own, of a refusal
    task_id: None = None


@frozen
class TaskAccepted:
    """The service took a task."""

    at_s: float
    task_id: str
    client_business_id: str | None
    model: str | None
    prompt: str | None = None


@frozen
class TaskWatched:
    """Watching a task begins: of one that was just accepted, or that was submitted elsewhere or earlier (`attach`,
    `find`, `recovered`, a run that is taken up). Told once, however many wait for the task."""

    at_s: float
    task_id: str
    client_business_id: str | None
    kind: str  #: image or video


@frozen
class TaskPolled:
    """A poll of a task, or an event of the service, was answered. `changed`: with another status or progress."""

    at_s: float
    task_id: str
    client_business_id: str | None
    status: TaskStatus
    progress: int | None
    changed: bool


@frozen
class UnknownStatus:
    """A task has a status that nobody knows; it is taken for unfinished. Told once for each word."""

    at_s: float
    task_id: str
    client_business_id: str | None
    raw_status: str


@frozen
class TaskEnded:
    """Watching a task ended: with `status` the service's final state, or None and the `reason` otherwise."""

    at_s: float
    task_id: str
    client_business_id: str | None
    status: TaskStatus | None
    age_s: float
    polls: int
    reason: str | None = None
    code: str | None = None  #: why the service says the task failed
    created_at: datetime | None = None  #: by the service's clock, as is the next
    completed_at: datetime | None = None
    usage: Usage | None = None


@frozen
class Throttled:
    """The service said 429 or a pause; requests of this category wait."""

    at_s: float
    category: str  #: submit or query
    pause_s: float


@frozen
class FileSaved:
    """An image or a video is whole and on disk."""

    at_s: float
    task_id: str
    client_business_id: str | None
    path: str
    size_bytes: int
    attempts: int
    duration_s: float = 0.0  #: all attempts, and the waits between them


@frozen
class FileFailed:
    """An image or a video can't be had: its caller gets `DownloadFailed` or `LinkExpired`."""

    at_s: float
    task_id: str
    client_business_id: str | None
    reason: str  #: the error's class
    attempts: int
    duration_s: float


@frozen
class CreditsShort:
    """The credits that are left will probably not cover the rows of a batch that are left, by the prices known and as
    if rows that were not read yet cost what the others do. Told at most once a batch for the budget and for the key."""

    at_s: float
    of: str  #: whose credits: "budget" or "key"
    needed_credits: Decimal
    left_credits: Decimal
    rows_left: int


@frozen
class JournalTakenOver:
    """Processes that shared the journal are gone, and their unfinished or unsaved submissions are this client's:
    `client.recovered()` lists them, too."""

    at_s: float
    submissions: int  #: how many


@frozen
class SharingLost:
    """What the processes of this account share their limits through can't be used now (`ToAPIs(shared=…)`). This one
    goes on with its last share of them, and tries again every second."""

    at_s: float
    reason: str
    share: float  #: of the limits, 0 to 1


@frozen
class SharingBack:
    """The limits are shared again, after `alone_s` seconds."""

    at_s: float
    alone_s: float


Event: TypeAlias = (
    RequestDone
    | SubmitQueued
    | SubmitSent
    | SubmitRetried
    | SubmitInDoubt
    | SubmitAgain
    | SubmitLost
    | SubmitFailed
    | TaskAccepted
    | TaskWatched
    | TaskPolled
    | UnknownStatus
    | TaskEnded
    | Throttled
    | FileSaved
    | FileFailed
    | CreditsShort
    | JournalTakenOver
    | SharingLost
    | SharingBack
)
