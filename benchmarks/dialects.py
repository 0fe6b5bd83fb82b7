"""The wire formats of ToAPIs and of the peers' services. A dialect turns a request into a poll or a submission, and the
outcome into a body. Only as much of each as its client needs to work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ID_DIGITS = 26


@dataclass(frozen=True)
class Reported:
    """What an answer is made of."""

    number: int
    base: str  #: the server's address
    created_at: int  #: Unix seconds, as ToAPIs gives them
    polls: int = 0  #: so far, so that each answer says something new
    completed_at: int | None = None  #: None also where time is compressed: whole seconds would be far off


@dataclass(frozen=True)
class Dialect:
    """`submit` is the POST's path, `status_path` what the path of a status GET begins with; the rest make bodies."""

    submit: bytes
    status_path: bytes
    submitted: Callable[[Reported], str]  #: a body
    unfinished: Callable[[Reported], str]
    finished: Callable[[Reported], str]
    number_of: Callable[[bytes], int]  #: what follows `status_path` in the path -> number


def _last_digits(rest: bytes) -> int:
    return int(rest[-ID_DIGITS:])


# ---------------------------------------------------------------------------------------------- ToAPIs


def _toapis(task: Reported, status: str, progress: int, more: str = "") -> str:
    return (
        f'{{"id": "task_img_{task.number:026d}", "object": "generation.task", "model": "gpt-image-2-vip", '
        f'"status": "{status}", "progress": {progress}, "created_at": {task.created_at}, "metadata": {{}}{more}}}'
    )


def _toapis_done(task: Reported) -> str:
    at = task.completed_at
    times = f', "completed_at": {at}, "expires_at": {at + 86_400}' if at is not None else ""
    url = f"https://files.toapis.com/generated/{task.number:026d}.jpg"
    return _toapis(task, "completed", 100, f'{times}, "result": {{"type": "image", "data": [{{"url": "{url}"}}]}}')


TOAPIS = Dialect(
    submit=b"/v1/images/generations",
    status_path=b"/v1/images/generations/",
    submitted=lambda task: _toapis(task, "queued", 0),
    unfinished=lambda task: _toapis(task, "in_progress", min(10 + task.polls, 99)),
    finished=_toapis_done,
    number_of=_last_digits,
)

# ---------------------------------------------------------------------------------------------- fal


def _fal_submitted(task: Reported) -> str:
    url = f"{task.base}/bench/app/requests/{task.number:026d}"
    return (
        f'{{"status": "IN_QUEUE", "request_id": "{task.number:026d}", "queue_position": 0, "response_url": "{url}", '
        f'"status_url": "{url}/status", "cancel_url": "{url}/cancel"}}'
    )


def _fal_status(number: int, status: str) -> str:
    return f'{{"status": "{status}", "request_id": "{number:026d}", "logs": null, "metrics": {{}}}}'


FAL = Dialect(
    submit=b"/bench/app",
    status_path=b"/bench/app/requests/",
    submitted=_fal_submitted,
    unfinished=lambda task: _fal_status(task.number, "IN_PROGRESS"),
    finished=lambda task: _fal_status(task.number, "COMPLETED"),
    number_of=lambda rest: int(rest[:ID_DIGITS]),
)

# ---------------------------------------------------------------------------------------------- replicate


def _replicate(task: Reported, status: str, output: str = "null") -> str:
    url = f"{task.base}/v1/predictions/{task.number:026d}"
    return (
        f'{{"id": "{task.number:026d}", "model": "bench/app", "version": "1", "status": "{status}", '
        f'"input": {{"prompt": "a"}}, "output": {output}, "logs": "", "error": null, "metrics": {{}}, '
        '"created_at": "2026-11-01T00:00:00Z", "started_at": null, "completed_at": null, '
        f'"urls": {{"get": "{url}", "cancel": "{url}/cancel"}}}}'
    )


REPLICATE = Dialect(
    submit=b"/v1/predictions",
    status_path=b"/v1/predictions/",
    submitted=lambda task: _replicate(task, "starting"),
    unfinished=lambda task: _replicate(task, "processing"),
    finished=lambda task: _replicate(task, "succeeded", f'["https://files.invalid/{task.number}.jpg"]'),
    number_of=_last_digits,
)

# ---------------------------------------------------------------------------------------------- runway


def _runway(number: int, status: str, more: str) -> str:
    return f'{{"id": "{number:026d}", "createdAt": "2026-11-01T00:00:00Z", "status": "{status}", {more}}}'


RUNWAY = Dialect(
    submit=b"/v1/text_to_image",
    status_path=b"/v1/tasks/",
    submitted=lambda task: f'{{"id": "{task.number:026d}", "estimatedCost": {{"credits": 1}}}}',
    unfinished=lambda task: _runway(task.number, "RUNNING", '"progress": 0.3, "estimatedCost": {"credits": 1}'),
    finished=lambda task: _runway(
        task.number,
        "SUCCEEDED",
        f'"cost": {{"credits": 1}}, "output": ["https://files.invalid/{task.number}.jpg"]',
    ),
    number_of=_last_digits,
)

DIALECTS = (TOAPIS, FAL, REPLICATE, RUNWAY)
