"""Submissions as the service understood them, and its refusals; readers of the fields that all models share. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

JsonObject = dict[str, object]
TaskKind = Literal["image", "video"]

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
class Charge:
    """What a job costs in credits: taken at acceptance, and what of it the settled bill says."""

    credits: float
    settled: float
    usage: JsonObject | None = None
    """Token counts (or tool calls) that come with the settled bill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A submission as the service understood it: every default filled in, every alias folded."""

    kind: TaskKind
    path: str
    """Where it was submitted, below the origin."""
    model: str
    prompt: str
    size: str
    resolution: str
    quality: str
    n: int
    width: int
    height: int
    output_format: str
    references: tuple[str, ...]
    """The URLs that the model read, of whatever field: what its page does not list is not among them."""
    client_business_id: str | None
    callback_url: str | None
    charge: Charge = field(repr=False)
    median_s: float
    """The median service time in seconds at speed 1."""
    body: JsonObject = field(repr=False, compare=False)
    """The fields as they were sent."""

    @property
    def digest(self) -> str:
        """Equal for equal work, whatever id the caller gave it: the seed of service times and pictures."""
        return hashlib.blake2b(json.dumps(self.work()).encode(), digest_size=16).hexdigest()

    @property
    def label(self) -> str:
        """What is written below the prompt in its pictures."""
        return f"{self.model} · {self.width}x{self.height} · {self.quality}"

    def work(self) -> tuple[object, ...]:
        """What the result follows from."""
        return (self.model, self.prompt, self.size, self.resolution, self.quality, self.n, self.references)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageJob(Job):
    """A submission of images."""

    mask_url: str | None = None
    layered: bool = False
    """The result comes as layers, the whole picture first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoJob(Job):
    """A submission of videos."""

    duration_s: int
    with_last_frame: bool = False
    """The last frame is there as a picture, too."""
    source_id: str | None = None
    """The video that it remixes or extends."""

    @property
    def label(self) -> str:
        """What is written below the prompt in its pictures."""
        return f"{self.model} · {self.width}x{self.height} · {self.duration_s} s"

    def work(self) -> tuple[object, ...]:
        """What the result follows from."""
        return (*Job.work(self), self.duration_s, self.source_id)  # slots: super() would mean another class


def invalid(message: str, param: str | None = None) -> RefusedError:
    """The refusal of a field: 400 `invalid_request`."""
    return RefusedError(400, "invalid_request", message, **({} if param is None else {"param": param}))


def object_of(body: object) -> JsonObject:
    """The fields of a submission's JSON value."""
    if not isinstance(body, dict):
        raise invalid("the request body must be a JSON object")
    return cast("JsonObject", body)


def no_channel(name: str) -> RefusedError:
    """The refusal of a model that nobody offers."""
    message = f"no available channel for model {name} under group default"
    return RefusedError(503, "model_not_found", message, type="new_api_error")


def model_name(fields: JsonObject) -> str:
    """The field `model`."""
    name = fields.get("model")
    if not isinstance(name, str) or not name:
        raise invalid("model is required", "model")
    return name


def metadata_of(fields: JsonObject) -> JsonObject:
    """The field `metadata`, or an empty object."""
    metadata = fields.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise invalid("metadata must be an object", "metadata")
    return cast("JsonObject", metadata)


def prompt_of(fields: JsonObject, limit: int | None, *, optional: bool = False) -> str:
    """The field `prompt`, within its limit of characters."""
    prompt = fields.get("prompt")
    if prompt is None and optional:
        return ""
    if not isinstance(prompt, str) or not prompt.strip():
        raise invalid("prompt is required", "prompt")
    if limit is not None and len(prompt) > limit:
        raise invalid(f"prompt is longer than {limit} characters", "prompt")
    if REFUSE_MARKER in prompt:
        raise RefusedError(422, "content_policy_violation", "the prompt was refused by the content policy")
    return prompt


def chosen(value: object, allowed: Iterable[str], param: str, *, any_case: bool = False) -> str:
    """A value that must be one of a few texts, in the spelling of the list."""
    allowed = tuple(allowed)
    for one in allowed:
        if value == one or (any_case and isinstance(value, str) and value.lower() == one.lower()):
            return one
    raise invalid(f"{param} must be one of {', '.join(allowed)}", param)


def check_types(fields: Mapping[str, object], names: Iterable[str], kind: type, prefix: str = "") -> None:
    """Refuse fields that are given and not of this type; `True` is no number."""
    for name in names:
        value = fields.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
            described = {str: "a string", bool: "true or false", int: "a JSON number without a fraction"}[kind]
            raise invalid(f"{prefix}{name} must be {described}", prefix + name)


def is_url(value: object, schemes: tuple[str, ...] = ("http://", "https://")) -> bool:
    """Whether a value is a text that starts like a URL of these schemes."""
    return isinstance(value, str) and value.lower().startswith(schemes)


def client_business_id_of(fields: JsonObject, metadata: JsonObject) -> str | None:
    """The caller's id: the top level's first, then that in `metadata`."""
    for place, param in ((fields, "client_business_id"), (metadata, "metadata.client_business_id")):
        value = place.get("client_business_id")
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise invalid(f"{param} must be a string", param)
        return value
    return None
