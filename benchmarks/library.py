"""The only place of the benchmarks that touches the library's inner parts, so that a renamed method costs one line."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import fields

from toapis_async import ToAPIs
from toapis_async.protocol.pacing import TokenBucket
from toapis_async.protocol.polling import schedule as schedule_module
from toapis_async.protocol.polling.schedule import Schedule
from toapis_async.settings import TIERS, RateLimits, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.contenders.kit import Order

INTERVAL_S = 5.0
JITTER = float(fields(Settings).poll_jitter.default or 0.0)
MOST_UNANSWERED = 100


class Job:
    """A task of the simulator. The first five, and an order, are what `schedule.Watched` requires."""

    forecast: Any = None
    ended = False
    seen_s: float = 0.0
    polled_s: float = 0.0
    since_s: float = 0.0  #: when its submission was answered

    def __init__(self, number: int, request_class: int, works_s: float) -> None:
        self.number = number
        self.request_class = request_class
        self.works_s = works_s
        self.found_s = 0.0  #: when a poll showed it finished
        self.polls_s: list[float] = []  #: when it was polled

    def __lt__(self, other: Job) -> bool:
        return self.number < other.number

    @property
    def end_s(self) -> float:
        return self.since_s + self.works_s


class Ours:
    """The library's own schedule, as the engine's poller drives it."""

    def __init__(self, *, seed: int, classes_visible: bool = True) -> None:
        self._visible = classes_visible
        self._schedule: Schedule[Job] = Schedule(
            first_s=INTERVAL_S, interval_s=INTERVAL_S, jitter=JITTER, rng=random.Random(seed)
        )

    def add(self, job: Job) -> None:
        job.forecast = self._schedule.forecast_of(str(job.request_class) if self._visible else "")
        self._schedule.add(job)

    def unfinished(self, job: Job, now_s: float) -> None:
        self._schedule.put_back(job, now_s)

    def finished(self, job: Job, now_s: float) -> None:
        # The service gives both times in whole seconds.
        self._schedule.finished(job, now_s, float(int(job.end_s) - int(job.since_s)))

    def next_due_s(self) -> float | None:
        return self._schedule.next_due_s()

    def pop(self, now_s: float, fullness: float) -> Job | None:
        self._schedule.fullness = fullness
        return self._schedule.pop(now_s)


class Bucket:
    """The library's own mirror of one of the service's buckets."""

    def __init__(self, burst: float, per_s: float, *, most_unanswered: int = MOST_UNANSWERED) -> None:
        self._bucket = TokenBucket(burst, per_s, 0.0, most_unanswered=most_unanswered)

    def wait_s(self, now_s: float) -> float:
        return self._bucket.wait_s(now_s)

    def take(self, now_s: float) -> None:
        self._bucket.take(now_s)

    def answered(self, now_s: float, latency_s: float) -> None:
        self._bucket.answered(now_s, latency_s)

    def throttled(self, now_s: float, latency_s: float, retry_after_s: float, rng: random.Random) -> None:
        """A 429: what `engine.queries.Pacer` makes of it."""
        self._bucket.answered(now_s, latency_s)
        self._bucket.throttle(now_s, retry_after_s * rng.uniform(1.0, 1.1))

    def fullness(self, now_s: float) -> float:
        return self._bucket.fullness(now_s)


@contextmanager
def poll_price(price_s: float) -> Iterator[None]:
    """Ours with another λ than the built-in one (seconds of lag that a poll is worth, with a full bucket)."""
    before = {name: getattr(schedule_module, name) for name in ("PRICE", "PRICED_FOR")}
    vars(schedule_module).update(PRICE=price_s / INTERVAL_S, PRICED_FOR=1e9)  # the same for slow classes
    try:
        yield
    finally:
        vars(schedule_module).update(before)


def tier(name: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """(burst, per second) of a tier's submit bucket and of its query bucket."""
    limits = TIERS[name]
    return (limits.submit_burst, limits.submit_per_s), (limits.query_burst, limits.query_per_s)


def open_client(order: Order) -> ToAPIs:
    """A client as the benchmarks use it."""
    plenty = RateLimits(submit_per_s=1e6, submit_burst=1e6, query_per_s=1e6, query_burst=1e6)
    settings = Settings(
        limits=None if order.tier == "auto" else TIERS[order.tier] if order.tier else plenty,
        first_poll_s=order.interval_s,
        min_poll_interval_s=order.interval_s,
        max_in_flight=min(order.count, 1_000_000),
        max_connections=order.concurrency,
    )
    return ToAPIs("sk-bench", base_url=order.url, settings=settings, journal=order.journal)
