"""Submissions: a permit, a token, one POST, and never a second one unless the first was certainly not accepted, or
was not to be found when it was looked up patiently."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from attrs import define

from toapis_async.engine.journal_file import State
from toapis_async.engine.recovery import end_of, refusal_of, settled_entry
from toapis_async.engine.registry import Entry
from toapis_async.errors import (
    ServiceError,
    SessionClosed,
    SubmitUncertain,
    ToAPIsError,
    TransportError,
    UnreadableAnswer,
)
from toapis_async.events import SubmitAgain, SubmitInDoubt, SubmitLost, SubmitRetried, TaskAccepted
from toapis_async.models import TaskStatus
from toapis_async.protocol.budget import PriceClass, images_of
from toapis_async.protocol.retry import Fate, fate_of
from toapis_async.protocol.wire import decode_task, decode_task_id, encode_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.engine.inbox import Inbox
    from toapis_async.engine.journal import JournalWriter
    from toapis_async.engine.journal_file import Intent, Record
    from toapis_async.engine.limiter import Gate, Permits
    from toapis_async.engine.poller import Poller
    from toapis_async.engine.queries import Pacer
    from toapis_async.engine.reconciler import Reconciler
    from toapis_async.engine.registry import Registry
    from toapis_async.engine.spending import Spending
    from toapis_async.engine.transport import Transport
    from toapis_async.engine.uploads import Uploads
    from toapis_async.events import Event
    from toapis_async.models import TaskSnapshot
    from toapis_async.protocol.budget import Budget
    from toapis_async.protocol.lenient import Answer, JsonObject
    from toapis_async.request import ImageRequest
    from toapis_async.settings import Settings

SUBMIT_PATH = "/images/generations"
RESUBMISSIONS = 3
"""How often a submission in doubt is sent again, each time after a whole window of look-ups."""
MOST_UNCLAIMED = 10_000
"""Ids kept for `unclaimed()`; beyond that the oldest go, so that a web app whose visitors leave does not grow."""


@define(eq=False)
class Submission:
    """One request on its way to being a task."""

    client_business_id: str
    request: ImageRequest
    body: JsonObject
    intent: Intent | None = None  #: for the journal, if there is one
    intended: bool = False  #: the intent is durable
    failures: int = 0
    failed_since_s: float | None = None
    abandoned: bool = False  #: the caller went away while a POST was under way; the permit is the POST's now
    sent_s: float = 0.0  #: loop time of the first POST
    doubt: SubmitUncertain | None = None  #: a POST may have been accepted, and this is why nobody knows


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
        transport: Transport,
        pacer: Pacer,
        permits: Gate[Permits],
        registry: Registry,
        inbox: Inbox,
        poller: Poller,
        uploads: Uploads,
        reconciler: Reconciler,
        spending: Spending,
        journal: JournalWriter | None,
        settings: Settings,
        emit: Callable[[Event], None],
    ) -> None:
        self._transport = transport
        self._pacer = pacer
        self._permits = permits
        self._registry = registry
        self._inbox = inbox
        self._poller = poller
        self._uploads = uploads
        self._reconciler = reconciler
        self._journal = journal
        self._spending = spending
        self._settings = settings
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._release: Callable[[Entry], None] = lambda _: permits.give_back()  # one for all entries
        self._under_way: set[asyncio.Task[Entry | ToAPIsError]] = set()
        self._unclaimed: dict[str, None] = {}  # in their order, each once
        self.accepted = 0
        self.retried = 0
        self.adopted = 0
        self.resubmitted = 0
        self.uncertain = 0

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
        references = await self._uploads.resolve(request.reference_images)
        body = encode_request(request, references, client_business_id)
        submission = Submission(client_business_id, request, body, intent)
        if state is State.INTENT:
            submission.intended = True
            self._in_doubt(submission, TransportError("an earlier process ended before its answer was written down"))
        await self._permits.acquire()
        try:
            await self._spending.reserve(client_business_id, PriceClass.of(body), images_of(body), budget)
            return await self._send(submission)
        except BaseException as error:
            if not submission.abandoned:
                self._permits.give_back()
                self._note_end(submission, error)
            raise

    async def take_up(self, record: Record) -> Entry:
        """The entry of what an earlier session saw the service's word on; a refusal raises what was said."""
        if record.state is State.REFUSED:
            raise refusal_of(record)
        if record.state is State.ACCEPTED:
            return await self._watch_again(record)
        return settled_entry(record, self._poller.forecast_of(None))

    @property
    def unclaimed(self) -> tuple[str, ...]:
        """The client_business_ids of submissions whose caller went away, oldest first."""
        return tuple(self._unclaimed)

    def leave_unclaimed(self, client_business_id: str) -> None:
        """Its caller went away. Beyond `MOST_UNCLAIMED` the oldest are forgotten."""
        self._unclaimed[client_business_id] = None
        if len(self._unclaimed) > MOST_UNCLAIMED:
            del self._unclaimed[next(iter(self._unclaimed))]

    def claim(self, client_business_id: str | None) -> None:
        """Somebody holds a handle on it again."""
        self._unclaimed.pop(client_business_id or "", None)

    async def aclose(self) -> None:
        """Give POSTs under way `close_grace_s`, then give up on their answers."""
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
        except BaseException:
            self._pacer.gate.give_back()
            raise

    def _note_end(self, submission: Submission, error: BaseException) -> None:
        """A submission certainly was not accepted; one in doubt stays an intent, and is taken for paid."""
        if isinstance(error, SubmitUncertain):
            self._spending.settle(submission.client_business_id)
            return
        self._spending.give_back(submission.client_business_id)
        if self._journal is not None and submission.intended:
            self._journal.ended(submission.client_business_id, *end_of(error))

    async def _watch_again(self, record: Record) -> Entry:
        """The entry of a task that an earlier session submitted and did not see the end of."""
        assert record.task_id is not None
        known = self._registry.get(record.task_id)
        if known is not None:
            return known
        await self._permits.acquire()
        fresh = Entry(
            task_id=record.task_id,
            asked_id=record.asked_id or record.task_id,
            client_business_id=record.intent.client_business_id,
            since_s=self._loop.time(),
            forecast=self._poller.forecast_of(None),
            status=TaskStatus.QUEUED,  # it was seen, so that one 404 does not end it
            on_end=self._release,
        )
        entry = self._registry.add(fresh)
        if entry is fresh:
            self._inbox.claim(entry)
            self._poller.watch(entry, at_once=True)
        else:
            self._permits.give_back()
        return entry

    def _hold_back(self, submission: Submission, error: ToAPIsError) -> None:
        """Pause the category for another try after `error`, or raise it when another try can't or mustn't be."""
        if isinstance(error, TransportError):
            wait_s = self._pacer.back_off(submission.failures)
        elif isinstance(error, ServiceError) and fate_of(error.status, error.code) is Fate.LATER:
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
        attempt = self._loop.create_task(self._settle(submission), name="toapis-submit")
        self._under_way.add(attempt)
        attempt.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            submission.abandoned = True
            if submission.doubt is not None:
                self.leave_unclaimed(submission.client_business_id)
            attempt.add_done_callback(lambda done: self._unclaim(submission, done.result()))
            raise

    def _unclaim(self, submission: Submission, outcome: Entry | ToAPIsError) -> None:
        if not isinstance(outcome, Entry):
            self._permits.give_back()
            self._note_end(submission, outcome)
        if isinstance(outcome, Entry | SubmitUncertain):
            self.leave_unclaimed(submission.client_business_id)
        else:
            self.claim(submission.client_business_id)  # there is no task to come for

    async def _settle(self, submission: Submission) -> Entry | ToAPIsError:
        """One POST and, once it may have been accepted, all it takes to know. Errors are values here: if the caller has
        gone, nobody would retrieve an exception."""
        submission.sent_s = self._loop.time()
        self._inbox.expect(submission.client_business_id)
        try:
            outcome = submission.doubt or await self._post(submission)
            if submission.doubt is not None:
                outcome = await self._reconcile(submission, submission.doubt)
        except (ToAPIsError, asyncio.CancelledError) as error:  # only `aclose` cancels this task, and awaits it
            assert submission.doubt is not None
            outcome = submission.doubt
            if isinstance(error, SessionClosed | asyncio.CancelledError):
                outcome.__cause__ = _closed()
            else:
                outcome.add_note(f"looking it up gave no evidence: {error}")
        if isinstance(outcome, SubmitUncertain):
            self.uncertain += 1
            self._emit(SubmitLost(submission.client_business_id, str(outcome.__cause__)))
        else:
            self._inbox.answered(submission.client_business_id)
        return outcome

    async def _reconcile(self, submission: Submission, doubt: SubmitUncertain) -> Entry | ToAPIsError:
        """Look the submission up and, when there certainly was no task through the whole window, send it again.

        A refusal of a submission that is sent again may just mean that the first was accepted, so it is believed only
        after another window.
        """
        outcome: Entry | ToAPIsError = doubt
        times = 0
        while True:
            # An event that names it is as good as an answer, also while the service can't find its task yet.
            told = partial(self._inbox.told_of, submission.client_business_id)
            found = told() or await self._reconciler.find(submission.client_business_id) or told()
            if found is not None:
                self.adopted += 1
                return self._adopt(submission, found)
            if isinstance(outcome, ServiceError) and fate_of(outcome.status, outcome.code) is Fate.REFUSED:
                return outcome
            if times == RESUBMISSIONS or self._settings.uncertain_submits == "raise":
                window_s = self._settings.reconcile_window_s
                doubt.add_note(f"sent {times + 1} times, each time not to be found for {window_s:g} s")
                return doubt
            await self._pacer.gate.acquire(urgent=True)
            times += 1
            self.resubmitted += 1
            self._emit(SubmitAgain(submission.client_business_id, times))
            outcome = await self._post(submission)
            if isinstance(outcome, Entry):
                return outcome

    async def _post(self, submission: Submission) -> Entry | ToAPIsError:
        """One POST."""
        started_s = self._loop.time()
        try:
            answer = await self._transport.post("submit", SUBMIT_PATH, json=submission.body)
        except TransportError as error:
            self._pacer.unheard(error)
            return self._in_doubt(submission, error) if error.may_have_been_accepted else error
        except UnreadableAnswer as error:
            self._pacer.gate.answered(latency_s=None)
            return self._in_doubt(submission, error)
        except asyncio.CancelledError:
            self._pacer.gate.answered(latency_s=None)
            self._in_doubt(submission, _closed())
            raise
        refusal = self._pacer.heard(answer, self._loop.time() - started_s)
        if refusal is None:
            return self._taken(submission, answer)
        if fate_of(answer.status, refusal.code) is Fate.UNKNOWN:
            return self._in_doubt(submission, refusal)
        return refusal.concerning(client_business_id=submission.client_business_id)

    def _taken(self, submission: Submission, answer: Answer) -> Entry | ToAPIsError:
        try:
            task_id = decode_task_id(answer)
        except UnreadableAnswer as error:
            return self._in_doubt(submission, error)
        entry, is_new = self._enter(submission, task_id, asked_id=task_id, since_s=self._loop.time())
        if is_new:
            with suppress(UnreadableAnswer):  # the id is enough; the rest is seen at the first look
                self._registry.saw(entry, decode_task(answer), answer.body)
            self._poller.watch(entry)
        return entry

    def _adopt(self, submission: Submission, found: TaskSnapshot) -> Entry:
        """The entry of a task that was looked up; it goes on being asked for by the id that was found to work."""
        asked_id = submission.client_business_id
        entry, is_new = self._enter(submission, found.task_id, asked_id=asked_id, since_s=submission.sent_s)
        if is_new:
            self._registry.saw(entry, found)
            self._poller.watch(entry, seen=True)
        return entry

    def _enter(self, submission: Submission, task_id: str, *, asked_id: str, since_s: float) -> tuple[Entry, bool]:
        """The entry of a submission's task, and whether it is new: the service may answer with a task that is watched
        already, and that holds a permit of its own."""
        self.accepted += 1
        if self._journal is not None and submission.intended:
            self._journal.accepted(submission.client_business_id, task_id, asked_id)
        fresh = Entry(
            task_id=task_id,
            asked_id=asked_id,
            client_business_id=submission.client_business_id,
            since_s=since_s,
            forecast=self._poller.forecast_of(submission.request),
            on_end=self._release,
        )
        entry = self._registry.add(fresh)
        if entry is not fresh:
            self._permits.give_back()
            return entry, False
        prompt = submission.request.prompt if self._settings.events_with_prompts else None
        self._emit(TaskAccepted(task_id, entry.client_business_id, submission.request.model, prompt))
        self._inbox.claim(entry)
        return entry, True

    def _in_doubt(self, submission: Submission, cause: ToAPIsError) -> SubmitUncertain:
        self._emit(SubmitInDoubt(submission.client_business_id, str(cause)))
        error = SubmitUncertain(
            f"nobody knows whether the service accepted this submission ({cause}); "
            f"ask client.find({submission.client_business_id!r}) before sending it again",
            client_business_id=submission.client_business_id,
        )
        error.__cause__ = cause
        submission.doubt = error
        if submission.abandoned:
            self.leave_unclaimed(submission.client_business_id)
        return error


def _closed() -> SessionClosed:
    return SessionClosed("the client was closed before it was known")


def mint_business_id() -> str:
    """An id of our own for a submission: unguessable, never used twice."""
    return f"ta-{uuid.uuid4().hex}"
