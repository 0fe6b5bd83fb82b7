"""The engine of one open client: its parts, made in the order they need each other and closed in reverse."""

from __future__ import annotations

import asyncio
import math
import os
import random
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from attrs import asdict, evolve, frozen

from toapis_async.engine.agenda import Agenda
from toapis_async.engine.bills import Bills
from toapis_async.engine.downloads import Downloads
from toapis_async.engine.emitter import Emitter
from toapis_async.engine.journal.records import End, State
from toapis_async.engine.journal.resume import end_from
from toapis_async.engine.limiter import Gate, Permits
from toapis_async.engine.pacer import Pacer
from toapis_async.engine.parts import Parts, SubmitCounts
from toapis_async.engine.poller import Poller
from toapis_async.engine.queries import Queries
from toapis_async.engine.retrying import with_retries
from toapis_async.engine.saving import Saving
from toapis_async.engine.shared.ends import Ends
from toapis_async.engine.shared.leases import Leases, SharedStatistics
from toapis_async.engine.spending import Spending
from toapis_async.engine.submitter import Submitter
from toapis_async.engine.tasks import Tasks
from toapis_async.engine.transport import Transport
from toapis_async.engine.unclaimed import Unclaimed
from toapis_async.engine.uploads import Uploads
from toapis_async.errors import ClientStateError, TaskNotFound
from toapis_async.log import logger
from toapis_async.protocol.budget import Budget, Prices
from toapis_async.protocol.endpoints import ENDPOINTS
from toapis_async.protocol.pacing import Bucket, PacingStatistics, TokenBucket
from toapis_async.protocol.polling.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from decimal import Decimal

    from toapis_async.engine.entry import Entry
    from toapis_async.engine.journal.port import JournalPort
    from toapis_async.engine.recovery import Recovery
    from toapis_async.engine.renewal import Link
    from toapis_async.engine.shared.port import Channel, Store
    from toapis_async.models import Generation, Learned
    from toapis_async.protocol.endpoints import Endpoint
    from toapis_async.protocol.tiers import Category
    from toapis_async.settings import Credentials, RateLimits, Settings


T = TypeVar("T")


@frozen
class ClientStatistics:
    """What a client has done and has in hand, at one moment."""

    in_flight: int  #: tasks being watched
    waiting: int  #: submissions waiting for a permit or a token
    accepted: int
    completed: int
    failed: int
    retried: int  #: submissions sent again after they certainly were not accepted
    adopted: int  #: submissions whose answer was lost, and whose task was found by its id
    resubmitted: int  #: submissions sent again after a whole window in which no task was to be found
    uncertain: int  #: submissions that ended with nobody knowing
    polls: int  #: status queries, look-ups included
    requests: int  #: API requests that went out, resends of the HTTP library included
    throttled_submits: int  #: answers of 429
    throttled_queries: int
    saved_files: int
    saved_bytes: int
    recoverable: int  #: plain submissions that earlier processes left in the journal, or those that are gone in one
    #: that processes share; `recovered()` lists the newest 10,000
    submit: PacingStatistics
    query: PacingStatistics
    shared: SharedStatistics | None = None  #: with `ToAPIs(shared=…)`


class Dependent(Protocol):
    """Something that runs on the engine and must end before it (a batch)."""

    async def aclose(self) -> None: ...


class Engine:
    """Holds no reference to the client, so that a client nobody holds is noticed."""

    def __init__(
        self,
        credentials: Credentials,
        settings: Settings,
        *,
        journal: JournalPort | None = None,
        recovery: Recovery | None = None,
        budget_credits: Decimal | None = None,
        store: Store | None = None,
        ends_channel: Channel | None = None,
    ) -> None:
        """`store`: what the buckets' turns are leased from; None for buckets of this process's own. `ends_channel`
        leads to the other processes of the account."""
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self.settings = settings
        rng = self._rng = random.Random()
        self.emit: Emitter = Emitter(settings.on_event, with_prompts=settings.events_with_prompts)
        self.prices: Prices = Prices(settings.prices)
        budget = None if budget_credits is None else Budget(self.prices, most_credits=budget_credits)
        self.journal = journal
        self.recovery = recovery
        self.runs: set[str] = set()  #: of batches that run
        self.dependents: set[Dependent] = set()
        self.unclaimed: Unclaimed = Unclaimed()
        self.transport: Transport = Transport(credentials, settings, self.emit)
        self.leases: Leases | None = None if store is None else Leases(store, settings, self.emit)
        bucket_for = self.leases.bucket if self.leases else partial(_own_bucket, settings, self._loop)
        self._submits = Pacer("submit", bucket_for("submit"), settings, rng, self.emit)
        self._polls = Pacer("query", bucket_for("query"), settings, rng, self.emit)
        if self.leases is not None:
            self.leases.on_broken = self._draw_from
        self._permits = Gate(Permits(settings.max_in_flight))
        self.queries: Queries = Queries(self.transport, self._polls)
        self.bills: Bills = Bills(self.queries, journal)
        self.spending: Spending = Spending(budget, self.bills)
        self.uploads: Uploads = Uploads(self.transport, settings, rng)
        self.downloads: Downloads = Downloads(self.transport, settings, rng, self.emit, self._links_now)
        self.saving: Saving = Saving(self.downloads, journal, credentials.base_url)
        agenda = Agenda({kind: _schedule(endpoint, settings, rng) for kind, endpoint in ENDPOINTS.items()})
        self.learned: Callable[[], Learned] = agenda.learned
        self.ends: Ends | None = None if ends_channel is None else Ends(ends_channel, agenda, rng)
        self.tasks: Tasks = Tasks(agenda, settings, self.emit, self._task_ended, self.ends)
        self._counts = SubmitCounts()
        self.submitter: Submitter = Submitter(self._parts())
        self.transport.open()
        poller = Poller(port=self.queries, agenda=agenda, tasks=self.tasks, settings=settings, emit=self.emit)
        self._polling = self._loop.create_task(poller.run(), name="toapis-poller")
        self._polling.add_done_callback(self._poller_ended)
        if recovery is not None:
            recovery.start(self.emit)
        if self.ends is not None:
            self.ends.start(self.tasks)

    def _parts(self) -> Parts:
        return Parts(
            transport=self.transport,
            pacer=self._submits,
            permits=self._permits,
            tasks=self.tasks,
            queries=self.queries,
            uploads=self.uploads,
            spending=self.spending,
            journal=self.journal,
            unclaimed=self.unclaimed,
            settings=self.settings,
            emit=self.emit,
            counts=self._counts,
            attempts={},
            release=lambda _: self._permits.give_back(),
        )

    async def _links_now(self, generation: Generation) -> Sequence[Link]:
        endpoint = ENDPOINTS["video" if generation.videos else "image"]
        snapshot, _ = await self.queries.status(generation.task_id, (endpoint,))
        return [evolve(file, url=self.saving.absolute(file.url)) for file in snapshot.files]

    async def ready(self) -> None:
        """Wait until the events that reach other processes come here, or can't be had; a second at most."""
        if self.ends is not None:
            await self.ends.ready()

    async def aclose(self) -> None:
        """Refuse, drain, end, disconnect."""
        try:
            self._submits.gate.close()
            self._permits.close()
            for dependent in tuple(self.dependents):
                await dependent.aclose()
            await self.bills.aclose()
            if self.recovery is not None:
                await self.recovery.aclose()
            await self.submitter.aclose()
            self._polling.cancel()
            await asyncio.wait([self._polling])
            if self.ends is not None:
                await self.ends.aclose()
            self._polls.gate.close()
            self.tasks.close()
            if self.journal is not None:
                await self.journal.aclose()
            if self.leases is not None:
                await self.leases.aclose()
        finally:
            if self.journal is not None:
                self.journal.forget()  # when closing itself was cut short, its lock must not stay
            if self.ends is not None:
                self.ends.forget()
            if self.leases is not None:
                self.leases.cancel()
            await self.transport.aclose()

    def forget(self) -> None:
        """The client was dropped unclosed: stop polling and tell whoever still waits. May run in any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._polling.cancel)
            if self.leases is not None:
                self._loop.call_soon_threadsafe(self.leases.cancel)
            self._loop.call_soon_threadsafe(self.bills.close)
            if self.recovery is not None:
                self._loop.call_soon_threadsafe(self.recovery.stop)
            self._loop.call_soon_threadsafe(self.tasks.close)
            if self.ends is not None:
                self._loop.call_soon_threadsafe(self.ends.forget)
        if self.journal is not None:
            self.journal.forget()

    async def retried(self, query: Callable[[], Awaitable[T]]) -> T:
        """What a harmless query gives, tried again while what stands in the way may pass: see `with_retries`."""
        within_s = self.settings.submit_retry_s
        return await with_retries(query, within_s=within_s, closed=self.transport.closed, rng=self._rng)

    def _task_ended(self, entry: Entry) -> None:
        """Settle the budget and write the end down. A finished task without a link is not written: it is asked for
        again. The end of watching alone is no outcome; but an intent that the service knew no task of through a whole
        window was not accepted."""
        self.spending.ended(entry)
        if self.journal is None:
            self.submitter.in_common.ended(entry)
            return
        snapshot = entry.snapshot if entry.status is not None and entry.status.is_final else None
        business_id = entry.client_business_id or (snapshot.client_business_id if snapshot else None)
        if business_id is None:
            return
        if snapshot is not None:
            end = end_from(snapshot, entry.task_id)
            if end is not None and (snapshot.files or end.state is State.FAILED):
                self.journal.ended(business_id, end)
        elif isinstance(entry.error, TaskNotFound) and not entry.has_snapshot:
            watched_s = self._loop.time() - entry.since_s
            if watched_s >= self.settings.reconcile_window_s and not self.submitter.is_busy_with(business_id):
                self.journal.ended(business_id, End(State.WITHDRAWN))

    @property
    def is_forked(self) -> bool:
        """Whether this is a copy in another process: the loop, the journal and the connections are the other's."""
        return os.getpid() != self._pid

    def check_loop(self) -> None:
        """Raise `ClientStateError` in another process or event loop than the engine was made in."""
        if self.is_forked:
            raise ClientStateError("the client belongs to the process that opened it: make one client in each process")
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise ClientStateError("the client belongs to another event loop: make one in each loop")

    def _poller_ended(self, polling: asyncio.Task[None]) -> None:
        if not polling.cancelled() and polling.exception() is not None:
            logger.critical("the poller ended by a bug; every watch ends with it", exc_info=polling.exception())
            for gate in (self._submits.gate, self._permits, self._polls.gate):  # or the service would go on being paid
                gate.close()
            self.tasks.close()

    def _draw_from(self, category: Category, bucket: Bucket) -> None:
        pacer = self._submits if category == "submit" else self._polls
        pacer.gate.draw_from(bucket)

    def statistics(self) -> ClientStatistics:
        submit, query = self._submits.gate, self._polls.gate
        return ClientStatistics(
            in_flight=len(self.tasks),
            waiting=self._permits.waiting + submit.waiting,
            completed=self.tasks.completed,
            failed=self.tasks.failed,
            polls=self.queries.count,
            requests=self.transport.sent,
            throttled_submits=self._submits.throttled,
            throttled_queries=self._polls.throttled,
            saved_files=self.downloads.saved,
            saved_bytes=self.downloads.saved_bytes,
            recoverable=self.recovery.number if self.recovery else 0,
            submit=submit.statistics(),
            query=query.statistics(),
            shared=self.leases.statistics() if self.leases else None,
            **asdict(self._counts),
        )


def _own_bucket(settings: Settings, loop: asyncio.AbstractEventLoop, category: Category) -> Bucket:
    limits: RateLimits = settings.rate_limits
    burst, per_s = (
        (limits.submit_burst, limits.submit_per_s) if category == "submit" else (limits.query_burst, limits.query_per_s)
    )
    return TokenBucket(burst, per_s, loop.time(), most_unanswered=settings.max_connections)


def _schedule(endpoint: Endpoint, settings: Settings, rng: random.Random) -> Schedule[Entry]:
    interval_s = settings.min_poll_interval_s * endpoint.interval_factor
    schedule: Schedule[Entry] = Schedule(
        first_s=settings.first_poll_s,
        interval_s=interval_s,
        jitter=settings.poll_jitter,
        # A video that may take two days looks like any other here: the poller knows how old it may get.
        most_age_s=settings.max_task_age_s if endpoint.kind == "image" else math.inf,
        typical=endpoint.typical_intervals,
        rng=rng,
    )
    if settings.prior is not None and settings.prior.interval_s == settings.min_poll_interval_s:
        schedule.recall(evolve(settings.prior, interval_s=interval_s))
    return schedule
