"""The service's token bucket, written on its own: a bug in the library's mirror must not cancel itself out."""

from __future__ import annotations

import math

# The tiers as the service publishes them: (burst, per second) of the submit bucket and of the query bucket.
SERVICE_TIERS = {
    "default": ((50.0, 5.0), (500.0, 50.0)),
    "vip": ((167.0, 1_000 / 60), (1_667.0, 10_000 / 60)),
    "svip": ((334.0, 2_000 / 60), (5_000.0, 500.0)),
}


class ServiceBucket:
    """Exact: `admit` takes a token or refuses. A refusal costs nothing.

    `drained_per_s` is what another process of the same account takes all the while, as far as tokens are there.
    """

    def __init__(
        self, burst: float, per_s: float, now_s: float = 0.0, *, level: float | None = None, drained_per_s: float = 0.0
    ) -> None:
        self._burst = burst
        self._per_s = per_s - drained_per_s
        self._level = burst if level is None else level
        # A level that was given is that of the first request, however long the process took to start.
        self._at_s = now_s if level is None else None
        self.admitted = 0
        self.refused = 0
        self.last_admitted_s: float | None = None

    def admit(self, now_s: float) -> bool:
        gone_s = max(now_s - self._at_s, 0.0) if self._at_s is not None else 0.0
        self._at_s = now_s
        self._level = min(self._level + gone_s * self._per_s, self._burst)
        if self._level < 1.0 - 1e-9:
            self.refused += 1
            return False
        self._level -= 1.0
        self.admitted += 1
        self.last_admitted_s = now_s
        return True

    @property
    def burst(self) -> int:
        return int(self._burst)

    @property
    def remaining(self) -> int:
        """Whole tokens left, as the header says it."""
        return int(self._level)

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until there is a token again, at least one, as the header says it."""
        return max(math.ceil((1.0 - self._level) / self._per_s), 1)


def least_time_s(count: int, burst: float, per_s: float) -> float:
    """The least time in which a bucket lets `count` requests through."""
    return max(count - burst, 0.0) / per_s
