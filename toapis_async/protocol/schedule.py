"""When to look at a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import random

from toapis_async.protocol.retry import backoff_s

_LONGEST_BACKOFF_S = 60.0


@frozen
class Schedule:
    """First look after `first_s`, then every `interval_s`; jitter lengthens, never shortens."""

    first_s: float
    interval_s: float
    jitter: float

    def first_wait_s(self, rng: random.Random) -> float:
        """From the submission's answer to the first look."""
        return self.first_s * self._stretch(rng)

    def next_wait_s(self, rng: random.Random) -> float:
        """From one look to the next."""
        return self.interval_s * self._stretch(rng)

    def wait_after_failure_s(self, failures: int, rng: random.Random) -> float:
        """After `failures` looks in a row that got no usable answer: back off, but stay above the floor."""
        longest_s = max(_LONGEST_BACKOFF_S, self.interval_s)
        extra_s = backoff_s(failures, base_s=self.interval_s, cap_s=longest_s, rng=rng)
        return max(self.next_wait_s(rng), extra_s)

    def _stretch(self, rng: random.Random) -> float:
        return 1.0 + self.jitter * rng.random()
