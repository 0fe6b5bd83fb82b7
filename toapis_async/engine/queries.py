"""Status questions: one GET, paced, its answer decoded and its hints given to the bucket."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from toapis_async.engine.transport import task_path
from toapis_async.errors import RateLimited, ToAPIsError, TransportError
from toapis_async.events import Throttled
from toapis_async.protocol.lenient import read_number
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.retry import backoff_s, retry_after_s
from toapis_async.protocol.tiers import bucket_shown
from toapis_async.protocol.wire import decode_task, with_id

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from toapis_async.engine.limiter import RateGate
    from toapis_async.engine.transport import Transport
    from toapis_async.errors import ServiceError
    from toapis_async.events import Event
    from toapis_async.protocol.lenient import Answer
    from toapis_async.protocol.tiers import Category
    from toapis_async.settings import Settings
    from toapis_async.task import TaskSnapshot


class Pacer:
    """Tells a gate how each request of its category ended, and turns the service's hints into pauses."""

    def __init__(
        self,
        category: Category,
        gate: RateGate,
        settings: Settings,
        rng: random.Random,
        emit: Callable[[Event], None],
    ) -> None:
        self.gate = gate
        self.throttled = 0
        self._category: Category = category
        self._told_as = f"async_{category}"
        self._settings = settings
        self._rng = rng
        self._emit = emit

    def heard(self, answer: Answer, latency_s: float, model: str | None = None) -> ServiceError | None:
        """Account for an answer; return the error it stands for (`model`: to a submission to this one), None for a
        2xx."""
        self._read_hints(answer, latency_s)
        self.gate.answered(latency_s=latency_s, sent=answer.sent)
        if 200 <= answer.status < 300:
            return None
        asked_s = retry_after_s(answer.headers.get("retry-after"), time.time(), self._settings.max_retry_after_s)
        error = decode_error(answer, about_task=self._category == "query", model=model, retry_after_s=asked_s)
        if isinstance(error, RateLimited):
            self.throttled += 1
            self._pause(asked_s, self.gate.throttle)
        elif answer.status == 503 and asked_s is not None:
            self._pause(asked_s, self.gate.pause)
        return error

    def _read_hints(self, answer: Answer, latency_s: float) -> None:
        if answer.headers.get("x-ratelimit-category", self._told_as) != self._told_as:
            return
        limit = read_number(answer.headers.get("x-ratelimit-limit"))
        if limit is not None and self._settings.adopts_tier and (bucket := bucket_shown(self._category, limit)):
            self.gate.retune(*bucket)
        remaining = read_number(answer.headers.get("x-ratelimit-remaining"))
        if remaining is not None and remaining >= 0:
            self.gate.told_remaining(remaining, latency_s)

    def unheard(self, error: TransportError) -> None:
        """Account for a request without an answer. An attempt to connect that failed costs a turn, too: while the
        service refuses connections, those keep to its pace."""
        self.gate.answered(latency_s=None, sent=max(error.sent, 1))

    def back_off(self, failures: int) -> float:
        """Pause the category after `failures` in a row that were nobody's answer; returns the seconds."""
        wait_s = backoff_s(failures, base_s=0.5, cap_s=10.0, rng=self._rng)
        self.gate.pause(wait_s)
        return wait_s

    def _pause(self, asked_s: float | None, how: Callable[[float], None]) -> None:
        wait_s = (asked_s if asked_s is not None else 1.0) * self._rng.uniform(1.0, 1.1)
        how(wait_s)
        self._emit(Throttled(self._category, wait_s))


class StatusPort(Protocol):
    """What the poller asks through. The service documents a query for 100 ids that counts as one request, but not its
    path [open]: once published, it plugs in here."""

    gate: RateGate
    ids_per_request: int

    async def ask_all(self, task_ids: Sequence[str]) -> Sequence[Answer | ToAPIsError]:
        """What the service says of each, in their order; at most `ids_per_request`, for one turn of the gate that the
        caller has acquired and that this gives back however it ends."""
        ...


class Queries:
    """Asks how tasks stand, one at a time. Look-ups that a person waits for go before polls."""

    ids_per_request = 1

    def __init__(self, transport: Transport, pacer: Pacer) -> None:
        self._transport = transport
        self._pacer = pacer
        self.gate = pacer.gate
        self.asked = 0

    async def look_up(self, task_id: str) -> TaskSnapshot:
        """One question, before all polls that wait. Raises `TaskNotFound` when the service knows no such task."""
        await self.gate.acquire(urgent=True)
        try:
            return decode_task(await self.ask(task_id), task_id)
        except ToAPIsError as error:
            error.concerning(task_id)
            raise

    async def find(self, client_business_id: str) -> TaskSnapshot:
        """The task that was submitted with this id, under both its ids."""
        try:
            snapshot = await self.look_up(client_business_id)
        except ToAPIsError as error:
            error.task_id, error.client_business_id = None, client_business_id
            raise
        if snapshot.client_business_id is not None and client_business_id not in {
            snapshot.client_business_id,
            snapshot.task_id,
        }:
            told = f"asked for {client_business_id}, the service told of {snapshot.client_business_id}"
            raise TransportError(told).concerning(client_business_id=client_business_id)
        return with_id(snapshot, snapshot.task_id, snapshot.client_business_id or client_business_id)

    async def ask_all(self, task_ids: Sequence[str]) -> Sequence[Answer | ToAPIsError]:
        (task_id,) = task_ids
        try:
            return (await self.ask(task_id),)
        except ToAPIsError as error:
            return (error,)

    async def ask(self, task_id: str) -> Answer:
        """The GET itself; the caller has acquired the gate, this gives the turn back however it ends."""
        self.asked += 1
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            answer = await self._transport.get("query", task_path(task_id))
        except TransportError as error:
            self._pacer.unheard(error)
            error.concerning(task_id)
            raise
        except BaseException:
            self.gate.answered(latency_s=None)
            raise
        refusal = self._pacer.heard(answer, loop.time() - started_s)
        if refusal is not None:
            raise refusal.concerning(task_id)
        return answer
