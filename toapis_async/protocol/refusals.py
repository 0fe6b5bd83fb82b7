"""Errors of the service, read from answers of any HTTP status."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from toapis_async.errors import (
    AuthenticationFailed,
    ContentRefused,
    InsufficientQuota,
    RateLimited,
    ServiceError,
    TaskNotFound,
)
from toapis_async.protocol.lenient import (
    Answer,
    JsonObject,
    as_object,
    json_of,
    read_code,
    read_text,
    read_text_or_none,
    shorten,
    task_object,
)
from toapis_async.protocol.retry import NO_CHANNEL
from toapis_async.task import TaskError

_TITLE: Final = re.compile(r"<title[^>]{0,200}>(.{0,1000}?)</title", re.IGNORECASE | re.DOTALL)
# Bounded: with plain stars a page of 64 kB of open titles takes seconds of the event loop.

_QUOTA: Final = re.compile(
    r"insufficient_(\w{1,20}_)?(quota|balance|credits?|funds)|(quota|balance|credits?)_not_enough|payment_required"
    r"|pre_consume_token_quota_failed",
    re.IGNORECASE,
)
"""Codes for "no money left": those documented or seen [docs, field], and their kin on gateways of the same family."""
_BAD_KEY: Final = re.compile(r"unauthorized|authentication_error|invalid_api_key|invalid_token")
_UNKNOWN_TASK: Final = re.compile(r"task_not_exist|task_not_found")
_TOO_FAST: Final = re.compile(r"rate_limit_exceeded|rate_limit_error")
_REFUSED_CONTENT: Final = re.compile(r"content_policy_violation|[\w.-]{0,80}PrivacyInformation")
_CONTENT_CODES: Final = re.compile(
    r"content[_ -]?(policy|filter|moderation)|moderation|policy[_ -]?violation|sensitive|nsfw|privacyinformation",
    re.IGNORECASE,
)
"""Codes of failed tasks that are about what was asked for; they are open-ended, so that more is taken for one here."""
_SUCCESS_CODES: Final = frozenset({"", "0", "200", "success", "ok"})
_ENVELOPE: Final = frozenset(
    {"code", "message", "msg", "detail", "success", "type", "status", "data", "request_id", "timestamp", "path"}
)
"""Members that an answer may have beside an error; one that holds nothing else holds no result."""

_MOST_BYTES: Final = 65_536
"""A longer body holds pictures, or is a page whose beginning suffices."""

_REQUEST_ID_HEADERS: Final = ("x-request-id", "x-oneapi-request-id", "request-id")
_REQUEST_ID: Final = re.compile(r"request[ _-]?id\W{1,5}(?=[\w-]{0,79}\d)([\w-]{6,80})", re.IGNORECASE)
SUPPORT_HEADERS: Final = (*_REQUEST_ID_HEADERS, "cf-ray")
"""Headers by which the service or a gateway before it finds a request again."""


@frozen
class _Reason:
    """The error in a body: its message, all its codes, and the code that a provider behind the service gave."""

    message: str
    codes: tuple[str, ...] = ()
    upstream_code: str = ""

    @property
    def code(self) -> str:
        return self.upstream_code or (self.codes[0] if self.codes else "")

    def has(self, code: re.Pattern[str]) -> bool:
        """Whether one of its codes is such a one; its message may be nothing but a code."""
        return any(code.fullmatch(word) for word in (*self.codes, self.message))


def decode_error(
    answer: Answer, *, about_task: bool = False, model: str | None = None, retry_after_s: float | None = None
) -> ServiceError:
    """The error an answer outside 2xx stands for.

    `about_task`: it answers a status query, so that a 404 means that this task is unknown and a 403 with a JSON error
    means the key. `model`: it answers a submission to this model.
    """
    return _error(answer, _reason_in(answer), about_task=about_task, model=model, retry_after_s=retry_after_s)


def refusal_in(answer: Answer, *, about_task: bool = False, model: str | None = None) -> ServiceError | None:
    """The error that a 2xx answer holds in place of a result; None when it holds none.

    That is a body with `success: false` or an `error`, or with a message alone, which names no task. A status query
    knows its task (`about_task`), so that a status is enough to name it; elsewhere it takes an id.
    """
    body = as_object(answer.json) if len(answer.body) <= _MOST_BYTES else None
    if body is None:
        return None
    task = task_object(body)
    has_status = read_text_or_none(task.get("status")) is not None
    if has_status and about_task:
        return None
    failed = _says_failure(body)
    has_id = bool(read_text(task.get("id")) or read_text(task.get("task_id")))
    if has_status and has_id and not failed:
        return None
    says_error = failed or error_of(task.get("error")) is not None or error_of(body.get("error")) is not None
    if not says_error and (has_id or not _has_only_a_message(body)):
        return None
    return _error(answer, _reason_in(answer), about_task=about_task, model=model)


def check_refusal(answer: Answer) -> None:
    """Raise the error that a 2xx answer holds in place of a result, if it holds one (see `refusal_in`)."""
    if (error := refusal_in(answer)) is not None:
        raise error


def error_of(value: object) -> TaskError | None:
    """An error as the service words it: an object, a text, or nothing."""
    reason = _reason_of(value)
    return TaskError(reason.code, reason.message) if reason is not None else None


def _says_failure(body: JsonObject) -> bool:
    success = body.get("success")
    return success is False or (isinstance(success, str) and success.lower() == "false")


def _has_only_a_message(body: JsonObject) -> bool:
    message = body.get("message") or body.get("msg") or body.get("detail")
    is_good = read_code(body.get("code")).lower() in _SUCCESS_CODES and "code" in body
    return isinstance(message, str) and not is_good and not body.get("data") and _ENVELOPE.issuperset(body)


def _error(
    answer: Answer,
    reason: _Reason,
    *,
    about_task: bool,
    model: str | None = None,
    retry_after_s: float | None = None,
) -> ServiceError:
    kind = _class_of(answer, reason, about_task=about_task)
    hint = _hint(kind, answer, reason, model)
    error = kind(f"{reason.message}: {hint}" if hint else reason.message, status=answer.status, code=reason.code)
    error.retry_after_s = retry_after_s
    error.request_id = _request_id(answer)
    return error


def _class_of(answer: Answer, reason: _Reason, *, about_task: bool) -> type[ServiceError]:
    """By the HTTP status; by the codes where the status is one that they make more exact, or is a good one."""
    status, is_good = answer.status, answer.status < 300
    kinds = (
        (InsufficientQuota, status == 402 or (status < 500 and reason.has(_QUOTA))),
        (AuthenticationFailed, status == 401 or (is_good and reason.has(_BAD_KEY))),
        (ContentRefused, status == 422 or ((is_good or status == 400) and _is_about_content(reason))),
        (RateLimited, status == 429 or (is_good and reason.has(_TOO_FAST))),
        (TaskNotFound, about_task and _says_unknown(answer, reason)),
        (AuthenticationFailed, about_task and status == 403 and as_object(answer.json) is not None),
    )
    return next((kind for kind, applies in kinds if applies), ServiceError)


def is_about_content(code: str, message: str) -> bool:
    """Whether a task failed for what was asked for, so that the same request would fail again."""
    return bool(_CONTENT_CODES.search(code[:200]) or _REFUSED_CONTENT.search(message[:2_000]))


def _is_about_content(reason: _Reason) -> bool:
    return reason.has(_REFUSED_CONTENT) or _REFUSED_CONTENT.fullmatch(reason.upstream_code) is not None


def _says_unknown(answer: Answer, reason: _Reason) -> bool:
    """Whether the service itself reports that it knows no such task. An HTML page comes from a gateway, which can't
    know."""
    if answer.status == 404:
        return not answer.body.lstrip().startswith(b"<")
    return answer.status < 500 and reason.has(_UNKNOWN_TASK)


def _hint(kind: type[ServiceError], answer: Answer, reason: _Reason, model: str | None) -> str:
    """What to do about an error that the service's own words leave open."""
    if answer.status == 404 and reason.message.startswith("Invalid URL"):
        return "is the base URL (TOAPIS_BASE_URL) right?"
    if model is None:
        return ""
    if kind is ServiceError and answer.status == 403 and as_object(answer.json) is not None:
        return f"the key may not use the model {model!r}? `toapis models` lists those it may"
    if kind is ServiceError and NO_CHANNEL in reason.codes:
        return f"is {model!r} a model that this key may use? `toapis models` lists them"
    return ""


def _request_id(answer: Answer) -> str | None:
    """The id by which the service, or at least a gateway before it, finds the request again."""
    for name in _REQUEST_ID_HEADERS:
        if found := shorten(answer.headers.get(name, ""), 80):
            return found
    text = answer.body[:_MOST_BYTES].decode("utf-8", "replace")
    if match := _REQUEST_ID.search(text):
        return shorten(match[1])
    return shorten(answer.headers.get("cf-ray", ""), 80) or None


def _reason_in(answer: Answer) -> _Reason:
    body = as_object(answer.json)
    if body is not None and (reason := _reason_of_body(body)):
        return reason
    if body is not None and _says_failure(body):
        return _Reason("the service refused without a reason")
    text = answer.body[:_MOST_BYTES].decode("utf-8", "replace")
    if title := _TITLE.search(text):
        return _Reason(shorten(title[1]) or "an HTML page")
    if "<html" in text[:1024].lower():
        return _Reason("an HTML page")
    return _Reason(shorten(text) or "an empty answer")


def _reason_of_body(body: JsonObject) -> _Reason | None:
    error = body.get("error")
    message = body.get("message") or body.get("msg")
    inner = (as_object(body.get("data")) or {}).get("error")
    found = _reason_of(error) or _reason_of(message) or _reason_of(body.get("detail")) or _reason_of(inner)
    outer = _codes_in(body)
    if found is None:
        return _Reason(outer[0], outer) if outer else None
    param = (as_object(error) or {}).get("param")
    text = f"{found.message} [{param}]" if isinstance(param, str) and param else found.message
    return _Reason(shorten(text), (*found.codes, *outer), found.upstream_code)


def _reason_of(value: object) -> _Reason | None:
    if isinstance(value, str):
        return _reason_in_text(value)
    members = as_object(value)
    if not members:
        return None
    codes = _codes_in(members)
    message = members.get("message") or members.get("msg")
    found = _reason_in_text(message) if isinstance(message, str) else None
    if found is None:
        return _Reason(codes[0] if codes else "no message", codes)
    return _Reason(found.message, codes, found.upstream_code)


def _reason_in_text(text: str) -> _Reason | None:
    """A message; one that is JSON itself is the error of somebody behind the service [field]."""
    if text.lstrip().startswith("{") and (inner := as_object(json_of(text.encode("utf-8", "replace")))):
        inner = as_object(inner.get("error")) or inner
        message, codes = inner.get("message") or inner.get("error"), _codes_in(inner)
        if isinstance(message, str) and (line := shorten(message)):
            return _Reason(line, upstream_code=codes[0] if codes else "")
    return _Reason(line) if (line := shorten(text)) else None


def _codes_in(members: JsonObject) -> tuple[str, ...]:
    return tuple(code for name in ("code", "type") if (code := read_code(members.get(name))))
