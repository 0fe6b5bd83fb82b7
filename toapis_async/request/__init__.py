"""What to ask for: requests for images and videos, checked when they are made."""

from toapis_async.request.base import (
    LINK_FIELDS,
    LINK_LISTS,
    Kind,
    Reference,
    Request,
    Route,
    body_of,
    check_task_id,
    files_in,
    is_http_url,
    map_links,
    unknown_field,
    with_links,
)
from toapis_async.request.image import DEFAULT_MODEL, FIELD_NAMES, ImageFields, ImageReference, ImageRequest, ImageRow
from toapis_async.request.image_models import IMAGE_MODELS, QUALITIES, RATIOS, RESOLUTIONS
from toapis_async.request.kinds import REQUESTS, ROW_FIELDS, request_of
from toapis_async.request.video import VideoRequest, is_off_peak
from toapis_async.request.video_models import VIDEO_MODELS

__all__ = [
    "DEFAULT_MODEL",
    "FIELD_NAMES",
    "IMAGE_MODELS",
    "LINK_FIELDS",
    "LINK_LISTS",
    "QUALITIES",
    "RATIOS",
    "REQUESTS",
    "RESOLUTIONS",
    "ROW_FIELDS",
    "VIDEO_MODELS",
    "ImageFields",
    "ImageReference",
    "ImageRequest",
    "ImageRow",
    "Kind",
    "Reference",
    "Request",
    "Route",
    "VideoRequest",
    "body_of",
    "check_task_id",
    "files_in",
    "is_http_url",
    "is_off_peak",
    "map_links",
    "request_of",
    "unknown_field",
    "with_links",
]
