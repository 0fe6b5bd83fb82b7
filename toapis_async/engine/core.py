"""The engine of one open client: its parts, made in the order they need each other and closed in reverse."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from toapis_async.engine.downloads import Downloads
from toapis_async.engine.fingerprint import fingerprint
from toapis_async.engine.inbox import Inbox
from toapis_async.engine.journal.file import Intent, State
from toapis_async.engine.journal.resume import answer_of, to_take_up
from toapis_async.engine.limiter import Gate, Permits, RateGate
from toapis_async.engine.poller import Poller
from toapis_async.engine.poster import Poster
from toapis_async.engine.queries import Pacer, Queries
from toapis_async.engine.reconciler import Reconciler
from toapis_async.engine.registry import Entry, Registry
from toapis_async.engine.spending import Spending
from toapis_async.engine.submitter import Submitter, mint_business_id
from toapis_async.engine.transport import Transport
from toapis_async.engine.unclaimed import Unclaimed
from toapis_async.engine.uploads import Uploads
from toapis_async.errors import ClientStateError, InvalidRequest, SessionClosed, TaskNotFound, ToAPIsError
from toapis_async.log import logger
from toapis_async.protocol.budget import Budget, Prices
from toapis_async.protocol.pacing import PacingStatistics, TokenBucket
from toapis_async.protocol.polling.schedule import Schedule
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from decimal import Decimal

    from toapis_async.engine.journal.file import Record
    from toapis_async.engine.journal.writer import JournalWriter
    from toapis_async.events import Event
    from toapis_async.request import ImageRequest
    from toapis_async.settings import Credentials, Settings
    from toapis_async.task import TaskSnapshot


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
    looks: int  #: status questions asked
    requests: int  #: API requests that went out, resends of the HTTP library included
    throttled_submits: int  #: answers of 429
    throttled_queries: int
    saved_files: int
    saved_bytes: int
    submit: PacingStatistics
    query: PacingStatistics


class Dependent(Protocol):
    """Something that runs on the engine and must end before it (a batch)."""

    async def aclose(self) -> None: ...


class Engine:
    """Holds no reference to the client, so that a client nobody holds is noticed."""

    def __init__(
        self,
        credentials: Credentials,
        settings: Settings,
        journal: JournalWriter | None = None,
        recovered: tuple[Record, ...] = (),
        budget_credits: Decimal | None = None,
    ) -> None:
        self.prices = Prices(settings.prices)
        budget = None if budget_credits is None else Budget(self.prices, most_credits=budget_credits)
        self.spending = Spending(budget)
        self.journal = journal
        self._to_recover = recovered
        self._recovered: tuple[Entry, ...] | None = None
        self.runs: set[str] = set()  #: of batches that run
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        rng = random.Random()
        limits = settings.rate_limits
        self.transport = Transport(credentials, settings, self.emit)
        self.registry = Registry(self.emit, self._loop.time, self._keep)
        self._submits = Pacer("submit", self._gate(limits.submit_burst, limits.submit_per_s), settings, rng, self.emit)
        self._asks = Pacer("query", self._gate(limits.query_burst, limits.query_per_s), settings, rng, self.emit)
        self.queries = Queries(self.transport, self._asks)
        self.uploads = Uploads(self.transport, settings, rng)
        self.downloads = Downloads(self.transport, settings, rng, self.emit)
        self._permits = Gate(Permits(settings.max_in_flight))
        schedule: Schedule[Entry] = Schedule(
            first_s=settings.first_poll_s,
            interval_s=settings.min_poll_interval_s,
            jitter=settings.poll_jitter,
            most_age_s=settings.max_task_age_s,
            rng=rng,
        )
        if settings.prior is not None:
            schedule.recall(settings.prior)
        self.learned = schedule.learned
        self.inbox = Inbox(self.registry, schedule)
        self._poller = Poller(port=self.queries, registry=self.registry, schedule=schedule, settings=settings)
        self.unclaimed = Unclaimed()
        self._poster = Poster(
            transport=self.transport,
            pacer=self._submits,
            permits=self._permits,
            registry=self.registry,
            inbox=self.inbox,
            poller=self._poller,
            reconciler=Reconciler(self.queries, settings.reconcile_window_s),
            journal=journal,
            unclaimed=self.unclaimed,
            settings=settings,
            emit=self.emit,
        )
        self.submitter = Submitter(
            poster=self._poster,
            pacer=self._submits,
            permits=self._permits,
            poller=self._poller,
            uploads=self.uploads,
            spending=self.spending,
            journal=journal,
            unclaimed=self.unclaimed,
            settings=settings,
            emit=self.emit,
        )
        self.dependents: set[Dependent] = set()
        self.transport.open()
        self._polling = self._loop.create_task(self._poller.run(), name="toapis-poller")
        self._polling.add_done_callback(self._poller_ended)

    def _gate(self, burst: float, per_s: float) -> RateGate:
        most = self._settings.max_connections
        return RateGate(TokenBucket(burst, per_s, self._loop.time(), most_unanswered=most))

    async def aclose(self) -> None:
        """Refuse, drain, end, disconnect."""
        try:
            self._submits.gate.close()
            self._permits.close()
            for dependent in tuple(self.dependents):
                await dependent.aclose()
            await self.submitter.aclose()
            self._polling.cancel()
            await asyncio.wait([self._polling])
            self._asks.gate.close()
            self.registry.close()
            if self.journal is not None:
                await self.journal.aclose()
        finally:
            if self.journal is not None:
                self.journal.forget()  # when closing itself was cut short, its lock must not stay
            await self.transport.aclose()

    def forget(self) -> None:
        """The client was dropped unclosed: stop polling and tell whoever still waits. May run in any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._polling.cancel)
            self._loop.call_soon_threadsafe(self.registry.close)
        if self.journal is not None:
            self.journal.forget()

    def attach(self, task_id: str) -> Entry:
        """The entry of a task submitted elsewhere; one already watched is shared."""
        known = self.registry.get(task_id)
        if known is not None:
            return known
        entry = self.registry.add(Entry(task_id, task_id, None, self._loop.time(), self._poller.forecast_of(None)))
        self.inbox.claim(entry)
        self._poller.watch(entry, at_once=True)
        return entry

    def adopt(self, snapshot: TaskSnapshot, asked_id: str) -> Entry:
        """The entry of a task that was looked up; it goes on being asked for by the id that was found to work."""
        known = self.registry.get(snapshot.task_id)
        if known is not None:
            return known
        forecast = self._poller.forecast_of(None)
        entry = Entry(snapshot.task_id, asked_id, snapshot.client_business_id, self._loop.time(), forecast)
        self.registry.add(entry)
        self.registry.saw(entry, snapshot)
        self.inbox.claim(entry)
        self._poller.watch(entry)
        return entry

    async def take(self, request: ImageRequest, client_business_id: str | None = None) -> Entry:
        """Submit for a caller who wants just this; the journal knows earlier ones by an id of the caller's own."""
        given = request.given_business_id
        business_id = client_business_id or given or mint_business_id()
        if self.journal is None:
            return await self.submit(request, business_id)
        identity = await fingerprint(request)
        intent = Intent(business_id, identity.digest, identity.text)
        if not given:
            return await self.submit(request, business_id, intent)
        async with self.submitter.alone(business_id):
            known = await self.journal.of_id(business_id)
            record = to_take_up(known, identity.digest, retry={State.REFUSED})
            if record is None and known is not None:
                raise InvalidRequest(
                    f"client_business_id {business_id!r} is that of another request, which failed: take another id",
                    field="client_business_id",
                )
            return await self.submit(request, business_id, intent, record)

    async def submit(
        self,
        request: ImageRequest,
        client_business_id: str,
        intent: Intent | None = None,
        record: Record | None = None,
        budget: Budget | None = None,
    ) -> Entry:
        """What `Submitter.submit` gives; every error names the id."""
        try:
            return await self.submitter.submit(request, client_business_id, intent, record, budget)
        except ToAPIsError as error:
            if isinstance(error, SessionClosed):
                error.client_business_ids = (client_business_id,)
            error.concerning(client_business_id=client_business_id)
            raise

    def recovered(self) -> tuple[Entry, ...]:
        """The entries of plain submissions that an earlier process left unfinished; watched from the first call on."""
        if self._recovered is None:
            self._recovered = tuple(self._recover(record) for record in self._to_recover)
            self._to_recover = ()
        return self._recovered

    def _recover(self, record: Record) -> Entry:
        business_id = record.intent.client_business_id
        task_id = record.task_id or business_id
        forecast = self._poller.forecast_of(None)
        asked_id = record.asked_id or task_id
        # As one that was seen: a task whose answer was never written down may be findable only late.
        fresh = Entry(task_id, asked_id, business_id, self._loop.time(), forecast, status=TaskStatus.QUEUED)
        entry = self.registry.add(fresh)
        if entry is fresh:
            self.inbox.claim(entry)
            self._poller.watch(entry, at_once=True)
        return entry

    def _keep(self, entry: Entry) -> None:
        """Write down a final state, but for a picture without a link, which is asked for again. The end of watching
        alone is none; but an intent that the service knew no task of through a whole window was not accepted."""
        self.inbox.ended(entry)
        self.spending.ended(entry)
        if self.journal is None:
            return
        business_id = entry.client_business_id
        if entry.status is not None and entry.status.is_final and entry.snapshot is not None:
            self._keep_final(self.journal, entry, entry.snapshot)
        elif business_id is not None and isinstance(entry.error, TaskNotFound) and not entry.is_shown:
            watched_s = self._loop.time() - entry.since_s
            if watched_s >= self._settings.reconcile_window_s and not self.submitter.is_busy_with(business_id):
                self.journal.ended(business_id, State.WITHDRAWN)

    def _keep_final(self, journal: JournalWriter, entry: Entry, snapshot: TaskSnapshot) -> None:
        business_id = entry.client_business_id or snapshot.client_business_id
        failed = snapshot.status is TaskStatus.FAILED
        if business_id is None or not (failed or snapshot.images):
            return
        try:
            answer = answer_of(snapshot)
        except RecursionError:  # it is nested deeper than can be written from here
            return
        journal.ended(business_id, State.FAILED if failed else State.COMPLETED, task_id=entry.task_id, answer=answer)

    def check_loop(self) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise ClientStateError("the client belongs to another event loop: make one in each loop")

    def emit(self, event: Event) -> None:
        logger.debug("%s", event)
        for listener in self._settings.on_event:
            try:
                listener(event)
            except Exception:  # the application's bug must not end our poller
                logger.exception("Settings.on_event raised for %s", type(event).__name__)

    def _poller_ended(self, polling: asyncio.Task[None]) -> None:
        if not polling.cancelled() and polling.exception() is not None:
            logger.critical("the poller ended by a bug; every watch ends with it", exc_info=polling.exception())
            for gate in (self._submits.gate, self._permits, self._asks.gate):  # or the service would go on being paid
                gate.close()
            self.registry.close()

    def statistics(self) -> ClientStatistics:
        submit, query = self._submits.gate, self._asks.gate
        return ClientStatistics(
            in_flight=len(self.registry),
            waiting=self._permits.waiting + submit.waiting,
            accepted=self._poster.accepted,
            completed=self.registry.completed,
            failed=self.registry.failed,
            retried=self.submitter.retried,
            adopted=self._poster.adopted,
            resubmitted=self._poster.resubmitted,
            uncertain=self._poster.uncertain,
            looks=self.queries.asked,
            requests=self.transport.sent,
            throttled_submits=self._submits.throttled,
            throttled_queries=self._asks.throttled,
            saved_files=self.downloads.saved,
            saved_bytes=self.downloads.saved_bytes,
            submit=submit.statistics(),
            query=query.statistics(),
        )
