"""One submission as a state machine, from its permit to its task.

    NEW ── turn, intent ──> INTENDED ── POST ──> SENT ──> ACCEPTED    a task is watched, and holds the permit
                                                  │ └───> REFUSED     certainly not accepted; the permit is free
                                                  └─────> IN_DOUBT    looked up; sent again only after a whole window

A POST, and whatever its loss leads to, runs in a task of its own, so that a caller who is cancelled can leave at once
while the answer is still received and kept. Only the client's closing cancels that task.
"""

from __future__ import annotations

import asyncio
import enum
from functools import partial
from typing import TYPE_CHECKING, Final

from toapis_async.engine.journal.port import TakenMeanwhile
from toapis_async.engine.journal.records import End, Intent
from toapis_async.engine.journal.resume import end_of
from toapis_async.engine.limiter import Priority, priority_of
from toapis_async.errors import (
    JournalError,
    ServiceError,
    SessionClosed,
    SubmitUncertain,
    ToAPIsError,
    TransportError,
    UnreadableAnswer,
)
from toapis_async.events import (
    SubmitAgain,
    SubmitFailed,
    SubmitInDoubt,
    SubmitLost,
    SubmitQueued,
    SubmitRetried,
    SubmitSent,
    TaskAccepted,
)
from toapis_async.protocol.budget import Budget, images_of
from toapis_async.protocol.endpoints import endpoint_of
from toapis_async.protocol.refusals import refusal_in
from toapis_async.protocol.retry import RefusalKind, refusal_kind
from toapis_async.protocol.wire import Seen, decode_task, decode_task_id, encode_request, glance

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from toapis_async.engine.entry import Entry
    from toapis_async.engine.parts import Parts
    from toapis_async.protocol.lenient import Answer, JsonObject
    from toapis_async.request import Request

RESUBMISSIONS: Final = 3
"""How often a submission in doubt is sent again, each time after a whole window of look-ups."""


class Phase(enum.Enum):
    """How far a submission has got."""

    NEW = enum.auto()
    INTENDED = enum.auto()  #: the intent may be on disk
    SENT = enum.auto()  #: a POST is under way
    IN_DOUBT = enum.auto()  #: a POST may have been accepted, and nobody knows
    ACCEPTED = enum.auto()
    REFUSED = enum.auto()  #: certainly not accepted; the latest error says whether it may be tried again


class Submission:
    """One request on its way to being a task. It holds a permit from `run` on, until its task does or nothing may come
    of it.

    Races: a caller cancelled before the POST began leaves nothing behind. Cancelled later, even when the answer is
    there but not yet handed over, its task is watched and its id is in `unclaimed`; a submission in doubt is then
    settled as if the caller were there.
    """

    def __init__(
        self,
        parts: Parts,
        request: Request,
        client_business_id: str,
        *,
        intent: Intent | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._business_id = client_business_id
        self._intent = intent
        self._budget = budget
        self._endpoint = endpoint_of(request)
        self._body: JsonObject = {}
        self._phase = Phase.NEW
        self._has_left = self._has_permit = self._is_reserved = False
        self._doubt: SubmitUncertain | None = None  # why nobody knows whether a POST was accepted
        self._reason: ServiceError | None = None  # the error that a 2xx held: believed when no task is found
        self._posts = self._failures = 0
        self._failing_since_s: float | None = None
        self._sent_s = 0.0  # loop time of the first POST
        self.attempt: asyncio.Task[Entry | ToAPIsError] | None = None  #: until its outcome is handed over

    async def run(self) -> Entry:
        """The entry of the task that the service made of the request.

        Raises `SubmitUncertain` when nobody knows whether there is one, `TakenMeanwhile` when another process submits
        it, and otherwise only when there is none.
        """
        parts, request = self._parts, self._request
        links = await parts.uploads.links_of(request)
        self._body = encode_request(request, links, self._business_id)
        if parts.emit.is_heard:
            prompt, images = parts.emit.public_prompt(request.prompt), images_of(self._body)
            parts.emit(SubmitQueued, self._business_id, request.model, prompt, kind=request.kind, images=images)
        try:
            await parts.permits.acquire(priority_of(is_row=self._budget is not None))
            self._has_permit = True
            if self._doubt is not None and parts.journal is not None:
                await parts.journal.hold(self._business_id)
            reserve = parts.spending.reserve if self._doubt is None else parts.spending.count
            await reserve(self._business_id, self._body, self._budget)
            self._is_reserved = True
            while True:
                if self._doubt is None:
                    await self._take_turn()
                settled = self._loop.create_future()  # a third of a shield's cost
                self.attempt = self._loop.create_task(self._settle(), name="toapis-submit")
                parts.attempts[self.attempt] = self._business_id
                self.attempt.add_done_callback(partial(self._settled, settled))
                await settled
                outcome = self.attempt.result()
                self.attempt = None
                if not isinstance(outcome, ToAPIsError):
                    return outcome
                self._failures += 1
                self._hold_back(outcome)
        except BaseException as error:
            if self.attempt is not None and isinstance(error, asyncio.CancelledError):
                self._leave(self.attempt)
            else:
                self._end_without_task(error)
            raise

    def _in_doubt(self, cause: ToAPIsError) -> SubmitUncertain:
        """It may have been accepted: from here on nobody knows, until it is settled."""
        self._phase = Phase.IN_DOUBT
        self._parts.emit(SubmitInDoubt, self._business_id, str(cause))
        self._doubt = SubmitUncertain(
            f"nobody knows whether the service accepted this submission ({cause}); "
            f"ask client.find({self._business_id!r}) before sending it again",
            client_business_id=self._business_id,
        )
        self._doubt.__cause__ = cause
        if self._has_left:
            self._parts.unclaimed.leave(self._business_id)
        return self._doubt

    @property
    def _is_intended(self) -> bool:
        """Whether the journal holds it, or may."""
        return self._intent is not None and self._phase is not Phase.NEW

    @property
    def _priority(self) -> Priority:
        return priority_of(is_row=self._budget is not None, is_sent_again=self._posts > 0 or self._doubt is not None)

    def intended_earlier(self) -> None:
        """An earlier process wrote the intent and perhaps sent it: it begins in doubt."""
        self._in_doubt(TransportError("an earlier process ended before its answer was written down"))

    # -------------------------------------------------------------------------------------- before the POST

    async def _take_turn(self) -> None:
        """Wait for a turn, and write down what is about to be sent. When that fails the turn is given back, and nothing
        is sent."""
        gate = self._parts.pacer.gate
        await gate.acquire(self._priority)
        try:
            budget = self._budget
            if budget is not None:
                budget.check_open(self._business_id)
            if self._parts.journal is not None and self._intent is not None and self._phase is Phase.NEW:
                self._phase = Phase.INTENDED  # also when cancelled meanwhile: it may be on disk
                try:
                    await self._parts.journal.intend(self._intent)
                except TakenMeanwhile:
                    self._phase = Phase.NEW  # what the journal holds is another's
                    raise
                gate.check_open()  # the client may have been closed meanwhile, or the batch stopped
                if budget is not None:
                    budget.check_open(self._business_id)
        except BaseException:
            gate.give_back()
            raise

    def _hold_back(self, error: ToAPIsError) -> None:
        """Pause the category for another try after `error`, or raise it when another try can't or mustn't be."""
        pacer, settings = self._parts.pacer, self._parts.settings
        if not isinstance(error, TransportError | ServiceError) or refusal_kind(error) is not RefusalKind.RETRYABLE:
            raise error
        asked_s = pacer.gate.statistics().paused_for_s if isinstance(error, ServiceError) else 0.0
        wait_s = asked_s or pacer.back_off(self._failures)
        if self._failing_since_s is None:  # waiting for the first turn is not retrying
            self._failing_since_s = self._loop.time()
        if self._loop.time() + wait_s > self._failing_since_s + settings.submit_retry_s:
            error.add_note(f"tried {self._failures} times within submit_retry_s={settings.submit_retry_s:g}")
            raise error
        self._parts.counts.retried += 1
        self._parts.emit(SubmitRetried, self._business_id, str(error), wait_s)

    # -------------------------------------------------------------------------------------- the POST

    async def _settle(self) -> Entry | ToAPIsError:
        """One POST and, once it may have been accepted, all it takes to know. Errors are values here: if the caller has
        gone, nobody would retrieve an exception."""
        if not self._posts:
            self._sent_s = self._loop.time()
        self._parts.tasks.early.expect(self._business_id)
        try:
            outcome = self._doubt or await self._post()
            if self._doubt is not None:
                outcome = await self._reconcile(self._doubt)
        except (ToAPIsError, asyncio.CancelledError) as error:  # only closing cancels this task, and awaits it
            assert self._doubt is not None
            outcome = self._doubt
            if isinstance(error, SessionClosed | asyncio.CancelledError):
                outcome.__cause__ = _closed()
            else:
                outcome.add_note(f"looking it up gave no evidence: {error}")
        if isinstance(outcome, SubmitUncertain):
            self._parts.counts.uncertain += 1
            self._parts.emit(SubmitLost, self._business_id, str(outcome.__cause__))
        else:
            self._parts.tasks.early.answered(self._business_id)
        return outcome

    def _settled(self, settled: asyncio.Future[None], attempt: asyncio.Task[Entry | ToAPIsError]) -> None:
        """Tell the caller, who may have gone."""
        del self._parts.attempts[attempt]
        if not settled.done():
            settled.set_result(None)

    async def _post(self) -> Entry | ToAPIsError:
        """One POST."""
        pacer, started_s = self._parts.pacer, self._loop.time()
        self._posts += 1
        self._phase = Phase.SENT
        self._parts.emit(SubmitSent, self._business_id, self._posts)
        try:
            answer = await self._posted()
        except TransportError as error:
            pacer.unanswered(error)
            return self._in_doubt(error) if error.may_have_been_accepted else self._refused(error)
        except UnreadableAnswer as error:
            pacer.abandoned()
            return self._in_doubt(error)
        except JournalError as error:  # another process has taken it over: this POST was not sent
            pacer.abandoned()
            if self._doubt is not None:
                raise
            return self._refused(error)
        except asyncio.CancelledError:
            pacer.abandoned()
            self._in_doubt(_closed())
            raise
        refusal = pacer.answered(answer, self._loop.time() - started_s, self._request.model)
        if refusal is None and (refusal := refusal_in(answer, model=self._request.model)) is None:
            return self._accepted(answer)
        if refusal_kind(refusal) is RefusalKind.UNCERTAIN:
            self._reason = refusal if answer.status < 300 else None
            return self._in_doubt(refusal)
        return self._refused(refusal)

    def _posted(self) -> Coroutine[None, None, Answer]:
        transport, journal, intent = self._parts.transport, self._parts.journal, self._intent
        before_send = partial(journal.confirm, intent) if journal is not None and intent is not None else None
        post = transport.post_form if self._endpoint.is_form else transport.post
        return post("submit", self._endpoint.submit_path, self._body, before_send=before_send)

    def _refused(self, error: ToAPIsError) -> ToAPIsError:
        self._phase = Phase.REFUSED
        return error

    def _accepted(self, answer: Answer) -> Entry | ToAPIsError:
        try:
            task = glance(answer) or decode_task(answer, kind=self._endpoint.kind)
        except UnreadableAnswer:  # the id is enough; the rest is seen at the first poll
            try:
                task_id = decode_task_id(answer)
            except UnreadableAnswer as error:
                return self._in_doubt(error)
            return self._watch(task_id, task_id, None, answer.body)
        return self._watch(task.task_id, task.task_id, task, answer.body)

    def _watch(self, task_id: str, query_id: str, task: Seen | None, body: bytes | None = None) -> Entry:
        """Its task is watched from now on, and holds the permit. The service may answer with a task that is watched
        already, and that holds a permit of its own."""
        parts, request, was_found = self._parts, self._request, body is None
        self._phase = Phase.ACCEPTED
        parts.counts.accepted += 1
        parts.counts.adopted += was_found
        if parts.journal is not None and self._is_intended:
            parts.journal.accepted(self._business_id, task_id, query_id)
        parts.emit(TaskAccepted, task_id, self._business_id, request.model, parts.emit.public_prompt(request.prompt))
        return parts.tasks.watch(
            self._endpoint,
            task_id,
            start="polled" if was_found else "new",
            query_id=query_id,
            client_business_id=self._business_id,
            request_class=request.poll_class,
            since_s=self._sent_s if was_found else None,
            snapshot=task,
            body=body,
            on_end=parts.release,
        )

    # -------------------------------------------------------------------------------------- in doubt

    async def _reconcile(self, doubt: SubmitUncertain) -> Entry | ToAPIsError:
        """Look it up and, when there certainly was no task through the whole window, send it again.

        A refusal of a submission that is sent again may just mean that the first was accepted, so it is believed only
        after another window. So is the error that a 2xx holds in place of a task, and nothing is sent again then.
        """
        parts, business_id = self._parts, self._business_id
        outcome: Entry | ToAPIsError = doubt
        times: int = 0
        while True:
            # An event that names it is as good as an answer, also while the service can't find its task yet.
            early = partial(parts.tasks.early.of_submission, business_id, self._endpoint.kind)
            window_s = parts.settings.reconcile_window_s
            found = early() or await parts.queries.find_within(window_s, business_id, self._endpoint) or early()
            if found is not None:
                return self._watch(found.task_id, business_id, found)
            if isinstance(outcome, ServiceError) and refusal_kind(outcome) is RefusalKind.FINAL:
                return outcome
            if self._reason is not None:
                return self._refused(self._reason)
            if times == RESUBMISSIONS or parts.settings.uncertain_submits == "raise":
                doubt.add_note(f"sent {times + 1} times, each time not to be found for {window_s:g} s")
                return doubt
            await parts.pacer.gate.acquire(self._priority)
            if early() is not None:  # while the turn was awaited, which may be long
                parts.pacer.gate.give_back()
                continue
            times += 1
            parts.counts.resubmitted += 1
            parts.emit(SubmitAgain, business_id, times)
            outcome = await self._post()
            if not isinstance(outcome, ToAPIsError):
                return outcome

    # -------------------------------------------------------------------------------------- the end

    def _leave(self, attempt: asyncio.Task[Entry | ToAPIsError]) -> None:
        """The caller goes away while a POST is under way; the permit is the attempt's now."""
        self._has_left = True
        if self._doubt is not None:
            self._parts.unclaimed.leave(self._business_id)
        attempt.add_done_callback(self._end_unclaimed)

    def _end_unclaimed(self, attempt: asyncio.Task[Entry | ToAPIsError]) -> None:
        outcome = attempt.exception() or attempt.result()
        if isinstance(outcome, BaseException):
            self._end_without_task(outcome)
        if isinstance(outcome, ToAPIsError) and not isinstance(outcome, SubmitUncertain):
            self._parts.unclaimed.claim(self._business_id)  # there is no task to come for
        else:
            self._parts.unclaimed.leave(self._business_id)

    def _end_without_task(self, error: BaseException) -> None:
        """Give the permit back, and write down that it certainly was not accepted. One in doubt stays an intent, and is
        taken for paid; so does one that a bug of ours ended. Once it is in doubt, only the service itself can say that
        it was not."""
        parts, business_id = self._parts, self._business_id
        if self._has_permit:
            parts.permits.give_back()
        if not isinstance(error, SubmitUncertain):  # of which `SubmitLost` was told
            code = error.code if isinstance(error, ServiceError) else None
            parts.emit(SubmitFailed, business_id, type(error).__name__, code)
        certain = isinstance(error, ServiceError if self._doubt else (ToAPIsError, asyncio.CancelledError))
        is_uncertain = isinstance(error, SubmitUncertain) or not certain
        if is_uncertain and parts.journal is not None and self._is_intended:
            parts.journal.left(business_id)
        if not self._is_reserved:  # what is reserved under its id belongs to another submission
            return
        if is_uncertain:
            parts.spending.settle(business_id)
            return
        parts.spending.give_back_latest(business_id)
        if parts.journal is not None and self._is_intended:
            state, answer = end_of(error)
            parts.journal.ended(business_id, End(state, answer=answer))


def _closed() -> SessionClosed:
    return SessionClosed("the client was closed before it was known")
