"""The pace of one category of requests: a gate in front of its bucket, corrected by how each request ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from toapis_async.engine.limiter import Gate
from toapis_async.errors import RateLimited
from toapis_async.events import Throttled
from toapis_async.protocol.lenient import read_number
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.retry import backoff_s, retry_after_s
from toapis_async.protocol.tiers import bucket_of_limit

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from toapis_async.engine.emitter import Emitter
    from toapis_async.errors import ServiceError, TransportError
    from toapis_async.protocol.lenient import Answer
    from toapis_async.protocol.pacing import Bucket, PacingStatistics
    from toapis_async.protocol.tiers import Category
    from toapis_async.settings import Settings


class RateGate(Gate["Bucket"]):
    """A gate in front of one of the service's buckets."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        self.draw_from(bucket)

    def draw_from(self, bucket: Bucket) -> None:
        """Hand out the turns of this bucket from now on. It counts the requests that are under way."""
        self._source = bucket
        bucket.on_more = self.serve
        bucket.waiting = lambda: self.waiting
        self.serve()

    def answered(self, *, latency_s: float | None, sent: int = 1, remaining: float | None = None) -> None:
        """The request ended, with an answer after `latency_s` or without one (None); the service said that it counts
        `remaining` tokens."""
        now_s = self._loop.time()
        if remaining is not None and latency_s is not None:
            self._source.note_remaining(now_s, remaining, latency_s)
        self._source.answered(now_s, latency_s, sent=sent)
        self.serve()

    def retune(self, burst: float, per_s: float) -> None:
        """The bucket is another one than was thought."""
        if (self._source.capacity, self._source.refill_per_s) != (burst, per_s):
            self._source.retune(self._loop.time(), burst, per_s)
            self.serve()

    def throttle(self, pause_s: float) -> None:
        """The service said 429."""
        self._source.throttle(self._loop.time(), pause_s)
        self.serve()

    def pause(self, pause_s: float) -> None:
        """No turns for `pause_s`."""
        self._source.pause(self._loop.time(), pause_s)
        self.serve()

    def fullness(self, now_s: float) -> float:
        """The bucket's level as a fraction, 0 to 1."""
        return self._source.fullness(now_s)

    def statistics(self) -> PacingStatistics:
        return self._source.statistics(self._loop.time())


class Pacer:
    """Accounts for each request of its category, and turns the service's hints into pauses."""

    def __init__(
        self, category: Category, bucket: Bucket, settings: Settings, rng: random.Random, emit: Emitter
    ) -> None:
        self.gate: RateGate = RateGate(bucket)
        self.throttled: int = 0
        self._category: Category = category
        self._category_header = f"async_{category}"
        self._settings = settings
        self._adopts_tier = settings.adopts_tier
        self._rng = rng
        self._emit = emit

    def answered(self, answer: Answer, latency_s: float, model: str | None = None) -> ServiceError | None:
        """Account for an answer; return the error it stands for (`model`: to a submission to this one), None for a
        2xx."""
        self.gate.answered(latency_s=latency_s, sent=answer.sent, remaining=self._read_hints(answer))
        if 200 <= answer.status < 300:
            return None
        asked_s = retry_after_s(answer.headers.get("retry-after"), time.time(), self._settings.max_retry_after_s)
        error = decode_error(answer, about_task=self._category == "query", model=model, retry_after_s=asked_s)
        if isinstance(error, RateLimited):
            self.throttled += 1
            self._pause(asked_s, self.gate.throttle)
        elif answer.status == 503 and asked_s is not None:
            self._pause(asked_s, self.gate.pause)
        return error

    def unanswered(self, error: TransportError) -> None:
        """Account for a request without an answer. An attempt to connect that failed costs a turn, too: while the
        service refuses connections, those keep to its pace."""
        self.gate.answered(latency_s=None, sent=max(error.sent, 1))

    def abandoned(self) -> None:
        """Account for a request whose answer is not awaited any more, or can't be read."""
        self.gate.answered(latency_s=None)

    def back_off(self, failures: int) -> float:
        """Pause the category after `failures` in a row that were nobody's answer; returns the seconds."""
        wait_s = backoff_s(failures, base_s=0.5, cap_s=10.0, rng=self._rng)
        self.gate.pause(wait_s)
        return wait_s

    def _read_hints(self, answer: Answer) -> float | None:
        """The tokens that the service says it counts, None when it does not say; its limit is adopted, if wanted."""
        headers = answer.headers
        if headers.get("x-ratelimit-category", self._category_header) != self._category_header:
            return None
        if self._adopts_tier and (limit := read_number(headers.get("x-ratelimit-limit"))) is not None:
            bucket = bucket_of_limit(self._category, limit)
            if bucket is not None:
                self.gate.retune(*bucket)
        remaining = read_number(headers.get("x-ratelimit-remaining"))
        return remaining if remaining is not None and remaining >= 0 else None

    def _pause(self, asked_s: float | None, how: Callable[[float], None]) -> None:
        wait_s = (asked_s if asked_s is not None else 1.0) * self._rng.uniform(1.0, 1.1)
        how(wait_s)
        self._emit(Throttled, self._category, wait_s)
