"""What can be made to happen in a test, by name: `@pytest.mark.toapis_sandbox(ANSWER_LOST)`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from toapis_async.sandbox.faults import Fault, Kind, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.sandbox import FaultPlan


@dataclass(frozen=True, slots=True)
class Scenario:
    """Steps that the sandbox's next requests go through, by kind of request, and options the sandbox is made with.

    >>> unlucky = Scenario({"query": (None, Fault.ERROR_500), "submit": (Fault.RATE_LIMITED.lasting(7),)})
    """

    script: Mapping[Kind, tuple[Step, ...]] = field(default_factory=dict[Kind, tuple[Step, ...]])
    options: Mapping[str, object] = field(default_factory=dict[str, object])

    def play(self, faults: FaultPlan) -> None:
        """Queue the steps."""
        for kind, steps in self.script.items():
            faults.script(kind, *steps)


SECOND_POLL_FAILS: Final = Scenario({"query": (None, Fault.ERROR_500)}, {"service_time_s": 60.0})
"""The first poll of a task finds it at work, the second is answered 500, a later one finds it completed."""
ANSWER_LOST: Final = Scenario({"submit": (Fault.LOST_ANSWER,)})
"""The first submission is accepted and charged, and its answer never comes: the client finds the task by its id."""
NOT_SENT: Final = Scenario({"submit": (Fault.DROPPED,)})
"""The first submission's connection is cut and nothing was accepted: it looks like `ANSWER_LOST` from outside."""
RATE_LIMITED: Final = Scenario({"submit": (Fault.RATE_LIMITED.lasting(7),)})
"""The first submission is answered 429 with `Retry-After: 7`."""
OUT_OF_CREDITS: Final = Scenario(options={"credits": 0.0})
"""Every submission is answered 402: `InsufficientQuota`."""
TASK_FAILS: Final = Scenario({"submit": (Fault.TASK_FAILS,)})
"""The first task fails and is refunded: `TaskFailed`."""
TASK_VANISHES: Final = Scenario({"query": (Fault.TASK_VANISHES,)})
"""The first task that is polled is unknown to the service from then on: `TaskNotFound`, after a while."""
EXPIRES_BEFORE_DOWNLOAD: Final = Scenario({"submit": (Fault.FILES_EXPIRE,)})
"""The first task completes, and its files are gone before they can be fetched: `LinkExpired`."""
NEVER_ENDS: Final = Scenario(options={"service_time_s": float("inf")})
"""Tasks wait for `toapis_sandbox.finish` or `fail`, and else for `TaskOverdue`."""
