"""Submitting many at once in virtual time: the library's mirror of a bucket against the service's exact one."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

from benchmarks.buckets import SERVICE_TIERS, ServiceBucket, least_time_s
from benchmarks.library import Bucket, tier

CONNECTIONS = 100
LOOPBACK_S, NETWORK_S = 0.004, 0.1
"""Latencies: of the benchmark's own server, and of a service far away."""
CONNECTING = 5.0
"""What the first request of a connection waits for more than later ones (name, TCP and TLS), in latencies."""


@dataclass(frozen=True)
class Submitted:
    took_s: float  #: until the service took the last
    least_s: float  #: the same with a perfect client, without latency
    refused: int  #: answers of 429


class Sender:
    """Requests that all want to go at once, let out by the library's bucket. Latencies are drawn, so answers overtake
    each other; the first request of each connection is slow (the burst that fools a plain mirror)."""

    def __init__(self, count: int, ours: Bucket, theirs: ServiceBucket, *, latency_s: float, seed: int) -> None:
        self._rng = random.Random(seed)
        self._ours = ours
        self._theirs = theirs
        self._latency_s = latency_s
        self._waiting = deque(range(count))
        self._events: list[tuple[float, int, float, bool | None]] = []
        self._sent = 0
        self._unanswered = 0

    def run(self) -> float:
        """Returns when the service took the last of them."""
        now_s = 0.0
        while self._waiting or self._unanswered:
            wait_s = self._send(now_s)
            event_s = self._events[0][0] if self._events else math.inf
            now_s = min(now_s + wait_s, event_s)
            while self._events and self._events[0][0] <= now_s:
                self._happen(*heapq.heappop(self._events))
        assert self._theirs.last_admitted_s is not None
        return self._theirs.last_admitted_s

    def _send(self, now_s: float) -> float:
        """Send what may be sent; returns the seconds until more may."""
        while self._waiting and self._unanswered < CONNECTIONS:
            wait_s = self._ours.wait_s(now_s)
            if wait_s > 0:
                return wait_s
            self._ours.take(now_s)
            request = self._waiting.popleft()
            connect_s = CONNECTING * self._latency_s * self._rng.uniform(0.5, 1.5) if self._sent < CONNECTIONS else 0.0
            self._sent += 1
            self._unanswered += 1
            there_s = now_s + connect_s + self._half_way_s()
            heapq.heappush(self._events, (there_s, request, now_s, None))
        return math.inf

    def _happen(self, at_s: float, request: int, sent_s: float, taken: bool | None) -> None:
        if taken is None:  # it reached the service
            taken = self._theirs.admit(at_s)
            heapq.heappush(self._events, (at_s + self._half_way_s(), request, sent_s, taken))
            return
        self._unanswered -= 1
        if taken:
            self._ours.answered(at_s, at_s - sent_s)
        else:
            self._ours.throttled(at_s, at_s - sent_s, self._theirs.retry_after_s, self._rng)
            self._waiting.appendleft(request)

    def _half_way_s(self) -> float:
        return self._latency_s / 2 * self._rng.uniform(0.5, 1.5)


def submit(
    tier_name: str,
    count: int = 1_000,
    *,
    latency_s: float = LOOPBACK_S,
    drained: bool = False,
    shared: float = 0.0,
    seed: int = 0,
) -> Submitted:
    """`drained`: another process has just emptied the bucket. `shared`: it goes on taking this part of the refill."""
    burst, per_s = SERVICE_TIERS[tier_name][0]
    level = 0.0 if drained else burst
    theirs = ServiceBucket(burst, per_s, level=level, drained_per_s=shared * per_s)
    ours = Bucket(*tier(tier_name)[0])
    took_s = Sender(count, ours, theirs, latency_s=latency_s, seed=seed).run()
    return Submitted(took_s, least_time_s(count, level, per_s * (1.0 - shared)), theirs.refused)
