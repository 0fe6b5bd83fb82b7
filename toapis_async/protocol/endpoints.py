"""The service's endpoints as values: where requests are submitted, tasks queried and files uploaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from attrs import evolve, frozen

from toapis_async.errors import InvalidRequest
from toapis_async.request import IMAGE_MODELS, Kind, is_off_peak

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.request import Request

__all__ = [
    "ENDPOINTS",
    "IMAGES",
    "IMAGE_EDITS",
    "VIDEOS",
    "Endpoint",
    "Kind",
    "endpoint_of",
    "endpoints_of",
    "query_endpoint",
]


_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+").fullmatch


@frozen
class Endpoint:
    """Where tasks of one kind are submitted and queried (paths below the API's root), how often, and for how long.

    The factors multiply the client's settings, whose defaults are those of images.
    """

    kind: Kind
    submit_path: str
    status_path: str
    is_form: bool = False  #: whether a submission is multipart/form-data instead of JSON
    interval_factor: int = 1  #: of `min_poll_interval_s`: seconds between two polls
    typical_intervals: float = 5.0  #: how many intervals a task takes, before any was seen
    age_factor: int = 1  #: of `max_task_age_s`: how long a task is watched

    def task_path(self, task_id: str) -> str:
        """The status path of a task, by its id or its client_business_id: opaque text, so every byte is encoded."""
        return f"{self.status_path}/{task_id if _PLAIN(task_id) else quote(task_id, safe='')}"


IMAGES: Final = Endpoint("image", "/images/generations", "/images/generations")
IMAGE_EDITS: Final = evolve(IMAGES, submit_path="/images/edits")
"""Its tasks are queried where those of all images are [docs]."""
VIDEOS: Final = Endpoint(
    "video", "/videos/generations", "/videos/generations", interval_factor=2, typical_intervals=15.0, age_factor=2
)
"""Polled every 10 s, typical times are minutes [docs]; watched for two hours by default."""
ENDPOINTS: Final[dict[Kind, Endpoint]] = {"image": IMAGES, "video": VIDEOS}
"""Where a task of a kind is queried when its request is not known."""
OFF_PEAK_AGE_FACTOR: Final = 48
UPLOAD_PATHS: Final[dict[Kind, str]] = {"image": "/uploads/images", "video": "/uploads/videos"}
"""By the kind of the file that is uploaded, which need not be that of the request."""


def endpoints_of(kind: Kind | None) -> tuple[Endpoint, ...]:
    """Where a task is queried, in this order: without a kind as an image, then as a video. Raises `InvalidRequest`."""
    if kind is None:
        return tuple(ENDPOINTS.values())
    if kind not in ENDPOINTS:
        raise InvalidRequest(f"kind is 'image' or 'video', not {str(kind)[:40]!r}", field="kind")
    return (ENDPOINTS[kind],)


def query_endpoint(kind: Kind, body: Mapping[str, object]) -> Endpoint:
    """Where the task of a request with these fields is queried, and for how long it is watched."""
    if kind == "video" and is_off_peak(body):
        return evolve(VIDEOS, age_factor=OFF_PEAK_AGE_FACTOR)
    return ENDPOINTS[kind]


def endpoint_of(request: Request) -> Endpoint:
    """Where a request is submitted, and its task queried."""
    if request.kind == "image":
        if request.route != "edits":
            return IMAGES
        known = IMAGE_MODELS.get(request.model)
        return evolve(IMAGE_EDITS, is_form=known is not None and known.edits == "multipart")
    endpoint = query_endpoint("video", request.body())
    if request.video_id is None:
        return endpoint
    return evolve(endpoint, submit_path=f"/videos/{quote(request.video_id, safe='')}/{request.route}")
