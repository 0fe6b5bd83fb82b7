"""What an earlier process wrote down, and what it means for a submission that is asked for now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from attrs import evolve

from toapis_async.engine.journal_file import State
from toapis_async.engine.registry import Entry, task_failure
from toapis_async.engine.spending import billed_credits
from toapis_async.errors import AuthenticationFailed, InsufficientQuota, InvalidRequest, ServiceError, ToAPIsError
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.retry import Fate, fate_of
from toapis_async.protocol.wire import decode_task, with_id

if TYPE_CHECKING:
    from collections.abc import Collection
    from decimal import Decimal

    from toapis_async.engine.journal_file import Record
    from toapis_async.models import TaskSnapshot
    from toapis_async.protocol.forecast import Forecast

_MAY_BE_PAID = frozenset({State.INTENT, State.ACCEPTED, State.COMPLETED})


def to_take_up(record: Record | None, digest: str, *, retry: Collection[State] = ()) -> Record | None:
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
            f"this request changed since it was sent as {task}: give the changed one another "
            f"{'key' if record.intent.run else 'client_business_id'}, or take the change back to have that one's image",
            field="key" if record.intent.run else "client_business_id",
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
    answer = Answer(200, {}, (record.answer or "{}").encode())
    snapshot = decode_task(answer, record.task_id)
    entry.show(with_id(snapshot, record.task_id, record.intent.client_business_id))
    entry.error = task_failure(snapshot, entry.task_id, entry.client_business_id)
    return entry


def answer_of(snapshot: TaskSnapshot) -> str:
    """A final state as the journal keeps it."""
    return json.dumps(dict(snapshot.raw))


def end_of(error: BaseException) -> tuple[State, str | None]:
    """How a submission that certainly was not accepted is written down: as refused for what it is, or as withdrawn for
    reasons that lie elsewhere (the network, the pace, the account)."""
    if (
        isinstance(error, ServiceError)
        and fate_of(error.status, error.code) is Fate.REFUSED
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
        snapshot = decode_task(Answer(200, {}, (record.answer or "{}").encode()), record.task_id)
        return task_failure(snapshot, record.task_id, record.intent.client_business_id)
    return None


def billed_in(record: Record) -> Decimal | None:
    """What a finished submission cost by the service's own word; None when it did not say."""
    snapshot = decode_task(Answer(200, {}, (record.answer or "{}").encode()), record.task_id)
    return billed_credits(snapshot.billing)


def refusal_of(record: Record) -> ToAPIsError:
    """The error of a submission that was refused in an earlier session."""
    body = (record.answer or "{}").encode()
    status = json.loads(body).get("status", 400)
    error = decode_error(Answer(int(status), {}, body))
    return error.concerning(client_business_id=record.intent.client_business_id)
