"""Status queries: one GET, paced, its answer decoded and its hints given to the bucket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from toapis_async.engine.limiter import Priority
from toapis_async.errors import ClientStateError, TaskNotFound, ToAPIsError, TransportError
from toapis_async.protocol.refusals import refusal_in
from toapis_async.protocol.retry import look_up_gaps_s
from toapis_async.protocol.wire import decode_task, with_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toapis_async.engine.entry import Entry
    from toapis_async.engine.pacer import Pacer, RateGate
    from toapis_async.engine.transport import Transport
    from toapis_async.protocol.endpoints import Endpoint
    from toapis_async.protocol.lenient import Answer
    from toapis_async.task import TaskSnapshot


class StatusPort(Protocol):
    """What the poller queries through. The service documents a query for 100 ids that counts as one request, but not
    its path [open]: once published, it plugs in here."""

    gate: RateGate
    ids_per_request: int

    async def query_all(self, entries: Sequence[Entry]) -> Sequence[Answer | ToAPIsError]:
        """What the service says of each, in their order; at most `ids_per_request`, for one turn of the gate that the
        caller has acquired and that this gives back however it ends."""
        ...


class Queries:
    """Queries how tasks stand, one at a time. Look-ups that a person waits for go before polls."""

    ids_per_request = 1

    def __init__(self, transport: Transport, pacer: Pacer) -> None:
        self._transport = transport
        self._pacer = pacer
        self.gate: RateGate = pacer.gate
        self.count: int = 0

    async def status(self, task_id: str, endpoints: Sequence[Endpoint]) -> tuple[TaskSnapshot, Endpoint]:
        """One query, before all polls that wait, of the first endpoint that knows the task; the next is queried only
        on "not found". Raises `TaskNotFound` when none knows it."""
        for endpoint in endpoints[:-1]:
            try:
                return await self._status(task_id, endpoint), endpoint
            except TaskNotFound:
                continue
        return await self._status(task_id, endpoints[-1]), endpoints[-1]

    async def _status(self, task_id: str, endpoint: Endpoint) -> TaskSnapshot:
        await self.gate.acquire(Priority.URGENT)
        try:
            return decode_task(await self.query(task_id, endpoint), task_id, kind=endpoint.kind)
        except ToAPIsError as error:
            error.concerning(task_id)
            raise

    async def find(self, client_business_id: str, endpoints: Sequence[Endpoint]) -> tuple[TaskSnapshot, Endpoint]:
        """The task that was submitted with this id, under both its ids."""
        try:
            snapshot, endpoint = await self.status(client_business_id, endpoints)
        except ToAPIsError as error:
            error.task_id, error.client_business_id = None, client_business_id
            raise
        if snapshot.client_business_id is not None and client_business_id not in {
            snapshot.client_business_id,
            snapshot.task_id,
        }:
            text = f"the answer to a query for {client_business_id} is about {snapshot.client_business_id}"
            raise TransportError(text).concerning(client_business_id=client_business_id)
        business_id = snapshot.client_business_id or client_business_id
        return with_id(snapshot, snapshot.task_id, business_id), endpoint

    async def find_within(self, window_s: float, client_business_id: str, endpoint: Endpoint) -> TaskSnapshot | None:
        """The task of a submission in doubt; None when the service, asked through the whole window, knew none at the
        end of it. Nobody says how soon the service can find a task by that id [open], so that a single "not found"
        proves nothing.

        A look-up that fails is no evidence: the last answer must be the service's own "not found", for which at most
        another window is waited. Raises the last failure when it never came, and `SessionClosed`.
        """
        failure: ToAPIsError | None = None
        waited_s = 0.0
        for gap_s in look_up_gaps_s(window_s):
            await asyncio.sleep(gap_s)
            waited_s += gap_s
            failure = None
            try:
                snapshot, _ = await self.find(client_business_id, (endpoint,))
            except TaskNotFound:
                if waited_s >= window_s:
                    return None
            except ClientStateError:
                raise
            except ToAPIsError as error:
                failure = error
            else:
                return snapshot
        assert failure is not None  # or the window's end would have been reached with an answer
        raise failure

    async def query_all(self, entries: Sequence[Entry]) -> Sequence[Answer | ToAPIsError]:
        (entry,) = entries
        try:
            return (await self.query(entry.query_id, entry.endpoint),)
        except ToAPIsError as error:
            return (error,)

    async def query(self, task_id: str, endpoint: Endpoint) -> Answer:
        """The GET itself; the caller has acquired the gate, this gives the turn back however it ends."""
        self.count += 1
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            answer = await self._transport.get("query", endpoint.task_path(task_id))
        except TransportError as error:
            self._pacer.unanswered(error)
            error.concerning(task_id)
            raise
        except BaseException:
            self._pacer.abandoned()
            raise
        refusal = self._pacer.answered(answer, loop.time() - started_s)
        refusal = refusal or refusal_in(answer, about_task=True)
        if refusal is not None:
            raise refusal.concerning(task_id)
        return answer
