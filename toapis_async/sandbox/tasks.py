"""A task as the service holds it, and its state at an instant. Pure: `now` comes in as an argument.

A task's whole future is decided when it is accepted (when it starts, when it ends, and how); its state is
then a function of time, so a thousand tasks cost nothing between queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from toapis_async.sandbox.faults import Fault
    from toapis_async.sandbox.jobs import Job, TaskKind

Status = Literal["queued", "in_progress", "completed", "failed"]

_QUEUED_SHARE = 0.1
_QUEUED_AT_MOST_S = 2.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task fails."""

    code: str = "generation_failed"
    message: str = "call upstream API failed: upstream returned status 422"


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task at one instant; `finished_at` in Unix seconds once the status is final."""

    status: Status
    progress: int
    finished_at: float | None

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.finished_at is not None


@dataclass(slots=True)
class Task:
    """An accepted submission. Times are Unix seconds by the sandbox's clock; it may finish at infinity."""

    task_id: str
    user: str
    key_id: str
    job: Job
    accepted_at: float
    starts_at: float
    finishes_at: float
    visible_at: float
    files_live_s: float
    credits: float
    """Charged at acceptance."""
    settle_after_s: float = 0.0
    """How long after its end the bill stays pending; infinite: for good."""
    failure: Failure | None = None
    settled: bool = False
    """The bill is settled, or refunded if it failed."""
    traits: frozenset[Fault] = frozenset()
    vanished: Fault | None = None

    def state(self, now: float) -> TaskState:
        """Its state at `now`."""
        if now >= self.finishes_at:
            if self.failure is None:
                return TaskState("completed", 100, self.finishes_at)
            return TaskState("failed", 0, self.finishes_at)
        if now < self.starts_at:
            return TaskState("queued", 0, None)
        return TaskState("in_progress", self._progress(now), None)

    @property
    def subjects(self) -> tuple[str, ...]:
        """What scripted faults can name it by, and chance draws it by: the work first, since ids differ from run to
        run and chance should not."""
        given = self.job.client_business_id
        return (self.job.digest, self.task_id, *(() if given is None else (given,)))

    @property
    def kind(self) -> TaskKind:
        """Image or video."""
        return self.job.kind

    @property
    def refunded(self) -> bool:
        """Whether it failed and its credits were given back."""
        return self.settled and self.failure is not None

    @property
    def settles_at(self) -> float:
        """When its bill is settled or refunded; infinite: never."""
        return self.finishes_at + self.settle_after_s

    @property
    def final_credits(self) -> float:
        """What the settled bill says: nothing for a failed task."""
        return 0.0 if self.failure is not None else self.job.charge.settled

    @property
    def notified_at(self) -> float:
        """When its event is sent: at its end, but after the refund if it fails and there is one."""
        waits = self.failure is not None and not math.isinf(self.settle_after_s)
        return self.settles_at if waits else self.finishes_at

    @property
    def expires_at(self) -> float:
        """When its files go."""
        return self.finishes_at + self.files_live_s

    def end(self, now: float, failure: Failure | None) -> None:
        """Bring its end to `now`, whatever was appointed."""
        self.starts_at = min(self.starts_at, now)
        self.finishes_at = now
        self.failure = failure

    def _progress(self, now: float) -> int:
        ran_s = now - self.starts_at
        if math.isinf(self.finishes_at):
            # A task that waits to be driven by hand still grows, ever more slowly.
            return max(1, math.floor(99 * ran_s / (ran_s + 30)))
        return max(1, math.floor(99 * ran_s / (self.finishes_at - self.starts_at)))


def queued_s(service_s: float) -> float:
    """How much of a service time is spent in the queue."""
    return min(_QUEUED_SHARE * service_s, _QUEUED_AT_MOST_S)
