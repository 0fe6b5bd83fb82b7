"""The bodies that the service sends, as published: one function an answer. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from toapis_async.sandbox.catalogue import CREDITS_PER_USD, IMAGE_MODELS, TEXT_MODELS
from toapis_async.sandbox.jobs import ImageJob, VideoJob
from toapis_async.sandbox.prices import price_list
from toapis_async.sandbox.video_catalogue import VIDEO_MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.sandbox.jobs import JsonObject, RefusedError
    from toapis_async.sandbox.service import BalanceSheet
    from toapis_async.sandbox.tasks import Failure, Task, TaskState

BillingMode = Literal["always", "refunds", "never"]
"""When status answers and events carry `billing`: always, of failed tasks only (as seen live), or never."""

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


def quota_403() -> Answer:
    """Too low a balance in the form that gateways of the family use."""
    return error(403, "insufficient_user_quota", "user quota is not enough", type="new_api_error")


def model_forbidden() -> Answer:
    """A model that the key may not use."""
    return error(403, "", "this token has no access to the model", type="new_api_error")


def fail_to_fetch() -> Answer:
    """A reference that shows a real person: the reason is JSON as text."""
    reason = {"code": "InputImageSensitiveContentDetected.PrivacyInformation", "message": "may contain a real person"}
    return Answer(400, {"code": "fail_to_fetch_task", "message": json.dumps(reason), "data": None})


def pricing_unavailable() -> Answer:
    """The price list is down."""
    return error(503, "pricing_unavailable", "pricing is temporarily unavailable")


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
    video = {name: (model.owned_by, "video_generation") for name, model in VIDEO_MODELS.items()}
    text = {name: (owner, "chat_completions") for name, owner in TEXT_MODELS.items()}
    by_type = {"image": image, "video": video, "all": text | image | video, "text": text, "chat": text, "": text}
    listed = by_type.get(kind, {})
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


def pricing(query: Mapping[str, str]) -> Answer:
    """One page of the price list: of a `model`, or of a `type`, `limit` entries `after` a model's id."""
    listed = price_list()
    if "model" in query:
        listed = [entry for entry in listed if entry["id"] == query["model"]]
        if not listed:
            return error(404, "model_not_found", f"model {query['model']} was not found", type="invalid_request_error")
    if "type" in query:
        if query["type"] not in {"image", "video"}:
            return _bad_query("type must be image or video")
        listed = [entry for entry in listed if entry["type"] == query["type"]]
    limit, ids = query.get("limit", "100"), [entry["id"] for entry in listed]
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= 100):
        return _bad_query("limit must be between 1 and 100")
    if "after" in query and query["after"] not in ids:
        return _bad_query("after is no cursor of this list")
    start = ids.index(query["after"]) + 1 if "after" in query else 0
    page = listed[start : start + int(limit)]
    more = start + len(page) < len(listed)
    body = {"object": "list", "currency": "USD", "data": page, "has_more": more}
    return Answer(200, {**body, "next_after": page[-1]["id"] if more else ""})


def _bad_query(message: str) -> Answer:
    return error(400, "invalid_request_error", message, type="invalid_request_error")


def submitted(task: Task, state: TaskState) -> JsonObject:
    """The answer to a submission; `metadata` is what the caller sent, or empty."""
    body: JsonObject = {
        "id": task.task_id,
        "object": "generation.task",
        "model": task.job.model,
        "status": state.status,
        "progress": state.progress,
        "created_at": int(task.accepted_at),
    }
    if task.kind == "image":
        body["metadata"] = task.job.body.get("metadata") or {}
    if isinstance(task.job, VideoJob) and task.job.model == "sora-2-official" and task.job.source_id is not None:
        body |= {"object": "video", "remixed_from_video_id": task.job.source_id, "seconds": str(task.job.duration_s)}
        body["size"] = f"{task.job.width}x{task.job.height}"
    return body


@dataclass(frozen=True, slots=True)
class Links:
    """Where the files of a task are."""

    files: list[str]
    last_frames: list[str] = field(default_factory=list[str])


def task_status(task: Task, state: TaskState, links: Links, mode: BillingMode, now: float) -> JsonObject:
    """The answer to a status query."""
    body = submitted(task, state)
    if task.job.client_business_id is not None:
        body["client_business_id"] = task.job.client_business_id
    if state.finished_at is None:
        return body
    body["completed_at"] = int(state.finished_at)
    if task.failure is None:
        body["expires_at"] = int(task.expires_at)
        body["result"] = _result(task, links)
    else:
        body["error"] = _failure(task.failure)
    return body | _bill(task, mode, now)


def _result(task: Task, links: Links) -> JsonObject:
    if task.kind == "image":
        layered = isinstance(task.job, ImageJob) and task.job.layered
        items: list[JsonObject] = [
            {"url": url, **(_layer(task, index) if layered else {})} for index, url in enumerate(links.files)
        ]
    else:
        items = [{"url": url, "format": task.job.output_format} for url in links.files]
        for item, url in zip(items, links.last_frames, strict=False):
            item["last_frame_url"] = url
    return {"type": task.kind, "data": items}


def _layer(task: Task, index: int) -> JsonObject:
    """What a layer says of itself; the first item is the whole picture."""
    box = {"absolute": [0, 0, task.job.width, task.job.height], "normalized": [0.0, 0.0, 1.0, 1.0]}
    size = f"{task.job.width}x{task.job.height}"
    name = "base" if index == 0 else f"layer {index}"
    more = {"z_index": index, "bounding_box": box, "name": name, "description": task.job.prompt[:100]}
    return {"size": size, "output_format": task.job.output_format, **more}


def event(task: Task, event_id: str, now: float, links: Links, mode: BillingMode) -> JsonObject:
    """The body of a webhook event about a task that has ended, in the vocabulary of events."""
    done = task.failure is None
    data: JsonObject = {"task_id": task.task_id}
    if task.job.client_business_id is not None:
        data["client_business_id"] = task.job.client_business_id
    data |= {
        "task_type": task.kind,
        "model": task.job.model,
        "status": "SUCCESS" if done else "FAILURE",
        "progress": "100%",
        "result": _result(task, links) if done else None,
        "error": None if task.failure is None else _failure(task.failure),
        "submitted_at": int(task.accepted_at),
        "finished_at": int(task.finishes_at),
        **_bill(task, mode, now),
    }
    return _enveloped("generation.completed" if done else "generation.failed", event_id, int(now), data)


def test_event(event_id: str, created_at: int) -> JsonObject:
    """The body of the event that the console's test button sends: no model, a message, no times."""
    data: JsonObject = {
        "task_id": "endpoint_test",
        "task_type": "image",
        "status": "SUCCESS",
        "progress": "100%",
        "result": {"message": "ToAPIs webhook endpoint test"},
        "error": None,
        "submitted_at": 0,
        "finished_at": 0,
    }
    return _enveloped("endpoint.test", event_id, created_at, data)


def _enveloped(kind: str, event_id: str, created_at: int, data: JsonObject) -> JsonObject:
    return {"id": event_id, "type": kind, "api_version": "v1", "created_at": created_at, "data": data}


def _failure(failure: Failure) -> JsonObject:
    return {"code": failure.code, "message": failure.message}


def _bill(task: Task, mode: BillingMode, now: float) -> JsonObject:
    """`billing` of a task that has ended, and `usage` with a settled one."""
    if mode == "never" or (mode == "refunds" and task.failure is None):
        return {}
    if now < task.settles_at:
        return {"billing": {"status": "pending"}}
    bill: JsonObject = {
        "status": "settled" if task.failure is None else "refunded",
        "credits": _text(task.final_credits),
        "cost_usd": _text(task.final_credits / CREDITS_PER_USD),
    }
    usage = task.job.charge.usage if task.failure is None else None
    return {"billing": bill, **({} if usage is None else {"usage": usage})}


def _number(value: float) -> float:
    """As JSON numbers come: whole ones without a fraction, none with the dust of binary fractions."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def _text(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"
