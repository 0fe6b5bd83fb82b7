"""A bucket whose turns are leased from a store that processes share. Nothing here waits or asks: `Leases` does."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from toapis_async.protocol.leasing import LOOSE_S, SEEN, Ask, Grant, capacity
from toapis_async.protocol.pacing import PacingStatistics, TokenBucket, Window

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOCK_S: Final = 1e-6
"""A turn due so soon is due: a timer may come as much too early."""


@frozen
class _Turn:
    at_s: float
    until_s: float
    is_ahead: bool  #: leased ahead of need, where the bucket is more than half full: not worth giving back


class LeasedBucket:
    """What `Bucket` promises, from a stock of leased turns. Times are of the process's own clock.

    `ask` is what to tell the store next, `granted` takes its answer; `on_want` is called when there is something to
    ask for or to tell.
    """

    def __init__(self, ask: Ask, *, most_unanswered: int) -> None:
        """`ask` is what every ask of this bucket has in common."""
        self.capacity: float = ask.burst
        self.refill_per_s: float = ask.per_s
        self.epoch: int = 0  #: of the store's state; 0 until it was seen
        self.members: int = 1
        self.on_more: Callable[[], None] = lambda: None
        self.on_want: Callable[[], None] = lambda: None
        self.waiting: Callable[[], int] = lambda: 0
        self._common = ask
        self._window = Window(most_unanswered)
        self._stock: deque[_Turn] = deque()
        self._taken: _Turn | None = None  # the latest, until it was given back
        self._granted = 0
        self._throttled = 0
        self._paused_until_s = -math.inf
        self._level = 0.0
        self._level_at_s = 0.0
        self._rate = ask.per_s
        # What the store is to be told:
        self._unused = 0
        self._unused_since_s = math.inf
        self._extra = 0.0
        self._remaining: tuple[float, float] | None = None  # when, and tokens
        self._throttled_until_s: float | None = None
        self._is_retuned = False

    # -------------------------------------------------------------------------------------- for the gate

    def wait_s(self, now_s: float) -> float:
        """Seconds until a turn may be taken: 0 for now, infinity while an answer, or the store's, is awaited."""
        if self._window.unanswered >= self._window.size(self.refill_per_s):
            return math.inf
        self._drop_late(now_s)
        paused_s = self._paused_until_s - now_s
        if self._stock:
            wait_s = max(self._stock[0].at_s - now_s, paused_s)
            return wait_s if wait_s > _CLOCK_S else 0.0
        if paused_s > _CLOCK_S:
            return paused_s
        self.on_want()
        return math.inf

    def take(self, now_s: float) -> None:
        """Take the turn that `wait_s` said is there."""
        self._taken = self._stock.popleft()
        self._window.unanswered += 1
        self._granted += 1

    def give_back(self, now_s: float) -> None:
        """The turn was taken but nothing was sent: the next may have it. Of the latest one only is known how old it is;
        an earlier one is lost."""
        self._window.unanswered -= 1
        self._granted -= 1
        if self._taken is not None:
            self._stock.appendleft(self._taken)
            self._taken = None

    def answered(self, now_s: float, latency_s: float | None, *, sent: int = 1) -> None:
        """A request ended, after `latency_s` if it got an answer. `sent` > 1: it went out again under the hood."""
        self._window.answered(latency_s)
        self._extra += sent - 1

    def note_remaining(self, now_s: float, remaining: float, latency_s: float) -> None:
        """The service counted `remaining` tokens at some moment of a request's `latency_s`: told with the next ask, and
        at once when it is less than was thought."""
        most = remaining + 1.0 + self.refill_per_s * latency_s
        if self._remaining is None or most < self._most_remaining(now_s, self._remaining):
            self._remaining = now_s, most
            if most < self.capacity / 2 and most < self._level_now(now_s):
                self.on_want()

    def retune(self, now_s: float, capacity: float, refill_per_s: float) -> None:
        """The account's bucket turned out to be another one, for all who share it."""
        self.capacity, self.refill_per_s = capacity, refill_per_s
        self._is_retuned = True
        self.on_want()

    def throttle(self, now_s: float, pause_s: float) -> None:
        """The service said 429: all turns are void, here and in every other process."""
        self._throttled += 1
        self._stock.clear()
        self.pause(now_s, pause_s)
        self._throttled_until_s = max(self._throttled_until_s or now_s, now_s + pause_s)
        self.on_want()

    def pause(self, now_s: float, pause_s: float) -> None:
        """No turn before `pause_s` from now, in this process; a longer pause already set stands."""
        self._paused_until_s = max(self._paused_until_s, now_s + pause_s)

    def fullness(self, now_s: float) -> float:
        """The level as a fraction of the capacity, 0 to 1."""
        return max(self._level_now(now_s), 0.0) / self._full

    def statistics(self, now_s: float) -> PacingStatistics:
        return PacingStatistics(
            level=self._level_now(now_s),
            capacity=self._full,
            refill_per_s=self.refill_per_s,
            unanswered=self._window.unanswered,
            window=self._window.size(self.refill_per_s),
            granted=self._granted,
            throttled=self._throttled,
            paused_for_s=max(self._paused_until_s - now_s, 0.0),
        )

    # -------------------------------------------------------------------------------------- for who asks

    def ask(self, now_s: float) -> Ask:
        """What to ask and to tell now. It counts as told, unless `untold` follows."""
        self._drop_late(now_s)
        remaining, throttled_until_s = self._remaining, self._throttled_until_s
        ask = evolve(
            self._common,
            burst=self.capacity,
            per_s=self.refill_per_s,
            sureness=SEEN if self._is_retuned else self._common.sureness,
            epoch=self.epoch,
            want=self._wanted(now_s),
            unused=self._unused,
            unused_for_s=max(now_s - self._unused_since_s, 0.0) if self._unused else 0.0,
            extra=self._extra,
            remaining=None if remaining is None else self._most_remaining(now_s, remaining),
            pause_s=None if throttled_until_s is None else max(throttled_until_s - now_s, 0.0),
        )
        self._unused, self._unused_since_s, self._extra = 0, math.inf, 0.0
        self._remaining, self._throttled_until_s, self._is_retuned = None, None, False
        return ask

    def untold(self, ask: Ask, now_s: float, *, unchanged: bool) -> None:
        """The store may not have got this; `unchanged`: it certainly has not. What was used is told again in any case,
        what was not used only then: it must not be counted twice."""
        self._extra += ask.extra
        self._is_retuned = self._is_retuned or ask.sureness == SEEN
        if ask.pause_s is not None:
            self._throttled_until_s = max(self._throttled_until_s or now_s, now_s + ask.pause_s)
        if unchanged and ask.unused:
            self._unused += ask.unused
            self._unused_since_s = min(self._unused_since_s, now_s - ask.unused_for_s)

    def granted(self, grant: Grant, asked_at_s: float, now_s: float, *, is_alone: bool = False) -> None:
        """Take what was granted to the ask of `asked_at_s`. The store answered between then and now: its moments are
        counted from now, the latest use of each from then.

        `is_alone`: it was granted without the store. The level stays what the store said last: that this process then
        begins with nothing is a precaution, and no reason to poll less.
        """
        if grant.epoch != self.epoch:
            if self.epoch:
                self._stock.clear()
            self.epoch = grant.epoch
        if not self._is_retuned:
            self.capacity, self.refill_per_s = grant.burst, grant.per_s
        self.members = grant.members
        if not is_alone:
            self._level, self._level_at_s, self._rate = grant.level - grant.turns, now_s, grant.rate
        if grant.after_s > 0:
            self.pause(now_s, grant.after_s)
        for offset_s in grant.offsets_s():
            until_s = asked_at_s + offset_s + grant.hold_s
            self._stock.append(_Turn(now_s + offset_s, until_s, grant.hold_s == LOOSE_S))
        self.on_more()

    def spent(self, requests: float) -> None:
        """So many requests went out that the store does not know of."""
        self._extra += requests

    def give_all_back(self) -> None:
        """No turn of the stock will be used any more."""
        for turn in self._stock:
            self._note_unused(turn)
        self._stock.clear()

    def own_share(self, members: int, now_s: float) -> TokenBucket:
        """What one of so many processes goes on with when it can ask no store any more: its part of the bucket, which
        begins empty. It counts the requests that are under way here."""
        share = TokenBucket(
            max(self.capacity / members, 1.0), self.refill_per_s / members, now_s, most_unanswered=self._window.most
        )
        share.begin_empty(self._window)
        share.pause(now_s, self._paused_until_s - now_s)
        return share

    def late_in_s(self, now_s: float) -> float:
        """Seconds until the turns in stock, if nobody wants them, are to be given back; infinity without any."""
        turns = [turn.until_s for turn in self._stock if not turn.is_ahead]
        return max(turns[-1] - now_s, 0.0) if turns else math.inf

    # -------------------------------------------------------------------------------------- private

    @property
    def _full(self) -> float:
        return capacity(self.capacity, self.refill_per_s, is_loose=self._common.is_loose)

    def _level_now(self, now_s: float) -> float:
        return min(self._level + max(now_s - self._level_at_s, 0.0) * self._rate, self._full)

    def _most_remaining(self, now_s: float, seen: tuple[float, float]) -> float:
        at_s, remaining = seen
        return remaining + max(now_s - at_s, 0.0) * self.refill_per_s

    def _wanted(self, now_s: float) -> int:
        if self._stock or self._paused_until_s - now_s > _CLOCK_S:
            return 0
        return max(min(self.waiting(), self._window.size(self.refill_per_s) - self._window.unanswered), 0)

    def _drop_late(self, now_s: float) -> None:
        while self._stock and self._stock[0].until_s < now_s:
            self._note_unused(self._stock.popleft())

    def _note_unused(self, turn: _Turn) -> None:
        if not turn.is_ahead:
            self._unused += 1
            self._unused_since_s = min(self._unused_since_s, turn.at_s)
