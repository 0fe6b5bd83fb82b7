"""Submissions under way: what the journal says of each, one at a time for an id of the caller's own."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from toapis_async.engine.entry import Entry
from toapis_async.engine.fingerprint import fingerprint
from toapis_async.engine.incommon import InCommon
from toapis_async.engine.journal.port import TakenMeanwhile
from toapis_async.engine.journal.records import Intent, Record, State
from toapis_async.engine.journal.resume import (
    Changed,
    Done,
    Fetch,
    LookUp,
    Refused,
    Send,
    Verdict,
    Watch,
    decide,
    endpoint_of,
    snapshot_of,
)
from toapis_async.engine.limiter import Priority, priority_of
from toapis_async.engine.submission import Submission
from toapis_async.errors import InvalidRequest, SessionClosed, ToAPIsError
from toapis_async.protocol.endpoints import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from toapis_async.engine.parts import Parts
    from toapis_async.protocol.budget import Budget
    from toapis_async.request import Request


class Submitter:
    """Sends requests, or takes up what an earlier process left of them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._alone: dict[str, asyncio.Future[None]] = {}
        self.in_common: InCommon = InCommon(parts)

    async def submit(
        self,
        request: Request,
        client_business_id: str,
        *,
        intent: Intent | None = None,
        verdict: Verdict | None = None,
        budget: Budget | None = None,
    ) -> Entry:
        """The entry of the task the service made of `request`, now or in an earlier session.

        A batch's row comes with its `intent` and the `verdict` on what an earlier pass left of it; for a plain
        submission both are made here. Every error raised names the id.
        """
        try:
            if self._parts.journal is None and request.given_business_id == client_business_id:
                return await self.in_common.submit(request, client_business_id, budget)
            if intent is not None or self._parts.journal is None:
                return await self._carry_out(verdict, request, client_business_id, intent, budget)
            identity = await fingerprint(request)
            intent = Intent(client_business_id, identity.digest, identity.text, kind=request.kind)
            if request.given_business_id is None:
                return await self._carry_out(None, request, client_business_id, intent, budget)
            async with self.alone(client_business_id):
                while True:
                    verdict = await self._verdict(client_business_id, identity.digest)
                    try:
                        return await self._carry_out(verdict, request, client_business_id, intent, budget)
                    except TakenMeanwhile:
                        await self.settled(client_business_id)
        except ToAPIsError as error:
            if isinstance(error, SessionClosed):
                error.client_business_ids = (client_business_id,)
            error.concerning(client_business_id=client_business_id)
            raise

    async def _verdict(self, client_business_id: str, digest: str) -> Verdict:
        """What is to be done for a plain submission under an id of the caller's own."""
        assert self._parts.journal is not None
        known = await self._parts.journal.of_id(client_business_id)
        verdict = decide(known, digest, retry={State.REFUSED})
        if known is not None and verdict == Send(None):
            raise InvalidRequest(
                f"client_business_id {client_business_id!r} is that of another request, which failed: take another id",
                field="client_business_id",
            )
        return verdict

    def _carry_out(
        self,
        verdict: Verdict | None,
        request: Request,
        client_business_id: str,
        intent: Intent | None,
        budget: Budget | None,
    ) -> Coroutine[None, None, Entry]:
        if isinstance(verdict, Changed):
            raise verdict.error
        if verdict is not None and not isinstance(verdict, Send | LookUp):
            return self.take_up(verdict, priority_of(is_row=budget is not None))
        submission = Submission(self._parts, request, client_business_id, intent=intent, budget=budget)
        if isinstance(verdict, LookUp):
            submission.intended_earlier()
        return submission.run()

    async def take_up(self, verdict: Watch | Fetch | Done | Refused, priority: Priority = Priority.ROW) -> Entry:
        """The entry of a task that an earlier process submitted; a refusal raises what was said then. `priority`: of
        its permit."""
        record = verdict.record
        if isinstance(verdict, Watch):
            return await self._watch_again(record, priority)
        if record.task_id is None:
            assert isinstance(verdict, Refused)
            raise verdict.error
        return self.ended(record)

    def ended(self, record: Record) -> Entry:
        """The entry of a task whose end an earlier process saw."""
        kind = record.intent.kind
        return Entry.settled(snapshot_of(record), ENDPOINTS[kind], self._parts.tasks.forecast_of(kind))

    async def _watch_again(self, record: Record, priority: Priority) -> Entry:
        """The entry of a task whose end the earlier process did not see. It holds a permit; one that is watched already
        is shared, and waits for none."""
        assert record.task_id is not None
        parts = self._parts
        business_id, tasks, permits, release = record.intent.client_business_id, parts.tasks, parts.permits, None
        parts.spending.seen_to(business_id)
        is_watched = partial(tasks.get, record.task_id, (record.intent.kind,))
        if not is_watched():
            await permits.acquire(priority)
            release = parts.release
            if is_watched():  # meanwhile
                permits.give_back()
                release = None
        return tasks.watch(
            endpoint_of(record),
            record.task_id,
            start="unknown",
            query_id=record.query_id,
            client_business_id=business_id,
            was_seen=True,
            on_end=release,
        )

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
        """Wait for the POSTs under way for an id, here and in other processes; False when there is none."""
        attempts = [attempt for attempt, name in self._parts.attempts.items() if name == client_business_id]
        if attempts:
            await asyncio.wait(attempts)
        journal = self._parts.journal
        return (journal is not None and await journal.released(client_business_id)) or bool(attempts)

    def is_busy_with(self, client_business_id: str) -> bool:
        """Whether somebody submits under this id of the caller's own, or left a POST behind."""
        return client_business_id in self._alone or client_business_id in self._parts.attempts.values()

    async def aclose(self) -> None:
        """Give POSTs under way `close_grace_s`, then give up on their answers."""
        if self._parts.journal is not None:
            await self._parts.journal.flush()  # those whose intent it was see now that nothing may be sent any more
        if self._parts.attempts:
            await asyncio.wait(self._parts.attempts, timeout=self._parts.settings.close_grace_s)
            await asyncio.gather(*self.give_up(), return_exceptions=True)

    def give_up(self) -> tuple[asyncio.Task[Entry | ToAPIsError], ...]:
        """Stop waiting for the answers still under way; their callers get `SubmitUncertain`."""
        remaining = tuple(self._parts.attempts)
        for attempt in remaining:
            # Not at once: one that was begun in this very tick would be cancelled before its first step, where it
            # can't make that its answer, and its caller would get a cancellation it never asked for.
            self._loop.call_soon(attempt.cancel)
        return remaining


def mint_business_id() -> str:
    """An id of our own for a submission: unguessable, never used twice."""
    return f"ta-{secrets.token_hex(16)}"
