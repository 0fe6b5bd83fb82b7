"""What to ask for: requests for images and videos, checked when they are made."""

from toapis_async.request.base import (
    Kind,
    Reference,
    Request,
    Route,
    body_of,
    check_task_id,
    files_in,
    is_http_url,
    unknown_field,
    with_links,
)
from toapis_async.request.image import DEFAULT_MODEL, FIELD_NAMES, ImageFields, ImageReference, ImageRequest
from toapis_async.request.image_models import IMAGE_MODELS, QUALITIES, RATIOS, RESOLUTIONS

__all__ = [
    "DEFAULT_MODEL",
    "FIELD_NAMES",
    "IMAGE_MODELS",
    "QUALITIES",
    "RATIOS",
    "RESOLUTIONS",
    "ImageFields",
    "ImageReference",
    "ImageRequest",
    "Kind",
    "Reference",
    "Request",
    "Route",
    "body_of",
    "check_task_id",
    "files_in",
    "is_http_url",
    "unknown_field",
    "with_links",
]
