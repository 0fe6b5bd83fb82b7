"""What keeps the buckets supplied: asking, going on alone, coming back. In virtual time."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from toapis_async import RateLimits, Settings
from toapis_async.engine.emitter import Emitter
from toapis_async.engine.pacer import RateGate
from toapis_async.engine.shared.leases import Leases
from toapis_async.engine.shared.port import STORE_TIMEOUT_S
from toapis_async.events import Event, SharingBack, SharingLost
from toapis_async.protocol.leasing import HEARTBEAT_S, SEEN_S

from .kit import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from toapis_async.engine.shared.port import Store
    from toapis_async.protocol.leasing import Ask, Grant
    from toapis_async.protocol.tiers import Category

pytestmark = pytest.mark.looptime

LIMITS = RateLimits(submit_per_s=5, submit_burst=15, query_per_s=50, query_burst=500)
FULL = 10  # what is shared of the burst


class Process:
    """A client's part in sharing."""

    def __init__(self, store: Store, **settings: object) -> None:
        self.events: list[Event] = []
        given = Settings(**{"limits": LIMITS, **settings})  # type: ignore[arg-type]
        self.leases = Leases(store, given, Emitter([self.events.append]))
        self.submits = RateGate(self.leases.bucket("submit"))
        self.queries = RateGate(self.leases.bucket("query"))
        self.leases.on_broken = lambda category, bucket: self.gate(category).draw_from(bucket)
        self.sent_at_s: list[float] = []

    def gate(self, category: Category) -> RateGate:
        return self.submits if category == "submit" else self.queries

    async def send(self, count: int) -> None:
        """Submissions, one after another, each answered at once."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            await self.submits.acquire()
            self.sent_at_s.append(round(loop.time(), 3))
            self.submits.answered(latency_s=0.01)


@asynccontextmanager
async def processes(count: int, store: MemoryStore, **settings: object) -> AsyncGenerator[list[Process]]:
    started = [Process(store, **settings) for _ in range(count)]
    await asyncio.sleep(0.01)
    try:
        yield started
    finally:
        for process in started:
            await process.leases.aclose()


async def test_one_process_has_it_all() -> None:
    async with processes(1, MemoryStore()) as (process,):
        await process.send(FULL + 10)
        assert process.sent_at_s[FULL - 1] == 0.01
        assert process.sent_at_s[-1] == pytest.approx(0.01 + 10 / 5, abs=0.02)
        assert process.leases.statistics().processes == 1


async def test_processes_with_work_get_equal_shares_at_the_full_rate() -> None:
    async with processes(4, MemoryStore()) as four:
        await asyncio.gather(*(process.send(40) for process in four))
        ends = [process.sent_at_s[-1] for process in four]
        assert max(ends) == pytest.approx((160 - FULL) / 5, abs=0.5)
        assert min(ends) > 0.9 * max(ends)
        assert {process.leases.statistics().processes for process in four} == {4}


async def test_one_with_work_beside_idle_ones_has_the_full_rate() -> None:
    store = MemoryStore()
    async with processes(4, store) as (busy, *_):
        await busy.send(100)
        assert busy.sent_at_s[-1] == pytest.approx((100 - FULL) / 5, abs=0.3)
        assert sum(ask.want > 0 for ask in store.asks) <= 100


async def test_unequal_loads_keep_the_account_busy() -> None:
    async with processes(4, MemoryStore()) as (busy, *others):
        await asyncio.gather(busy.send(180), *(other.send(20) for other in others))
        least_s = (180 + 3 * 20 - LIMITS.submit_burst) / LIMITS.submit_per_s
        assert max(busy.sent_at_s) <= 1.02 * least_s + 1.2
        assert all(other.sent_at_s[-1] < busy.sent_at_s[-1] / 2 for other in others)


async def test_who_closes_is_not_counted_and_gives_back_what_it_has() -> None:
    store = MemoryStore()
    async with processes(2, store) as (one, other):
        one.queries.throttle(0.0)
        await other.leases.aclose()
        assert [ask.is_leaving for ask in store.asks[-2:]] == [True, True]
        await asyncio.sleep(HEARTBEAT_S + 0.1)
        assert one.leases.statistics().processes == 1
        assert store.closed == 1


async def test_a_429_of_one_process_stops_the_others() -> None:
    store = MemoryStore()
    async with processes(2, store) as (one, other):
        await one.send(FULL)
        one.submits.throttle(3.0)
        await asyncio.sleep(0.01)
        before_s = asyncio.get_running_loop().time()
        await other.send(1)
        assert other.sent_at_s[0] >= before_s + 3.0
        assert one.leases.statistics().epoch == 2


@pytest.mark.parametrize("trouble", ["refused", "silent", "bug"])
async def test_without_the_store_each_goes_on_with_its_share_and_tells_once(trouble: str) -> None:
    store = MemoryStore()
    async with processes(2, store) as (one, other):
        await asyncio.gather(one.send(10), other.send(10))
        store.trouble = trouble
        lost_s = asyncio.get_running_loop().time()
        await asyncio.gather(one.send(30), other.send(30))
        for process in (one, other):
            assert [type(event) for event in process.events] == [SharingLost]
            assert process.sent_at_s[-1] == pytest.approx(lost_s + 30 / 2.5, abs=2.0)
            assert process.leases.statistics().alone_s > 5
        assert one.leases.statistics().is_alone
        assert isinstance(event := one.events[0], SharingLost)
        assert event.share == 0.5


async def test_what_was_spent_alone_is_booked_on_return() -> None:
    store = MemoryStore()
    async with processes(2, store) as (one, other):
        await asyncio.gather(one.send(10), other.send(10))
        store.trouble = "refused"
        await asyncio.gather(one.send(20), other.send(20))
        store.trouble = None
        await asyncio.sleep(1.1 + STORE_TIMEOUT_S)
        for process in (one, other):
            assert [type(event) for event in process.events] == [SharingLost, SharingBack]
            assert not process.leases.statistics().is_alone
        since_s = asyncio.get_running_loop().time()
        await asyncio.gather(one.send(20), other.send(20))
        # Nobody was paid twice for the time without the store: no new burst.
        assert asyncio.get_running_loop().time() - since_s > (40 - 2 * 5 - 1) / 5


async def test_all_together_stay_within_the_bucket_while_a_store_comes_and_goes() -> None:
    store = MemoryStore()
    async with processes(3, store) as three:
        running = [asyncio.create_task(process.send(80)) for process in three]
        for trouble in ("refused", None, "silent", None):
            await asyncio.sleep(6.0)
            store.trouble = trouble
        await asyncio.gather(*running)
        level, at_s = LIMITS.submit_burst, 0.0
        for sent_s in sorted(at_s for process in three for at_s in process.sent_at_s):
            level = min(level + (sent_s - at_s) * LIMITS.submit_per_s, LIMITS.submit_burst)
            at_s = sent_s
            level -= 1
            assert level >= 0
        assert at_s < 1.3 * (240 - FULL) / 5


async def test_a_store_that_forgot_begins_empty() -> None:
    store = MemoryStore()
    async with processes(1, store) as (process,):
        await process.send(1)
        store.account = type(store.account)()
        await process.send(3)
        assert process.sent_at_s[-1] >= process.sent_at_s[0] + 2 / 5


async def test_the_tier_that_one_process_sees_is_everybodys() -> None:
    store = MemoryStore()
    async with processes(2, store, limits=None, tier="auto") as (one, other):
        one.submits.retune(167.0, 16.7)
        await asyncio.sleep(HEARTBEAT_S + 0.1)
        assert other.submits.statistics().refill_per_s == 16.7


async def test_processes_that_state_different_limits_are_told_so(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with processes(1, store):
        other = Process(store, limits=None, tier="svip")
        await asyncio.sleep(2 * HEARTBEAT_S)
        assert other.submits.statistics().refill_per_s == 5
        await other.leases.aclose()
    (told,) = [r.message for r in caplog.records if r.message.startswith("submit limits")]
    assert told.endswith("go by 5/s and 15 at once, not by this one's 33.3333/s and 333.333 at once")


async def test_those_who_do_nothing_are_counted_too() -> None:
    async with processes(3, MemoryStore()) as three:
        await asyncio.sleep(3 * SEEN_S)
        assert {process.leases.statistics().processes for process in three} == {3}


async def test_closing_waits_for_a_silent_store_no_longer_than_its_time() -> None:
    store = MemoryStore()
    async with processes(1, store) as (process,):
        store.trouble = "silent"
        before_s = asyncio.get_running_loop().time()
        await process.leases.aclose()
        assert asyncio.get_running_loop().time() - before_s <= STORE_TIMEOUT_S + 0.01


@pytest.mark.parametrize("trouble", [None, "refused"])
async def test_a_process_that_stood_still_does_not_blame_the_store(
    trouble: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now, stopped_s = loop.time, 0.0

    class Store(MemoryStore):
        async def lease(self, category: Category, ask: Ask) -> Grant:
            nonlocal stopped_s
            if stopped_s or category == "query" or not ask.want:
                return await super().lease(category, ask)
            stopped_s = 5.0  # the whole process, in the middle of this
            self.trouble = trouble
            try:
                return await super().lease(category, ask)
            finally:
                self.trouble = None

    monkeypatch.setattr(loop, "time", lambda: now() + stopped_s)
    store = Store()
    async with processes(1, store) as (process,):
        await process.send(3)
        assert process.events == []
        assert [round(ask.alone_s) for ask in store.asks if ask.alone_s] == [5]


async def test_alone_the_level_shown_is_what_the_store_said_last_so_that_polls_get_no_rarer() -> None:
    store = MemoryStore()
    async with processes(4, store) as (process, *_):
        await process.queries.acquire()
        process.queries.answered(latency_s=0.01)
        assert process.queries.fullness(asyncio.get_running_loop().time()) > 0.9
        store.trouble = "refused"
        for _ in range(20):
            await process.queries.acquire()
            process.queries.answered(latency_s=0.01)
        assert process.leases.is_lost
        assert process.queries.fullness(asyncio.get_running_loop().time()) > 0.9


async def test_a_429_while_alone_is_met_with_a_pause() -> None:
    store = MemoryStore()
    async with processes(1, store) as (process,):
        store.trouble = "refused"
        await process.send(FULL + 2)
        now_s = asyncio.get_running_loop().time()
        process.submits.throttle(4.0)
        await process.send(1)
        assert process.sent_at_s[-1] >= round(now_s + 4.0, 3)


async def test_what_is_sent_while_the_store_is_asked_again_is_booked() -> None:
    class Slow(MemoryStore):
        async def lease(self, category: Category, ask: Ask) -> Grant:
            if ask.alone_s and self.trouble is None:
                await asyncio.sleep(0.4)
            return await super().lease(category, ask)

    store = Slow()
    async with processes(1, store) as (process,):
        store.trouble = "refused"
        sending = asyncio.create_task(process.send(FULL + 60))
        await asyncio.sleep(4.0)
        store.trouble = None
        await sending
        # Two turns, at five a second, came due while the store was asked.
        assert [ask.extra for ask in store.asks if ask.extra] == [2.0]


async def test_a_tier_that_is_seen_while_alone_is_shared_in_mind() -> None:
    store = MemoryStore()
    async with processes(2, store, limits=None, tier="auto") as (one, _):
        await asyncio.sleep(HEARTBEAT_S)
        store.trouble = "refused"
        await asyncio.sleep(HEARTBEAT_S + 0.1)
        assert one.leases.is_lost
        one.submits.retune(167.0, 16.7)
        await one.send(1)
        await one.send(30)
        assert one.sent_at_s[-1] - one.sent_at_s[0] == pytest.approx(30 / (16.7 / 2), abs=0.5)
        assert one.submits.statistics().refill_per_s == 16.7


@pytest.mark.parametrize("broken", ["granted", "ask", "late_in_s"])
async def test_a_bug_leaves_nobody_waiting_and_this_process_at_its_share(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with processes(2, MemoryStore()) as (one, _):
        await one.send(FULL)

        def bug(*_: object, **__: object) -> None:
            raise ZeroDivisionError(broken)

        sending = asyncio.create_task(one.send(20))
        await asyncio.sleep(0.1)
        since_s = asyncio.get_running_loop().time()
        monkeypatch.setattr(one.leases.bucket("submit"), broken, bug)
        await sending
        assert one.sent_at_s[-1] == pytest.approx(since_s + 20 / 2.5, abs=1.0)
        await one.queries.acquire()
        assert one.leases.is_lost
        assert one.events == [SharingLost(one.events[0].at_s, "a bug: ZeroDivisionError", 0.5)]
    (told,) = [r for r in caplog.records if r.levelname == "CRITICAL"]
    assert told.exc_info is not None


async def test_a_bug_while_the_store_is_lost_is_no_second_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with processes(1, store) as (process,):
        store.trouble = "refused"
        await process.send(FULL + 2)

        async def bug(*_: object) -> None:
            raise ZeroDivisionError

        for supply in process.leases._supplies.values():
            monkeypatch.setattr(supply, "come_back", bug)
        await process.send(10)
        store.trouble = None
        await process.send(10)
        assert [type(event) for event in process.events] == [SharingLost]
        asked = len(store.asks)
        await asyncio.sleep(10)
        assert len(store.asks) == asked


@pytest.mark.parametrize(
    "nonsense",
    [
        {"rate": 0.0},
        {"level": math.nan},
        {"turns": 10**9},
        {"turns": -1},
        {"after_s": -1.0},
        {"burst": 0.0},
        {"per_s": math.inf},
        {"members": 0},
        {"hold_s": 1e9},
        {"epoch": -5},
    ],
)
async def test_a_store_that_answers_nonsense_is_a_lost_one(nonsense: dict[str, Any]) -> None:
    class Nonsense(MemoryStore):
        async def lease(self, category: Category, ask: Ask) -> Grant:
            grant = await super().lease(category, ask)
            return evolve(grant, **nonsense) if category == "submit" else grant

    async with processes(1, Nonsense()) as (process,):
        await process.send(10)
        (event,) = process.events
        assert isinstance(event, SharingLost)
        assert "makes no sense" in event.reason
