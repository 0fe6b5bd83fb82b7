"""Counters of all requests, and a bounded log of the latest."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.sandbox.faults import Kind


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as it came in. `headers` ignores case and holds the key: keep it out of messages."""

    at: float
    """When it came, in Unix seconds of the sandbox's clock."""
    kind: Kind
    method: str
    path: str
    """As sent: still percent-encoded, with its query."""
    headers: Mapping[str, str] = field(repr=False)
    task_id: str | None
    """The task that a query or a file is about, when there is one."""


class RequestLog:
    """Counters since the start, and the latest requests."""

    def __init__(self, log_size: int = 10_000) -> None:
        self.counts: Counter[Kind] = Counter()
        self.by_task: Counter[str] = Counter()
        """Queries by task id, also those by `client_business_id`."""
        self.statuses: Counter[tuple[Kind, int]] = Counter()
        """Answers by kind and HTTP status; requests that got no answer are not in it."""
        self.unanswered: Counter[Kind] = Counter()
        """Requests whose connection a fault closed without an answer."""
        self.log: deque[LoggedRequest] = deque(maxlen=log_size)

    def note(self, request: LoggedRequest) -> None:
        """Count a request as it comes in."""
        self.counts[request.kind] += 1
        if request.kind == "query" and request.task_id is not None:
            self.by_task[request.task_id] += 1
        self.log.append(request)

    def reset(self) -> None:
        """As it was when made."""
        for counter in (self.counts, self.by_task, self.statuses, self.unanswered):
            counter.clear()
        self.log.clear()

    def count(self, kind: Kind) -> int:
        """Requests of a kind so far."""
        return self.counts[kind]

    @property
    def total(self) -> int:
        """All requests so far."""
        return self.counts.total()

    @property
    def rate_limited(self) -> int:
        """How many 429s were sent, all kinds together."""
        return sum(count for (_, status), count in self.statuses.items() if status == 429)

    def of_kind(self, kind: Kind) -> tuple[LoggedRequest, ...]:
        """The logged requests of a kind, oldest first."""
        return tuple(request for request in self.log if request.kind == kind)

    def gaps_s(self, task_id: str) -> tuple[float, ...]:
        """Seconds between the logged queries of one task."""
        times = [request.at for request in self.of_kind("query") if request.task_id == task_id]
        return tuple(later - earlier for earlier, later in itertools.pairwise(times))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.counts.most_common())
        return f"<RequestLog: {counts or 'no requests'}; {self.rate_limited} times 429>"
