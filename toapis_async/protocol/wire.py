"""The service's JSON, in both directions: tolerant where it has been seen to vary, exact about what it can't read."""

from __future__ import annotations

import json
from datetime import datetime  # noqa: TC003 (cattrs reads the annotations)
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

import cattrs
from attrs import define, evolve
from cattrs.gen import make_dict_structure_fn, override

from toapis_async.errors import UnreadableAnswer
from toapis_async.models import Balance, Model, Upload
from toapis_async.protocol.lenient import (
    Answer,
    JsonObject,
    as_object,
    read_decimal,
    read_moment,
    read_number,
    read_object,
    read_progress,
    read_text,
    read_text_or_none,
    task_object,
    unreadable,
)
from toapis_async.protocol.lifecycle import WORDS, claim_of, status_of
from toapis_async.protocol.links import LINK_LIFE, absolute
from toapis_async.protocol.refusals import check_refusal, error_of
from toapis_async.protocol.results import File, images_of, kind_of, read_files, videos_of
from toapis_async.request import is_http_url, with_links
from toapis_async.task import Billing, TaskError, TaskSnapshot, TaskStatus, TokenDetails, ToolUsage, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toapis_async.request import Kind, Request

# ---------------------------------------------------------------------------------------------- requests


def form_of(body: JsonObject) -> dict[str, str]:
    """A body as the text parts of a form [docs: `/v1/images/edits` of gpt-image-2.5-*-vip]."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}


def encode_request(request: Request, links: Sequence[str], client_business_id: str) -> JsonObject:
    """The body of a submission; `links` are those of the uploads of `request.local_files()`, in their order."""
    body = request.body()
    if links:
        body = with_links(body, links)
    # The id comes last: what is sent must be what is tracked, whatever `extra` holds.
    body["client_business_id"] = client_business_id
    return body


# ---------------------------------------------------------------------------------------------- tasks


@define
class _Task:
    id: str = ""
    task_id: str = ""
    status: str = ""
    model: str | None = None
    client_business_id: str | None = None
    progress: int | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    error: TaskError | None = None
    fail_reason: TaskError | None = None
    billing: Billing | None = None
    usage: Usage | None = None


_AT_WORK: Final = {word: status for word, status in WORDS.items() if not status.is_final}


_NAMED: Final = frozenset({"id", "task_id", "status"})
"""Members of which every task has one; an answer to a query may lack an id, or the status."""


class Unfinished(NamedTuple):
    """What the engine needs to know of a task at work."""

    task_id: str
    client_business_id: str | None
    status: TaskStatus
    progress: int | None


class Course(NamedTuple):
    """What a task took, as the service tells it."""

    created_at: datetime | None
    completed_at: datetime | None
    billing: Billing | None


Seen: TypeAlias = TaskSnapshot | Unfinished
"""What an answer shows of a task, whole or at a glance."""


def glance(answer: Answer, asked_id: str | None = None) -> Unfinished | None:
    """A task that the answer plainly shows at work: the same as `decode_task` reads, without the rest. None for every
    other answer, and for words that need a closer look."""
    task = task_object(read_object(answer))
    if _NAMED.isdisjoint(task):
        return None
    status = _AT_WORK.get(read_text(task.get("status")))
    task_id = _first_id(read_text(task.get("task_id")), read_text(task.get("id")), asked_id)
    if task_id is None or status is None:
        return None
    business_id = read_text_or_none(task.get("client_business_id"))
    return Unfinished(task_id, business_id, status, read_progress(task.get("progress")))


def decode_course(answer: Answer) -> Course:
    """The times and the bill of a task: the same as `decode_task` reads, without the rest."""
    task = task_object(read_object(answer))
    created_at, completed_at = read_moment(task.get("created_at")), read_moment(task.get("completed_at"))
    return Course(created_at, completed_at, _billing(task.get("billing")))


def decode_task(
    answer: Answer, asked_id: str | None = None, *, kind: Kind | None = None, believe: bool = False
) -> TaskSnapshot:
    """A task object, also one that is wrapped in `data`.

    `asked_id` stands in when the answer names no id; without it an id is required. `kind` is the task's, where it is
    known; otherwise the answer says, and else it is an image. `believe`: another gateway's word for the end counts,
    where the body bears it out (see `lifecycle`). Raises `UnreadableAnswer` naming the place.
    """
    body = task_object(read_object(answer))
    if _NAMED.isdisjoint(body):  # `{"data": null}`: it does not say that there is such a task
        raise unreadable(answer, "no task", "$")
    task = _lenient.structure(body, _Task)
    task_id = _task_id(answer, task, asked_id)
    status, claimed, files = status_of(task.status), claim_of(task.status), list[File]()
    if status is TaskStatus.COMPLETED:
        files = read_files(answer, body)
    elif claimed is not None:
        claimed = _borne_out(claimed, task, files := _files_or_none(answer, body))
        status = claimed if believe and claimed is not None else status
    completed = status is TaskStatus.COMPLETED
    expires_at = task.expires_at or (completed and task.completed_at and task.completed_at + LINK_LIFE) or None
    is_video = (kind or kind_of(body)) == "video"
    return TaskSnapshot(
        task_id=task_id,
        status=status,
        raw_status=task.status,
        client_business_id=task.client_business_id,
        model=task.model,
        progress=task.progress,
        created_at=task.created_at,
        completed_at=task.completed_at,
        expires_at=expires_at,
        images=images_of(files, expires_at) if completed and not is_video else (),
        videos=videos_of(files, expires_at) if completed and is_video else (),
        error=_task_error(task, body) if status is TaskStatus.FAILED else None,
        billing=task.billing,
        usage=task.usage,
        claimed_status=None if status.is_final else claimed,
        raw=body,
    )


def _borne_out(claimed: TaskStatus, task: _Task, files: list[File]) -> TaskStatus | None:
    """A claimed end when the body shows it: files of a success, an error and no files of a failure."""
    if claimed is TaskStatus.COMPLETED:
        return claimed if files else None
    return claimed if not files and (task.error or task.fail_reason) else None


def _files_or_none(answer: Answer, body: JsonObject) -> list[File]:
    try:
        return read_files(answer, body)
    except UnreadableAnswer:
        return []


def decode_task_id(answer: Answer) -> str:
    """The id of the task that a submission's answer names: all it takes to know that the service took it."""
    return _task_id(answer, _lenient.structure(task_object(read_object(answer)), _Task))


def _task_id(answer: Answer, task: _Task, asked_id: str | None = None) -> str:
    task_id = _first_id(task.task_id, task.id, asked_id)
    if task_id is None:
        raise unreadable(answer, "no task id", "$.id")
    return task_id


def _first_id(*ids: str | None) -> str | None:
    """The first that can be asked for; `id` may be that of a resource [field], so that `task_id` goes before it."""
    for task_id in ids:
        if task_id and _can_be_asked_for(task_id):
            return task_id
    return None


def _can_be_asked_for(task_id: str) -> bool:
    # It goes into a URL, where lone surrogates can't stand and dots walk; nothing of the sort was ever seen.
    return task_id.isprintable() and task_id not in {".", ".."}


def _task_error(task: _Task, body: JsonObject) -> TaskError:
    known = task.error or task.fail_reason or error_of(body.get("message"))
    return known or TaskError("", "the service gave no reason")


# ---------------------------------------------------------------------------------------------- other answers


def decode_upload(answer: Answer, base_url: str = "") -> Upload:
    """An upload's answer; a link without a host is on the API's, at `base_url`. A 200 with `success: false` raises
    `ServiceError` with the service's message."""
    data = _data(answer)
    upload_id, size = data.get("id"), data.get("size")
    url = absolute(read_text(data.get("url")), base_url)
    if url is None or not is_http_url(url):  # what goes into a paid request must be a link
        raise unreadable(answer, "no link to the uploaded file", "$.data.url")
    mime_type = data.get("mime_type")
    return Upload(
        id=read_text(upload_id),
        url=url,
        mime_type=mime_type if isinstance(mime_type, str) else None,
        size_bytes=size if isinstance(size, int) and not isinstance(size, bool) else None,
    )


def decode_balance(answer: Answer) -> Balance:
    """A balance; the service reports a failure as 200 with `success: false`."""
    body = read_object(answer)
    check_refusal(answer)
    if "remain_credits" not in body and "remain_balance" not in body:
        body = as_object(body.get("data")) or body
    numbers = ("remain_credits", "used_credits", "remain_balance", "used_balance", "credits_per_usd")
    values = {name: read_number(body.get(name)) for name in numbers}
    if values["remain_credits"] is None and values["remain_balance"] is None:
        raise unreadable(answer, "no balance", "$.remain_credits")
    return Balance(**values, unlimited_quota=body.get("unlimited_quota") is True)


def decode_models(answer: Answer) -> tuple[Model, ...]:
    """The list of models: `{"data": [{"id": …}, …]}`."""
    rows = read_object(answer).get("data")
    if not isinstance(rows, list):
        check_refusal(answer)
        raise unreadable(answer, "no list of models", "$.data")
    objects = (as_object(row) or {} for row in cast("list[object]", rows))
    return tuple(Model(row["id"], row) for row in objects if isinstance(row.get("id"), str))


def _data(answer: Answer) -> JsonObject:
    body = read_object(answer)
    check_refusal(answer)
    return as_object(body.get("data")) or body


# ---------------------------------------------------------------------------------------------- structure


def _billing(value: object, _: object = None) -> Billing | None:
    members = as_object(value)
    if not members:
        return None
    return Billing(
        status=read_text(members.get("status")),
        credits=read_decimal(members.get("credits")),
        cost_usd=read_decimal(members.get("cost_usd")),
    )


def _usage(value: object, _: object) -> Usage | None:
    members = as_object(value)
    if not members:
        return None
    tools = as_object(members.get("tool_usage"))
    usage = Usage(
        input_tokens=_tokens(members, "input_tokens"),
        output_tokens=_tokens(members, "output_tokens"),
        total_tokens=_tokens(members, "total_tokens"),
        input_tokens_details=_token_details(members.get("input_tokens_details")),
        output_tokens_details=_token_details(members.get("output_tokens_details")),
        tool_usage=ToolUsage(_tokens(tools, "web_search")) if tools else None,
    )
    return usage if usage != Usage() else None


def _token_details(value: object) -> TokenDetails | None:
    members = as_object(value)
    if not members:
        return None
    cached = as_object(members.get("cached_tokens_details")) or {}
    cached_details = TokenDetails(_tokens(cached, "text_tokens"), _tokens(cached, "image_tokens"))
    return TokenDetails(
        text_tokens=_tokens(members, "text_tokens"),
        image_tokens=_tokens(members, "image_tokens"),
        cached_tokens=_tokens(members, "cached_tokens"),
        cached_tokens_details=cached_details if cached_details != TokenDetails() else None,
    )


def _tokens(members: JsonObject, name: str) -> int | None:
    value = members.get(name)
    return value if type(value) is int and value >= 0 else None


def _lenient_error(value: object, _: object) -> TaskError | None:
    return error_of(value)


def _make_lenient() -> cattrs.Converter:
    # Its hooks never refuse, so nothing needs the (slower) detailed validation.
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(
        _Task,
        make_dict_structure_fn(
            _Task,
            converter,
            id=override(struct_hook=read_text),
            task_id=override(struct_hook=read_text),
            status=override(struct_hook=read_text),
            model=override(struct_hook=read_text_or_none),
            client_business_id=override(struct_hook=read_text_or_none),
            progress=override(struct_hook=read_progress),
            created_at=override(struct_hook=read_moment),
            completed_at=override(struct_hook=read_moment),
            expires_at=override(struct_hook=read_moment),
            error=override(struct_hook=_lenient_error),
            fail_reason=override(struct_hook=_lenient_error),
            billing=override(struct_hook=_billing),
            usage=override(struct_hook=_usage),
        ),
    )
    return converter


_lenient = _make_lenient()


def with_id(snapshot: TaskSnapshot, task_id: str, client_business_id: str | None) -> TaskSnapshot:
    """The snapshot under the ids its task is known by here: an answer may bear another id than was queried."""
    if snapshot.task_id == task_id and snapshot.client_business_id == client_business_id:
        return snapshot
    return evolve(
        snapshot,
        task_id=task_id,
        client_business_id=client_business_id or snapshot.client_business_id,
    )
