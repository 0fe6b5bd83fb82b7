"""Every known image model: the name its references go out under, and the values that its page rules out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toapis_async.errors import InvalidRequest
from toapis_async.request import IMAGE_MODELS, VIDEO_MODELS, ImageRequest, files_in, with_links
from toapis_async.request.catalogue import facts_of

LINK = "https://files.toapis.com/a.png"
OTHER = "https://files.toapis.com/b.png"
UNKNOWN = "a-model-of-next-year"

OLD_NAME = [
    "gpt-image-2-official",
    "gpt-image-2.5-flare-official",
    "gpt-image-2.5-sunburst-official",
    "gemini-2.5-flash-image-preview",
    "gemini-3-pro-image-preview",
    "gemini-3.1-flash-image-preview",
    "gemini-3.1-flash-image",
    "gemini-2.5-flash-image-official",
    "gemini-2.5-flash-image-preview-official",
    "gemini-2.5-flash-image",
    "gemini-3-pro-image",
    "gemini-3-pro-image-official",
    "gemini-3-pro-image-preview-official",
    "gemini-3.1-flash-image-preview-official",
    "gemini-3.1-flash-image-official",
    "doubao-seedream-4-0",
    "doubao-seedream-4-5",
    "doubao-seedream-5-0",
    "doubao-seedream-5-0-pro",
    "flux-2-pro",
    "flux-2-flex",
    "flux-kontext-pro",
    "flux-kontext-max",
    "gpt-4o-image",
    "grok-4-1-image",
    "grok-4-2-image",
    "grok-imagine-1.0-edit",
    "viduq2-fast",
    "viduq2-pro",
    "viduq3-fast",
    "vidu-image",
    "qwen-image-3.0-pro",
]
BOTH_NAMES = [
    "gpt-image-2",
    "gpt-image-2.5-flare",
    "gpt-image-2.5-flare-vip",
    "gpt-image-2.5-sunburst",
    "gpt-image-2.5-sunburst-vip",
]


def sent(**fields: Any) -> dict[str, Any]:
    body = ImageRequest("a kite", **fields).body()
    return {name: body[name] for name in ("reference_images", "image_urls", "mask_url", "image") if name in body}


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        ImageRequest(**{"prompt": "a kite", **fields})
    assert len(str(caught.value)) < 250
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ names of references


@pytest.mark.parametrize("reference", [LINK, Path("kite.png"), b"\x89PNG"])
@pytest.mark.parametrize("given", ["reference_images", "image_urls"])
def test_references_go_out_under_the_name_that_the_page_lists(given: str, reference: object) -> None:
    for model in OLD_NAME:
        assert sent(model=model, **{given: [reference]}) == {"image_urls": [reference]}
    assert sent(**{given: [reference]}) == {"reference_images": [reference]}
    for model in (*BOTH_NAMES, UNKNOWN, "gpt-image-2-vip2"):
        assert sent(model=model, **{given: [reference]}) == {given: [reference]}


def test_the_lists_above_are_all_known_models_but_those_apart() -> None:
    assert {*OLD_NAME, *BOTH_NAMES, "gpt-image-2-vip", "grok-imagine-1.0"} == IMAGE_MODELS.keys()


@pytest.mark.parametrize("model", BOTH_NAMES)
def test_a_mask_implies_image_urls_where_the_page_lists_both(model: str) -> None:
    fields: dict[str, Any] = {"model": model, "reference_images": [LINK]}
    assert sent(**fields, mask_url=OTHER) == {"image_urls": [LINK], "mask_url": OTHER}
    assert sent(**fields, extra={"mask_url": OTHER}) == {"image_urls": [LINK], "mask_url": OTHER}


def test_both_names_together_are_folded_for_vip_and_stay_the_callers_for_an_unknown_model() -> None:
    both: dict[str, Any] = {"reference_images": [LINK], "image_urls": [OTHER]}
    assert sent(**both) == {"reference_images": [LINK, OTHER]}
    assert sent(**both, model="flux-2-pro") == {"image_urls": [LINK, OTHER]}
    assert sent(**both, model=UNKNOWN) == both


def test_a_changed_copy_keeps_the_names_that_the_caller_used() -> None:
    request = ImageRequest("a kite", model=UNKNOWN, reference_images=[LINK], image_urls=[OTHER])
    copy = ImageRequest.of(request, prompt="another")
    assert copy.body() == {**request.body(), "prompt": "another"}
    assert ImageRequest.of(request, image_urls=[LINK]).body()["image_urls"] == [LINK]


def test_the_name_of_references_is_no_part_of_what_was_asked_for() -> None:
    new = ImageRequest("a kite", model=UNKNOWN, reference_images=[LINK])
    old = ImageRequest("a kite", model=UNKNOWN, image_urls=[LINK])
    assert new == old
    assert new.given() == old.given()
    assert new.body() != old.body()


def test_files_in_objects_and_masks_are_uploaded_in_the_order_in_which_they_are_sent() -> None:
    request = ImageRequest(
        "a kite",
        model="gemini-3-pro-image-preview",
        reference_images=[{"url": b"first"}, LINK, Path("second.png")],
        mask_url=b"mask",
    )
    files = request.local_files()
    assert sorted(map(str, files)) == sorted(map(str, [b"first", Path("second.png"), b"mask"]))
    links = {file: f"https://up.example/{place}" for place, file in enumerate(files)}
    body = with_links(request.body(), list(links.values()))
    assert files_in(body) == ()
    assert body["image_urls"] == [{"url": links[b"first"]}, LINK, links[Path("second.png")]]
    assert body["mask_url"] == links[b"mask"]


def test_a_file_that_extra_replaces_is_not_uploaded() -> None:
    request = ImageRequest("a kite", reference_images=[b"file"], extra={"reference_images": [LINK]})
    assert request.local_files() == ()
    assert request.body()["reference_images"] == [LINK]


# ------------------------------------------------------------------------------------------------ endpoints


def test_the_model_decides_where_a_request_goes_unless_the_caller_says() -> None:
    assert ImageRequest("a").route == "generations"
    assert ImageRequest("a", model="grok-imagine-1.0-edit", image_urls=[LINK]).route == "edits"
    assert ImageRequest("a", model=UNKNOWN, endpoint="edits").route == "edits"
    edit = ImageRequest("a", model="gpt-image-2.5-flare-vip", reference_images=[LINK], endpoint="edits")
    assert edit.route == "edits"
    assert edit.body() == {"prompt": "a", "model": "gpt-image-2.5-flare-vip", "image": LINK}
    assert edit.given()["endpoint"] == "edits"
    assert "'generations' or 'edits'" in refused(endpoint="variations")


# ------------------------------------------------------------------------------------------------ values of fields


@pytest.mark.parametrize(
    ("model", "field", "value", "allowed"),
    [
        ("gpt-image-2-vip", "quality", "auto", "low, medium, high"),
        ("gpt-image-2", "size", "7:5", "21:9"),
        ("gpt-image-2", "background", "auto", "transparent"),
        ("gpt-image-2", "n", 11, "from 1 to 10"),
        ("gpt-image-2", "n", 0, "from 1 to 10"),
        ("gpt-image-2", "output_compression", 101, "from 0 to 100"),
        ("gpt-image-2", "output_format", "gif", "png, jpeg"),
        ("gpt-image-2-official", "resolution", "8k", "1k, 2k, 4k"),
        ("gpt-image-2.5-flare", "quality", "low", "high"),
        ("gpt-image-2.5-flare", "n", 2, "takes 1;"),
        ("gpt-image-2.5-flare", "size", "2:1", "21:9"),
        ("gpt-image-2.5-sunburst-vip", "size", "1:1", "pixels such as 1024x1024"),
        ("gpt-image-2.5-sunburst-official", "quality", "ultra", "xhigh, max"),
        ("gemini-3-pro-image-preview", "n", 2, "takes 1;"),
        ("gemini-3-pro-image-preview", "metadata", {"resolution": "0.5K"}, "1K, 2K, 4K"),
        ("gemini-3.1-flash-image-preview", "metadata", {"google_search": "yes"}, "True or False"),
        ("doubao-seedream-4-0", "n", 16, "from 1 to 15"),
        ("doubao-seedream-5-0-pro", "n", 11, "from 1 to 10"),
        ("doubao-seedream-4-5", "metadata", {"sequential_image_generation": "on"}, "auto, disabled"),
        ("flux-2-pro", "metadata", {"resolution": "4K"}, "1K, 2K"),
        ("flux-2-pro", "size", "wide", "a ratio such as 16:9"),
        ("gpt-4o-image", "n", 3, "1, 2, 4"),
        ("grok-4-2-image", "n", 3, "1, 2, 4"),
        ("grok-imagine-1.0", "n", 11, "from 1 to 10"),
        ("viduq2-fast", "metadata", {"resolution": "2K"}, "1K"),
        ("qwen-image-3.0-pro", "size", "16:9", "pixels"),
    ],
)
def test_a_wrong_value_names_the_model_what_it_takes_and_the_way_out(
    model: str, field: str, value: object, allowed: str
) -> None:
    message = refused(model=model, **{field: value})
    assert model in message
    assert allowed in message
    assert f"extra={{'{field}': …}} sends it unchecked" in message
    fields: dict[str, Any] = {field: value}
    assert ImageRequest("a kite", model=model, extra=fields).body()[field] == value
    assert ImageRequest("a kite", model=UNKNOWN, **fields).body()[field] == value


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("gpt-image-2", {"size": "auto", "resolution": "4K", "n": 10, "quality": "HIGH", "background": "transparent"}),
        ("gpt-image-2-official", {"size": "16:9", "resolution": "4k"}),
        ("gpt-image-2.5-flare", {"resolution": "2k", "size": "21:9"}),
        ("gpt-image-2.5-flare-vip", {"size": "1536x864", "quality": "xhigh"}),
        ("gemini-3.1-flash-image-preview", {"size": "1:8", "metadata": {"resolution": "0.5k", "unheard_of": 1}}),
        ("doubao-seedream-4-0", {"n": 5, "image_urls": [LINK] * 10}),
        ("doubao-seedream-5-0-pro", {"layer_decomposition": True}),
        ("vidu-image", {"size": "1024*1024", "seed": -5}),
        ("grok-imagine-1.0", {"quality": "unheard-of"}),
    ],
)
def test_what_a_page_lists_or_does_not_mention_is_taken(model: str, fields: dict[str, Any]) -> None:
    ImageRequest("a kite", model=model, **fields)


@pytest.mark.parametrize(
    ("model", "given", "most"),
    [
        ("gpt-image-2", "reference_images", 6),
        ("gpt-image-2", "image_urls", 16),
        ("gpt-image-2-official", "reference_images", 16),
        ("gemini-2.5-flash-image-official", "image_urls", 3),
        ("gemini-3-pro-image-preview", "image_urls", 14),
        ("doubao-seedream-5-0-pro", "image_urls", 10),
        ("flux-2-flex", "image_urls", 8),
        ("flux-kontext-max", "reference_images", 1),
        ("gpt-4o-image", "image_urls", 5),
        ("qwen-image-3.0-pro", "image_urls", 3),
    ],
)
def test_more_references_than_a_model_reads_are_refused(model: str, given: str, most: int) -> None:
    ImageRequest("a kite", model=model, **{given: [LINK] * most})  # type: ignore[arg-type]
    message = refused(model=model, **{given: [LINK] * (most + 1)})
    assert f"{model} takes at most {most}" in message
    assert "sends it unchecked" in message


def test_references_that_a_model_would_not_read_or_needs_are_told() -> None:
    assert "grok-imagine-1.0 takes no references" in refused(model="grok-imagine-1.0", image_urls=[LINK])
    assert "grok-imagine-1.0-edit works from image_urls, which is missing" in refused(model="grok-imagine-1.0-edit")
    message = refused(model="doubao-seedream-4-5", n=8, image_urls=[LINK] * 8)
    assert "at most 15 together" in message
    many = refused(model="gpt-image-2.5-sunburst-vip", image_urls=[LINK, LINK], endpoint="edits")
    assert "one image on its edits endpoint" in many


def test_the_one_size_that_official_does_not_make_is_refused() -> None:
    for fields in ({"size": "1:1", "resolution": "4k"}, {"resolution": "4K"}):
        message = refused(model="gpt-image-2-official", **fields)
        assert "gpt-image-2-official makes no 1:1 at 4k" in message


@pytest.mark.parametrize("model", ["gpt-image-2-vip", "flux-2-pro", UNKNOWN])
@pytest.mark.parametrize(
    ("size", "ratio"), [("16:09", "16:9"), ("3:04", "3:4"), ("01:01", "1:1"), ("16:09:00", "16:9"), ("09:16", "9:16")]
)
def test_a_ratio_that_a_spreadsheet_made_a_time_of_is_refused(model: str, size: str, ratio: str) -> None:
    assert f"write {ratio}" in refused(model=model, size=size)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mask_url": "mask.png"}, "mask_url='mask.png' is not an http(s) URL"),
        ({"mask_url": 5}, "mask_url must be a URL, a Path or bytes"),
        ({"seed": "5"}, "seed must be a whole number"),
        ({"output_compression": 1.0}, "output_compression must be a whole number"),
        ({"layer_decomposition": "yes"}, "layer_decomposition must be True or False"),
        ({"output_format": 5}, "output_format must be text"),
    ],
)
@pytest.mark.parametrize("model", ["gpt-image-2-vip", UNKNOWN])
def test_the_new_fields_have_types_whatever_the_model(model: str, fields: dict[str, Any], words: str) -> None:
    assert words in refused(model=model, **fields)


def test_a_reference_that_is_a_file_name_is_refused_for_known_models() -> None:
    assert "image_urls[1]='b.png' is not an http(s) URL" in refused(model="flux-2-pro", image_urls=[LINK, "b.png"])
    assert "looks like base64" in refused(model="flux-2-pro", image_urls=["iVBOR" * 900])
    ImageRequest("a kite", model="flux-2-pro", image_urls=["data:image/png;base64,AAAA", "asset://a-1"])


def test_a_model_near_a_known_one_is_no_mistake() -> None:
    assert ImageRequest("a kite", model="gpt-image-2-vlp", size="auto", n=0).body()["size"] == "auto"


@pytest.mark.parametrize(
    ("model", "facts"),
    [
        ("gpt-image-2", {"image_urls": "at most 16 links or files", "n": "a whole number from 1 to 10 (left out: 1)"}),
        ("grok-imagine-1.0", {"references": "none"}),
        ("grok-imagine-1.0-edit", {"endpoint": "edits", "needed": "image_urls", "image_urls": "links or files"}),
        (
            "seedance-2",
            {"image_with_roles": "first_frame (at most 1), last_frame (at most 1), reference_image (at most 9)"},
        ),
    ],
)
def test_what_a_model_takes_can_be_told_in_words(model: str, facts: dict[str, str]) -> None:
    known = {**IMAGE_MODELS, **VIDEO_MODELS}[model]
    assert facts.items() <= dict(facts_of(known)).items()
