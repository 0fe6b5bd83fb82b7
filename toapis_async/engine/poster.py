"""One POST of a submission and, once it may have been accepted, all it takes to know."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from attrs import define

from toapis_async.engine.registry import Entry
from toapis_async.errors import (
    ServiceError,
    SessionClosed,
    SubmitUncertain,
    ToAPIsError,
    TransportError,
    UnreadableAnswer,
)
from toapis_async.events import SubmitAgain, SubmitInDoubt, SubmitLost, TaskAccepted
from toapis_async.protocol.retry import RefusalKind, refusal_kind
from toapis_async.protocol.wire import decode_task, decode_task_id
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.engine.inbox import Inbox
    from toapis_async.engine.journal.file import Intent, Record
    from toapis_async.engine.journal.writer import JournalWriter
    from toapis_async.engine.limiter import Gate, Permits
    from toapis_async.engine.poller import Poller
    from toapis_async.engine.queries import Pacer
    from toapis_async.engine.reconciler import Reconciler
    from toapis_async.engine.registry import Registry
    from toapis_async.engine.transport import Transport
    from toapis_async.engine.unclaimed import Unclaimed
    from toapis_async.events import Event
    from toapis_async.protocol.lenient import Answer, JsonObject
    from toapis_async.request import ImageRequest
    from toapis_async.settings import Settings
    from toapis_async.task import TaskSnapshot

SUBMIT_PATH = "/images/generations"
RESUBMISSIONS = 3
"""How often a submission in doubt is sent again, each time after a whole window of look-ups."""


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


class Poster:
    """Sends submissions and settles what became of them. Runs in tasks that only the client's closing cancels."""

    def __init__(
        self,
        *,
        transport: Transport,
        pacer: Pacer,
        permits: Gate[Permits],
        registry: Registry,
        inbox: Inbox,
        poller: Poller,
        reconciler: Reconciler,
        journal: JournalWriter | None,
        unclaimed: Unclaimed,
        settings: Settings,
        emit: Callable[[Event], None],
    ) -> None:
        self._transport = transport
        self._pacer = pacer
        self._permits = permits
        self._registry = registry
        self._inbox = inbox
        self._poller = poller
        self._reconciler = reconciler
        self._journal = journal
        self._unclaimed = unclaimed
        self._settings = settings
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._release: Callable[[Entry], None] = lambda _: permits.give_back()  # one for all entries
        self.accepted = 0
        self.adopted = 0
        self.resubmitted = 0
        self.uncertain = 0

    async def settle(self, submission: Submission) -> Entry | ToAPIsError:
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
            if isinstance(outcome, ServiceError) and refusal_kind(outcome) is RefusalKind.FINAL:
                return outcome
            if times == RESUBMISSIONS or self._settings.uncertain_submits == "raise":
                window_s = self._settings.reconcile_window_s
                doubt.add_note(f"sent {times + 1} times, each time not to be found for {window_s:g} s")
                return doubt
            await self._pacer.gate.acquire(urgent=True)
            if told() is not None:  # while the turn was awaited, which may be long
                self._pacer.gate.give_back()
                continue
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
            return self.in_doubt(submission, error) if error.may_have_been_accepted else error
        except UnreadableAnswer as error:
            self._pacer.gate.answered(latency_s=None)
            return self.in_doubt(submission, error)
        except asyncio.CancelledError:
            self._pacer.gate.answered(latency_s=None)
            self.in_doubt(submission, _closed())
            raise
        refusal = self._pacer.heard(answer, self._loop.time() - started_s, submission.request.model)
        if refusal is None:
            return self._taken(submission, answer)
        if refusal_kind(refusal) is RefusalKind.UNCERTAIN:
            return self.in_doubt(submission, refusal)
        return refusal.concerning(client_business_id=submission.client_business_id)

    def _taken(self, submission: Submission, answer: Answer) -> Entry | ToAPIsError:
        try:
            task_id = decode_task_id(answer)
        except UnreadableAnswer as error:
            return self.in_doubt(submission, error)
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

    async def watch_again(self, record: Record) -> Entry:
        """The entry of a task that an earlier session submitted and did not see the end of."""
        assert record.task_id is not None
        known = self._registry.get(record.task_id)
        if known is not None:
            known.client_business_id = known.client_business_id or record.intent.client_business_id
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

    def in_doubt(self, submission: Submission, cause: ToAPIsError) -> SubmitUncertain:
        """It may have been accepted: from here on nobody knows, until it is settled."""
        self._emit(SubmitInDoubt(submission.client_business_id, str(cause)))
        error = SubmitUncertain(
            f"nobody knows whether the service accepted this submission ({cause}); "
            f"ask client.find({submission.client_business_id!r}) before sending it again",
            client_business_id=submission.client_business_id,
        )
        error.__cause__ = cause
        submission.doubt = error
        if submission.abandoned:
            self._unclaimed.leave(submission.client_business_id)
        return error


def _closed() -> SessionClosed:
    return SessionClosed("the client was closed before it was known")
