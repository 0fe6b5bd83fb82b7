"""The files of a finished task, wherever an answer has them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, cast

import cattrs
from attrs import define, evolve, fields
from cattrs.gen import make_dict_structure_fn, override

from toapis_async.protocol.lenient import JsonObject, as_object, read_text, read_text_or_none, unreadable
from toapis_async.protocol.lifecycle import claim_of
from toapis_async.protocol.links import is_data
from toapis_async.request import is_http_url
from toapis_async.task import GeneratedImage, GeneratedVideo, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from toapis_async.models import Generation
    from toapis_async.protocol.lenient import Answer
    from toapis_async.request import Kind

_INLINE = "data:application/octet-stream;base64,"
"""What `b64_json` is as a link: a file is named by its bytes, so the type is of no use."""
_HOLDS_FILES: Final = re.compile(
    r"(result|data|outputs?|images?|videos?|content|response|(video|result|output)_?urls?)(_?json)?", re.IGNORECASE
)
"""Top-level members in which gateways have files of a result."""
_NAMES_A_FILE: Final = re.compile(
    r"(.*(url|uri|link|image|video|file|output|result)s?|src|data|b64_json)", re.IGNORECASE
)
_BESIDE: Final = re.compile(
    r"reference|mask|callback|input|thumb|preview|cover|poster|frame|avatar|icon|source|web_?hook", re.IGNORECASE
)
"""Members that are no file of the result: what it was made from, and small pictures of it."""
_DEEPEST: Final = 8


@define
class File:
    """One file of a result."""

    url: str | None = None
    b64_json: str | None = None
    last_frame_url: str | None = None
    format: str | None = None

    @property
    def link(self) -> str | None:
        return self.url or (_inline(self.b64_json) if self.b64_json and self.b64_json.isascii() else None)


@define
class _Result:
    data: list[File] | None = None


@define
class _Places:
    """Every place where links have been seen, best known first."""

    result: _Result | None = None
    url: str | None = None
    data: list[File] | None = None
    output: list[File] | None = None
    outputs: list[File] | None = None
    images: list[File] | None = None
    videos: list[File] | None = None

    def files(self) -> list[File]:
        places = (
            self.result.data if self.result else None,
            [File(self.url)],
            self.data,
            self.output,
            self.outputs,
            self.images,
            self.videos,
        )
        for place in places:
            if found := [file for file in place or () if file.link]:
                return found
        return []


def read_files(answer: Answer, body: JsonObject) -> list[File]:
    """The files of a completed task, from the first place that has any. It is paid for: an odd member beside a good
    link, or an odd place before one, must not hide it. Raises `UnreadableAnswer` only when there is no link at all and
    something is odd."""
    first_error: str | None = None
    for name in (a.name for a in fields(_Places) if a.name in body):
        try:
            files = _strict.structure({name: body[name]}, _Places).files()
        except cattrs.BaseValidationError as error:
            line = cattrs.transform_error(error, path="$", format_exception=lambda e, _: str(e))[0]
            first_error = first_error or line
            files = _salvaged(body[name])
        if files:
            return files
    if files := _found_anywhere(body) or _in_place_of_a_reason(body):
        return files
    if first_error is not None:
        message, _, place = first_error.rpartition(" @ ")
        raise unreadable(answer, message, place)
    return []


def images_of(files: list[File], expires_at: datetime | None) -> tuple[GeneratedImage, ...]:
    """Files as images."""
    return tuple(GeneratedImage(file.link, expires_at) for file in files if file.link)


def videos_of(files: list[File], expires_at: datetime | None) -> tuple[GeneratedVideo, ...]:
    """Files as videos."""
    return tuple(GeneratedVideo(file.link, expires_at, file.last_frame_url, file.format) for file in files if file.link)


def without_data(generation: Generation) -> Generation:
    """A generation whose files are on disk, without the data of those that came inside the answer: they are large."""
    if not any(is_data(file.url) for file in generation.files):
        return generation
    return evolve(
        generation,
        images=tuple(evolve(image, url=_emptied(image.url)) for image in generation.images),
        videos=tuple(evolve(video, url=_emptied(video.url)) for video in generation.videos),
        raw=body_without_data(generation.raw),
    )


def body_without_data(body: Mapping[str, Any]) -> JsonObject:
    """A task object without the data of files inside it."""
    return {name: _without_data(name, value) for name, value in body.items()}


def _without_data(name: str, value: object) -> object:
    if isinstance(value, str):
        return "" if name == "b64_json" else _emptied(value)
    if isinstance(value, list):
        return [_without_data(name, member) for member in cast("list[object]", value)]
    members = as_object(value)
    return value if members is None else body_without_data(members)


def _emptied(link: str) -> str:
    return "data:," if is_data(link) else link


def kind_of(body: JsonObject) -> Kind | None:
    """What a task object says it makes; None when it does not say."""
    result = as_object(body.get("result")) or {}
    for word in (result.get("type"), body.get("task_type"), body.get("object")):
        if word == "video" or word == "image":  # noqa: PLR1714  (keeps the literal type)
            return "video" if word == "video" else "image"
    return None


def _salvaged(value: object) -> list[File]:
    """What can be read in a place that as a whole can't."""
    found = (as_object(value) or {}).get("data", value)
    members = cast("list[object]", found) if isinstance(found, list) else [found]
    files = [_salvaged_file(member) for member in members]
    return [file for file in files if file.link]


def _salvaged_file(member: object) -> File:
    parts = {"url": member} if isinstance(member, str) else as_object(member) or {}
    url, inline = parts.get("url"), parts.get("b64_json")
    return File(
        url if isinstance(url, str) and (is_http_url(url) or url.startswith(("data:", "/"))) else None,
        inline if isinstance(inline, str) else None,
        read_text_or_none(parts.get("last_frame_url")),
        read_text_or_none(parts.get("format")),
    )


def _found_anywhere(body: JsonObject) -> list[File]:
    """Files under names and at depths of other gateways, when the places that are known have none."""
    found = (file for name, value in body.items() if _HOLDS_FILES.fullmatch(name) for file in _files_in(name, value))
    return list({file.link: file for file in found}.values())


def _in_place_of_a_reason(body: JsonObject) -> list[File]:
    """Gateways of the same family keep the link of a task that succeeded where the reason of a failure stands."""
    link = read_text(body.get("fail_reason")).strip()
    has_failed = claim_of(read_text(body.get("status"))) is TaskStatus.FAILED
    return [File(link)] if is_http_url(link) and not has_failed else []


def _files_in(name: str, value: object, depth: int = 0) -> list[File]:
    """The files in a member: each of a list, and of an object the first that is named as one, else all below it."""
    if _BESIDE.search(name) or depth > _DEEPEST:
        return []
    if isinstance(value, str):
        if value[:1] in {"{", "["}:
            return _files_in(name, _json_in(value), depth + 1)
        inline = File(b64_json=value) if name == "b64_json" and value else None
        linked = File(value) if is_http_url(value) or is_data(value) else None
        return [file for file in (inline or linked,) if file is not None and _NAMES_A_FILE.fullmatch(name)]
    if isinstance(value, list):
        return [file for each in cast("list[object]", value) for file in _files_in(name, each, depth + 1)]
    members = (as_object(value) or {}).items()
    own = (_files_in(each, member, depth) for each, member in members if isinstance(member, str))
    first = next((files for files in own if files), None)
    return first or [file for each, member in members for file in _files_in(each, member, depth + 1)]


def _json_in(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _inline(encoded: str) -> str:
    return encoded if encoded.startswith("data:") else _INLINE + encoded


# ---------------------------------------------------------------------------------------------- structure


def _strict_text(value: object, _: object) -> str:
    # cattrs would turn None into 'None' and 5 into '5': a link must be a text or an error.
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _mapping(value: object) -> JsonObject:
    members = as_object(value)
    if members is None:
        raise TypeError(f"expected a link or an object with one, got {type(value).__name__}")
    return members


def _make_strict() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _strict_text)
    beside_the_link = override(struct_hook=read_text_or_none)
    file_from_object = make_dict_structure_fn(File, converter, last_frame_url=beside_the_link, format=beside_the_link)
    result_from_object = make_dict_structure_fn(_Result, converter)

    def file(value: object, kind: type[File]) -> File:
        return File(value) if isinstance(value, str) else file_from_object(_mapping(value), kind)

    def result(value: object, kind: type[_Result]) -> _Result:
        return result_from_object(_mapping(value), kind)

    converter.register_structure_hook(File, file)
    converter.register_structure_hook(_Result, result)
    files_from_list = converter.get_structure_hook(list[File])

    def files(value: object, kind: Any) -> list[File]:
        # One link without its list (a text would otherwise be read letter by letter).
        links: list[File] = files_from_list(value if isinstance(value, list) else [value], kind)
        return links

    converter.register_structure_hook_func(lambda kind: kind == list[File], files)
    return converter


_strict = _make_strict()
