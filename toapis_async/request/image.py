"""`ImageRequest`: what to ask for, checked when it is made, so that a mistake costs nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Final, Literal, Required, TypeAlias, TypedDict

from attrs import define, field, fields

from toapis_async.errors import InvalidRequest
from toapis_async.request.base import (
    MAX_LINK_CHARACTERS,
    Kind,
    Reference,
    Request,
    Route,
    anyway,
    body_of,
    check_callback,
    check_flags,
    check_link,
    check_ratio_of_a_sheet,
    check_types,
    checks_names,
    given_of,
    is_http_url,
    json_object,
    json_with_files,
    short,
)
from toapis_async.request.catalogue import check_count, check_fields, check_needed
from toapis_async.request.image_models import IMAGE_MODELS, MOST_SEEDREAM_IMAGES, RATIOS, VIP

ImageReference: TypeAlias = Reference | Mapping[str, Any]
"""What stands in a list of references: a `Reference`, or an object with one (`{"url": …}`, Gemini's form)."""

DEFAULT_MODEL: Final = VIP
MAX_RATIO: Final = 3  #: custom W:H sizes are accepted up to 3:1 [field]

_LINKS: Final = (str, Path, bytes, NoneType)  # made once: a union in a function is built at every call
_RATIO = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")
_TEXTS: Final = (
    *("prompt", "model", "size", "resolution", "quality", "response_format", "background"),
    *("output_format", "callback_url", "client_business_id"),
)


Resolution: TypeAlias = Literal["0.5K", "1k", "2k", "4k", "1K", "2K", "4K"]
Quality: TypeAlias = Literal["auto", "low", "medium", "high", "xhigh", "max"]
ResponseFormat: TypeAlias = Literal["url", "b64_json"]
Background: TypeAlias = Literal["transparent", "auto", "opaque"]
OutputFormat: TypeAlias = Literal["png", "jpeg", "webp"]
EndpointName: TypeAlias = Literal["generations", "edits"]


class ImageFields(TypedDict, total=False):
    """The fields of an `ImageRequest` but its prompt, as type checkers know them."""

    model: str
    size: str
    resolution: Resolution
    quality: Quality
    n: int
    response_format: ResponseFormat
    reference_images: Sequence[ImageReference]
    image_urls: Sequence[ImageReference]
    mask_url: Reference
    background: Background
    output_format: OutputFormat
    output_compression: int
    seed: int
    layer_decomposition: bool
    endpoint: EndpointName
    callback_url: str
    client_business_id: str
    metadata: Mapping[str, Any]
    extra: Mapping[str, Any]


class ImageRow(ImageFields, total=False):
    """A row of a batch of images, for those who want a type checker to look at it: `rows: list[ImageRow]`."""

    prompt: Required[str]
    key: str
    kind: Literal["image"]


@define(frozen=True, init=False, repr=False)
class ImageRequest(Request):
    """One request for images. What is left `None` is not sent, and the service's own default applies.

    Raises `InvalidRequest` at once, naming the field, the value, the model, what it takes and the way out. Models whose
    pages are known get the checks of their page (`toapis models NAME` shows them), others only the generic ones.
    `extra` is the way past every check: its members go into the request body as they are, over everything else.

    References may be given as `reference_images` or as `image_urls`: they are sent under the name that the model's page
    lists; under the caller's where it lists both, or the model is unknown.
    """

    kind: ClassVar[Kind] = "image"
    required: ClassVar[Mapping[str, str]] = {"prompt": "say what the image shows"}

    prompt: str  # pyright: ignore[reportIncompatibleVariableOverride]  (frozen: nobody sets it to None)
    """1 to 32,000 characters for GPT image models."""
    model: str = DEFAULT_MODEL
    """Any image model of the service; `gpt-image-2-vip` when left out."""
    size: str | None = None
    """Aspect ratio, service default `1:1`: 1:1 3:2 2:3 4:3 3:4 5:4 4:5 16:9 9:16 2:1 1:2 21:9 9:21, or a custom `W:H`
    up to 3:1. Pixels (`1024x1024`) for the models that are billed by token."""
    resolution: str | None = None
    """`1k` (service default), `2k` or `4k`; Gemini, Seedream and Flux read it in `metadata`."""
    quality: str | None = None
    """`low`, `medium` (service default of vip) or `high`; gpt-image-2.5 also `auto`, `xhigh`, `max`."""
    n: int | None = None
    """Number of images, service default 1; charged up front by this number."""
    response_format: str | None = None
    """Service default `url`, the only useful value here."""
    reference_images: tuple[ImageReference, ...] = ()
    """Images to work from, in order: http(s) URLs, or local files as `Path` or `bytes`."""
    mask_url: Reference | None = None
    """A PNG with alpha, as large as the first reference: where alpha is 0 it is repainted. A URL or a local file."""
    background: str | None = None
    """`transparent` where the model honours it."""
    output_format: str | None = None
    """`png` or `jpeg` (GPT image models)."""
    output_compression: int | None = None
    """0 to 100 (GPT image models)."""
    seed: int | None = None
    """For models that read one (Vidu)."""
    layer_decomposition: bool | None = None
    """Whether the picture comes in layers, too (Seedream 5.0 Pro)."""
    endpoint: str | None = None
    """`generations` or `edits`; left out, the model decides: edits for grok-imagine-1.0-edit alone."""
    callback_url: str | None = None
    """Where the service posts its event; must share the origin of the key's webhook URL."""
    client_business_id: str | None = None
    """Your own id for the task; made for you when left out."""
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)
    """Model-specific fields that some models read here."""
    extra: Mapping[str, Any] = field(factory=dict[str, Any], hash=False)
    """Sent as it is, unchecked, over everything else."""
    _given_as_new: int = field(default=0, eq=False)  #: so many of the references were given as `reference_images`
    _given: Mapping[str, Any] = field(init=False, eq=False)

    @checks_names
    def __init__(
        self,
        prompt: str,
        *,
        model: str = DEFAULT_MODEL,
        size: str | None = None,
        resolution: Resolution | None = None,
        quality: Quality | None = None,
        n: int | None = None,
        response_format: ResponseFormat | None = None,
        reference_images: Sequence[ImageReference] | None = None,
        image_urls: Sequence[ImageReference] | None = None,
        mask_url: Reference | None = None,
        background: Background | None = None,
        output_format: OutputFormat | None = None,
        output_compression: int | None = None,
        seed: int | None = None,
        layer_decomposition: bool | None = None,
        endpoint: EndpointName | None = None,
        callback_url: str | None = None,
        client_business_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """`image_urls` is another name of `reference_images`; both together are kept in that order."""
        new = _references("reference_images", reference_images)
        attrs_init = self.__attrs_init__  # pyright: ignore[reportUnknownVariableType, reportAttributeAccessIssue, reportUnknownMemberType]
        attrs_init(
            prompt=prompt,
            model=model,
            size=size,
            resolution=resolution,
            quality=quality,
            n=n,
            response_format=response_format,
            reference_images=(*new, *_references("image_urls", image_urls)),
            mask_url=mask_url,
            background=background,
            output_format=output_format,
            output_compression=output_compression,
            seed=seed,
            layer_decomposition=layer_decomposition,
            endpoint=endpoint,
            callback_url=callback_url,
            client_business_id=client_business_id,
            metadata=json_object("metadata", metadata),
            extra=json_object("extra", extra) or {},
            given_as_new=len(new),
        )
        # `image_urls` are among `reference_images`.
        object.__setattr__(self, "_given", given_of(_STORED, _stored_of(self)))
        _check_any_model(self)
        _check_known_model(self)

    def body(self) -> dict[str, Any]:
        """The fields as they are sent; local files still stand in them as `Path` or `bytes`."""
        fields = self.given()
        fields.pop("endpoint", None)
        if fields.pop("reference_images", None):
            fields |= self._references_sent()
        return body_of(fields)

    def as_named(self) -> dict[str, Any]:
        """The fields as the caller named them."""
        fields = self.given()
        fields.pop("reference_images", None)
        return fields | self._references_given()

    def _references_given(self) -> dict[str, Any]:
        """The references under the names that the caller used."""
        new, old = self.reference_images[: self._given_as_new], self.reference_images[self._given_as_new :]
        return ({"reference_images": list(new)} if new else {}) | ({"image_urls": list(old)} if old else {})

    def _references_sent(self) -> dict[str, Any]:
        """The references under the name that the model's page lists; under the caller's where that is open."""
        known = IMAGE_MODELS.get(self.model)
        if known is None:
            return self._references_given()
        if known.edits == "multipart" and self.route == "edits":
            return {"image": self.reference_images[0]}
        if len(known.references) == 1:
            return {next(iter(known.references)): list(self.reference_images)}
        if known.references and (self.mask_url is not None or "mask_url" in self.extra):
            return {"image_urls": list(self.reference_images)}
        return self._references_given()

    @property
    def route(self) -> Route:
        """`edits` when the caller or the model's page says so."""
        known = IMAGE_MODELS.get(self.model)
        by_default = known is not None and known.edits == "only"
        return "edits" if (self.endpoint or ("edits" if by_default else "")) == "edits" else "generations"

    @property
    def poll_class(self) -> str:
        """Model, resolution, quality and n: what service times depend on."""
        return _poll_class(self.model, self.resolution, self.quality, self.n)

    def __repr__(self) -> str:
        rest = {k: v for k, v in self.given().items() if k not in {"prompt", "reference_images", "metadata", "extra"}}
        if self.model == DEFAULT_MODEL:
            del rest["model"]
        if self.reference_images:
            rest["references"] = len(self.reference_images)
        return f"ImageRequest({', '.join([short(self.prompt), *(f'{k}={short(v)}' for k, v in rest.items())])})"


_STORED: Final = tuple(a.name for a in fields(ImageRequest) if not a.name.startswith("_"))
_stored_of: Final = attrgetter(*_STORED)
_REFERENCES: Final = ("reference_images", "image_urls")
FIELD_NAMES: Final = (*_STORED, "image_urls")
ImageRequest.field_names = FIELD_NAMES


@lru_cache(maxsize=256)
def _poll_class(model: str, resolution: str | None, quality: str | None, n: int | None) -> str:
    """One text for all tasks of a class: each keeps it while it is watched."""
    return " ".join((model, resolution or "", quality or "", str(n or 1)))[:200]


def _references(name: str, value: Sequence[ImageReference] | None) -> tuple[ImageReference, ...]:
    if value is None:
        return ()
    if isinstance(value, str | bytes | Path | Mapping) or not isinstance(value, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(
            f"{name} must be a list, even for one image: {name}=[…], not {type(value).__name__}", field=name
        )
    # A mapping is copied, so that a later change by the caller does not reach the request.
    return tuple(
        json_with_files(name, item) if isinstance(item, Mapping) else item  # pyright: ignore[reportUnnecessaryIsInstance]
        for item in value
    )


def _check_any_model(request: ImageRequest) -> None:
    check_types(request, texts=_TEXTS, numbers=("n", "output_compression", "seed"))
    check_flags(request, ("layer_decomposition",))
    if not isinstance(request.prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest("prompt must be text, not None", field="prompt")
    if not request.model:
        raise InvalidRequest(f"model is empty: leave it out for {DEFAULT_MODEL!r}", field="model")
    if request.endpoint not in {None, "generations", "edits"}:
        raise InvalidRequest(f"endpoint is 'generations' or 'edits', not {short(request.endpoint)}", field="endpoint")
    _ = request.given_business_id  # refuses one that could not be asked for
    check_callback(request.callback_url)
    check_ratio_of_a_sheet("size", request.size)
    for place, reference in enumerate(request.reference_images):
        if not isinstance(reference, str | Path | bytes | Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(
                f"reference_images[{place}] must be a URL, a Path or bytes, not {type(reference).__name__}",
                field="reference_images",
            )
    if not isinstance(request.mask_url, _LINKS):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(
            f"mask_url must be a URL, a Path or bytes, not {short(request.mask_url)}", field="mask_url"
        )
    check_link("mask_url", "mask_url", request.mask_url)


def _check_known_model(request: ImageRequest) -> None:
    known = IMAGE_MODELS.get(request.model)
    if known is None:
        return
    if not request.prompt.strip():
        raise InvalidRequest("prompt is empty: say what the image shows", field="prompt")
    if request.model == VIP:
        if request.size is not None:
            _check_size(request.size)
        for place, reference in enumerate(request.reference_images):
            _check_reference(place, reference)
    check_fields(known, request.given())
    _check_references_of(request)


def _check_references_of(request: ImageRequest) -> None:
    """What a model's page says of its references, alone and together with other fields."""
    known, count = IMAGE_MODELS[request.model], len(request.reference_images)
    sent = request.body()
    check_needed(known, sent)
    names = [name for name in (*_REFERENCES, "image") if sent.get(name)]
    for name in names:
        check_count(known, name, len(sent[name]) if isinstance(sent.get(name), list) else len(names))
    for place, reference in enumerate(request.reference_images):
        check_link(f"{names[0] if names else 'references'}[{place}]", "reference_images", reference)
    if "image" in names and count > 1:
        raise InvalidRequest(
            f"{known.name} takes one image on its edits endpoint, not {count}; leave out endpoint='edits'",
            field="reference_images",
        )
    if known.name.startswith("doubao-seedream") and count + (request.n or 1) > MOST_SEEDREAM_IMAGES:
        raise InvalidRequest(
            f"n={request.n or 1} and {count} references: {known.name} takes at most {MOST_SEEDREAM_IMAGES} together; "
            f"{anyway('n')}",
            field="n",
        )
    if known.name == "gpt-image-2-official" and _is_square_4k(request):
        raise InvalidRequest(
            f"{known.name} makes no 1:1 at 4k: take resolution='2k' or another size; {anyway('size')}", field="size"
        )


def _is_square_4k(request: ImageRequest) -> bool:
    return (request.size or "1:1") == "1:1" and (request.resolution or "").lower() == "4k"


def _check_size(size: str) -> None:
    """vip's: a documented ratio, or a custom one within 3:1."""
    if size in RATIOS:
        return
    allowed = f"{VIP} takes {' '.join(RATIOS)}, or any W:H up to {MAX_RATIO}:1; {anyway('size')}"
    if size == "auto":
        raise InvalidRequest(f"size='auto' is not supported by the service at the moment; {allowed}", field="size")
    match = _RATIO.fullmatch(size)
    if match is None:
        hint = " (for pixels, use the ratio and resolution='1k', '2k' or '4k')" if "x" in size.lower() else ""
        raise InvalidRequest(f"size={short(size)} is not a ratio; {allowed}{hint}", field="size")
    width, height = int(match[1]), int(match[2])
    if not width or not height or max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidRequest(f"size={size!r} is beyond {MAX_RATIO}:1; {allowed}", field="size")


def _check_reference(place: int, reference: object) -> None:
    """vip's: no objects, and base64 is no longer accepted [seed]."""
    where = f"reference_images[{place}]"
    if isinstance(reference, Mapping):
        raise InvalidRequest(f"{where} must be a URL, a Path or bytes for {VIP}", field="reference_images")
    if isinstance(reference, str) and not is_http_url(reference):
        if reference.startswith("data:") or len(reference) > MAX_LINK_CHARACTERS:
            raise InvalidRequest(
                f"{where} looks like base64, which the service no longer accepts: pass the file as Path(…) or bytes, "
                "and it is uploaded for you",
                field="reference_images",
            )
        raise InvalidRequest(
            f"{where}={short(reference)} is not an http(s) URL; for a local file pass Path(…) or bytes, "
            "and it is uploaded for you",
            field="reference_images",
        )
