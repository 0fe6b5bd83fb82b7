"""The ledger: what was really accepted and charged, for tests to hold against what a client believes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from toapis_async.sandbox.jobs import TaskKind
    from toapis_async.sandbox.service import Service
    from toapis_async.sandbox.tasks import Status, Task


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One accepted submission at the instant of reading. Credits as numbers, times in Unix seconds."""

    task_id: str
    kind: TaskKind
    client_business_id: str | None
    user: str
    model: str
    prompt: str
    n: int
    request: Mapping[str, object]
    """The JSON body as it was sent."""
    references: tuple[str, ...]
    """The reference URLs that the model read. A field that its page does not list is not read."""
    credits: float
    """Charged at acceptance."""
    refunded: float
    """Given back when the bill was settled: all of it if the task failed, else what was charged too much."""
    accepted_at: float
    status: Status
    finished_at: float | None

    @property
    def paid(self) -> float:
        """Charged and not given back."""
        return self.credits - self.refunded


class Ledger:
    """A live view of the books; every reading is of now. Iterates over the entries in order of acceptance."""

    def __init__(self, service: Service, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """Every accepted submission, in order of acceptance."""
        return tuple(self)

    def __iter__(self) -> Iterator[LedgerEntry]:
        now = self._settled_now()
        return (_entry(task, now) for task in tuple(self._service.tasks.values()))

    def __len__(self) -> int:
        return len(self._service.tasks)

    def by_task(self, task_id: str) -> LedgerEntry | None:
        """The entry of a task, or `None` if it was never accepted."""
        task = self._service.tasks.get(task_id)
        return None if task is None else _entry(task, self._settled_now())

    def by_client_business_id(self, client_business_id: str) -> tuple[LedgerEntry, ...]:
        """Every submission accepted under this id, in order: two entries are two charges."""
        now = self._settled_now()
        return tuple(_entry(task, now) for task in self._service.with_business_id(client_business_id))

    @property
    def credits_charged(self) -> float:
        """Credits charged at acceptance, all in all."""
        return round(sum(entry.credits for entry in self), 4)

    @property
    def credits_refunded(self) -> float:
        """Credits given back, for failed tasks above all."""
        return round(sum(entry.refunded for entry in self), 4)

    @property
    def credits_paid(self) -> float:
        """Charged and not given back."""
        return round(sum(entry.paid for entry in self), 4)

    def paid_twice(self) -> tuple[str, ...]:
        """The `client_business_id`s that one user was charged for more than once, for images or for videos; refunds set
        aside."""
        self._settled_now()
        return tuple(given for given in self._service.business_ids() if self._payments(given) > 1)

    def __repr__(self) -> str:
        return f"<Ledger: {len(self)} accepted, {self.credits_paid:g} credits paid>"

    def _payments(self, client_business_id: str) -> int:
        tasks = self._service.with_business_id(client_business_id)
        return max(Counter((task.user, task.kind) for task in tasks if not task.refunded).values(), default=0)

    def _settled_now(self) -> float:
        now = self._clock()
        self._service.settle(now)
        return now


def _entry(task: Task, now: float) -> LedgerEntry:
    state = task.state(now)
    return LedgerEntry(
        task_id=task.task_id,
        kind=task.kind,
        client_business_id=task.job.client_business_id,
        user=task.user,
        model=task.job.model,
        prompt=task.job.prompt,
        n=task.job.n,
        request=task.job.body,
        references=task.job.references,
        credits=task.credits,
        refunded=round(task.credits - task.final_credits, 4) if task.settled else 0.0,
        accepted_at=task.accepted_at,
        status=state.status,
        finished_at=state.finished_at,
    )
