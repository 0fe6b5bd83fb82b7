"""Every check of a request, and the way past it."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.errors import InvalidRequest
from toapis_async.request import (
    FIELD_NAMES,
    RATIOS,
    ImageRequest,
    body_of,
    check_task_id,
    unknown_field,
)

LINK = "https://files.toapis.com/a.png"
ALL_RATIOS = ["1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "2:1", "1:2", "21:9", "9:21"]
UNCHECKED = "sends it unchecked"
UPLOADED = "it is uploaded for you"


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        ImageRequest(**{"prompt": "a kite", **fields})
    return caught.value


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


# ------------------------------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize("size", [*ALL_RATIOS, "3:1", "1:3", "7:5", "100:99", "00003:00001"])
def test_documented_ratios_and_custom_ones_within_three_to_one_are_accepted(size: str) -> None:
    assert ImageRequest("a", size=size).size == size


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x"},
        {"prompt": "x" * 32_000},
        {"prompt": "风" * 32_000},
        {"resolution": "1k"},
        {"resolution": "4k"},
        {"quality": "low"},
        {"quality": "high"},
        {"n": 1},
        {"n": 10**6},
        {"response_format": "url"},
        {"background": "transparent"},
        {"callback_url": "https://me.example/hook"},
        {"client_business_id": "order 7/é"},
        {"reference_images": [LINK, "http://10.0.0.1/a.png"]},
        {"reference_images": [LINK + "?signature=" + "x" * 5_000]},
        {"reference_images": (LINK,)},
        {"metadata": MappingProxyType({"a": None})},
    ],
)
def test_what_vip_takes_is_accepted(fields: dict[str, Any]) -> None:
    ImageRequest(**{"prompt": "a kite", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"prompt": "x" * 40_000},
        {"size": "auto"},
        {"size": "1024*1024"},
        {"resolution": "1K"},
        {"quality": "hd"},
        {"n": 0},
        {"reference_images": ["data:image/png;base64,AAAA"]},
        {"image_urls": [{"url": LINK}]},
    ],
)
def test_another_model_gets_only_the_generic_checks(fields: dict[str, Any]) -> None:
    fields = {"prompt": "a kite", **fields}
    ImageRequest(**fields, model="doubao-seedream-9-9")
    with pytest.raises(InvalidRequest):
        ImageRequest(**fields)


@pytest.mark.parametrize(
    ("name", "value"), [("size", "auto"), ("n", "1"), ("quality", "hd"), ("reference_images", ["data:x"]), ("sede", 5)]
)
def test_extra_is_the_way_past_every_check(name: str, value: object) -> None:
    assert ImageRequest("a", extra={name: value}).extra == {name: value}


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prompt", "", ["prompt is empty", "say what"]),
        ("prompt", " \n\t", ["prompt is empty", "say what"]),
        ("prompt", "x" * 32_001, ["prompt has 32,001 characters", "at most 32,000", "shorten"]),
        ("size", "auto", ["size='auto'", "not supported by the service", *ALL_RATIOS, "3:1", UNCHECKED]),
        ("size", "4:1", ["size='4:1'", "beyond 3:1", *ALL_RATIOS, UNCHECKED]),
        ("size", "1:4", ["size='1:4'", "beyond 3:1", UNCHECKED]),
        ("size", "0:0", ["size='0:0'", "beyond", UNCHECKED]),
        ("size", "1:0", ["size='1:0'", "beyond", UNCHECKED]),
        ("size", "1024x1024", ["size='1024x1024'", "not a ratio", "resolution='1k'", UNCHECKED]),
        ("size", "1024X1024", ["not a ratio", "resolution='1k'"]),
        ("size", "wide", ["size='wide'", "not a ratio", *ALL_RATIOS, UNCHECKED]),
        ("size", "16:9 ", ["not a ratio"]),
        ("size", "-1:1", ["not a ratio"]),
        ("size", "1.5:1", ["not a ratio"]),
        ("size", "\uff11:1", ["not a ratio"]),
        ("size", "", ["size=''", "not a ratio"]),
        ("resolution", "8k", ["resolution='8k'", "1k, 2k, 4k", UNCHECKED]),
        ("resolution", "1K", ["resolution='1K'", "1k, 2k, 4k", UNCHECKED]),
        ("quality", "hd", ["quality='hd'", "low, medium, high", UNCHECKED]),
        ("n", 0, ["n=0", "whole number from 1", UNCHECKED]),
        ("n", -1, ["n=-1", "whole number from 1", UNCHECKED]),
        ("n", True, ["n must be a whole number", "True"]),
        ("n", "1", ["n must be a whole number", "'1'"]),
        ("n", 1.0, ["n must be a whole number", "1.0"]),
        ("n", object, ["n must be a whole number", "object"]),
        ("reference_images", ["data:image/png;base64,AA"], ["reference_images[0]", "base64", "Path(", UPLOADED]),
        ("reference_images", [LINK, "iVBORw0KGgo" * 300], ["reference_images[1]", "base64", UPLOADED]),
        ("reference_images", ["kite.png"], ["reference_images[0]='kite.png'", "not an http(s) URL", UPLOADED]),
        ("reference_images", ["ftp://x.example/a.png"], ["not an http(s) URL", UPLOADED]),
        ("reference_images", ["https://"], ["not an http(s) URL"]),
        ("reference_images", ["http://[::1"], ["not an http(s) URL"]),
        ("reference_images", ["https://x.example:99999/a.png"], ["not an http(s) URL"]),
        ("reference_images", ["https://x.example:0/a.png"], ["not an http(s) URL"]),
        ("reference_images", ["https://x .example/a.png"], ["not an http(s) URL"]),
        ("reference_images", ["https://x.example/a\nb.png"], ["not an http(s) URL"]),
        ("reference_images", ["https://x.example/a\0.png"], ["not an http(s) URL"]),
        ("reference_images", [{"url": LINK}], ["reference_images[0]", "URL, a Path or bytes"]),
    ],
)
def test_vip_refuses_with_field_value_what_is_allowed_and_the_way_out(
    field: str, value: object, words: list[str]
) -> None:
    error = refused(**{field: value})
    assert error.field == field
    for word in words:
        assert word in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("model", ["gpt-image-2-vip", "flux-kontext-pro"])
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prompt", None, "prompt must be text, not None"),
        ("prompt", 5, "prompt must be text, not 5"),
        ("prompt", [1] * 10_000, "prompt must be text, not [1, 1"),
        ("size", 16 / 9, "size must be text, not 1.7"),
        ("resolution", 1, "resolution must be text, not 1"),
        ("quality", b"low", "quality must be text, not b'low'"),
        ("response_format", {}, "response_format must be text, not {}"),
        ("background", False, "background must be text, not False"),
        ("callback_url", 5, "callback_url must be text, not 5"),
        ("callback_url", "me.example/hook", "callback_url must be an http(s) URL, not 'me.example/hook'"),
        ("callback_url", "javascript:alert(1)", "callback_url must be an http(s) URL"),
        ("client_business_id", 7, "client_business_id must be text, not 7"),
        ("client_business_id", "", "client_business_id must be a non-empty text"),
        ("client_business_id", "a\nb", "client_business_id must be printable"),
        ("n", True, "n must be a whole number"),
        ("n", "1", "n must be a whole number"),
        ("reference_images", LINK, "must be a list, even for one image: reference_images=[…], not str"),
        ("reference_images", b"png", "must be a list, even for one image: reference_images=[…], not bytes"),
        ("reference_images", Path("a"), "must be a list, even for one image: reference_images=[…]"),
        ("reference_images", {"url": LINK}, "must be a list, even for one image"),
        ("reference_images", {LINK}, "must be a list, even for one image"),
        ("reference_images", 5, "must be a list, even for one image: reference_images=[…], not int"),
        ("reference_images", [5], "reference_images[0] must be a URL, a Path or bytes, not int"),
        ("reference_images", [LINK, None], "reference_images[1] must be a URL, a Path or bytes, not NoneType"),
        ("reference_images", [{"url": object()}], "reference_images can't be sent as JSON"),
        ("image_urls", LINK, "must be a list, even for one image: image_urls=[…], not str"),
        ("metadata", [1], "metadata must be a mapping, not list"),
        ("metadata", "a", "metadata must be a mapping, not str"),
        ("metadata", {"a": object()}, "metadata can't be sent as JSON: Object of type object"),
        ("metadata", {"a": float("nan")}, "metadata can't be sent as JSON: Out of range float"),
        ("metadata", {"a": b"x"}, "metadata can't be sent as JSON"),
        ("metadata", {(1, 2): 3}, "metadata can't be sent as JSON"),
        ("metadata", nested(100_000), "metadata can't be sent as JSON: maximum recursion"),
        ("extra", 5, "extra must be a mapping, not int"),
        ("extra", {"a": {1, 2}}, "extra can't be sent as JSON"),
    ],
)
def test_what_no_model_could_take_is_refused_for_all(model: str, field: str, value: object, words: str) -> None:
    error = refused(model=model, **{field: value})
    assert words in str(error)
    assert error.field == field
    assert len(str(error)) < 200


@pytest.mark.parametrize(("model", "words"), [("", "model is empty"), (5, "model must be text, not 5")])
def test_a_model_is_a_name(model: object, words: str) -> None:
    error = refused(model=model)
    assert words in str(error)
    assert error.field == "model"


def test_a_value_whose_repr_fails_is_refused_like_any_other() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "not a Broken" in str(refused(size=Broken()))
    assert "n must be" in str(refused(n=-1.0 * 10**300))
    assert "n=a int" in str(refused(n=-(10**5_000)))


def test_the_first_mistake_is_told_before_anything_else_happens() -> None:
    assert isinstance(refused(size="auto"), ValueError)


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("promt", "prompt"),
        ("Size", "size"),
        ("resolutions", "resolution"),
        ("qualty", "quality"),
        ("reference_image", "reference_images"),
        ("image_url", "image_urls"),
        ("callback", "callback_url"),
        ("business_id", "client_business_id"),
        ("MODEL", "model"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ImageRequest.of({"prompt": "a", name: "x"})
    for error in (refused(**{name: "x"}), caught.value):
        assert f"did you mean '{near}'?" in str(error)
        assert "extra=" in str(error)
        assert error.field == name


def test_a_name_like_no_other_is_told_all() -> None:
    text = str(refused(zzzzzz=1))
    assert all(name in text for name in FIELD_NAMES)
    assert "'zzzzzz'" in text


def test_an_endless_name_is_cut() -> None:
    assert len(str(unknown_field("z" * 2_000, FIELD_NAMES))) < 350


def test_a_column_that_is_no_text_is_unknown_too() -> None:
    mapping: Any = {"prompt": "a", 5: "x"}
    with pytest.raises(InvalidRequest, match="unknown field '5'"):
        ImageRequest.of(mapping)


@pytest.mark.parametrize("make", [lambda: ImageRequest(size="1:1"), lambda: ImageRequest.of({}), ImageRequest])  # type: ignore[call-arg]
def test_a_request_without_a_prompt_says_so(make: Any) -> None:
    with pytest.raises(InvalidRequest, match="prompt is missing: say what") as caught:
        make()
    assert caught.value.field == "prompt"


# ------------------------------------------------------------------------------------------------ ways to make one


def test_a_request_is_made_of_a_prompt_a_mapping_or_a_request() -> None:
    request = ImageRequest("a", size="1:1")
    assert ImageRequest.of("a", size="1:1") == request
    assert ImageRequest.of({"prompt": "a", "size": "1:1"}) == request
    assert ImageRequest.of(MappingProxyType({"prompt": "a"}), size="1:1") == request
    assert ImageRequest.of({"prompt": "b", "size": "2:1"}, prompt="a", size="1:1") == request
    assert ImageRequest.of(request) is request
    assert ImageRequest.of(ImageRequest("b", size="1:1"), prompt="a") == request


@pytest.mark.parametrize("source", [None, 5, ["a"], b"a"])
def test_nothing_else_is_a_request(source: Any) -> None:
    with pytest.raises(InvalidRequest, match="an ImageRequest, a mapping of its fields or a prompt"):
        ImageRequest.of(source)


def test_given_are_the_fields_that_were_given() -> None:
    assert ImageRequest("a").given() == {"prompt": "a", "model": "gpt-image-2-vip"}
    assert ImageRequest("a", n=1, metadata={}, extra={}, reference_images=[]).given() == {
        "prompt": "a",
        "model": "gpt-image-2-vip",
        "n": 1,
    }


@settings(max_examples=80)
@given(
    fields=st.fixed_dictionaries(
        {"prompt": st.text(min_size=1, max_size=50).filter(str.strip)},
        optional={
            "size": st.sampled_from(RATIOS),
            "resolution": st.sampled_from(["1k", "2k", "4k"]),
            "quality": st.sampled_from(["low", "medium", "high"]),
            "n": st.integers(1, 20),
            "reference_images": st.lists(st.one_of(st.just(LINK), st.just(Path("a")), st.binary(max_size=3))),
            "metadata": st.dictionaries(st.text(max_size=3), st.integers(), min_size=1, max_size=3),
        },
    )
)
def test_a_request_survives_its_fields_a_pickle_and_a_copy(fields: dict[str, Any]) -> None:
    request = ImageRequest(**fields)
    assert ImageRequest.of(request.given()) == request
    assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301
    assert copy.deepcopy(request) == request
    assert len(repr(request)) < 250


def test_references_keep_their_order_and_the_older_name_comes_after() -> None:
    references: list[str | Path | bytes] = [LINK, Path("kite.png"), b"\x89PNG"]
    request = ImageRequest("a", reference_images=references, image_urls=[LINK + "?2", Path("b.png")])
    assert request.reference_images == (*references, LINK + "?2", Path("b.png"))
    assert ImageRequest("a", image_urls=[LINK]) == ImageRequest("a", reference_images=[LINK])
    assert not hasattr(request, "image_urls")


@pytest.mark.parametrize("value", [5, "", "..", ["a"]])
def test_an_id_in_extra_that_could_not_be_asked_for_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="client_business_id"):
        ImageRequest("a", extra={"client_business_id": value})


def test_a_request_can_be_hashed_whatever_its_extra_holds() -> None:
    assert len({ImageRequest("a", extra={"x": 1}), ImageRequest("a", extra={"x": 1})}) == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"client_business_id": "a"}, "a"),
        ({"metadata": {"client_business_id": "m"}}, "m"),
        ({"extra": {"client_business_id": "e"}}, "e"),
        ({"client_business_id": "a", "metadata": {"client_business_id": "m"}}, "a"),
        ({"client_business_id": "a", "extra": {"client_business_id": "e"}}, "e"),
        ({"metadata": {"client_business_id": ""}}, None),
        ({"metadata": {"client_business_id": 5}}, None),
    ],
)
def test_the_callers_own_id_is_found_where_the_service_reads_it(fields: dict[str, Any], expected: str | None) -> None:
    assert ImageRequest("a", **fields).given_business_id == expected


# ------------------------------------------------------------------------------------------------ unchangeable


def test_what_the_caller_changes_later_does_not_change_the_request() -> None:
    references: list[Any] = [{"url": LINK, "weights": [1]}]
    metadata: dict[str, Any] = {"deep": {"list": [1]}}
    extra: dict[str, Any] = {"deep": {"list": [1]}}
    request = ImageRequest("a", model="m", reference_images=references, metadata=metadata, extra=extra)
    before = copy.deepcopy(request)
    references[0]["weights"].append(2)
    references.append(LINK)
    metadata["deep"]["list"].append(2)
    extra["deep"]["list"].append(2)
    extra["more"] = 1
    assert request == before


def test_given_is_the_callers_to_change() -> None:
    request = ImageRequest("a")
    request.given()["prompt"] = "b"
    assert request.prompt == "a"


def test_metadata_is_kept_as_it_will_be_sent() -> None:
    metadata: Any = {1: "a", "b": (1, 2)}
    assert ImageRequest("a", metadata=metadata).metadata == {"1": "a", "b": [1, 2]}


# ------------------------------------------------------------------------------------------------ repr, ids


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ImageRequest("a kite"), "ImageRequest('a kite')"),
        (ImageRequest("x" * 40), f"ImageRequest('{'x' * 40}')"),
        (ImageRequest("x" * 41), f"ImageRequest('{'x' * 39}…')"),
        (ImageRequest("a", model="m", n=2), "ImageRequest('a', model='m', n=2)"),
        (ImageRequest("a", reference_images=[b"x" * 900, LINK]), "ImageRequest('a', references=2)"),
        (ImageRequest("a", metadata={"x": 1}, extra={"y": 1}), "ImageRequest('a')"),
    ],
)
def test_a_repr_shows_forty_characters_of_the_prompt_and_what_was_given(request_: ImageRequest, text: str) -> None:
    assert repr(request_) == text


def test_a_repr_cuts_every_value() -> None:
    request = ImageRequest("a", model="m" * 999, callback_url="https://x.example/" + "y" * 999)
    assert len(repr(request)) < 160


@pytest.mark.parametrize("task_id", ["task_img_1", "img_1", "风筝", "a b", "a/b", "...", "x" * 512])
def test_an_id_is_opaque_text(task_id: str) -> None:
    assert check_task_id(task_id) == task_id


@pytest.mark.parametrize("task_id", ["", " ", ".", "..", "a\nb", "a\0", "\ud800", "x" * 513, None, 5, b"a"])
def test_what_can_not_be_a_segment_of_a_url_is_no_id(task_id: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^my_id must be") as caught:
        check_task_id(task_id, "my_id")
    assert caught.value.field == "my_id"
    assert len(str(caught.value)) < 100


def test_extra_goes_over_the_fields_in_one_place_for_a_request_and_for_what_a_journal_kept_of_it() -> None:
    request = ImageRequest("a", n=2, metadata={"x": 1}, extra={"n": "2", "sede": 5})
    assert request.body() == {
        "prompt": "a",
        "model": "gpt-image-2-vip",
        "n": "2",
        "metadata": {"x": 1},
        "sede": 5,
    }
    assert body_of(json.loads(json.dumps(request.given()))) == request.body()
    assert request.given()["n"] == 2
