"""The words of each service: ToAPIs', and the peers' own. A dialect turns a request into a look or a submission, and
the outcome into a body. Only as much of each as its client needs to work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ID_DIGITS = 26


@dataclass(frozen=True)
class Said:
    """What an answer is made of."""

    number: int
    base: str  #: the server's address
    created_at: int  #: Unix seconds, as ToAPIs tells them
    completed_at: int | None = None  #: None also where time is compressed: whole seconds would be far off


@dataclass(frozen=True)
class Dialect:
    """`submit` is the POST's path, `look` what a status GET's path begins with; the rest make bodies."""

    submit: bytes
    look: bytes
    submitted: Callable[[Said], str]  #: a body
    unfinished: Callable[[Said], str]
    finished: Callable[[Said], str]
    number_of: Callable[[bytes], int]  #: what follows `look` in the path -> number


def _last_digits(rest: bytes) -> int:
    return int(rest[-ID_DIGITS:])


# ---------------------------------------------------------------------------------------------- ToAPIs


def _toapis(said: Said, status: str, progress: int, more: str = "") -> str:
    return (
        f'{{"id": "task_img_{said.number:026d}", "object": "generation.task", "model": "gpt-image-2-vip", '
        f'"status": "{status}", "progress": {progress}, "created_at": {said.created_at}, "metadata": {{}}{more}}}'
    )


def _toapis_done(said: Said) -> str:
    at = said.completed_at
    times = f', "completed_at": {at}, "expires_at": {at + 86_400}' if at is not None else ""
    url = f"https://files.toapis.com/generated/{said.number:026d}.jpg"
    return _toapis(said, "completed", 100, f'{times}, "result": {{"type": "image", "data": [{{"url": "{url}"}}]}}')


TOAPIS = Dialect(
    submit=b"/v1/images/generations",
    look=b"/v1/images/generations/",
    submitted=lambda said: _toapis(said, "queued", 0),
    unfinished=lambda said: _toapis(said, "in_progress", 30),
    finished=_toapis_done,
    number_of=_last_digits,
)

# ---------------------------------------------------------------------------------------------- fal


def _fal_submitted(said: Said) -> str:
    url = f"{said.base}/bench/app/requests/{said.number:026d}"
    return (
        f'{{"status": "IN_QUEUE", "request_id": "{said.number:026d}", "queue_position": 0, "response_url": "{url}", '
        f'"status_url": "{url}/status", "cancel_url": "{url}/cancel"}}'
    )


def _fal_status(number: int, status: str) -> str:
    return f'{{"status": "{status}", "request_id": "{number:026d}", "logs": null, "metrics": {{}}}}'


FAL = Dialect(
    submit=b"/bench/app",
    look=b"/bench/app/requests/",
    submitted=_fal_submitted,
    unfinished=lambda said: _fal_status(said.number, "IN_PROGRESS"),
    finished=lambda said: _fal_status(said.number, "COMPLETED"),
    number_of=lambda rest: int(rest[:ID_DIGITS]),
)

# ---------------------------------------------------------------------------------------------- replicate


def _replicate(said: Said, status: str, output: str = "null") -> str:
    url = f"{said.base}/v1/predictions/{said.number:026d}"
    return (
        f'{{"id": "{said.number:026d}", "model": "bench/app", "version": "1", "status": "{status}", '
        f'"input": {{"prompt": "a"}}, "output": {output}, "logs": "", "error": null, "metrics": {{}}, '
        '"created_at": "2026-11-01T00:00:00Z", "started_at": null, "completed_at": null, '
        f'"urls": {{"get": "{url}", "cancel": "{url}/cancel"}}}}'
    )


REPLICATE = Dialect(
    submit=b"/v1/predictions",
    look=b"/v1/predictions/",
    submitted=lambda said: _replicate(said, "starting"),
    unfinished=lambda said: _replicate(said, "processing"),
    finished=lambda said: _replicate(said, "succeeded", f'["https://files.invalid/{said.number}.jpg"]'),
    number_of=_last_digits,
)

# ---------------------------------------------------------------------------------------------- runway


def _runway(number: int, status: str, more: str) -> str:
    return f'{{"id": "{number:026d}", "createdAt": "2026-11-01T00:00:00Z", "status": "{status}", {more}}}'


RUNWAY = Dialect(
    submit=b"/v1/text_to_image",
    look=b"/v1/tasks/",
    submitted=lambda said: f'{{"id": "{said.number:026d}", "estimatedCost": {{"credits": 1}}}}',
    unfinished=lambda said: _runway(said.number, "RUNNING", '"progress": 0.3, "estimatedCost": {"credits": 1}'),
    finished=lambda said: _runway(
        said.number, "SUCCEEDED", f'"cost": {{"credits": 1}}, "output": ["https://files.invalid/{said.number}.jpg"]'
    ),
    number_of=_last_digits,
)

DIALECTS = (TOAPIS, FAL, REPLICATE, RUNWAY)
