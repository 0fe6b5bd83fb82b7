"""Turns for processes that share a bucket of the service: GCRA with reservations.

A process asks for turns and is always answered at once, with moments at which it may send: now, while the bucket has
tokens, else later ones, reserved for it. Nobody asks again and again, and processes are served in the order they asked.

The arithmetic stands twice: here, for every store that runs Python, and in Lua for Redis (`engine/shared/lua.py`).
`tests/engine/test_redis.py` holds the two equal. Time comes in as an argument, in seconds of the store's clock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from attrs import evolve, field, frozen

from toapis_async.protocol.pacing import SHARED_FOR_S, SLOWER, SLOWEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MARGIN_S: Final = 1.0
"""How much later than its moment a request may reach the service: the capacity that is shared is smaller by what is
refilled in this time, so that requests which bunch up on their way still find their tokens."""
HOLD_S: Final = 0.5
"""A turn not used so long after its moment is given back; the rest of the margin is for the request's way."""
SHORTEST_HOLD_S: Final = 0.1

LOOSE: Final = 8
"""Queries come one by one: while the bucket is more than half full, this many turns are leased at once, …"""
LOOSE_S: Final = 5.0
"""… good for this long, …"""
LOOSE_PART: Final = 0.25
"""… from a part of the burst that is set aside for them."""

SEEN_S: Final = 6.0
"""A process that has not asked for this long is not counted; each asks every `HEARTBEAT_S` at least."""
HEARTBEAT_S: Final = 2.0
MOST_MEMBERS: Final = 10_000

RETURN_S: Final = 1.0
"""After the store was lost to all, the others are expected to be back in this time, and go on alone until then."""

GUESSED, STATED, SEEN = 0, 1, 2
"""How sure a process is of the limits: the default, what its settings say, what a header of the service says."""

ROUNDING: Final = 1e-6


@frozen
class State:
    """One bucket as the processes share it. Times are of the store's clock."""

    level: float
    """Tokens at `at_s`. Below 0 while turns of later moments are reserved."""
    at_s: float
    burst: float
    per_s: float
    sureness: int  #: of burst and per_s: GUESSED, STATED or SEEN
    pace: float
    """The part of `per_s` that is used: less than 1 after several 429s, as somebody else drinks from the bucket."""
    throttled_at_s: float
    paused_until_s: float
    served_since_s: float
    """Since when somebody has been asking all the time."""
    ample_at_s: float
    """When the bucket was last seen half full: no turn of before then is given back, for it would have overflowed."""
    epoch: int
    """Grows with each 429: turns of an earlier epoch are void."""
    members: Mapping[str, float]
    """The processes, with the time at which each asked last."""


@frozen(kw_only=True)
class Ask:
    """What a process asks for, and what it has to tell since it asked last. Spans are seconds, counts are tokens."""

    member: str
    burst: float
    per_s: float
    sureness: int = GUESSED
    epoch: int = 0  #: the latest it knows of this bucket; 0: none
    want: int = 0
    is_loose: bool = False  #: whether turns may be leased ahead of need
    lease_s: float = 0.5
    unused: int = 0  #: turns given back, …
    unused_for_s: float = 0.0  #: … the oldest of which was due so long ago
    extra: float = 0.0  #: requests that went out without a turn (resends of the HTTP library)
    alone_s: float = 0.0  #: how long it has been without the store until now
    spent_alone: float = 0.0
    of: int = 1  #: how many they were when the store was lost
    remaining: float | None = None  #: the service counts no more tokens than this
    pause_s: float | None = None  #: the service said 429, and to wait so long
    is_leaving: bool = False


@frozen
class Grant:
    """Turns: the first are due after `after_s`, while `level` lasts, the others `1 / rate` apart."""

    turns: int
    level: float  #: before the turns were taken
    after_s: float
    rate: float  #: tokens a second, at the pace in force
    hold_s: float
    burst: float
    per_s: float
    epoch: int
    members: int

    def is_sound(self, ask: Ask) -> bool:
        """Whether it can be an answer to this: what a store says comes from outside."""
        numbers = (self.level, self.after_s, self.rate, self.hold_s, self.burst, self.per_s)
        return (
            all(map(math.isfinite, numbers))
            and 0 <= self.turns <= max(ask.want, LOOSE if ask.is_loose else 0)
            and self.after_s >= 0
            and 0 < self.hold_s <= LOOSE_S
            and min(self.rate, self.per_s) > 0
            and self.burst >= 1
            and self.epoch >= 0
            and 1 <= self.members <= MOST_MEMBERS
        )

    def offsets_s(self) -> Iterator[float]:
        """When each turn is due, in seconds from now."""
        for turn in range(1, self.turns + 1):
            yield self.after_s + max(turn - self.level, 0.0) / self.rate


def capacity(burst: float, per_s: float, *, is_loose: bool) -> float:
    """The tokens that may be used at once: the burst without the margin, and without what may be leased ahead."""
    return max(burst * (1.0 - LOOSE_PART if is_loose else 1.0) - per_s * MARGIN_S, 1.0)


def hold_s(burst: float, per_s: float, *, is_loose: bool) -> float:
    """How long after its moment a turn may be used: half of the margin there is, which a small burst makes shorter."""
    spare = burst * (1.0 - LOOSE_PART if is_loose else 1.0) - capacity(burst, per_s, is_loose=is_loose)
    return min(max(spare / per_s * (HOLD_S / MARGIN_S), SHORTEST_HOLD_S), HOLD_S)


def lease(state: State | None, ask: Ask, now_s: float) -> tuple[State, Grant]:
    """What becomes of a bucket when a process asks, and what the process is granted. None: there is no such bucket yet,
    or the store has forgotten it."""
    if state is None:
        before, idle_s = _begun(ask, now_s), math.inf
    else:
        before = _clock_set_back(state, now_s)
        idle_s = now_s - before.at_s
    state = _counted(_refilled(_with_limits(before, ask), ask, now_s), ask, now_s)
    state = _corrected(state, ask, now_s, before.level, idle_s)
    if ask.pause_s is not None:
        state = _throttled(state, ask, ask.pause_s, now_s)
    return _granted(state, ask, now_s)


def _begun(ask: Ask, now_s: float) -> State:
    """A full bucket; an empty one for a process that has seen it before: nobody knows what was spent."""
    full = capacity(ask.burst, ask.per_s, is_loose=ask.is_loose)
    return State(
        level=0.0 if ask.epoch else full,
        at_s=now_s,
        burst=ask.burst,
        per_s=ask.per_s,
        sureness=ask.sureness,
        pace=1.0,
        throttled_at_s=now_s - 2 * SHARED_FOR_S,
        paused_until_s=now_s,
        served_since_s=now_s,
        ample_at_s=now_s,
        epoch=ask.epoch + 1,
        members={},
    )


def empty_share(ask: Ask, members: int, now_s: float) -> State:
    """What one of so many processes goes on with while the store is lost: its part of the bucket, empty."""
    mine = evolve(ask, burst=max(ask.burst / members, 1.0), per_s=ask.per_s / members)
    return evolve(_begun(mine, now_s), level=0.0, epoch=max(ask.epoch, 1))


def _clock_set_back(state: State, now_s: float) -> State:
    """With all times moved along when the store's clock was set back."""
    back_s = state.at_s - now_s
    if back_s <= 0:
        return state
    return evolve(
        state,
        at_s=now_s,
        throttled_at_s=state.throttled_at_s - back_s,
        paused_until_s=state.paused_until_s - back_s,
        served_since_s=state.served_since_s - back_s,
        ample_at_s=state.ample_at_s - back_s,
        members={member: seen_s - back_s for member, seen_s in state.members.items()},
    )


def _with_limits(state: State, ask: Ask) -> State:
    """The first to state limits wins over a guess; what a header of the service says wins over all."""
    if ask.sureness > state.sureness or ask.sureness == SEEN:
        return evolve(state, burst=ask.burst, per_s=ask.per_s, sureness=ask.sureness)
    return state


def _refilled(state: State, ask: Ask, now_s: float) -> State:
    full = capacity(state.burst, state.per_s, is_loose=ask.is_loose)
    gone_s = max(now_s - max(state.at_s, state.paused_until_s), 0.0)
    level = min(state.level + gone_s * state.per_s * state.pace, full)
    return evolve(
        state,
        level=level,
        at_s=now_s,
        pace=min(state.pace + gone_s * (1.0 - SLOWER) / SHARED_FOR_S, 1.0),
        served_since_s=now_s if now_s - state.at_s > SEEN_S else state.served_since_s,
        ample_at_s=now_s if level >= full / 2 else state.ample_at_s,
    )


def _counted(state: State, ask: Ask, now_s: float) -> State:
    # One that asks in times to come is none of ours, and would be counted for good.
    members = {member: seen_s for member, seen_s in state.members.items() if now_s - SEEN_S <= seen_s <= now_s}
    members.pop(ask.member, None)
    if not ask.is_leaving and len(members) < MOST_MEMBERS:
        members[ask.member] = now_s
    return evolve(state, members=members)


def _corrected(state: State, ask: Ask, now_s: float, level_before: float, idle_s: float) -> State:
    """With what the process has to tell: turns not used, tokens spent without a turn, what the service counts."""
    level, full = state.level, capacity(state.burst, state.per_s, is_loose=ask.is_loose)
    epoch, served_since_s = state.epoch, state.served_since_s
    if epoch < ask.epoch:  # the store went back to an earlier state
        level, epoch = min(level, 0.0), ask.epoch + 1
    if ask.alone_s > 0:
        if idle_s >= ask.alone_s:  # nobody had the store: all went on alone, and spent what was refilled
            ahead = state.per_s * state.pace * RETURN_S * (1.0 - 1.0 / ask.of)  # of what the others will have spent
            level, served_since_s = min(level, max(level_before, 0.0)) - ahead, now_s
        elif now_s - served_since_s >= ask.alone_s:
            level -= ask.spent_alone
        else:
            level -= ask.spent_alone * max(now_s - served_since_s - RETURN_S, 0.0) / ask.alone_s
    if ask.unused and ask.epoch == epoch and now_s - ask.unused_for_s > state.ample_at_s:
        level = max(level, min(level + ask.unused, full / 2))
    level -= ask.extra
    if ask.remaining is not None:
        level = min(level, ask.remaining)
    return evolve(state, level=level, epoch=epoch, served_since_s=served_since_s)


def _throttled(state: State, ask: Ask, pause_s: float, now_s: float) -> State:
    """After a 429: an empty bucket from the end of the pause on. One of an epoch that is over says nothing new. A
    second one soon after means that somebody else drinks from the bucket: it is refilled more slowly, and creeps
    back."""
    pace, throttled_at_s, level, epoch = state.pace, state.throttled_at_s, state.level, state.epoch
    if ask.epoch >= epoch:
        full = capacity(state.burst, state.per_s, is_loose=ask.is_loose)
        if now_s >= state.paused_until_s and level < full / 2:
            if now_s - throttled_at_s < SHARED_FOR_S:
                pace = max(pace * SLOWER, SLOWEST)
            throttled_at_s = now_s
        level, epoch = 0.0, epoch + 1
    paused_until_s = max(state.paused_until_s, now_s + pause_s)
    return evolve(
        state,
        level=level,
        pace=pace,
        throttled_at_s=throttled_at_s,
        paused_until_s=paused_until_s,
        epoch=epoch,
    )


def _granted(state: State, ask: Ask, now_s: float) -> tuple[State, Grant]:
    """One turn at least for whoever wants any, and no more than fit in `lease_s` and than are this process's share."""
    level, rate, members = state.level, state.per_s * state.pace, min(max(len(state.members), 1), MOST_MEMBERS)
    after_s = max(state.paused_until_s - now_s, 0.0)
    fit = math.floor(level + rate * (ask.lease_s - after_s) + ROUNDING)
    share = math.floor((max(level, 0.0) + rate * ask.lease_s) / members + ROUNDING)
    turns = min(ask.want, max(min(fit, share), 1))
    hold = hold_s(state.burst, state.per_s, is_loose=ask.is_loose)
    if ask.is_loose and ask.want > 0 and after_s == 0:
        loose = min(max(ask.want, LOOSE), math.floor(state.burst * LOOSE_PART / members + ROUNDING))
        if loose >= turns and level - loose >= capacity(state.burst, state.per_s, is_loose=True) / 2:
            turns, hold = loose, LOOSE_S
    grant = Grant(turns, level, after_s, rate, hold, state.burst, state.per_s, state.epoch, members)
    return evolve(state, level=level - turns), grant


@frozen
class Account:
    """Both buckets of an account as a store keeps them; `categories` maps `"submit"` and `"query"` to their states."""

    categories: Mapping[str, State] = field(factory=dict[str, State])

    def lease(self, category: str, ask: Ask, now_s: float) -> tuple[Account, Grant]:
        """The account after this process has asked, and what it is granted."""
        state, grant = lease(self.categories.get(category), ask, now_s)
        return Account({**self.categories, category: state}), grant
