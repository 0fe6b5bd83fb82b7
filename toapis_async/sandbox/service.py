"""The service itself, without HTTP: who may submit, what it costs, what became of it. Pure but for its own
memory.

Time comes in as an argument, nothing here waits, and a failed task's refund is computed from the
time: the books are the same whatever was queried in between.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

from toapis_async.sandbox.catalogue import FILES_LIVE_S
from toapis_async.sandbox.faults import FAILURES, VANISHINGS, Fault, uniform
from toapis_async.sandbox.jobs import FAIL_MARKER, Job, RefusedError, TaskKind
from toapis_async.sandbox.tasks import Failure, Task, queued_s

DuplicateIds = Literal["run_again", "refuse", "replay"]
"""What a submission under a used `client_business_id` gets: a second task, a refusal (400), or the first answer."""
ServiceTime = float | Callable[[Job], float] | None

_SPREAD = 0.35
"""Sigma of the lognormal: a tenth of the tasks takes less than 0.64 of the median, a tenth over 1.57."""
_ULID_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How this service behaves; every time is in seconds at speed 1 and divided by the speed."""

    seed: int = 0
    speed: float = 1.0
    credits: float | None = 100_000.0
    service_time_s: ServiceTime = None
    visible_after_s: float = 0.0
    duplicate_ids: DuplicateIds = "run_again"
    settle_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: the user, and a fingerprint of the key (never the key: this is kept on disk)."""

    user: str
    key_id: str


@dataclass(frozen=True, slots=True)
class BalanceSheet:
    """Credits left (`None`: unlimited) and used, of a user or of one key."""

    remain: float | None
    used: float


class Service:
    """Tasks, how they are found, and the books."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget all tasks, and with them the books."""
        self.tasks: dict[str, Task] = {}
        self._by_business_id: dict[str, list[Task]] = {}
        self._used_by_user: dict[str, float] = {}
        self._used_by_key: dict[str, float] = {}
        self._occurrences: Counter[str] = Counter()
        self._settling: list[tuple[float, str]] = []

    def accept(self, job: Job, caller: Caller, now: float, traits: frozenset[Fault] = frozenset()) -> tuple[Task, bool]:
        """Record and charge a submission: the task, and whether it is new. Raises `RefusedError`."""
        replayed = self._duplicate(job, caller)
        if replayed is not None:
            return replayed, False
        remain = self.balance_of_user(caller.user, now).remain
        if remain is not None and job.charge.credits > remain + 1e-9:
            raise RefusedError(
                402, "insufficient_quota", f"balance too low: {remain:g} of {job.charge.credits:g} credits"
            )
        task = self._new_task(job, caller, now, traits)
        self.remember(task)
        return task, True

    def remember(self, task: Task) -> None:
        """Take a task into the books, a new one or one of an earlier run."""
        self.tasks[task.task_id] = task
        if task.job.client_business_id is not None:
            self._by_business_id.setdefault(task.job.client_business_id, []).append(task)
        self._occurrences[task.job.digest] += 1
        self._charge(task, task.final_credits if task.settled else task.credits)
        self._expect_settlement(task)

    def find(self, user: str, wanted: str, now: float, kind: TaskKind) -> Task | None:
        """A user's task of a kind by its id or, once visible, by its `client_business_id` (the latest of several)."""
        task = self.tasks.get(wanted)
        if task is not None and task.user == user and task.kind == kind:
            return task
        earlier = (task for task in reversed(self._submitted_as(user, wanted)) if task.kind == kind)
        return next((task for task in earlier if now >= task.visible_at), None)

    def with_business_id(self, client_business_id: str) -> tuple[Task, ...]:
        """All tasks of all users accepted under this id, in order of acceptance."""
        return tuple(self._by_business_id.get(client_business_id, ()))

    def business_ids(self) -> tuple[str, ...]:
        """Every `client_business_id` that was accepted."""
        return tuple(self._by_business_id)

    def end(self, task: Task, now: float, failure: Failure | None) -> None:
        """End a task now, as completed or as failed."""
        state = task.state(now)
        if state.final:
            raise ValueError(f"{task.task_id} has already {state.status}")
        task.end(now, failure)
        self._expect_settlement(task)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Settle the bills that are due: refund what has failed, and give back what was charged too much."""
        while self._settling and self._settling[0][0] <= now:
            task = self.tasks[heapq.heappop(self._settling)[1]]
            # A task that was ended by hand has a second time in the heap.
            if not task.settled and task.settles_at <= now:
                task.settled = True
                self._charge(task, task.final_credits - task.credits)

    def balance_of_user(self, user: str, now: float) -> BalanceSheet:
        """The account: what all its keys used."""
        self.settle(now)
        return self._sheet(user, self._used_by_user.get(user, 0.0))

    def balance_of_key(self, caller: Caller, now: float) -> BalanceSheet:
        """One key: what it used itself; what is left is the account's, as keys have no quota here."""
        self.settle(now)
        return self._sheet(caller.user, self._used_by_key.get(caller.key_id, 0.0))

    def _sheet(self, user: str, used: float) -> BalanceSheet:
        if self.settings.credits is None:
            return BalanceSheet(None, used)
        return BalanceSheet(round(self.settings.credits - self._used_by_user.get(user, 0.0), 4), used)

    def _charge(self, task: Task, amount: float) -> None:
        for used, who in ((self._used_by_user, task.user), (self._used_by_key, task.key_id)):
            used[who] = round(used.get(who, 0.0) + amount, 4)

    def _expect_settlement(self, task: Task) -> None:
        if not task.settled and not math.isinf(task.settles_at):
            heapq.heappush(self._settling, (task.settles_at, task.task_id))

    def _submitted_as(self, user: str, client_business_id: str) -> list[Task]:
        return [task for task in self._by_business_id.get(client_business_id, ()) if task.user == user]

    def _duplicate(self, job: Job, caller: Caller) -> Task | None:
        if job.client_business_id is None or self.settings.duplicate_ids == "run_again":
            return None
        earlier = [task for task in self._submitted_as(caller.user, job.client_business_id) if task.kind == job.kind]
        if not earlier:
            return None
        if self.settings.duplicate_ids == "replay":
            return earlier[-1]
        raise RefusedError(400, "invalid_request", "client_business_id was used before", param="client_business_id")

    def _new_task(self, job: Job, caller: Caller, now: float, traits: frozenset[Fault]) -> Task:
        settings = self.settings
        service_s = self._service_s(job) / settings.speed
        fails = FAIL_MARKER in job.prompt or bool(traits & FAILURES)
        return Task(
            task_id=self._task_id(job, caller, now),
            user=caller.user,
            key_id=caller.key_id,
            job=job,
            accepted_at=now,
            starts_at=now + queued_s(service_s * settings.speed) / settings.speed,
            finishes_at=now + service_s,
            visible_at=now + settings.visible_after_s / settings.speed,
            files_live_s=0.0 if Fault.FILES_EXPIRE in traits else FILES_LIVE_S / settings.speed,
            credits=job.charge.credits,
            settle_after_s=math.inf if Fault.BILL_PENDING in traits else settings.settle_after_s / settings.speed,
            failure=Failure() if fails else None,
            traits=traits,
            vanished=next(iter(traits & VANISHINGS), None),
        )

    def _service_s(self, job: Job) -> float:
        given = self.settings.service_time_s
        if given is None:
            return self._modelled_s(job)
        return given(job) if callable(given) else given

    def _modelled_s(self, job: Job) -> float:
        # From the work and its occurrence, not from a running generator: the order of arrival must not
        # matter.
        chance = uniform(self.settings.seed, "service time", job.digest, self._occurrences[job.digest])
        return job.median_s * math.exp(_SPREAD * NormalDist().inv_cdf(chance))

    def _task_id(self, job: Job, caller: Caller, now: float) -> str:
        occurrence = self._occurrences[job.digest]
        parts = (self.settings.seed, caller.user, job.digest, occurrence, job.client_business_id, now)
        randomness = int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=10).digest())
        number = (int(now * 1000) % 2**48) << 80 | randomness
        prefix = {"image": "task_img_", "video": "task_vid_"}[job.kind]
        return prefix + "".join(_ULID_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))
