"""Submissions: a permit, a token, one POST, and never a second one unless the first was certainly not accepted."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
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
from toapis_async.events import SubmitLost, SubmitRetried, TaskAccepted
from toapis_async.protocol.retry import Fate, fate_of
from toapis_async.protocol.wire import decode_task, decode_task_id, encode_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.engine.inbox import Inbox
    from toapis_async.engine.limiter import Gate, Permits
    from toapis_async.engine.poller import Poller
    from toapis_async.engine.queries import Pacer
    from toapis_async.engine.registry import Registry
    from toapis_async.engine.transport import Transport
    from toapis_async.engine.uploads import Uploads
    from toapis_async.events import Event
    from toapis_async.protocol.lenient import Answer, JsonObject
    from toapis_async.request import ImageRequest
    from toapis_async.settings import Settings

SUBMIT_PATH = "/images/generations"
MOST_UNCLAIMED = 10_000
"""Ids kept for `unclaimed()`; beyond that the oldest go, so that a web app whose visitors leave does not grow."""


@define(eq=False)
class Submission:
    """One request on its way to being a task."""

    client_business_id: str
    request: ImageRequest
    body: JsonObject
    failures: int = 0
    failed_since_s: float | None = None
    abandoned: bool = False  #: the caller went away while a POST was under way; the permit is the POST's now


class Submitter:
    """Sends requests. POSTs run in tasks of their own, so that a caller who is cancelled can leave at once while the
    answer is still received and kept.

    Races: a caller cancelled before its POST began leaves nothing behind. Cancelled later, even when the answer is
    already there but not yet handed over, its task is watched and its id is in `unclaimed`.
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
        self._settings = settings
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._on_end = self._ended  # one bound method for all entries
        self._under_way: set[asyncio.Task[Entry | ToAPIsError]] = set()
        self._unclaimed: dict[str, None] = {}  # in their order, each once
        self.accepted = 0
        self.retried = 0
        self.uncertain = 0

    async def submit(self, request: ImageRequest, client_business_id: str) -> Entry:
        """The entry of the task the service made of `request`.

        Raises `SubmitUncertain` when nobody knows whether there is one, and otherwise only when there is none.
        """
        references = await self._uploads.resolve(request.reference_images)
        body = encode_request(request, references, client_business_id)
        submission = Submission(client_business_id, request, body)
        await self._permits.acquire()
        try:
            return await self._send(submission)
        except BaseException:
            if not submission.abandoned:
                self._permits.give_back()
            raise

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
            await self._pacer.gate.acquire(urgent=submission.failures > 0)
            outcome = await self._claim(submission)
            if isinstance(outcome, Entry):
                return outcome
            submission.failures += 1
            self._hold_back(submission, outcome)

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
        """Run one POST in a task of its own and wait for it, or leave it behind when cancelled."""
        attempt = self._loop.create_task(self._post(submission), name="toapis-submit")
        self._under_way.add(attempt)
        attempt.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            submission.abandoned = True
            attempt.add_done_callback(lambda done: self._unclaim(submission, done.result()))
            raise

    def _unclaim(self, submission: Submission, outcome: Entry | ToAPIsError) -> None:
        if not isinstance(outcome, Entry):
            self._permits.give_back()
        if isinstance(outcome, Entry | SubmitUncertain):
            self.leave_unclaimed(submission.client_business_id)

    def _ended(self, entry: Entry) -> None:
        self._permits.give_back()
        self._inbox.ended(entry)

    async def _post(self, submission: Submission) -> Entry | ToAPIsError:
        """One POST, during which its task's event may come. Errors are values here: if the caller has gone, nobody
        would retrieve an exception."""
        self._inbox.expect(submission.client_business_id)
        outcome = await self._exchange(submission)
        if not isinstance(outcome, SubmitUncertain):
            self._inbox.answered(submission.client_business_id)
        return outcome

    async def _exchange(self, submission: Submission) -> Entry | ToAPIsError:
        started_s = self._loop.time()
        try:
            answer = await self._transport.post("submit", SUBMIT_PATH, json=submission.body)
        except TransportError as error:
            self._pacer.unheard(error)
            return self._lost(submission, error) if error.may_have_been_accepted else error
        except UnreadableAnswer as error:
            self._pacer.gate.answered(latency_s=None)
            return self._lost(submission, error)
        except asyncio.CancelledError:  # only `aclose` cancels this task, and awaits it
            self._pacer.gate.answered(latency_s=None)
            return self._lost(submission, SessionClosed("the client was closed before the answer came"))
        refusal = self._pacer.heard(answer, self._loop.time() - started_s)
        if refusal is None:
            return self._taken(submission, answer)
        if fate_of(answer.status, refusal.code) is Fate.UNKNOWN:
            return self._lost(submission, refusal)
        return refusal.concerning(client_business_id=submission.client_business_id)

    def _taken(self, submission: Submission, answer: Answer) -> Entry | ToAPIsError:
        try:
            task_id = decode_task_id(answer)
        except UnreadableAnswer as error:
            return self._lost(submission, error)
        self.accepted += 1
        fresh = Entry(
            task_id=task_id,
            asked_id=task_id,
            client_business_id=submission.client_business_id,
            since_s=self._loop.time(),
            forecast=self._poller.forecast_of(submission.request),
            on_end=self._on_end,
        )
        entry = self._registry.add(fresh)
        if entry is not fresh:  # the service answered with a task we watch already, which holds a permit of its own
            self._permits.give_back()
            return entry
        prompt = submission.request.prompt if self._settings.events_with_prompts else None
        self._emit(TaskAccepted(task_id, entry.client_business_id, submission.request.model, prompt))
        with suppress(UnreadableAnswer):  # the id is enough; the rest is seen at the first look
            self._registry.saw(entry, decode_task(answer), answer.body)
        self._inbox.claim(entry)
        self._poller.watch(entry)
        return entry

    def _lost(self, submission: Submission, cause: ToAPIsError) -> SubmitUncertain:
        self.uncertain += 1
        self._emit(SubmitLost(submission.client_business_id, str(cause)))
        error = SubmitUncertain(
            f"nobody knows whether the service accepted this submission ({cause}); "
            f"ask client.find({submission.client_business_id!r}) before sending it again",
            client_business_id=submission.client_business_id,
        )
        error.__cause__ = cause
        return error


def mint_business_id() -> str:
    """An id of our own for a submission: unguessable, never used twice."""
    return f"ta-{uuid.uuid4().hex}"
