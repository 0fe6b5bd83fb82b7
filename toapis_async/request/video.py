"""`VideoRequest`: what to ask for, checked when it is made, so that a mistake costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Final, cast

from attrs import define, field, fields

from toapis_async.errors import InvalidRequest
from toapis_async.request.base import (
    Kind,
    Reference,
    Request,
    Route,
    body_of,
    check_callback,
    check_flags,
    check_link,
    check_ratio_of_a_sheet,
    check_task_id,
    check_types,
    checks_names,
    given_of,
    is_mapping,
    json_object,
    json_with_files,
    short,
)
from toapis_async.request.catalogue import (
    check_count,
    check_fields,
    check_needed,
    check_roles,
    member_of,
)
from toapis_async.request.video_models import VIDEO_MODELS

_TEXTS: Final = (
    *("prompt", "model", "aspect_ratio", "ratio", "size", "resolution", "quality", "mode", "negative_prompt"),
    *("shot_type", "action", "trace_id", "video_operation", "output_format", "remix_of", "extend_of"),
    *("callback_url", "client_business_id"),
)
_FLAGS: Final = ("generate_audio", "return_last_frame", "watermark", "prompt_extend")
_LINK_LISTS: Final = ("image_urls", "reference_images", "video_list")
_ROLES: Final = ("image_with_roles", "video_with_roles", "audio_with_roles")
_LISTS: Final = (*_LINK_LISTS, *_ROLES, "tools")
_NOT_SENT: Final = frozenset({"kind", "remix_of", "extend_of"})


@define(frozen=True, repr=False)
class VideoRequest(Request):
    """One request for a video. What is left `None` is not sent, and the model's own default applies.

    Field names are the service's, and each model reads its own (docs/videos.md has a table). Raises `InvalidRequest` at
    once, naming the field, the value, the model, what it takes and the way out; models whose pages we don't know get
    only the generic checks. `extra` is the way past every check: its members go into the request body as they are, over
    everything else. Local files (`Path` or `bytes`) may stand wherever a URL stands, in `metadata` too, and are
    uploaded: pictures, and MP4, WebM or MOV up to 50 MB. `asset://` links pass as they are.
    """

    kind: ClassVar[Kind] = "video"
    required: ClassVar[Mapping[str, str]] = {"model": "say which model makes the video, such as 'seedance-2'"}

    prompt: str | None = None
    """What the video shows; some models can do without."""
    model: str = field(kw_only=True)
    """Any video model of the service."""
    duration: int | None = field(default=None, kw_only=True)
    """Seconds, as an int."""
    aspect_ratio: str | None = field(default=None, kw_only=True)
    """Such as `16:9`."""
    ratio: str | None = field(default=None, kw_only=True)
    """The name of `aspect_ratio` at wan3.0-video."""
    size: str | None = field(default=None, kw_only=True)
    """The name of `aspect_ratio` at Veo's official models; at some remixes, pixels."""
    resolution: str | None = field(default=None, kw_only=True)
    """Such as `720p`; some models read it in `metadata`."""
    quality: str | None = field(default=None, kw_only=True)
    """The name of `resolution` at grok-imagine-1.0-video."""
    mode: str | None = field(default=None, kw_only=True)
    """`std` (720p) or `pro` (1080p) at Kling."""
    image: Reference | None = field(default=None, kw_only=True)
    """The picture to begin with, at grok-video."""
    image_urls: Sequence[Reference] | None = field(default=None, kw_only=True, hash=False)
    """Pictures to work from; not beside `image_with_roles`."""
    reference_images: Sequence[Reference] | None = field(default=None, kw_only=True, hash=False)
    """Pictures to work from, at Kling, Wan 3, Grok and others."""
    image_with_roles: Sequence[Mapping[str, Any]] | None = field(default=None, kw_only=True, hash=False)
    """`[{"url": …, "role": "first_frame" | "last_frame" | "reference_image"}]`."""
    video_with_roles: Sequence[Mapping[str, Any]] | None = field(default=None, kw_only=True, hash=False)
    """`[{"url": …, "role": "reference_video"}]`."""
    audio_with_roles: Sequence[Mapping[str, Any]] | None = field(default=None, kw_only=True, hash=False)
    """`[{"url": …, "role": "reference_audio"}]`."""
    video_list: Sequence[Reference | Mapping[str, Any]] | None = field(default=None, kw_only=True, hash=False)
    """Videos to work from: links, or objects with one (Kling's `{"video_url": …}`)."""
    url: Reference | None = field(default=None, kw_only=True)
    """A video to work from, at viduq3-pro-fast, happyhorse and Sora's characters."""
    negative_prompt: str | None = field(default=None, kw_only=True)
    """What the video should not show."""
    prompt_extend: bool | None = field(default=None, kw_only=True)
    """Whether the service may work the prompt out (Wan)."""
    shot_type: str | None = field(default=None, kw_only=True)
    """One shot or several (Wan)."""
    seed: int | None = field(default=None, kw_only=True)
    """For models that read one."""
    generate_audio: bool | None = field(default=None, kw_only=True)
    """Whether there is sound (Seedance 2: on by default)."""
    audio: bool | Reference | None = field(default=None, kw_only=True)
    """Whether there is sound, or the sound itself, at Kling, Wan and Vidu."""
    audio_setting: Any = field(default=None, kw_only=True, hash=False)
    """What becomes of the sound of a video that is edited (happyhorse)."""
    return_last_frame: bool | None = field(default=None, kw_only=True)
    """Whether the last frame comes as a picture, too: `GeneratedVideo.last_frame_url` (Seedance 2)."""
    watermark: bool | None = field(default=None, kw_only=True)
    """Whether it bears a mark; on by default at happyhorse-1.1."""
    tools: Sequence[Mapping[str, Any]] | None = field(default=None, kw_only=True, hash=False)
    """`[{"type": "web_search"}]` (Seedance 2)."""
    video_operation: str | None = field(default=None, kw_only=True)
    """`generate`, `edit` or `extend` (Seedance 2.5)."""
    action: str | None = field(default=None, kw_only=True)
    """What is made of what (happyhorse)."""
    output_format: str | None = field(default=None, kw_only=True)
    """`mp4` or `mov` (Seedance 2.5)."""
    thumbnail: Any = field(default=None, kw_only=True, hash=False)
    """Sora's, sent as it is."""
    timestamps: str | None = field(default=None, kw_only=True)
    """`"1,3"`: where a character is seen in `url` or `from_task` (Sora)."""
    from_task: str | None = field(default=None, kw_only=True)
    """The task whose video shows a character (Sora)."""
    trace_id: str | None = field(default=None, kw_only=True)
    """Your own mark for the provider's support (Seedance 2)."""
    remix_of: str | None = field(default=None, kw_only=True)
    """The id of a video to make anew: the request goes to its `remix` (Sora 2, grok-video-1.0)."""
    extend_of: str | None = field(default=None, kw_only=True)
    """The id of a video to make longer: the request goes to its `extend` (grok-video-1.0)."""
    callback_url: str | None = field(default=None, kw_only=True)
    """Where the service posts its event; must share the origin of the key's webhook URL."""
    client_business_id: str | None = field(default=None, kw_only=True)
    """Your own id for the task; made for you when left out."""
    metadata: Mapping[str, Any] | None = field(default=None, kw_only=True, hash=False)
    """Model-specific fields that some models read here."""
    extra: Mapping[str, Any] = field(factory=dict[str, Any], kw_only=True, hash=False)
    """Sent as it is, unchecked, over everything else."""
    _given: Mapping[str, Any] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        for name in _LISTS:
            self._store(name, _items(name, getattr(self, name)))
        self._store("metadata", None if self.metadata is None else _object_with_files("metadata", self.metadata))
        self._store("extra", json_object("extra", self.extra) or {})
        self._store("_given", {"kind": self.kind} | given_of(_STORED, _stored_of(self)))
        _check_any_model(self)
        _check_known_model(self)

    def _store(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen for others; the caller's own containers are copied here

    def as_named(self) -> dict[str, Any]:
        """The same without the kind."""
        return {name: value for name, value in self.given().items() if name != "kind"}

    def body(self) -> dict[str, Any]:
        """The fields as they are sent; local files still stand in them as `Path` or `bytes`."""
        sent = {name: value for name, value in self.given().items() if name not in _NOT_SENT}
        return body_of(sent | {name: list(sent[name]) for name in _LISTS if name in sent})

    @property
    def route(self) -> Route:
        """`remix` or `extend` of another video, or a new one."""
        return "remix" if self.remix_of else "extend" if self.extend_of else "generations"

    @property
    def video_id(self) -> str | None:
        """The video that is made anew or longer; None for a new one."""
        return self.remix_of or self.extend_of

    @property
    def poll_class(self) -> str:
        """Model, resolution and duration: what service times depend on."""
        body = self.body()
        resolution = next((body[name] for name in ("resolution", "quality", "mode") if body.get(name)), None)
        resolution = resolution or member_of(body, "metadata.resolution") or ""
        return f"{self.model} {resolution} {body.get('duration') or ''}"[:200]

    @property
    def is_off_peak(self) -> bool:
        """Whether the service was told to take its time, up to 48 hours (Vidu's `off_peak` [docs])."""
        return is_off_peak(self.body())

    def __repr__(self) -> str:
        shown = {k: v for k, v in self.given().items() if isinstance(v, str | int) and k not in {"kind", "prompt"}}
        first = [] if self.prompt is None else [short(self.prompt)]
        return f"VideoRequest({', '.join([*first, *(f'{k}={short(v)}' for k, v in shown.items())])})"


_STORED: Final = tuple(a.name for a in fields(VideoRequest) if a.init)
_stored_of: Final = attrgetter(*_STORED)
VideoRequest.field_names = _STORED
VideoRequest.__init__ = checks_names(VideoRequest.__init__)  # type: ignore[method-assign,assignment]


def _items(name: str, value: object) -> tuple[Any, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidRequest(
            f"{name} must be a list, even for one item: {name}=[…], not {type(value).__name__}", field=name
        )
    return tuple(json_with_files(name, list(cast("Sequence[object]", value))))


def _object_with_files(name: str, value: object) -> dict[str, Any]:
    if not is_mapping(value):
        raise InvalidRequest(f"{name} must be a mapping, not {type(value).__name__}", field=name)
    return cast("dict[str, Any]", json_with_files(name, value))


def _check_any_model(request: VideoRequest) -> None:
    check_types(request, texts=_TEXTS, numbers=("duration", "seed"))
    check_flags(request, _FLAGS)
    if not request.model:
        raise InvalidRequest("model is empty: say which model makes the video, such as 'seedance-2'", field="model")
    _ = request.given_business_id  # refuses one that could not be asked for
    check_callback(request.callback_url)
    for name in ("aspect_ratio", "ratio", "size"):
        check_ratio_of_a_sheet(name, getattr(request, name))
    _check_links(request)
    if request.image_urls and request.image_with_roles:
        raise InvalidRequest(
            "image_urls can't stand beside image_with_roles: give every picture a role, or none", field="image_urls"
        )
    if request.remix_of is not None and request.extend_of is not None:
        raise InvalidRequest("a video is made by remix_of or by extend_of, not by both", field="extend_of")
    for name in ("remix_of", "extend_of"):
        if (video_id := getattr(request, name)) is not None:
            check_task_id(video_id, name)


def _check_links(request: VideoRequest) -> None:
    for name in ("image", "url"):
        value: object = getattr(request, name)
        if not isinstance(value, str | Path | bytes | None):
            raise InvalidRequest(f"{name} must be a URL, a Path or bytes, not {short(value)}", field=name)
        check_link(name, name, value)
    for name in _LINK_LISTS:
        items: Sequence[object] = getattr(request, name) or ()
        for place, item in enumerate(items):
            if not (isinstance(item, str | Path | bytes) or is_mapping(item)):
                raise InvalidRequest(f"{name}[{place}] must be a URL, a Path or bytes, not {short(item)}", field=name)
            check_link(f"{name}[{place}]", name, item)
    for name in _ROLES:
        for place, item in enumerate(getattr(request, name) or ()):
            _check_role(f"{name}[{place}]", name, item)


def _check_role(where: str, name: str, item: object) -> None:
    members = cast("Mapping[str, object]", item if is_mapping(item) else {})
    link, role = members.get("url"), members.get("role")
    if not isinstance(link, str | Path | bytes) or not isinstance(role, str | None):
        raise InvalidRequest(
            f'{where} must be an object with a url (a URL, a Path or bytes) and a role: {{"url": …, "role": …}}, '
            f"not {short(item)}",
            field=name,
        )
    check_link(f"{where}.url", name, link)


def _check_known_model(request: VideoRequest) -> None:
    known = VIDEO_MODELS.get(request.model)
    if known is None:
        return
    given = request.given()
    check_fields(known, given)
    for name in known.references:
        check_count(known, name, len(given.get(name) or ()))
    if request.route == "generations":
        check_needed(known, request.body())
    for name, roles in known.roles.items():
        check_roles(known, name, roles, [item.get("role") for item in given.get(name) or ()])
    _check_together(request)


def _check_together(request: VideoRequest) -> None:
    """What a page says of two fields at once."""
    model, problem, name = request.model, None, ""
    if model.startswith("seedance-2"):
        roles = {item.get("role") for item in request.image_with_roles or ()}
        if "reference_image" in roles and len(roles) > 1:
            problem, name = "takes first and last frames or reference images, not both", "image_with_roles"
        elif request.audio_with_roles and not (request.image_with_roles or request.video_with_roles):
            problem, name = "takes audio only beside a picture or a video", "audio_with_roles"
    elif (
        model.startswith("MiniMax-Hailuo") and request.duration == 10 and (request.resolution or "").upper() == "1080P"
    ):
        problem, name = "makes 6 seconds at 1080P, not 10", "duration"
    elif model.startswith("gemini-omni-flash") and request.image_urls and request.video_list:
        problem, name = "takes image_urls or video_list, not both", "video_list"
    elif model == "kling-v2-6" and request.audio and request.mode == "std":
        problem, name = "makes sound with mode='pro' only", "audio"
    elif model in {"kling-v3-omni", "kling-video-o1"} and request.audio and request.video_list:
        problem, name = "takes a video_list or audio, not both", "audio"
    if problem is not None:
        raise InvalidRequest(f"{model} {problem}; extra={{{name!r}: …}} sends it unchecked", field=name)


def is_off_peak(body: Mapping[str, object]) -> bool:
    """Whether the service was told to take its time for a video, up to 48 hours (Vidu's `off_peak` [docs])."""
    return body.get("off_peak") is True or member_of(body, "metadata.off_peak") is True
