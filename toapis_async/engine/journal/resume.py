"""What is to be done about a record that an earlier process wrote. `decide` is the only function that says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from toapis_async.engine.journal.records import LATEST_S, End, State
from toapis_async.errors import (
    AuthenticationFailed,
    InsufficientQuota,
    InvalidRequest,
    RateLimited,
    ServiceError,
    ToAPIsError,
    UnreadableAnswer,
)
from toapis_async.protocol.budget import PriceClass, charge_of, images_of
from toapis_async.protocol.endpoints import query_endpoint
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.lifecycle import failure_of
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.retry import RefusalKind, refusal_kind
from toapis_async.protocol.wire import decode_course, decode_task, with_id
from toapis_async.request import body_of
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from toapis_async.engine.journal.records import Record
    from toapis_async.protocol.budget import Budget, Reservation
    from toapis_async.protocol.endpoints import Endpoint
    from toapis_async.protocol.wire import Course
    from toapis_async.task import TaskSnapshot

_MAY_BE_PAID = frozenset({State.INTENT, State.ACCEPTED, State.COMPLETED})
ENDED_BADLY = frozenset({State.REFUSED, State.FAILED})
"""States that a batch's `retry_failed` submits anew."""


@frozen
class Send:
    """Send the request: under the record's id, which was certainly not accepted, or (None) under a new one."""

    client_business_id: str | None


@frozen
class LookUp:
    """It may have been sent: look it up through the window, and only then send it."""

    record: Record


@frozen
class Watch:
    """The service works on it, or did: watch it again."""

    record: Record


@frozen
class Fetch:
    """It is finished, and some of its files are not known to be on disk."""

    record: Record


@frozen
class Done:
    """It is finished, and all its files are on disk."""

    record: Record


@frozen
class Refused:
    """It ended without an image: the service refused it, or gave its task up. `error` says why."""

    record: Record
    error: ToAPIsError


@frozen
class Changed:
    """Another request may have been paid for under this name. `error` says so, and the way out."""

    record: Record
    error: InvalidRequest


Verdict: TypeAlias = Send | LookUp | Watch | Fetch | Done | Refused | Changed


def decide(  # noqa: PLR0911  (one for each verdict)
    record: Record | None,
    digest: str | None = None,
    *,
    retry: Collection[State] = (),
    known_by: str = "client_business_id",
) -> Verdict:
    """What is to be done about a record; None is a request that nobody has sent.

    `digest` is that of the request asked for now; without it the record's own request is meant. Of `ENDED_BADLY` those
    states in `retry` are sent again, and with `FAILED` among them also what is finished but lost. `known_by` names the
    field that leads to the record.
    """
    if record is None:
        return Send(None)
    changed = digest is not None and record.intent.digest != digest
    if changed and record.state in _MAY_BE_PAID:
        return Changed(record, _changed_error(record, known_by))
    if record.state in ENDED_BADLY:
        if not changed and record.state not in retry:
            return Refused(record, _end_error(record))
        # A failed task keeps its id for good.
        return Send(None if record.state is State.FAILED else record.intent.client_business_id)
    if record.state is State.COMPLETED:
        if record.is_saved:
            return Done(record)
        is_lost = record.lost_at is not None and not record.files
        return Send(None) if is_lost and State.FAILED in retry else Fetch(record)
    if record.state is State.WITHDRAWN:
        return Send(record.intent.client_business_id)
    return LookUp(record) if record.state is State.INTENT else Watch(record)


def _changed_error(record: Record, known_by: str) -> InvalidRequest:
    task = f"task {record.task_id}" if record.task_id else record.intent.client_business_id
    error = InvalidRequest(
        f"this request changed since it was sent as {task}: give the changed one another {known_by}, "
        "or take the change back to have that one's image",
        field=known_by,
    )
    return error.concerning(record.task_id, record.intent.client_business_id)


def _end_error(record: Record) -> ToAPIsError:
    failure = failure_of(snapshot_of(record)) if record.state is State.FAILED else None
    if failure is not None:
        return failure
    body = (record.answer or "{}").encode()
    error = decode_error(Answer(int(json.loads(body).get("status", 400)), {}, body))
    return error.concerning(client_business_id=record.intent.client_business_id)


def endpoint_of(record: Record) -> Endpoint:
    """Where its task is queried, and for how long it may be watched."""
    return query_endpoint(record.intent.kind, body_of(json.loads(record.intent.request)))


def error_of(record: Record) -> ToAPIsError | None:
    """Why a submission ended badly; None when it did not."""
    verdict = decide(record)
    return verdict.error if isinstance(verdict, Refused) else None


def snapshot_of(record: Record) -> TaskSnapshot:
    """The final state of a task that ended, under the ids it is known by."""
    snapshot = decode_task(_answer_in(record), record.task_id, kind=record.intent.kind)
    return with_id(snapshot, record.task_id or snapshot.task_id, record.intent.client_business_id)


def course_of(record: Record) -> Course:
    """What a task that ended took."""
    return decode_course(_answer_in(record))


def _answer_in(record: Record) -> Answer:
    return Answer(200, {}, (record.answer or json.dumps({"status": record.state.value})).encode())


def end_from(snapshot: TaskSnapshot, task_id: str) -> End | None:
    """A final state as the journal keeps it; None for one that can't be written."""
    state = State.FAILED if snapshot.status is TaskStatus.FAILED else State.COMPLETED
    answer, completed_at = answer_of(snapshot), snapshot.completed_at
    if answer is None:
        return None
    completed_s = None if completed_at is None else min(max(completed_at.timestamp(), 0.0), LATEST_S)
    return End(state, task_id, answer, len(snapshot.files), completed_s)


def answer_of(snapshot: TaskSnapshot) -> str | None:
    """A final state as the journal keeps it: the answer; of an event, what it tells as an answer would. None for one
    that can't be written (nested too deep)."""
    times = {"created_at": snapshot.created_at, "completed_at": snapshot.completed_at}
    known = {name: moment.timestamp() for name, moment in times.items() if moment is not None}
    try:
        return json.dumps({**known, **snapshot.raw, "status": snapshot.status.value})
    except RecursionError:
        return None


def end_of(error: BaseException) -> tuple[State, str | None]:
    """How a submission that certainly was not accepted is written down: as refused for what it is, or as withdrawn for
    reasons that lie elsewhere (the network, the pace, the account)."""
    if isinstance(error, ServiceError) and _is_of_the_request(error):
        body = {"status": error.status, "error": {"code": error.code, "message": error.message}}
        return State.REFUSED, json.dumps(body)
    return State.WITHDRAWN, None


def _is_of_the_request(error: ServiceError) -> bool:
    """Whether the same request would be refused again. So is one whose refusal came in a 2xx: it was believed only when
    no task was to be found."""
    if isinstance(error, AuthenticationFailed | InsufficientQuota | RateLimited | UnreadableAnswer):
        return False
    return refusal_kind(error) is RefusalKind.FINAL or error.status < 300


def price_class_of(record: Record) -> PriceClass:
    """What the price of a record's request depends on."""
    return PriceClass.of(body_of(json.loads(record.intent.request)))


def charge(budget: Budget, record: Record) -> Reservation | None:
    """Count in a budget what the service has charged for a record, or may have; a failure unless its bill, or the lack
    of one, says that it was free.

    Returns the reservation of one that is not charged yet: it is unfinished, or failed and its bill is pending. None
    for any other.
    """
    if record.state not in _MAY_BE_PAID and record.state is not State.FAILED:
        return None
    body = body_of(json.loads(record.intent.request))
    reservation = budget.reserve(price_class_of(record), images_of(body), forced=True)
    if record.state in {State.INTENT, State.ACCEPTED}:
        return reservation
    budget.charge(reservation, charge_of(TaskStatus(record.state.value), course_of(record).billing))
    return reservation if reservation.is_idle else None
