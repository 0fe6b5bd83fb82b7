"""What to ask for: `ImageRequest`, checked when it is made, so that a mistake costs nothing."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

from attrs import define, field, fields

from toapis_async.errors import InvalidRequest

Reference: TypeAlias = str | Path | bytes
"""A reference image: a public http(s) URL, or a local file (`Path` or `bytes`) that is uploaded at submit."""

DEFAULT_MODEL = "gpt-image-2-vip"
RATIOS = ("1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "2:1", "1:2", "21:9", "9:21")
RESOLUTIONS = ("1k", "2k", "4k")
QUALITIES = ("low", "medium", "high")
MAX_PROMPT_CHARACTERS = 32_000
MAX_RATIO = 3  #: custom W:H sizes are accepted up to 3:1 [field]

_RATIO = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")


def _short_prompt(prompt: object) -> str:
    text = str(prompt)
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _short(value: object) -> str:
    try:
        return repr(value)[:40]
    except Exception:  # a repr of the caller's, or an int of thousands of digits
        return f"a {type(value).__name__}"


@define(frozen=True, init=False, repr=False)
class ImageRequest:
    """One request for images. What is left `None` is not sent, and the service's own default applies.

    Raises `InvalidRequest` at once, naming the field, the value, what is allowed and the way out. The limits are
    those of `gpt-image-2-vip`; other models get only the generic checks. `extra` is the way past every check: its
    members go into the request body as they are, over everything else.
    """

    prompt: str
    """1 to 32,000 characters."""
    model: str = DEFAULT_MODEL
    """Any image model of the service; `gpt-image-2-vip` when left out."""
    size: str | None = None
    """Aspect ratio, service default `1:1`: 1:1 3:2 2:3 4:3 3:4 5:4 4:5 16:9 9:16 2:1 1:2 21:9 9:21, or a custom `W:H`
    up to 3:1."""
    resolution: str | None = None
    """`1k` (service default), `2k` or `4k`."""
    quality: str | None = None
    """`low`, `medium` (service default) or `high`."""
    n: int | None = None
    """Number of images, service default 1; charged up front by this number."""
    response_format: str | None = None
    """Service default `url`, the only useful value here."""
    reference_images: tuple[Reference | Mapping[str, Any], ...] = ()
    """Images to work from, in order: http(s) URLs, or local files as `Path` or `bytes`."""
    background: str | None = None
    """`transparent` where the model honours it."""
    callback_url: str | None = None
    """Where the service posts its event; must share the origin of the key's webhook URL."""
    client_business_id: str | None = None
    """Your own id for the task; made for you when left out."""
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)
    """Model-specific fields that some models read here."""
    extra: Mapping[str, Any] = field(factory=dict[str, Any], hash=False)
    """Sent as it is, unchecked, over everything else."""

    def __init__(
        self,
        prompt: str,
        *,
        model: str = DEFAULT_MODEL,
        size: str | None = None,
        resolution: str | None = None,
        quality: str | None = None,
        n: int | None = None,
        response_format: str | None = None,
        reference_images: Sequence[Reference | Mapping[str, Any]] | None = None,
        image_urls: Sequence[Reference | Mapping[str, Any]] | None = None,
        background: str | None = None,
        callback_url: str | None = None,
        client_business_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """`image_urls` is the older name of `reference_images`; both together are joined in that order."""
        attrs_init = self.__attrs_init__  # pyright: ignore[reportUnknownVariableType, reportAttributeAccessIssue, reportUnknownMemberType]
        attrs_init(
            prompt=prompt,
            model=model,
            size=size,
            resolution=resolution,
            quality=quality,
            n=n,
            response_format=response_format,
            reference_images=(
                *_references("reference_images", reference_images),
                *_references("image_urls", image_urls),
            ),
            background=background,
            callback_url=callback_url,
            client_business_id=client_business_id,
            metadata=_json_object("metadata", metadata),
            extra=_json_object("extra", extra) or {},
        )
        _check_any_model(self)
        if model == DEFAULT_MODEL:
            _check_vip(self)

    if not TYPE_CHECKING:
        # The signature above is what type checkers and readers see; a misspelt keyword still deserves our error
        # and the nearest name instead of a bare TypeError.
        _checked_init = __init__

        def __init__(self, *args, **named):
            for name in named:
                if name not in FIELD_NAMES:
                    raise unknown_field(name)
            if not args and "prompt" not in named:
                raise InvalidRequest("prompt is missing: say what the image shows", field="prompt")
            self._checked_init(*args, **named)

    @classmethod
    def of(cls, source: ImageRequest | Mapping[str, Any] | str, **changes: Any) -> ImageRequest:
        """A request from a prompt, a mapping of fields, or another request; `changes` go over it."""
        if isinstance(source, ImageRequest):
            return cls(**{**source.given(), **changes}) if changes else source
        if isinstance(source, str):
            return cls(source, **changes)
        if not isinstance(source, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(
                f"a request is an ImageRequest, a mapping of its fields or a prompt, not {type(source).__name__}"
            )
        for name in source:
            if name not in FIELD_NAMES:
                raise unknown_field(str(name))
        return cls(**{**source, **changes})

    def given(self) -> dict[str, Any]:
        """The fields that were given, by name."""
        values = {a.name: getattr(self, a.name) for a in fields(type(self))}
        return {name: value for name, value in values.items() if value is not None and value not in ((), {})}

    def body(self) -> dict[str, Any]:
        """The fields as they are sent; local files among the references still stand as what they are."""
        return body_of(self.given())

    def __repr__(self) -> str:
        rest = {k: v for k, v in self.given().items() if k not in {"prompt", "reference_images", "metadata", "extra"}}
        if self.model == DEFAULT_MODEL:
            del rest["model"]
        if self.reference_images:
            rest["references"] = len(self.reference_images)
        return (
            f"ImageRequest({', '.join([_short_prompt(self.prompt), *(f'{k}={_short(v)}' for k, v in rest.items())])})"
        )

    @property
    def given_business_id(self) -> str | None:
        """The caller's own id, wherever the service would read it (`metadata` too [docs])."""
        given: object = self.extra.get("client_business_id", self.client_business_id)
        if given is not None:
            return check_task_id(given, "client_business_id")
        inner: object = (self.metadata or {}).get("client_business_id")
        # One that is no id is left alone: the service prefers ours, at the top level.
        return check_task_id(inner, "client_business_id") if isinstance(inner, str) and inner else None


def body_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request (`ImageRequest.given()`, or what a journal kept of it) as they are sent: `extra` over
    the others."""
    return {name: value for name, value in given.items() if name != "extra"} | dict(given.get("extra") or {})


FIELD_NAMES = (*(a.name for a in fields(ImageRequest)), "image_urls")


def unknown_field(name: str) -> InvalidRequest:
    """The error for a keyword or a column we don't know, with the nearest name we do."""
    near = difflib.get_close_matches(name.lower(), FIELD_NAMES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(FIELD_NAMES)}"
    return InvalidRequest(
        f"unknown field {_short_prompt(name)}: {hint} (extra={{…}} sends any field unchecked)", field=name
    )


def check_task_id(task_id: object, name: str = "task_id") -> str:
    """An id that can stand as one segment of a URL, or `InvalidRequest`."""
    if not isinstance(task_id, str) or not task_id.strip() or task_id in {".", ".."}:
        raise InvalidRequest(f"{name} must be a non-empty text, not {_short(task_id)}", field=name)
    if len(task_id) > 512 or not task_id.isprintable():
        raise InvalidRequest(f"{name} must be printable and at most 512 characters long", field=name)
    return task_id


def _references(
    name: str, value: Sequence[Reference | Mapping[str, Any]] | None
) -> tuple[Reference | Mapping[str, Any], ...]:
    if value is None:
        return ()
    if isinstance(value, str | bytes | Path | Mapping) or not isinstance(value, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(
            f"{name} must be a list, even for one image: {name}=[…], not {type(value).__name__}", field=name
        )
    # A mapping is copied, so that a later change by the caller does not reach the request.
    return tuple(
        _json_object(name, item) or {} if isinstance(item, Mapping) else item  # pyright: ignore[reportUnnecessaryIsInstance]
        for item in value
    )


def _json_object(name: str, value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{name} must be a mapping, not {type(value).__name__}", field=name)
    try:
        # There and back: a deep copy that the caller can't change, with text keys, of exactly what will be sent.
        return cast(
            "dict[str, Any]",
            json.loads(json.dumps(dict(cast("Mapping[str, Any]", value)), allow_nan=False)),
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name} can't be sent as JSON: {str(error)[:80]}", field=name) from None


def _check_any_model(request: ImageRequest) -> None:
    for name in (
        "prompt",
        "model",
        "size",
        "resolution",
        "quality",
        "response_format",
        "background",
        "callback_url",
        "client_business_id",
    ):
        value: object = getattr(request, name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"{name} must be text, not {_short(value)}", field=name)
    if not isinstance(request.prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest("prompt must be text, not None", field="prompt")
    if request.n is not None and type(request.n) is not int:
        raise InvalidRequest(f"n must be a whole number, as an int, not {_short(request.n)}", field="n")
    if not request.model:
        raise InvalidRequest(f"model is empty: leave it out for {DEFAULT_MODEL!r}", field="model")
    _ = request.given_business_id  # refuses one that could not be asked for
    if request.callback_url is not None and not is_http_url(request.callback_url):
        raise InvalidRequest(
            f"callback_url must be an http(s) URL, not {_short_prompt(request.callback_url)}",
            field="callback_url",
        )
    for place, reference in enumerate(request.reference_images):
        if not isinstance(reference, str | Path | bytes | Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(
                f"reference_images[{place}] must be a URL, a Path or bytes, not {type(reference).__name__}",
                field="reference_images",
            )


def _check_vip(request: ImageRequest) -> None:
    if not request.prompt.strip():
        raise InvalidRequest("prompt is empty: say what the image shows", field="prompt")
    if len(request.prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidRequest(
            f"prompt has {len(request.prompt):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are accepted: "
            "shorten it",
            field="prompt",
        )
    if request.size is not None:
        _check_size(request.size)
    _check_choice("resolution", request.resolution, RESOLUTIONS)
    _check_choice("quality", request.quality, QUALITIES)
    if request.n is not None and request.n < 1:
        raise InvalidRequest(f"n={_short(request.n)}: it must be a whole number from 1; {_anyway('n')}", field="n")
    for place, reference in enumerate(request.reference_images):
        _check_reference(place, reference)


def _check_size(size: str) -> None:
    if size in RATIOS:
        return
    allowed = f"allowed are {' '.join(RATIOS)}, or any W:H up to {MAX_RATIO}:1; {_anyway('size')}"
    if size == "auto":
        raise InvalidRequest(f"size='auto' is not supported by the service at the moment; {allowed}", field="size")
    match = _RATIO.fullmatch(size)
    if match is None:
        hint = " (for pixels, use the ratio and resolution='1k', '2k' or '4k')" if "x" in size.lower() else ""
        raise InvalidRequest(f"size={_short_prompt(size)} is not a ratio; {allowed}{hint}", field="size")
    width, height = int(match[1]), int(match[2])
    if not width or not height or max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidRequest(f"size={size!r} is beyond {MAX_RATIO}:1; {allowed}", field="size")


def _anyway(name: str) -> str:
    return f"extra={{{name!r}: …}} sends it unchecked"


def _check_choice(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InvalidRequest(
            f"{name}={_short_prompt(value)}: allowed are {', '.join(allowed)}; {_anyway(name)}", field=name
        )


def _check_reference(place: int, reference: object) -> None:
    where = f"reference_images[{place}]"
    if isinstance(reference, Mapping):
        raise InvalidRequest(f"{where} must be a URL, a Path or bytes for {DEFAULT_MODEL}", field="reference_images")
    if not isinstance(reference, str) or is_http_url(reference):
        return
    if reference.startswith("data:") or len(reference) > 2048:
        raise InvalidRequest(
            f"{where} looks like base64, which the service no longer accepts: pass the file as Path(…) or bytes, "
            "and it is uploaded for you",
            field="reference_images",
        )
    raise InvalidRequest(
        f"{where}={_short_prompt(reference)} is not an http(s) URL; for a local file pass Path(…) or bytes, "
        "and it is uploaded for you",
        field="reference_images",
    )


def is_http_url(text: str) -> bool:
    """Whether a text is an absolute http or https URL with a host."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
