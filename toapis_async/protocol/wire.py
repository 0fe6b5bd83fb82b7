"""The service's JSON, in both directions: tolerant where it has been seen to vary, exact about what it can't read."""

from __future__ import annotations

import json
from datetime import datetime  # noqa: TC003 (cattrs reads the annotations)
from typing import TYPE_CHECKING, Any, cast

import cattrs
from attrs import define, evolve, fields
from cattrs.gen import make_dict_structure_fn, override

from toapis_async.errors import ServiceError
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
    unreadable,
)
from toapis_async.protocol.lifecycle import status_of
from toapis_async.protocol.links import LINK_LIFE
from toapis_async.protocol.refusals import error_of
from toapis_async.request import is_http_url, with_links
from toapis_async.task import Billing, GeneratedImage, TaskError, TaskSnapshot, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toapis_async.request import Request

# ---------------------------------------------------------------------------------------------- requests


def form_of(body: JsonObject) -> dict[str, str]:
    """A body as the text parts of a form [docs: `/v1/images/edits` of gpt-image-2.5-*-vip]."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}


def encode_request(request: Request, links: Sequence[str], client_business_id: str) -> JsonObject:
    """The body of a submission; `links` are those of the uploads of `request.local_files()`, in their order."""
    # The id comes last: what is sent must be what is tracked, whatever `extra` holds.
    return {**with_links(request.body(), links), "client_business_id": client_business_id}


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


@define
class _Image:
    url: str | None = None


@define
class _Result:
    data: list[_Image] | None = None


@define
class _Images:
    """Every place where links have been seen, best known first."""

    result: _Result | None = None
    url: str | None = None
    data: list[_Image] | None = None
    output: list[_Image] | None = None
    outputs: list[_Image] | None = None
    images: list[_Image] | None = None

    def links(self) -> list[str]:
        places = (
            self.result.data if self.result else None,
            [_Image(self.url)],
            self.data,
            self.output,
            self.outputs,
            self.images,
        )
        for place in places:
            if links := [image.url for image in place or () if image.url]:
                return links
        return []


def decode_task(answer: Answer, asked_id: str | None = None) -> TaskSnapshot:
    """A task object. `asked_id` stands in when the answer names no id; without it an id is required.

    Raises `UnreadableAnswer` naming the place.
    """
    body = read_object(answer)
    task = _lenient.structure(body, _Task)
    task_id = _task_id(answer, task, asked_id)
    status = status_of(task.status)
    completed = status is TaskStatus.COMPLETED
    expires_at = task.expires_at or (completed and task.completed_at and task.completed_at + LINK_LIFE) or None
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
        images=tuple(GeneratedImage(url, expires_at) for url in (_links(answer, body) if completed else ())),
        error=_task_error(task, body) if status is TaskStatus.FAILED else None,
        billing=task.billing,
        raw=body,
    )


def decode_task_id(answer: Answer) -> str:
    """The id of the task that a submission's answer names: all it takes to know that the service took it."""
    return _task_id(answer, _lenient.structure(read_object(answer), _Task))


def _task_id(answer: Answer, task: _Task, asked_id: str | None = None) -> str:
    for task_id in (task.id, task.task_id, asked_id):
        if task_id and _can_be_asked_for(task_id):
            return task_id
    raise unreadable(answer, "no task id", "$.id")


def _can_be_asked_for(task_id: str) -> bool:
    # It goes into a URL, where lone surrogates can't stand and dots walk; nothing of the sort was ever seen.
    return task_id.isprintable() and task_id not in {".", ".."}


def _task_error(task: _Task, body: JsonObject) -> TaskError:
    known = task.error or task.fail_reason or error_of(body.get("message"))
    return known or TaskError("", "the service gave no reason")


# ---------------------------------------------------------------------------------------------- other answers


def decode_upload(answer: Answer) -> Upload:
    """An upload's answer; a 200 with `success: false` raises `ServiceError` with the service's message."""
    data = _data(answer)
    upload_id, url, size = data.get("id"), data.get("url"), data.get("size")
    if not isinstance(url, str) or not url:
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
    _check_success(answer, body)
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
        raise unreadable(answer, "no list of models", "$.data")
    objects = (as_object(row) or {} for row in cast("list[object]", rows))
    return tuple(Model(row["id"], row) for row in objects if isinstance(row.get("id"), str))


def _data(answer: Answer) -> JsonObject:
    body = read_object(answer)
    _check_success(answer, body)
    return as_object(body.get("data")) or body


def _check_success(answer: Answer, body: JsonObject) -> None:
    if body.get("success") is False:
        error = error_of(body.get("error")) or error_of(body.get("message"))
        raise ServiceError(
            error.message if error else "the service refused without a reason",
            status=answer.status,
            code=error.code if error else "",
        )


# ---------------------------------------------------------------------------------------------- structure


def _links(answer: Answer, body: JsonObject) -> list[str]:
    """The links of a completed task, from the first place that has any. It is paid for: an odd member beside a good
    link, or an odd place before one, must not hide it. Only when there is no link at all is what is odd an error."""
    first_error: str | None = None
    for name in (a.name for a in fields(_Images) if a.name in body):
        try:
            links = _strict.structure({name: body[name]}, _Images).links()
        except cattrs.BaseValidationError as error:
            told = cattrs.transform_error(error, path="$", format_exception=lambda e, _: str(e))[0]
            first_error = first_error or told
            links = _salvaged(body[name])
        if links:
            return links
    if first_error is not None:
        message, _, place = first_error.rpartition(" @ ")
        raise unreadable(answer, message, place)
    return []


def _salvaged(value: object) -> list[str]:
    """The links that can be read in a place that as a whole can't."""
    found = (as_object(value) or {}).get("data", value)
    members = cast("list[object]", found) if isinstance(found, list) else [found]
    urls: list[object] = [
        member if isinstance(member, str) else (as_object(member) or {}).get("url") for member in members
    ]
    return [url for url in urls if isinstance(url, str) and is_http_url(url)]


def _strict_text(value: object, _: object) -> str:
    # cattrs would turn None into 'None' and 5 into '5': a link must be a text or an error.
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _billing(value: object, _: object) -> Billing | None:
    members = as_object(value)
    if not members:
        return None
    return Billing(
        status=read_text(members.get("status")),
        credits=read_decimal(members.get("credits")),
        cost_usd=read_decimal(members.get("cost_usd")),
    )


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
        ),
    )
    return converter


def _make_strict() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _strict_text)
    image_from_object = make_dict_structure_fn(_Image, converter)
    result_from_object = make_dict_structure_fn(_Result, converter)

    def image(value: object, kind: type[_Image]) -> _Image:
        return _Image(value) if isinstance(value, str) else image_from_object(_mapping(value), kind)

    def result(value: object, kind: type[_Result]) -> _Result:
        return result_from_object(_mapping(value), kind)

    converter.register_structure_hook(_Image, image)
    converter.register_structure_hook(_Result, result)
    images_from_list = converter.get_structure_hook(list[_Image])

    def images(value: object, kind: Any) -> list[_Image]:
        # One link without its list (a text would otherwise be read letter by letter).
        links: list[_Image] = images_from_list(value if isinstance(value, list) else [value], kind)
        return links

    converter.register_structure_hook_func(lambda kind: kind == list[_Image], images)
    return converter


def _mapping(value: object) -> JsonObject:
    members = as_object(value)
    if members is None:
        raise TypeError(f"expected a link or an object with one, got {type(value).__name__}")
    return members


_lenient = _make_lenient()
_strict = _make_strict()


def with_id(snapshot: TaskSnapshot, task_id: str, client_business_id: str | None) -> TaskSnapshot:
    """The snapshot under the ids its task is known by here: an answer may bear another id than was asked for."""
    if snapshot.task_id == task_id and snapshot.client_business_id == client_business_id:
        return snapshot
    return evolve(
        snapshot,
        task_id=task_id,
        client_business_id=client_business_id or snapshot.client_business_id,
    )
