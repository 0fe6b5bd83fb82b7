"""What the service reads of a submission, and what it refuses. Pure: a JSON value in, an `ImageJob` or a
refusal out.

`gpt-image-2-vip` is held to its page; the other models, whose pages disagree with their own samples, get
loose checks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Final, cast

from toapis_async.sandbox.catalogue import (
    IMAGE_MODELS,
    PIXELS,
    QUALITIES,
    RESOLUTIONS,
    ImageModel,
    loose_pixel_size,
    pixel_size,
    price_credits,
)

JsonObject = dict[str, object]

REFUSE_MARKER: Final = "[refuse]"
"""A prompt with this text is refused with 422 `content_policy_violation`."""
FAIL_MARKER: Final = "[fail]"
"""A prompt with this text is accepted and charged; its task fails (`generation_failed`), refunded."""


class RefusedError(Exception):
    """The service does not accept a submission; nothing is recorded or charged."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.more = more
        """Further fields of the error body: `param`, `type`."""


@dataclass(frozen=True, slots=True)
class ImageJob:
    """A submission as the service understood it: every default filled in, every alias folded."""

    model: str
    prompt: str
    size: str
    resolution: str
    quality: str
    n: int
    width: int
    height: int
    output_format: str
    reference_images: tuple[str, ...]
    client_business_id: str | None
    callback_url: str | None
    body: JsonObject = field(repr=False, compare=False)
    """The JSON object as it was sent."""

    @property
    def credits(self) -> float:
        """What the service charges for it."""
        return price_credits(IMAGE_MODELS[self.model], self.resolution, self.quality, self.n)

    @property
    def digest(self) -> str:
        """Equal for equal work, whatever id the caller gave it: the seed of service times and pictures."""
        parts = (
            self.model,
            self.prompt,
            self.size,
            self.resolution,
            self.quality,
            self.n,
            self.reference_images,
        )
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def understand(body: object) -> ImageJob:
    """Read a submission's JSON value; raises `RefusedError` as the service would refuse it."""
    if not isinstance(body, dict):
        raise _invalid("the request body must be a JSON object")
    fields = cast("JsonObject", body)
    model = _model(fields)
    metadata = _metadata(fields)
    resolution, quality = _resolution(model, fields, metadata), _quality(model, fields)
    size, (width, height) = _size(model, fields, resolution)
    _text(fields, "response_format", "background", "callback_url")
    job = ImageJob(
        model=model.name,
        prompt=_prompt(model, fields),
        size=size,
        resolution=resolution,
        quality=quality,
        n=_n(model, fields, metadata),
        width=width,
        height=height,
        output_format=_output_format(fields),
        reference_images=_references(model, fields),
        client_business_id=_client_business_id(fields, metadata),
        callback_url=cast("str | None", fields.get("callback_url")),
        body=fields,
    )
    if REFUSE_MARKER in job.prompt:
        raise RefusedError(422, "content_policy_violation", "the prompt was refused by the content policy")
    return job


def _invalid(message: str, param: str | None = None) -> RefusedError:
    more = {} if param is None else {"param": param}
    return RefusedError(400, "invalid_request", message, **more)


def _one_of(value: object, allowed: tuple[str, ...], param: str) -> str:
    if value not in allowed:
        raise _invalid(f"{param} must be one of {', '.join(allowed)}", param)
    return str(value)


def _text(fields: JsonObject, *names: str) -> None:
    for name in names:
        if not isinstance(fields.get(name, ""), str | None):
            raise _invalid(f"{name} must be a string", name)


def _model(fields: JsonObject) -> ImageModel:
    name = fields.get("model")
    if not isinstance(name, str) or not name:
        raise _invalid("model is required", "model")
    if name not in IMAGE_MODELS:
        message = f"no available channel for model {name} under group default"
        raise RefusedError(503, "model_not_found", message, type="new_api_error")
    return IMAGE_MODELS[name]


def _metadata(fields: JsonObject) -> JsonObject:
    metadata = fields.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise _invalid("metadata must be an object", "metadata")
    return cast("JsonObject", metadata)


def _prompt(model: ImageModel, fields: JsonObject) -> str:
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise _invalid("prompt is required", "prompt")
    if model.prompt_limit is not None and len(prompt) > model.prompt_limit:
        raise _invalid(f"prompt is longer than {model.prompt_limit} characters", "prompt")
    return prompt


def _resolution(model: ImageModel, fields: JsonObject, metadata: JsonObject) -> str:
    value = fields.get("resolution")
    if model.strict:
        return "1k" if value is None else _one_of(value, RESOLUTIONS, "resolution")
    spelled = str(value or metadata.get("resolution") or "1k").lower()
    return spelled if spelled in RESOLUTIONS else "1k"


def _quality(model: ImageModel, fields: JsonObject) -> str:
    value = fields.get("quality")
    if value is None or not model.reads_quality:
        return "medium"
    if model.strict:
        return _one_of(value, QUALITIES, "quality")
    return str(value) if value in QUALITIES else "medium"


def _size(model: ImageModel, fields: JsonObject, resolution: str) -> tuple[str, tuple[int, int]]:
    value = fields.get("size")
    if value is None:
        value = "1:1"
    if not isinstance(value, str):
        raise _invalid("size must be a string", "size")
    if not model.strict:
        return value, loose_pixel_size(value, resolution)
    if value == "auto":
        raise _invalid("size auto is not supported at the moment", "size")
    pixels = pixel_size(value, resolution)
    if pixels is None:
        raise _invalid(f"size must be one of {', '.join(PIXELS)}, or another W:H up to 3:1", "size")
    return value, pixels


def _n(model: ImageModel, fields: JsonObject, metadata: JsonObject) -> int:
    value = fields.get("n")
    if value is None and not model.strict:
        value = metadata.get("n")
    if value is None:
        return 1
    if isinstance(value, str) and not model.strict and value.isdecimal() and len(value) < 4:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _invalid("n must be a JSON number without a fraction", "n")
    if not 1 <= value <= model.n_limit:
        raise _invalid(f"n must lie between 1 and {model.n_limit}", "n")
    return value


def _output_format(fields: JsonObject) -> str:
    return "jpeg" if fields.get("output_format") in ("jpeg", "jpg") else "png"


def _references(model: ImageModel, fields: JsonObject) -> tuple[str, ...]:
    found = [url for name in ("reference_images", "image_urls") for url in _urls(model, fields, name)]
    if model.references_limit is not None and len(found) > model.references_limit:
        raise _invalid(f"at most {model.references_limit} reference images", "reference_images")
    return tuple(found)


def _urls(model: ImageModel, fields: JsonObject, name: str) -> list[str]:
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _invalid(f"{name} must be a list of URLs", name)
    unwrap = _plain if model.strict else _unwrapped
    urls = [unwrap(item) for item in cast("list[object]", value)]
    for url in urls:
        if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
            raise _invalid(f"{name}: base64 is no longer supported, send http(s) URLs", name)
    return cast("list[str]", urls)


def _plain(item: object) -> object:
    return item


def _unwrapped(item: object) -> object:
    # Some pages type `image_urls` as [{"url": …}] while their samples send strings: both are read.
    return cast("JsonObject", item).get("url") if isinstance(item, dict) else item


def _client_business_id(fields: JsonObject, metadata: JsonObject) -> str | None:
    places: tuple[tuple[JsonObject, str], ...] = (
        (fields, "client_business_id"),
        (metadata, "metadata.client_business_id"),
    )
    for place, param in places:
        value = place.get("client_business_id")
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise _invalid(f"{param} must be a string", param)
        return value
    return None
