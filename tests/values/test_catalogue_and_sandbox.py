"""The client's catalogue and the sandbox's were written apart, from the same pages: what one lets through the other
understands, and a reference that is sent is a reference that is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.protocol.endpoints import endpoint_of
from toapis_async.protocol.wire import encode_request, form_of
from toapis_async.request import IMAGE_MODELS, VIDEO_MODELS, ImageRequest, VideoRequest
from toapis_async.sandbox.catalogue import IMAGE_MODELS as SANDBOX_IMAGE_MODELS
from toapis_async.sandbox.validation import check_encoding, form_fields, understand_image
from toapis_async.sandbox.video_catalogue import VIDEO_MODELS as SANDBOX_VIDEO_MODELS
from toapis_async.sandbox.video_validation import understand_video

if TYPE_CHECKING:
    from toapis_async.request.catalogue import KnownModel, Value

LINK = "https://files.toapis.com/a.png"
NEEDS: dict[str, Any] = {"image_urls": [LINK], "image": LINK}


def read(request: ImageRequest) -> Any:
    """What the sandbox makes of what is sent."""
    endpoint = endpoint_of(request)
    body = json.loads(json.dumps(encode_request(request, (), "biz")))
    fields = form_fields(list(form_of(body).items())) if endpoint.is_form else body
    path = f"/v1{endpoint.submit_path}"
    check_encoding(fields, path, form=endpoint.is_form)
    return understand_image(fields, path)


def values_of(model: KnownModel) -> list[tuple[str, Value]]:
    """Each documented value of each field, and the ends of each range."""
    found: list[tuple[str, Value]] = []
    for name, rule in model.rules.items():
        ends = [end for end in (rule.least, rule.most) if end is not None] if rule.least is not None else []
        found += [(name, value) for value in (*rule.choices, *ends)]
    return found


def fields_with(name: str, value: object) -> dict[str, Any]:
    outer, _, inner = name.partition(".")
    return {outer: {inner: value} if inner else value}


def test_the_catalogues_know_the_same_models() -> None:
    assert IMAGE_MODELS.keys() == SANDBOX_IMAGE_MODELS.keys()
    assert VIDEO_MODELS.keys() == SANDBOX_VIDEO_MODELS.keys()


@pytest.mark.parametrize("given", ["reference_images", "image_urls"])
@pytest.mark.parametrize("model", [name for name in IMAGE_MODELS if IMAGE_MODELS[name].references])
def test_a_reference_under_either_name_is_read_by_every_model(model: str, given: str) -> None:
    fields: dict[str, Any] = {given: [LINK]}
    assert read(ImageRequest("a kite", model=model, **fields)).references == (LINK,)
    if IMAGE_MODELS[model].edits == "multipart":
        assert read(ImageRequest("a kite", model=model, **fields, endpoint="edits")).references == (LINK,)


@pytest.mark.parametrize("model", IMAGE_MODELS)
def test_what_passes_the_checks_of_an_image_model_is_understood(model: str) -> None:
    needed = {name: NEEDS[name] for name in IMAGE_MODELS[model].needs}
    read(ImageRequest("a kite", model=model, **needed))
    for name, value in values_of(IMAGE_MODELS[model]):
        oblong: dict[str, Any] = (
            {"size": "16:9"} if (model, value) == ("gpt-image-2-official", "4k") else {}
        )  # there is no 1:1
        read(ImageRequest("a kite", model=model, **needed, **oblong, **fields_with(name, value)))


@pytest.mark.parametrize("model", sorted(VIDEO_MODELS))
def test_what_passes_the_checks_of_a_video_model_is_understood(model: str) -> None:
    known = VIDEO_MODELS[model]
    needed = {name: NEEDS[name] for name in known.needs[:1]}
    understand_video(VideoRequest("a boat", model=model, **needed).body())
    for name, value in values_of(known):
        request = VideoRequest("a boat", model=model, **needed, **fields_with(name, value))
        understand_video(json.loads(json.dumps(request.body())))
