"""The end of one task, as one process tells it to others: a line of JSON with its ids, then the service's answer.

Whoever receives a message looks its ids up before the answer is decoded, since most messages are about tasks of others.
What is received is checked like any other input from outside.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

from attrs import field, frozen

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import Answer, as_object, json_of, read_text, unreadable
from toapis_async.protocol.wire import decode_task
from toapis_async.request import check_task_id

if TYPE_CHECKING:
    from toapis_async.request import Kind
    from toapis_async.task import TaskSnapshot

MAX_ANSWER_BYTES: Final = 2**20
"""A longer answer (one with images in it) is not passed on: the message then says no more than that the task ended."""
_MAX_HEAD_BYTES: Final = 16 * 1_024
MAX_MESSAGE_BYTES: Final = _MAX_HEAD_BYTES + 1 + MAX_ANSWER_BYTES
_VERSION: Final = 1
_KINDS: Final = frozenset({"image", "video", None})


@frozen
class EndMessage:
    """What is known of the end of a task. `snapshot` is read from `answer` when it is wanted."""

    task_id: str
    client_business_id: str | None
    kind: Kind | None  #: None when the event that told the end did not say
    by_event: bool  #: the service's event told it, not a poll
    answer: bytes | None = field(default=None, repr=False)  #: None: too large to be passed on
    decoded: TaskSnapshot | None = field(default=None, repr=False, eq=False)  #: what `answer` says, where it was read

    sender: str = ""  #: which process published it

    @property
    def names(self) -> tuple[str, ...]:
        """The ids that the task goes by."""
        return tuple(name for name in (self.task_id, self.client_business_id) if name is not None)

    @property
    def can_be_told(self) -> bool:
        """Whether the answer is there, and short enough to be passed on."""
        return self.answer is not None and len(self.answer) <= MAX_ANSWER_BYTES

    def snapshot(self) -> TaskSnapshot | None:
        """The task in its final state; None when there is no answer. Raises `UnreadableAnswer` for one that can't be
        read, or is of no final state."""
        if self.decoded is not None or self.answer is None:
            return self.decoded
        answer = Answer(200, {}, self.answer)
        snapshot = decode_task(answer, self.task_id, kind=self.kind)
        if not snapshot.status.is_final:
            raise unreadable(answer, "the task has not ended", "$.status")
        return snapshot


def encode_end(end: EndMessage) -> bytes:
    """The message."""
    head = {
        "v": _VERSION,
        "sender": end.sender,
        "task_id": end.task_id,
        "client_business_id": end.client_business_id,
        "kind": end.kind,
        "by_event": end.by_event,
    }
    return json.dumps(head).encode() + b"\n" + (end.answer if end.answer and end.can_be_told else b"")


def decode_end(message: bytes) -> EndMessage:
    """The end in a message. Raises `ValueError` with the reason for what is no message of ours."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"{len(message):,} bytes are too many")
    head, _, answer = message.partition(b"\n")
    members = as_object(json_of(head)) if len(head) <= _MAX_HEAD_BYTES else None
    if members is None or members.get("v") != _VERSION:
        raise ValueError("it does not begin with a line of ours")
    task_id, business_id, kind = (members.get(name) for name in ("task_id", "client_business_id", "kind"))
    by_event = members.get("by_event")
    if not _is_id(task_id):
        raise ValueError("its task's id can't be read")
    if not (kind is None or isinstance(kind, str)) or kind not in _KINDS or not isinstance(by_event, bool):
        raise ValueError("its kind can't be read")
    return EndMessage(
        task_id=cast("str", task_id),
        client_business_id=cast("str", business_id) if _is_id(business_id) else None,
        kind=cast("Kind | None", kind),
        by_event=by_event,
        answer=answer or None,
        sender=read_text(members.get("sender")),
    )


def _is_id(value: object) -> bool:
    try:
        check_task_id(value)
    except InvalidRequest:
        return False
    return True
