"""A token bucket that mirrors the service's own, so that no request of ours is one too many.

Time comes in as an argument (seconds of any clock that mostly goes forward); nothing here waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_WINDOW: Final = 6
"""Requests that may be unanswered at once before anything was answered: with a bucket that another process has
drained, this many are wasted (without a window, 190 were)."""
WINDOW: Final = 16
"""The same, later, where the rate needs fewer."""

SHARED_FOR_S: Final = 60.0
"""A 429 within this time of an earlier one means a shared bucket; a step down is crept back in this time."""
SLOWER: Final = 0.7
SLOWEST: Final = 0.1

_LATENCY_WEIGHT: Final = 0.1
_WHOLE: Final = 1.0 - 1e-9
"""A token: a billionth short of it is rounding, not debt."""


@frozen
class PacingStatistics:
    """One bucket as it stands. Tokens are requests."""

    level: float
    capacity: float
    refill_per_s: float
    unanswered: int
    window: int
    granted: int
    throttled: int
    paused_for_s: float


class Bucket(Protocol):
    """A picture of one of the service's two buckets. One that is shared with other processes may learn of tokens later:
    its `wait_s` is infinity meanwhile, and it calls `on_more`. Its gate sets that, and `waiting`, which tells how many
    wait."""

    capacity: float
    refill_per_s: float
    on_more: Callable[[], None]
    waiting: Callable[[], int]

    def wait_s(self, now_s: float) -> float: ...
    def take(self, now_s: float) -> None: ...
    def give_back(self, now_s: float) -> None: ...
    def answered(self, now_s: float, latency_s: float | None, *, sent: int = 1) -> None: ...
    def note_remaining(self, now_s: float, remaining: float, latency_s: float) -> None: ...
    def retune(self, now_s: float, capacity: float, refill_per_s: float) -> None: ...
    def throttle(self, now_s: float, pause_s: float) -> None: ...
    def pause(self, now_s: float, pause_s: float) -> None: ...
    def fullness(self, now_s: float) -> float: ...
    def statistics(self, now_s: float) -> PacingStatistics: ...


class Window:
    """Requests that are not answered yet, and how many may be."""

    def __init__(self, most: int) -> None:
        self.unanswered: int = 0
        self.most: int = most
        self._latency_s: float | None = None

    def size(self, per_s: float) -> int:
        """How many may be unanswered: twice what the rate needs at the answer time seen (Little's law)."""
        if self._latency_s is None:
            return min(FIRST_WINDOW, self.most)
        return min(max(WINDOW, math.ceil(2 * per_s * self._latency_s)), self.most)

    def answered(self, latency_s: float | None) -> None:
        """One was answered after `latency_s`, or will not be (None)."""
        self.unanswered -= 1
        if latency_s is not None:
            before_s = self._latency_s if self._latency_s is not None else latency_s
            self._latency_s = before_s + _LATENCY_WEIGHT * (latency_s - before_s)


class TokenBucket:
    """Our picture of one of the service's two buckets.

    A plain mirror draws a few 429s: while requests of a burst are still on their way, the service's bucket is full
    and gains nothing, but the mirror would credit the refill. Hence `level <= capacity - unanswered`.
    """

    def __init__(self, capacity: float, refill_per_s: float, now_s: float, *, most_unanswered: int) -> None:
        self.capacity: float = capacity
        self.refill_per_s: float = refill_per_s
        self.on_more: Callable[[], None] = lambda: None
        self.waiting: Callable[[], int] = lambda: 0
        self._level = capacity
        self._at_s: float = now_s
        self._paused_until_s = -math.inf
        self._empty_until_s = -math.inf
        self._window = Window(most_unanswered)
        self._granted = 0
        self._throttled = 0
        self._pace = 1.0
        self._throttled_at_s = -math.inf

    def begin_empty(self, window: Window) -> None:
        """Begin without a token, in place of a bucket whose requests are under way."""
        self._window = window
        self._level = 0.0

    @property
    def window(self) -> int:
        """How many requests may be unanswered."""
        return self._window.size(self.refill_per_s)

    def wait_s(self, now_s: float) -> float:
        """Seconds until a token may be taken: 0 for now, infinity while only an answer can help."""
        # Under a full set of unanswered requests no token can grow, however long one waits.
        unanswered = self._window.unanswered
        if unanswered >= self._window.size(self.refill_per_s) or self.capacity - unanswered < _WHOLE:
            return math.inf
        self._refill(now_s)
        if self._level >= _WHOLE and now_s >= self._paused_until_s:
            return 0.0
        paused_s = self._paused_until_s - now_s
        # Wait for all of it, but take it with a clock's rounding: a timer could else fire forever a hair too early.
        missing = 1.0 - self._level if self._level < _WHOLE else 0.0
        return max(paused_s, missing / (self.refill_per_s * self._pace), 0.0)

    def take(self, now_s: float) -> None:
        """Take the token that `wait_s` said is there."""
        self._refill(now_s)
        self._level -= 1.0
        self._window.unanswered += 1
        self._granted += 1

    def give_back(self, now_s: float) -> None:
        """The token was taken but nothing was sent."""
        self._refill(now_s)
        self._granted -= 1
        self._window.unanswered -= 1
        self._level = min(self._level + 1.0, self.capacity - self._window.unanswered)

    def answered(self, now_s: float, latency_s: float | None, *, sent: int = 1) -> None:
        """A request ended, after `latency_s` if it got an answer. `sent` > 1: it went out again under the hood."""
        self._refill(now_s)
        self._window.answered(latency_s)
        self._level -= sent - 1

    def note_remaining(self, now_s: float, remaining: float, latency_s: float) -> None:
        """The service counted `remaining` tokens at some moment of a request's `latency_s`: lower our level to what
        that can have become since. More than we think is no news: others may be about to take it."""
        self._refill(now_s)
        # A whole token of slack: the service rounds down.
        self._level = min(self._level, remaining + 1.0 + self.refill_per_s * latency_s)

    def retune(self, now_s: float, capacity: float, refill_per_s: float) -> None:
        """The account's bucket turned out to be another one. What it holds beyond our level is left to its headers."""
        self._refill(now_s)
        self.capacity, self.refill_per_s = capacity, refill_per_s
        self._level = min(self._level, capacity - self._window.unanswered)

    def throttle(self, now_s: float, pause_s: float) -> None:
        """The service said 429: our picture was wrong. Start from an empty bucket after the pause.

        A second 429 soon after means that somebody else drinks from the bucket: refill more slowly, and creep back.
        The other requests of the same burst say nothing new.
        """
        self._throttled += 1
        self._refill(now_s)
        if now_s >= self._paused_until_s and self._level < self.capacity / 2:
            if now_s - self._throttled_at_s < SHARED_FOR_S:
                self._pace = max(self._pace * SLOWER, SLOWEST)
            self._throttled_at_s = now_s
        self._level = min(self._level, 0.0)
        self.pause(now_s, pause_s)
        self._empty_until_s = self._paused_until_s

    def pause(self, now_s: float, pause_s: float) -> None:
        """No token before `pause_s` from now; a longer pause already set stands."""
        self._paused_until_s = max(self._paused_until_s, now_s + pause_s)

    def fullness(self, now_s: float) -> float:
        """The level as a fraction of the capacity, 0 to 1."""
        self._refill(now_s)
        return max(self._level, 0.0) / self.capacity

    def statistics(self, now_s: float) -> PacingStatistics:
        """Changes nothing: another thread may ask, and a refill by two at once would count the time twice."""
        level, _ = self._refilled(now_s)
        return PacingStatistics(
            level=level,
            capacity=self.capacity,
            refill_per_s=self.refill_per_s,
            unanswered=self._window.unanswered,
            window=self.window,
            granted=self._granted,
            throttled=self._throttled,
            paused_for_s=max(self._paused_until_s - now_s, 0.0),
        )

    def _refill(self, now_s: float) -> None:
        if now_s != self._at_s:  # several steps of one request are taken at one moment
            self._level, self._pace = self._refilled(now_s)
            self._at_s = now_s

    def _refilled(self, now_s: float) -> tuple[float, float]:
        """What the level and the pace are by now."""
        level, pace, most = self._level, self._pace, self.capacity - self._window.unanswered
        gone_s = now_s - max(self._at_s, self._empty_until_s)
        if gone_s > 0.0:  # a clock set back must not be paid in tokens, nor the pause after a 429
            level += gone_s * self.refill_per_s * pace
            if pace < 1.0:
                pace = min(pace + gone_s * (1.0 - SLOWER) / SHARED_FOR_S, 1.0)
        return min(level, most), pace
