"""What the service means when it says no."""

from __future__ import annotations

import re

from toapis_async.errors import (
    AuthenticationFailed,
    ContentRefused,
    InsufficientQuota,
    RateLimited,
    ServiceError,
    TaskNotFound,
)
from toapis_async.protocol.lenient import Answer, as_object, json_of, read_code, shorten
from toapis_async.task import TaskError

_TITLE = re.compile(r"<title[^>]{0,200}>(.{0,1000}?)</title", re.IGNORECASE | re.DOTALL)
# Bounded: with plain stars a page of 64 kB of open titles takes seconds of the event loop.


def decode_error(answer: Answer, *, about_task: bool = False, retry_after_s: float | None = None) -> ServiceError:
    """The error an answer outside 2xx stands for; `about_task`: a 404 means that this task is unknown."""
    status = answer.status
    found = _error_in(answer)
    code, message = found.code, found.message
    if status == 401:
        return AuthenticationFailed(message, status=status, code=code)
    if status == 402:
        return InsufficientQuota(message, status=status, code=code)
    if status == 422:
        return ContentRefused(message, status=status, code=code)
    if status == 429:
        return RateLimited(message, status=status, code=code, retry_after_s=retry_after_s)
    if about_task and _says_unknown(answer, code, message):
        return TaskNotFound(message, status=status, code=code)
    return ServiceError(message, status=status, code=code)


def _says_unknown(answer: Answer, code: str, message: str) -> bool:
    """Whether the service itself says that it knows no such task. A page is a gateway's, which can't know."""
    if answer.status == 404:
        return not answer.body.lstrip().startswith(b"<")
    return answer.status == 400 and "task_not_exist" in (code, message)


def _error_in(answer: Answer) -> TaskError:
    body = as_object(json_of(answer.body))
    if body is not None:
        error = body.get("error")
        code = read_code(body.get("code"))
        found = error_of(error) or error_of(body.get("message")) or error_of(body.get("detail"))
        if found is None and code:
            found = TaskError(code, code)
        if found is not None:
            param = (as_object(error) or {}).get("param")
            message = f"{found.message} [{param}]" if isinstance(param, str) and param else found.message
            return TaskError(found.code or code, shorten(message))
    text = answer.body[:65_536].decode("utf-8", "replace")
    if title := _TITLE.search(text):
        return TaskError("", shorten(title[1]) or "an HTML page")
    if "<html" in text[:1024].lower():
        return TaskError("", "an HTML page")
    return TaskError("", shorten(text) or "an empty answer")


def error_of(value: object) -> TaskError | None:
    """An error as the service words it: an object, a text, or nothing."""
    if isinstance(value, str):
        return TaskError("", line) if (line := shorten(value)) else None
    members = as_object(value)
    if not members:
        return None
    code = read_code(members.get("code")) or read_code(members.get("type"))
    message = members.get("message") or members.get("msg")
    line = shorten(message) if isinstance(message, str) else ""
    return TaskError(code, line or code or "no message")
