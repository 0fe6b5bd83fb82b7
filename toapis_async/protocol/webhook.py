"""An event's body as a task's snapshot. Read as leniently as answers are: the same task in another vocabulary."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from toapis_async.errors import UnreadableAnswer, WebhookRejected
from toapis_async.protocol.end_message import EndMessage
from toapis_async.protocol.lenient import Answer, JsonObject, as_object, json_of, read_text, read_text_or_none
from toapis_async.protocol.lifecycle import claim_of, status_of
from toapis_async.protocol.results import kind_of
from toapis_async.protocol.wire import decode_task
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from toapis_async.request import Kind
    from toapis_async.task import TaskSnapshot

TEST_TYPE: Final = "endpoint.test"
_STATUS_BY_TYPE: Final = {"generation.completed": TaskStatus.COMPLETED, "generation.failed": TaskStatus.FAILED}


@frozen
class WebhookEvent:
    """One event. `snapshot` is the task in its final state, or None when the event shows none that we can
    use: a test, a kind we don't know, an end without a link that can be read."""

    event_id: str
    type: str
    snapshot: TaskSnapshot | None
    kind: Kind | None = None  #: of the task, by its `task_type`; None when the event does not say

    @property
    def end(self) -> EndMessage | None:
        """The end that the event tells, if it shows one."""
        shown = self.snapshot
        if shown is None:
            return None
        return EndMessage(shown.task_id, shown.client_business_id, self.kind, by_event=True, decoded=shown)

    @property
    def is_test(self) -> bool:
        return self.type == TEST_TYPE


def decode_event(body: bytes, event_id: str) -> WebhookEvent:
    """The event in a signed body; `event_id` is the signed one. Raises `WebhookRejected` (400) for what is no event."""
    members = as_object(json_of(body))
    kind = read_text(members.get("type")) if members is not None else ""
    if members is None or not kind:
        raise WebhookRejected("signed, but no event: the body is not a JSON object with a type", status=400)
    data = as_object(members.get("data"))
    if data is None or kind == TEST_TYPE:
        return WebhookEvent(event_id, kind, None)
    return WebhookEvent(event_id, kind, _final(data, kind), kind_of(data))


def _final(data: JsonObject, kind: str) -> TaskSnapshot | None:
    """The task in its final state, by its status or else by the event's type; None when it can't be made out."""
    word, business_id = read_text(data.get("status")), read_text_or_none(data.get("client_business_id"))
    status = claim_of(word) or status_of(word)  # SUCCESS and FAILURE are an event's own words [docs]
    if not status.is_final:
        status = _STATUS_BY_TYPE.get(kind, status)
    task = {
        **data,
        "id": data.get("task_id", data.get("id")),
        "status": status.value,
        "created_at": data.get("submitted_at"),
        "completed_at": data.get("finished_at"),
    }
    with suppress(UnreadableAnswer, RecursionError):
        snapshot = decode_task(Answer(200, {}, json.dumps(task).encode()), business_id)
        if snapshot.status is TaskStatus.FAILED or (snapshot.status is TaskStatus.COMPLETED and snapshot.files):
            return evolve(snapshot, raw_status=word, raw=data)
    return None
