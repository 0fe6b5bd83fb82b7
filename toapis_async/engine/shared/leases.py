"""Keeps the two buckets of a process supplied with turns of a store; while the store is lost, with its last share."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from toapis_async.engine.shared.port import STORE_TIMEOUT_S, Channel, StoreLost, check_cancelled
from toapis_async.events import SharingBack, SharingLost
from toapis_async.log import logger
from toapis_async.protocol.leased import LeasedBucket
from toapis_async.protocol.leasing import GUESSED, HEARTBEAT_S, STATED, Ask, Grant, State, empty_share, lease

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from toapis_async.engine.emitter import Emitter
    from toapis_async.engine.shared.port import Store
    from toapis_async.protocol.pacing import Bucket
    from toapis_async.protocol.tiers import Category
    from toapis_async.settings import Settings

RETRY_S: Final = 1.0
"""Between two tries of a store that is lost."""
_FIRST_BEAT_S: Final = 0.25
_CATEGORIES: Final[tuple[Category, Category]] = ("submit", "query")


@frozen
class SharedStatistics:
    """How a client shares its limits with other processes."""

    kind: str  #: "host", "redis", …
    processes: int  #: clients that share, this one included, as of the last answer of the store
    alone_s: float  #: seconds without the store so far
    leases: int  #: times the store was asked
    epoch: int  #: grows when any of the processes meets a 429
    is_alone: bool = False  #: whether the store is lost now


class Leases:
    """Both buckets, and the tasks that ask for them."""

    def __init__(self, store: Store, settings: Settings, emit: Emitter) -> None:
        self.store = store
        if isinstance(store, Channel):
            store.on_epoch = self._wake_all
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._supplies: Mapping[Category, _Supply] = {
            category: _Supply(self, category, settings, _first_ask(settings, category, store.lease_s))
            for category in _CATEGORIES
        }
        self._lost_since_s: float | None = None
        self._members = 1  # as of when they were lost
        self._alone_s = 0.0
        self._is_broken = False
        self.on_broken: Callable[[Category, Bucket], None] = lambda category, bucket: None
        """Set by the engine: called with a bucket of this process's own, to be used in place of a shared one."""
        self._returning: asyncio.Task[None] | None = None
        self._tasks = [
            self._started(supply.run(), f"toapis-leases-{category}") for category, supply in self._supplies.items()
        ]

    def bucket(self, category: Category) -> LeasedBucket:
        """The bucket that is kept supplied."""
        return self._supplies[category].bucket

    def statistics(self) -> SharedStatistics:
        """A snapshot."""
        return SharedStatistics(
            kind=self.store.kind,
            processes=self._most_members(),
            alone_s=self._alone_s + (0.0 if self._lost_since_s is None else self._loop.time() - self._lost_since_s),
            leases=sum(supply.leases for supply in self._supplies.values()),
            epoch=max(supply.bucket.epoch for supply in self._supplies.values()),
            is_alone=self.is_lost,
        )

    async def aclose(self) -> None:
        """Stop asking, give back what is in stock, and disconnect."""
        self.cancel()
        tasks = [*self._tasks, *([self._returning] if self._returning else [])]
        await asyncio.wait(tasks)
        try:
            if self._lost_since_s is None:
                await asyncio.gather(*(supply.leave() for supply in self._supplies.values()))
        finally:
            await self.store.aclose()

    def cancel(self) -> None:
        """Stop asking."""
        for task in (*self._tasks, self._returning):
            if task is not None:
                task.cancel()

    @property
    def is_lost(self) -> bool:
        """Whether the process goes on alone."""
        return self._lost_since_s is not None

    def lose(self, reason: str, since_s: float) -> None:
        """Go on alone, with the share that this process had."""
        if self._lost_since_s is not None:
            return
        self._lost_since_s = since_s
        self._members = self._most_members()
        for supply in self._supplies.values():
            supply.go_alone(self._members)
        logger.warning("shared limits are lost (%s): going on with 1/%d of the rate", reason, self._members)
        self._emit(SharingLost, reason, 1.0 / self._members)
        self._returning = self._started(self._return(), "toapis-leases-return")

    def _started(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that ended by a bug would leave those who wait for turns waiting: from then on this process keeps to
        its share by buckets of its own, and asks the store no more."""
        if task.cancelled() or task.exception() is None or self._is_broken:
            return
        self._is_broken = True
        logger.critical("sharing limits ended by a bug; this process keeps to its share", exc_info=task.exception())
        self.cancel()
        if self._lost_since_s is None:
            self._lost_since_s = self._loop.time()
            self._members = self._most_members()
            self._emit(SharingLost, f"a bug: {type(task.exception()).__name__}", 1.0 / self._members)
        for category, supply in self._supplies.items():
            self.on_broken(category, supply.bucket.own_share(self._members, self._loop.time()))

    def _most_members(self) -> int:
        return max(supply.bucket.members for supply in self._supplies.values())

    async def _return(self) -> None:
        while self._lost_since_s is not None:
            await asyncio.sleep(RETRY_S)
            try:
                for supply in self._supplies.values():
                    await supply.come_back(self._lost_since_s)
            except StoreLost as error:
                logger.debug("shared limits are still lost (%s)", error)
                for supply in self._supplies.values():
                    supply.go_alone(self._members)  # also one that was back already
                continue
            alone_s = self._loop.time() - self._lost_since_s
            self._lost_since_s = None
            self._alone_s += alone_s
            logger.warning("shared limits are back after %.1f s", alone_s)
            self._emit(SharingBack, alone_s)
            self._wake_all()

    def _wake_all(self) -> None:
        for supply in self._supplies.values():
            supply.wake()


class _Supply:
    """One bucket, and who asks for it. Asks one at a time."""

    def __init__(self, leases: Leases, category: Category, settings: Settings, ask: Ask) -> None:
        self.bucket = LeasedBucket(ask, most_unanswered=settings.max_connections)
        self.bucket.on_want = self.wake
        self.leases = 0
        self._all = leases
        self._category: Category = category
        self._stated = ask
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._away_s = 0.0  # how long this process itself stood still in its last ask
        self._alone: State | None = None
        self._members = 1
        self._spent_alone = 0

    def wake(self) -> None:
        """There is something to ask for or to tell."""
        self._wanted.set()

    async def run(self) -> None:
        """Ask whenever something is wanted, or to be told, and now and then to be counted: soon after the start, when
        others start, too, then less often."""
        beat_s = _FIRST_BEAT_S
        while True:
            if self._alone is not None:
                self._lease_alone(self._alone)
            else:
                await self._lease()
            now_s = self._loop.time()
            timer = self._loop.call_later(min(beat_s, self.bucket.late_in_s(now_s) + 0.001), self.wake)
            try:
                await self._wanted.wait()
            finally:
                timer.cancel()
            self._wanted.clear()
            beat_s = min(2 * beat_s, HEARTBEAT_S)

    async def _lease(self) -> None:
        started_s = self._loop.time()
        ask = self.bucket.ask(started_s)
        if self._away_s:
            ask, self._away_s = evolve(ask, alone_s=self._away_s), 0.0
        try:
            grant = await self._asked(ask)
        except StoreLost as error:
            away_s = self._loop.time() - started_s
            self.bucket.untold(ask, self._loop.time(), unchanged=error.unchanged)
            if away_s > 2 * STORE_TIMEOUT_S and not ask.alone_s:
                self._away_s = away_s  # this process stood still, and can't tell whether the store was there
            else:
                self._all.lose(str(error), started_s)
            self.wake()
            return
        now_s = self._loop.time()
        if now_s - started_s > STORE_TIMEOUT_S:
            self._away_s = now_s - started_s
            self.wake()
        self._note_limits(grant)
        self.bucket.granted(grant, started_s, now_s)

    async def _asked(self, ask: Ask) -> Grant:
        """Raises `StoreLost`."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                grant = await self._all.store.lease(self._category, ask)
        except TimeoutError:
            raise StoreLost(f"no answer in {STORE_TIMEOUT_S:g} s") from None
        except StoreLost:
            raise
        except Exception as error:  # limits never fail closed, not even by a bug of a store
            logger.exception("the store of shared limits failed")
            raise StoreLost(type(error).__name__) from error
        finally:
            check_cancelled()
        if not grant.is_sound(ask):
            raise StoreLost("its answer makes no sense")
        self.leases += 1
        return grant

    def _lease_alone(self, state: State) -> None:
        """As from the store, of this process's own share."""
        now_s, share = self._loop.time(), 1.0 / self._members
        ask = self.bucket.ask(now_s)
        mine = evolve(ask, burst=max(ask.burst * share, 1.0), per_s=ask.per_s * share, epoch=state.epoch)
        self._alone, grant = lease(state, mine, now_s)
        self._spent_alone += grant.turns - ask.unused
        grant = evolve(grant, burst=ask.burst, per_s=ask.per_s, members=self._members)
        self.bucket.granted(grant, now_s, now_s, is_alone=True)

    def go_alone(self, members: int) -> None:
        """Live on this process's share from now on, beginning with nothing."""
        if self._alone is not None:
            return
        self._members = members
        self._spent_alone = 0
        ask = evolve(self._stated, burst=self.bucket.capacity, per_s=self.bucket.refill_per_s, epoch=self.bucket.epoch)
        self._alone = empty_share(ask, members, self._loop.time())
        self.wake()

    async def come_back(self, since_s: float) -> None:
        """Tell the store what was spent without it. Raises `StoreLost` when it is not there."""
        if self._alone is None:
            return
        now_s, spent = self._loop.time(), self._spent_alone
        ask = evolve(
            self._stated,
            burst=self.bucket.capacity,
            per_s=self.bucket.refill_per_s,
            epoch=self.bucket.epoch,
            alone_s=now_s - since_s,
            spent_alone=max(float(spent), 0.0),
            of=self._members,
        )
        grant = await self._asked(ask)
        self._alone = None
        self.bucket.spent(max(self._spent_alone - spent, 0))  # meanwhile
        self.bucket.granted(grant, now_s, self._loop.time())

    async def leave(self) -> None:
        """Give back what is in stock, and be counted no longer."""
        self.bucket.give_all_back()
        ask = evolve(self.bucket.ask(self._loop.time()), want=0, is_leaving=True)
        try:
            await self._asked(ask)
        except StoreLost as error:
            logger.debug("shared limits could not be told that this process leaves (%s)", error)

    def _note_limits(self, grant: Grant) -> None:
        """Processes of one account that state different limits are a mistake of whoever set them."""
        stated = self._stated
        if stated.sureness == STATED and (grant.burst, grant.per_s) != (stated.burst, stated.per_s):
            logger.warning(
                "%s limits: the processes that share go by %g/s and %g at once, not by this one's %g/s and %g at once",
                self._category, grant.per_s, grant.burst, stated.per_s, stated.burst,
            )  # fmt: skip
            self._stated = evolve(stated, burst=grant.burst, per_s=grant.per_s, sureness=GUESSED)


def _first_ask(settings: Settings, category: Category, lease_s: float) -> Ask:
    """What every ask of this client's has in common."""
    limits = settings.rate_limits
    is_query = category == "query"
    return Ask(
        member=secrets.token_hex(8),
        burst=limits.query_burst if is_query else limits.submit_burst,
        per_s=limits.query_per_s if is_query else limits.submit_per_s,
        sureness=GUESSED if settings.adopts_tier else STATED,
        is_loose=is_query,
        lease_s=lease_s,
    )
