"""Submissions: a permit, a token, one POST, and never a second one unless the first was certainly not accepted, or
was not to be found when it was looked up patiently."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from toapis_async.engine.journal.file import State
from toapis_async.engine.journal.resume import end_of, refusal_of, settled_entry
from toapis_async.engine.poster import Submission
from toapis_async.engine.registry import Entry
from toapis_async.errors import (
    ServiceError,
    SubmitUncertain,
    ToAPIsError,
    TransportError,
)
from toapis_async.events import SubmitRetried
from toapis_async.protocol.budget import PriceClass, images_of
from toapis_async.protocol.retry import RefusalKind, refusal_kind
from toapis_async.protocol.wire import encode_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from toapis_async.engine.journal.file import Intent, Record
    from toapis_async.engine.journal.writer import JournalWriter
    from toapis_async.engine.limiter import Gate, Permits
    from toapis_async.engine.poller import Poller
    from toapis_async.engine.poster import Poster
    from toapis_async.engine.queries import Pacer
    from toapis_async.engine.spending import Spending
    from toapis_async.engine.unclaimed import Unclaimed
    from toapis_async.engine.uploads import Uploads
    from toapis_async.events import Event
    from toapis_async.protocol.budget import Budget
    from toapis_async.request import ImageRequest
    from toapis_async.settings import Settings


class Submitter:
    """Sends requests. A POST, and whatever its loss leads to, runs in a task of its own, so that a caller who is
    cancelled can leave at once while the answer is still received and kept.

    Races: a caller cancelled before its POST began leaves nothing behind. Cancelled later, even when the answer is
    already there but not yet handed over, its task is watched and its id is in `unclaimed`; a submission in doubt is
    then settled as if the caller were there.
    """

    def __init__(
        self,
        *,
        poster: Poster,
        pacer: Pacer,
        permits: Gate[Permits],
        poller: Poller,
        uploads: Uploads,
        spending: Spending,
        journal: JournalWriter | None,
        unclaimed: Unclaimed,
        settings: Settings,
        emit: Callable[[Event], None],
    ) -> None:
        self._poster = poster
        self._pacer = pacer
        self._permits = permits
        self._poller = poller
        self._uploads = uploads
        self._spending = spending
        self._journal = journal
        self._unclaimed = unclaimed
        self._settings = settings
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[asyncio.Task[Entry | ToAPIsError], str] = {}  # and the client_business_id of each
        self._alone: dict[str, asyncio.Future[None]] = {}
        self.retried = 0

    async def submit(
        self,
        request: ImageRequest,
        client_business_id: str,
        intent: Intent | None = None,
        record: Record | None = None,
        budget: Budget | None = None,
    ) -> Entry:
        """The entry of the task the service made of `request`; of an earlier session's when there is a `record`.

        Raises `SubmitUncertain` when nobody knows whether there is one, and otherwise only when there is none.
        """
        state = record.state if record else None
        if record is not None and state not in {State.INTENT, State.WITHDRAWN}:
            return await self.take_up(record)
        links = await self._uploads.links_of(request)
        body = encode_request(request, links, client_business_id)
        submission = Submission(client_business_id, request, body, intent)
        if state is State.INTENT:
            submission.intended = True
            lost = TransportError("an earlier process ended before its answer was written down")
            self._poster.in_doubt(submission, lost)
        await self._permits.acquire()
        try:
            await self._reserve(submission, budget)
        except BaseException:
            self._permits.give_back()
            raise
        try:
            return await self._send(submission)
        except BaseException as error:
            if not submission.abandoned:
                self._permits.give_back()
                self._note_end(submission, error)
            raise

    async def _reserve(self, submission: Submission, budget: Budget | None) -> None:
        """Set aside what it may cost; what may be paid for already counts, and no budget keeps it from being found."""
        price_class, images = PriceClass.of(submission.body), images_of(submission.body)
        if submission.doubt is None:
            await self._spending.reserve(submission.client_business_id, price_class, images, budget)
        else:
            self._spending.count(submission.client_business_id, price_class, images, budget)

    @asynccontextmanager
    async def alone(self, client_business_id: str) -> AsyncGenerator[None]:
        """One at a time for an id of the caller's own, what an earlier caller left behind included: two at once would
        both find in the journal that nothing was sent yet."""
        while (other := self._alone.get(client_business_id)) is not None:
            await asyncio.wait([other])
        mine = self._alone[client_business_id] = self._loop.create_future()
        try:
            await self.settled(client_business_id)
            yield
        finally:
            del self._alone[client_business_id]
            mine.set_result(None)

    async def settled(self, client_business_id: str) -> bool:
        """Wait for what is under way for an id; False when there is nothing."""
        attempts = [attempt for attempt, business_id in self._under_way.items() if business_id == client_business_id]
        if attempts:
            await asyncio.wait(attempts)
        return bool(attempts)

    def is_busy_with(self, client_business_id: str) -> bool:
        """Whether somebody submits under this id of the caller's own, or left a POST behind."""
        return client_business_id in self._alone or client_business_id in self._under_way.values()

    async def take_up(self, record: Record) -> Entry:
        """The entry of what an earlier session saw the service's word on; a refusal raises what was said."""
        if record.state is State.REFUSED:
            raise refusal_of(record)
        if record.state is State.ACCEPTED:
            self._spending.seen_to(record.intent.client_business_id)
            return await self._poster.watch_again(record)
        return settled_entry(record, self._poller.forecast_of(None))

    async def aclose(self) -> None:
        """Give POSTs under way `close_grace_s`, then give up on their answers."""
        if self._journal is not None:
            await self._journal.flush()  # those whose intent it was see now that nothing may be sent any more
        if not self._under_way:
            return
        await asyncio.wait(self._under_way, timeout=self._settings.close_grace_s)
        remaining = self.give_up()
        await asyncio.gather(*remaining, return_exceptions=True)

    def give_up(self) -> tuple[asyncio.Task[Entry | ToAPIsError], ...]:
        """Stop waiting for the answers still under way; their callers get `SubmitUncertain`."""
        remaining = tuple(self._under_way)
        for attempt in remaining:
            # Not at once: one that was begun in this very tick would be cancelled before its first step, where it
            # can't make that its answer, and its caller would get a cancellation it never asked for.
            self._loop.call_soon(attempt.cancel)
        return remaining

    async def _send(self, submission: Submission) -> Entry:
        while True:
            if submission.doubt is None:
                await self._pacer.gate.acquire(urgent=submission.failures > 0)
                await self._intend(submission)
            outcome = await self._claim(submission)
            if isinstance(outcome, Entry):
                return outcome
            submission.failures += 1
            self._hold_back(submission, outcome)

    async def _intend(self, submission: Submission) -> None:
        """Write down what is about to be sent. When that fails nothing is sent, and the turn is given back."""
        if self._journal is None or submission.intent is None or submission.intended:
            return
        try:
            submission.intended = True  # also when we are cancelled meanwhile: it may be on disk by then
            await self._journal.intend(submission.intent)
            self._pacer.gate.check_open()  # the client may have been closed meanwhile
        except BaseException:
            self._pacer.gate.give_back()
            raise

    def _note_end(self, submission: Submission, error: BaseException) -> None:
        """Write down that a submission certainly was not accepted. One in doubt stays an intent, and is taken for paid;
        so does one that a bug of ours ended. Once it is in doubt, only the service itself can say that it was not."""
        certain = isinstance(error, ServiceError if submission.doubt else (ToAPIsError, asyncio.CancelledError))
        if isinstance(error, SubmitUncertain) or not certain:
            self._spending.settle(submission.client_business_id)
            return
        self._spending.give_back_latest(submission.client_business_id)
        if self._journal is not None and submission.intended:
            state, answer = end_of(error)
            self._journal.ended(submission.client_business_id, state, answer=answer)

    def _hold_back(self, submission: Submission, error: ToAPIsError) -> None:
        """Pause the category for another try after `error`, or raise it when another try can't or mustn't be."""
        if isinstance(error, TransportError):
            wait_s = self._pacer.back_off(submission.failures)
        elif isinstance(error, ServiceError) and refusal_kind(error) is RefusalKind.RETRYABLE:
            wait_s = self._pacer.gate.statistics().paused_for_s or self._pacer.back_off(submission.failures)
        else:
            raise error
        if submission.failed_since_s is None:  # waiting for the first turn is not retrying
            submission.failed_since_s = self._loop.time()
        if self._loop.time() + wait_s > submission.failed_since_s + self._settings.submit_retry_s:
            error.add_note(f"tried {submission.failures} times within submit_retry_s={self._settings.submit_retry_s:g}")
            raise error
        self.retried += 1
        self._emit(SubmitRetried(submission.client_business_id, str(error), wait_s))

    async def _claim(self, submission: Submission) -> Entry | ToAPIsError:
        """Settle one POST in a task of its own and wait for it, or leave it behind when cancelled."""
        attempt = self._loop.create_task(self._poster.settle(submission), name="toapis-submit")
        self._under_way[attempt] = submission.client_business_id
        attempt.add_done_callback(self._under_way.__delitem__)
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            submission.abandoned = True
            if submission.doubt is not None:
                self._unclaimed.leave(submission.client_business_id)
            attempt.add_done_callback(lambda done: self._unclaim(submission, done.result()))
            raise

    def _unclaim(self, submission: Submission, outcome: Entry | ToAPIsError) -> None:
        if not isinstance(outcome, Entry):
            self._permits.give_back()
            self._note_end(submission, outcome)
        if isinstance(outcome, Entry | SubmitUncertain):
            self._unclaimed.leave(submission.client_business_id)
        else:
            self._unclaimed.claim(submission.client_business_id)  # there is no task to come for


def mint_business_id() -> str:
    """An id of our own for a submission: unguessable, never used twice."""
    return f"ta-{uuid.uuid4().hex}"
