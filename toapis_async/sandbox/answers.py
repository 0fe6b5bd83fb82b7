"""The bodies that the service sends, as published: one function an answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from toapis_async.sandbox.catalogue import CREDITS_PER_USD, IMAGE_MODELS, TEXT_MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.sandbox.service import BalanceSheet
    from toapis_async.sandbox.tasks import Failure, Task, TaskState
    from toapis_async.sandbox.validation import JsonObject, RefusedError

BillingMode = Literal["always", "refunds", "never"]
"""When status answers carry `billing`. Seen live: only on a refunded failure, hence the default `refunds`."""

_MODEL_CREATED: Final = 1626777600


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer before it is put on the wire: JSON (or raw bytes of some other type)."""

    status: int
    body: JsonObject | bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content_type: str = "application/json"


def error(status: int, code: str, message: str, **more: str) -> Answer:
    """`{"error": {"code", "message", …}}`."""
    return Answer(status, {"error": {"code": code, "message": message, **more}})


def refused(refusal: RefusedError) -> Answer:
    """The answer to a submission that is not accepted."""
    return error(refusal.status, refusal.code, refusal.message, **refusal.more)


def invalid_url(method: str, path: str) -> Answer:
    """What any path outside the API gets, a doubled `/v1/v1` among them."""
    message = f"Invalid URL ({method} {path})"
    return Answer(404, {"error": {"message": message, "type": "invalid_request_error", "param": "", "code": ""}})


def unauthorized() -> Answer:
    """No key, or one that nobody has."""
    message = "authentication failed, please check your API key"
    return error(401, "unauthorized", message, type="authentication_error")


def unauthorized_as_seen() -> Answer:
    """The same in the form seen in the field."""
    return Answer(401, {"error": {"code": "", "message": "invalid token", "type": "new_api_error"}})


def too_fast() -> Answer:
    """An empty bucket."""
    return error(429, "rate_limit_exceeded", "too many async task requests, please slow down")


def limiter_down() -> Answer:
    """The submit limiter itself fails."""
    return error(503, "rate_limit_unavailable", "the submit rate limiter is unavailable, please retry later")


def internal_error() -> Answer:
    """A fault of the service's own."""
    return error(500, "internal_error", "internal server error")


def task_not_found() -> Answer:
    """No such task of this user."""
    return error(404, "task_not_found", "task not found", type="not_found_error")


def task_not_exist() -> Answer:
    """The same in the other form seen in the field."""
    return Answer(400, {"message": "task_not_exist"})


def plainly_failed(status: int, message: str) -> Answer:
    """The failure form of uploads and balances."""
    return Answer(status, {"success": False, "message": message})


def uploaded(upload_id: str, url: str, mime_type: str, size_bytes: int) -> Answer:
    """An upload that was stored."""
    data = {"id": upload_id, "url": url, "mime_type": mime_type, "size": size_bytes}
    return Answer(200, {"success": True, "message": "", "data": data})


def balance(sheet: BalanceSheet) -> Answer:
    """Credits and, here, US dollars. Unlimited: `remain_balance` is -1 and `remain_credits` means nothing."""
    unlimited = sheet.remain is None
    remain = 0.0 if sheet.remain is None else sheet.remain
    return Answer(
        200,
        {
            "success": True,
            "remain_balance": -1 if unlimited else _number(remain / CREDITS_PER_USD),
            "used_balance": _number(sheet.used / CREDITS_PER_USD),
            "remain_credits": _number(remain),
            "used_credits": _number(sheet.used),
            "credits_per_usd": CREDITS_PER_USD,
            "unlimited_quota": unlimited,
        },
    )


def models(kind: str) -> Answer:
    """The models on offer: of text without a `type`, else of that type, or `all`."""
    image = {name: (model.owned_by, "image_generation") for name, model in IMAGE_MODELS.items()}
    text = {name: (owner, "chat_completions") for name, owner in TEXT_MODELS.items()}
    listed = {"image": image, "all": text | image, "text": text, "chat": text, "": text}.get(kind, {})
    data = [
        {
            "id": name,
            "object": "model",
            "created": _MODEL_CREATED,
            "owned_by": owner,
            "supported_endpoint_types": [endpoint],
        }
        for name, (owner, endpoint) in listed.items()
    ]
    return Answer(200, {"success": True, "object": "list", "data": data})


def submitted(task: Task, state: TaskState) -> JsonObject:
    """The answer to a submission; `metadata` is what the caller sent, or empty."""
    return {
        "id": task.task_id,
        "object": "generation.task",
        "model": task.job.model,
        "status": state.status,
        "progress": state.progress,
        "created_at": int(task.accepted_at),
        "metadata": task.job.body.get("metadata") or {},
    }


def task_status(task: Task, state: TaskState, urls: list[str], mode: BillingMode) -> JsonObject:
    """The answer to a status query."""
    body = submitted(task, state)
    if task.job.client_business_id is not None:
        body["client_business_id"] = task.job.client_business_id
    if state.finished_at is None:
        return body
    body["completed_at"] = int(state.finished_at)
    if task.failure is None:
        body["expires_at"] = int(task.expires_at)
        body["result"] = {"type": "image", "data": [{"url": url} for url in urls]}
    else:
        body["error"] = _failure(task.failure)
    if mode == "always" or (mode == "refunds" and task.failure is not None):
        body["billing"] = _billing(task)
    return body


def event(task: Task, event_id: str, created_at: int, urls: list[str]) -> JsonObject:
    """The body of a webhook event about a task that has ended: the same task in another vocabulary."""
    done = task.failure is None
    data: JsonObject = {"task_id": task.task_id}
    if task.job.client_business_id is not None:
        data["client_business_id"] = task.job.client_business_id
    data |= {
        "task_type": "image",
        "model": task.job.model,
        "status": "SUCCESS" if done else "FAILURE",
        "progress": "100%",
        "result": {"type": "image", "data": [{"url": url} for url in urls]} if done else None,
        "error": None if task.failure is None else _failure(task.failure),
        "submitted_at": int(task.accepted_at),
        "finished_at": int(task.finishes_at),
    }
    return _enveloped("generation.completed" if done else "generation.failed", event_id, created_at, data)


def test_event(event_id: str, created_at: int) -> JsonObject:
    """The body of the event that the console's test button sends: no model, a message, no times."""
    data: JsonObject = {
        "task_id": "task_test",
        "task_type": "image",
        "status": "SUCCESS",
        "progress": "100%",
        "result": {"message": "This is a test event"},
        "error": None,
        "submitted_at": 0,
        "finished_at": 0,
    }
    return _enveloped("endpoint.test", event_id, created_at, data)


def _enveloped(kind: str, event_id: str, created_at: int, data: JsonObject) -> JsonObject:
    return {"id": event_id, "type": kind, "api_version": "v1", "created_at": created_at, "data": data}


def _failure(failure: Failure) -> JsonObject:
    return {"code": failure.code, "message": failure.message}


def _billing(task: Task) -> JsonObject:
    return {
        "status": "settled" if task.failure is None else "refunded",
        "credits": _text(task.credits),
        "cost_usd": _text(task.credits / CREDITS_PER_USD),
    }


def _number(value: float) -> float:
    """As JSON numbers come: whole ones without a fraction, none with the dust of binary fractions."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def _text(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
