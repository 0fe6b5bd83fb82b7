"""The state behind the benchmark's server: tasks that finish by the clock, two exact buckets, and counters."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.buckets import ServiceBucket
from benchmarks.loads import Load, LogNormal

if TYPE_CHECKING:
    from collections.abc import Mapping

NEVER = Load("never", (LogNormal(1e9, 0.0),))


@dataclass(frozen=True)
class BucketConfig:
    """One of the service's buckets; `level` tokens at first (None: full), some taken by another process."""

    burst: float
    per_s: float
    level: float | None = None
    drained_per_s: float = 0.0


@dataclass(frozen=True)
class Config:
    """A server's configuration, as JSON. `scale` compresses time: service times are divided by it."""

    load: Load = NEVER
    seed: int = 0
    scale: float = 1.0
    submit: BucketConfig | None = None
    query: BucketConfig | None = None
    cpu: int | None = None
    finish_after: int | None = None  #: polls, in place of the time that the load says
    tasks: int = 0  #: that are there from the beginning
    certificate: str | None = None  #: file of one with its key, to be served over TLS, too

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Config:
        load = config["load"]
        classes = tuple(LogNormal(**times) for times in load["classes"])
        buckets = {name: BucketConfig(**config[name]) for name in ("submit", "query") if config[name]}
        made: dict[str, Any] = {**config, **buckets, "load": Load(load["name"], classes)}
        return cls(**made)


@dataclass
class Counters:
    """What the contenders are judged by. Moments are of the machine's monotonic clock, which they share."""

    requests: int = 0
    polls: int = 0
    least_gap_s: float = math.inf  #: between two polls of one task, or its submission and the first
    unknown: int = 0  #: polls of tasks that don't exist


@dataclass
class Tasks:
    """Every task ever submitted, in lists by its number."""

    config: Config
    now_s: float
    ends_s: list[float] = field(default_factory=list)
    began_s: list[float] = field(default_factory=list)
    polled_s: list[float] = field(default_factory=list)
    polls: list[int] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.config.seed)
        self.submits = _bucket(self.config.submit, self.now_s)
        self.queries = _bucket(self.config.query, self.now_s)
        self.finish_after = self.config.finish_after
        for _ in range(self.config.tasks):
            self._begin(self.now_s)

    def submit(self, now_s: float) -> int | None:
        """The new task's number; None when the bucket is empty."""
        if not self.submits.admit(now_s):
            return None
        return self._begin(now_s)

    def _begin(self, now_s: float) -> int:
        number = len(self.ends_s)
        works_s = self.config.load.draw(number, self._rng)[1] / self.config.scale
        self.began_s.append(now_s)
        self.ends_s.append(now_s + works_s)
        self.polled_s.append(now_s)
        self.polls.append(0)
        return number

    def poll(self, number: int, now_s: float) -> bool | None:
        """Whether it has finished; None when the bucket is empty. A refused poll counts, too."""
        counters = self.counters
        counters.polls += 1
        self.polls[number] += 1
        gap_s = now_s - self.polled_s[number]
        self.polled_s[number] = now_s
        counters.least_gap_s = min(counters.least_gap_s, gap_s)
        if not self.queries.admit(now_s):
            return None
        if self.finish_after is not None:
            return self.polls[number] >= self.finish_after
        return now_s >= self.ends_s[number]

    def statistics(self) -> dict[str, Any]:
        """The counters, as the control endpoint tells them."""
        return {
            **asdict(self.counters),
            "submitted": len(self.ends_s),
            "refused_submits": self.submits.refused,
            "refused_polls": self.queries.refused,
            "last_submit_s": self.submits.last_admitted_s,
            "most_polls": max(self.polls, default=0),
        }


def _bucket(config: BucketConfig | None, now_s: float) -> ServiceBucket:
    if config is None:
        return ServiceBucket(1e12, 1e12, now_s)
    return ServiceBucket(config.burst, config.per_s, now_s, level=config.level, drained_per_s=config.drained_per_s)
