"""What an earlier process wrote down, and what it means for a submission that is asked for now."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import evolve

from toapis_async.engine.journal.file import State
from toapis_async.engine.registry import Entry, task_failure
from toapis_async.engine.spending import billed_credits
from toapis_async.errors import AuthenticationFailed, InsufficientQuota, InvalidRequest, ServiceError, ToAPIsError
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.retry import RefusalKind, refusal_kind
from toapis_async.protocol.wire import decode_task, with_id

if TYPE_CHECKING:
    from collections.abc import Collection
    from decimal import Decimal

    from toapis_async.engine.journal.file import Record
    from toapis_async.protocol.polling.forecast import Forecast
    from toapis_async.task import TaskSnapshot

_MAY_BE_PAID = frozenset({State.INTENT, State.ACCEPTED, State.COMPLETED})


def to_take_up(
    record: Record | None, digest: str, *, known_by: str = "client_business_id", retry: Collection[State] = ()
) -> Record | None:
    """The record that stands for a request asked for now; None when the request is to be sent under a new id.

    A record in the state `WITHDRAWN` means: send it, under the id it has. Of `REFUSED` and `FAILED` those in `retry`
    are sent again. Raises `InvalidRequest` when another request may have been paid for under this record's name.
    """
    if record is None:
        return None
    changed = record.intent.digest != digest
    if changed and record.state in _MAY_BE_PAID:
        task = f"task {record.task_id}" if record.task_id else record.intent.client_business_id
        raise InvalidRequest(
            f"this request changed since it was sent as {task}: give the changed one another {known_by}, "
            "or take the change back to have that one's image",
            field=known_by,
        ).concerning(record.task_id, record.intent.client_business_id)
    again = changed or record.state in retry
    if again and record.state is State.FAILED:  # its id is that of the failed task for good
        return None
    if again and record.state is State.REFUSED:
        return evolve(record, state=State.WITHDRAWN)
    return record


def settled_entry(record: Record, forecast: Forecast) -> Entry:
    """The entry of a task that ended in an earlier session."""
    assert record.task_id is not None
    entry = Entry(
        task_id=record.task_id,
        asked_id=record.asked_id or record.task_id,
        client_business_id=record.intent.client_business_id,
        since_s=0.0,
        forecast=forecast,
        ended=True,
    )
    snapshot = _told(record)
    entry.show(with_id(snapshot, record.task_id, record.intent.client_business_id))
    entry.error = task_failure(snapshot, entry.task_id, entry.client_business_id)
    return entry


def has_expired(record: Record) -> bool:
    """Whether the links of a completed task are known to be past their end."""
    if record.state is not State.COMPLETED:
        return False
    expires_at = _told(record).expires_at
    return expires_at is not None and expires_at <= datetime.now(UTC)


def _told(record: Record) -> TaskSnapshot:
    """The final state that was written down."""
    return decode_task(Answer(200, {}, (record.answer or "{}").encode()), record.task_id)


def answer_of(snapshot: TaskSnapshot) -> str:
    """A final state as the journal keeps it: the answer; of an event, what it tells as an answer would."""
    times = {"created_at": snapshot.created_at, "completed_at": snapshot.completed_at}
    known = {name: moment.timestamp() for name, moment in times.items() if moment is not None}
    return json.dumps({**known, **snapshot.raw, "status": snapshot.status.value})


def end_of(error: BaseException) -> tuple[State, str | None]:
    """How a submission that certainly was not accepted is written down: as refused for what it is, or as withdrawn for
    reasons that lie elsewhere (the network, the pace, the account)."""
    if (
        isinstance(error, ServiceError)
        and refusal_kind(error) is RefusalKind.FINAL
        and not isinstance(error, AuthenticationFailed | InsufficientQuota)
    ):
        told = {"status": error.status, "error": {"code": error.code, "message": error.message}}
        return State.REFUSED, json.dumps(told)
    return State.WITHDRAWN, None


def error_of_record(record: Record) -> ToAPIsError | None:
    """Why a submission ended badly; None when it did not."""
    if record.state is State.REFUSED:
        return refusal_of(record)
    if record.state is State.FAILED and record.task_id is not None:
        return task_failure(_told(record), record.task_id, record.intent.client_business_id)
    return None


def billed_in(record: Record) -> Decimal | None:
    """What a finished submission cost by the service's own word; None when it did not say."""
    return billed_credits(_told(record).billing)


def may_be_paid(record: Record) -> bool:
    """Whether the service has charged a submission, or may have; a failure only when its `billing` says so."""
    if record.state is not State.FAILED:
        return record.state in _MAY_BE_PAID
    billing = _told(record).billing
    return billing is not None and billing.status == "settled"


def refusal_of(record: Record) -> ToAPIsError:
    """The error of a submission that was refused in an earlier session."""
    body = (record.answer or "{}").encode()
    status = json.loads(body).get("status", 400)
    error = decode_error(Answer(int(status), {}, body))
    return error.concerning(client_business_id=record.intent.client_business_id)
