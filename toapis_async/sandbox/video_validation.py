"""What the service reads of a submission of a video, and what it refuses. Pure: a JSON value in, a `VideoJob` or a
refusal out. Fields that a model's page does not list are not read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

from toapis_async.sandbox.jobs import (
    Job,
    JsonObject,
    VideoJob,
    check_types,
    chosen,
    client_business_id_of,
    invalid,
    is_url,
    metadata_of,
    model_name,
    no_channel,
    object_of,
    prompt_of,
)
from toapis_async.sandbox.validation import understand_image
from toapis_async.sandbox.video_catalogue import PIXELS_OF, VIDEO_MODELS, VideoModel

if TYPE_CHECKING:
    from collections.abc import Iterator

VIDEOS: Final = "/v1/videos/generations"
LONGEST_S: Final = 60
"""Where no range is published."""
_OFF_PEAK_S: Final = 6 * 3600.0
_SOURCE = re.compile(r"/v1/videos/([^/]+)/(remix|extend)")
_RATIO = re.compile(r"([1-9]\d?):([1-9]\d?)")
_PLACES: Final = ("url", "image_url", "video_url", "audio_url")
_SCHEMES: Final = ("http://", "https://", "asset://")
_FLAGS: Final = ("generate_audio", "return_last_frame", "audio", "watermark", "prompt_extend", "thumbnail")
_OF_ROLES: Final = ("image_with_roles", "video_with_roles", "audio_with_roles")


def understand_video(body: object, path: str = VIDEOS) -> VideoJob:
    """Read a submission's JSON value; raises `RefusedError` as the service would refuse it."""
    fields = object_of(body)
    model, source_id = _model(fields, path)
    metadata = metadata_of(fields)
    _check_types(fields, metadata)
    inputs = _inputs(model, fields, metadata)
    _check_inputs(model, fields, inputs, remixed=source_id is not None)
    prompt = prompt_of(fields, model.prompt_limit, optional=any(inputs.values()))
    resolution = _resolution(model, fields, metadata)
    duration_s, n = _duration_s(model, fields, resolution), _n(model, metadata)
    ratio = _ratio(model, fields)
    width, height = frame_size(ratio, PIXELS_OF[resolution.lower()])
    searches = 1 if _searches(fields, inputs) else 0
    off_peak = metadata.get("off_peak") is True
    return VideoJob(
        kind="video",
        path=path,
        model=model.name,
        prompt=prompt,
        size=ratio,
        resolution=resolution,
        quality="",
        n=n,
        width=width,
        height=height,
        output_format=_output_format(fields, metadata),
        references=tuple(url for urls in inputs.values() for url in urls),
        client_business_id=client_business_id_of(fields, metadata),
        callback_url=cast("str | None", fields.get("callback_url")),
        charge=model.charge(resolution, duration_s, n, searches),
        median_s=_OFF_PEAK_S if off_peak else model.median_s * (0.6 + 0.08 * duration_s),
        duration_s=duration_s,
        with_last_frame=fields.get("return_last_frame") is True,
        source_id=source_id,
        body=fields,
    )


def frame_size(ratio: str, shorter: int) -> tuple[int, int]:
    """Width and height, both even, of a ratio at a length of the shorter side; what is no ratio is 16:9."""
    match = _RATIO.fullmatch(ratio)
    across, down = (int(match[1]), int(match[2])) if match else (16, 9)
    longer = round(shorter * max(across, down) / min(across, down) / 2) * 2
    return (longer, shorter) if across >= down else (shorter, longer)


def _model(fields: JsonObject, path: str) -> tuple[VideoModel, str | None]:
    """The model, and the id of the video that is remixed or extended."""
    name = model_name(fields)
    model = VIDEO_MODELS.get(name)
    if model is None:
        raise no_channel(name)
    match = _SOURCE.fullmatch(path)
    if match is None:
        return model, None
    if not (model.remixes if match[2] == "remix" else model.extends):
        raise invalid(f"model {name} can't {match[2]} a video", "model")
    return model, match[1]


def _check_types(fields: JsonObject, metadata: JsonObject) -> None:
    check_types(fields, ("callback_url", "negative_prompt", "trace_id"), str)
    check_types(fields, ("seed",), int)
    check_types(fields, _FLAGS, bool)
    check_types(metadata, ("off_peak", "enable_gif"), bool, "metadata.")


def _duration_s(model: VideoModel, fields: JsonObject, resolution: str) -> int:
    value = fields.get("duration")
    if value is None:
        return model.duration
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid("duration must be a JSON number without a fraction", "duration")
    if value not in (model.durations or range(1, LONGEST_S + 1)):
        raise invalid(f"duration must be {_durations(model)}", "duration")
    longest = model.longest_1080p_s
    if longest is not None and value > longest and resolution == "1080P":
        raise invalid(f"duration may be at most {longest} at 1080P", "duration")
    return model.duration if value <= 0 else value


def _durations(model: VideoModel) -> str:
    if not model.durations:
        return f"between 1 and {LONGEST_S}"
    positive = sorted(one for one in model.durations if one > 0)
    others = "".join(f", or {one}" for one in model.durations if one <= 0)
    if positive == list(range(positive[0], positive[-1] + 1)):
        return f"between {positive[0]} and {positive[-1]}{others}"
    return f"one of {', '.join(map(str, positive))}{others}"


def _resolution(model: VideoModel, fields: JsonObject, metadata: JsonObject) -> str:
    in_metadata = model.resolution_field.startswith("metadata.")
    value = (metadata if in_metadata else fields).get(model.resolution_field.removeprefix("metadata."))
    if value is None or not model.resolutions:
        return model.resolution
    return chosen(value, model.resolutions, model.resolution_field, any_case=True)


def _ratio(model: VideoModel, fields: JsonObject) -> str:
    value = fields.get(model.ratio_field)
    if value is None:
        return model.ratio
    if model.ratios:
        return chosen(value, model.ratios, model.ratio_field)
    if not isinstance(value, str) or not (value == "adaptive" or _RATIO.fullmatch(value)):
        raise invalid(f"{model.ratio_field} must be a ratio such as 16:9", model.ratio_field)
    return value


def _n(model: VideoModel, metadata: JsonObject) -> int:
    value = metadata.get("n", 1)
    if model.most == 1:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= model.most:
        raise invalid(f"metadata.n must be a JSON number between 1 and {model.most}", "metadata.n")
    return value


def _output_format(fields: JsonObject, metadata: JsonObject) -> str:
    if metadata.get("enable_gif") is True and str(fields.get("model")).startswith("veo"):
        return "gif"
    if fields.get("model", "") not in {"seedance-2-5", "seedance-2-5-cn", "seedance-2-5-global"}:
        return "mp4"
    value = fields.get("output_format")
    return "mp4" if value is None else chosen(value, ("mp4", "mov"), "output_format")


def _searches(fields: JsonObject, inputs: dict[str, list[str]]) -> bool:
    tools = fields.get("tools")
    if tools is None or not str(fields.get("model")).startswith("seedance-2"):
        return False
    if not isinstance(tools, list) or not all(tool == {"type": "web_search"} for tool in cast("list[object]", tools)):
        raise invalid('tools must be [{"type": "web_search"}]', "tools")
    if any(inputs.values()):
        raise invalid("tools may only be used with text alone", "tools")
    return bool(cast("list[object]", tools))


def _inputs(model: VideoModel, fields: JsonObject, metadata: JsonObject) -> dict[str, list[str]]:
    """The URLs of every input that the model reads."""
    found: dict[str, list[str]] = {}
    for name, most in model.inputs.items():
        place = metadata if name.startswith("metadata.") else fields
        value = place.get(name.removeprefix("metadata."))
        urls = [] if value is None else list(_urls(value, name))
        if most is not None and len(urls) > most:
            raise invalid(f"{name} may hold at most {most} {'URL' if most == 1 else 'URLs'}", name)
        found[name] = urls[:1] if name == "image_urls" and model.first_only else urls
    return found


def _urls(value: object, name: str) -> Iterator[str]:
    """The URLs of a text, a list of texts, or a list of objects."""
    if name in _OF_ROLES and not isinstance(value, list):
        raise invalid(f'{name} must be a list of objects such as {{"url": "https://…", "role": "…"}}', name)
    for item in cast("list[object]", value) if isinstance(value, list) else [value]:
        url = item
        if isinstance(item, dict):
            given = cast("JsonObject", item)
            url = next((given[place] for place in _PLACES if place in given), None)
        elif name in _OF_ROLES:
            raise invalid(f"{name} must hold objects with a url and a role", name)
        if not is_url(url, _SCHEMES):
            raise invalid(f"{name}: send http(s) or asset:// URLs", name)
        yield cast("str", url)


def _check_inputs(model: VideoModel, fields: JsonObject, inputs: dict[str, list[str]], *, remixed: bool) -> None:
    given = {name for name, urls in inputs.items() if urls}
    with_roles = given & set(_OF_ROLES)
    if "image_urls" in given and with_roles:
        raise invalid("image_urls can't be used beside roles", "image_urls")
    if given and given <= {"audio_with_roles"}:
        raise invalid("audio_with_roles can't be used alone: add an image or a video", "audio_with_roles")
    if len(given & set(model.apart)) > 1:
        raise invalid(f"use only one of {', '.join(model.apart)}", model.apart[0])
    if model.needs and not given & set(model.needs) and not remixed:
        raise invalid(f"model {model.name} needs {' or '.join(model.needs)}", model.needs[0])
    for name in with_roles:
        _check_roles(model, name, cast("list[JsonObject]", fields[name]))
    if fields.get("audio") is True and "video_list" in given:
        raise invalid("audio can't be used with video_list", "audio")
    if fields.get("audio") is True and model.audio_needs_pro and fields.get("mode") != "pro":
        raise invalid("audio needs mode pro", "audio")
    if model.actions and fields.get("action") is not None:
        chosen(fields["action"], model.actions, "action")


def _check_roles(model: VideoModel, name: str, items: list[JsonObject]) -> None:
    kind = name.partition("_")[0]
    allowed = {f"reference_{kind}": model.inputs[name]} if kind != "image" and model.roles else model.roles
    roles = [item.get("role") for item in items]
    for role in roles:
        if not isinstance(role, str) or (allowed and role not in allowed):
            raise invalid(f"{name}.role must be one of {', '.join(allowed)}", f"{name}.role")
    for role, most in allowed.items():
        if most is not None and roles.count(role) > most:
            raise invalid(f"{name} may hold at most {most} of role {role}", name)
    if "reference_image" in roles and set(roles) != {"reference_image"}:
        raise invalid(f"{name}: use frames or reference images, not both", name)


def understand(body: object, path: str) -> Job:
    """Read a submission that came to a path; raises `RefusedError`."""
    return understand_video(body, path) if path.startswith("/v1/videos/") else understand_image(body, path)
