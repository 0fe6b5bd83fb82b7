"""Every check of a request for a video, what is sent of it, and the way past the checks."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from toapis_async.errors import InvalidRequest
from toapis_async.request import (
    VIDEO_MODELS,
    ImageRequest,
    VideoRequest,
    body_of,
    files_in,
    map_links,
    request_of,
    with_links,
)

LINK = "https://files.toapis.com/a.png"
FRAME: dict[str, Any] = {"url": LINK, "role": "first_frame"}
PICTURE: dict[str, Any] = {"url": LINK, "role": "reference_image"}
SOUND: dict[str, Any] = {"url": "asset://sound-1", "role": "reference_audio"}
FILM: dict[str, Any] = {"url": "https://files.toapis.com/a.mp4", "role": "reference_video"}
UNKNOWN = "a-model-of-next-year"

BOAT: dict[str, Any] = {
    "model": "seedance-2",
    "prompt": "a paper boat in the rain",
    "duration": 5,
    "resolution": "720p",
    "aspect_ratio": "16:9",
    "generate_audio": False,
    "image_with_roles": [{"url": "https://example.com/boat.png", "role": "first_frame"}],
    "client_business_id": "boat-1",
}
EXAMPLES: list[dict[str, Any]] = [
    BOAT,
    {"model": "sora-2-vvip", "prompt": "a", "duration": 8, "aspect_ratio": "9:16", "metadata": {"n": 4}},
    {"model": "sora-2-official", "prompt": "a", "duration": 12, "image_urls": [LINK]},
    {"model": "sora-2", "timestamps": "1,3", "from_task": "video_1"},
    {"model": "veo3.1-fast", "prompt": "a", "duration": 8, "metadata": {"resolution": "4k", "enable_gif": True}},
    {"model": "Veo3.1-quality-official", "prompt": "a", "duration": 6, "size": "16:9", "resolution": "1080p"},
    {"model": "seedance-2", "prompt": "a", "duration": -1, "tools": [{"type": "web_search"}], "trace_id": "t"},
    {"model": "seedance-2", "image_with_roles": [PICTURE] * 9, "audio_with_roles": [SOUND], "return_last_frame": True},
    {"model": "seedance-2-5", "prompt": "a", "duration": 30, "video_operation": "extend", "output_format": "mov"},
    {"model": "doubao-seedance-1-5-pro", "prompt": "a", "duration": 12, "metadata": {"resolution": "1080p"}},
    {"model": "kling-v2-6", "prompt": "a", "duration": 10, "mode": "pro", "audio": True, "negative_prompt": "fog"},
    {"model": "kling-v3-omni", "prompt": "<<<image_1>>>", "metadata": {"image_list": [{"image_url": LINK}]}},
    {"model": "kling-video-o1", "video_list": [{"video_url": FILM["url"], "refer_type": "base"}]},
    {"model": "MiniMax-H3", "prompt": "a", "duration": 15, "resolution": "768p"},
    {"model": "MiniMax-Hailuo-02", "prompt": "a", "duration": 6, "resolution": "1080P"},
    {"model": "MiniMax-Hailuo-2.3-Fast", "image_urls": [LINK], "duration": 10, "resolution": "768P"},
    {"model": "wan2.6", "prompt": "a", "duration": 15, "prompt_extend": True, "shot_type": "multi", "seed": 7},
    {"model": "wan3.0-video", "prompt": "a", "duration": 30, "ratio": "adaptive", "video_list": [FILM["url"]]},
    {"model": "viduq3", "image_urls": [LINK] * 7, "duration": 3, "metadata": {"off_peak": True}},
    {"model": "grok-video-1.0", "image": LINK, "reference_images": [LINK] * 8, "duration": 1},
    {"model": "grok-video-1.5", "image": LINK, "duration": 15},
    {"model": "grok-imagine-1.0-video", "prompt": "a", "duration": 30, "quality": "480p"},
    {"model": "gemini-omni-flash", "prompt": "a", "duration": 10, "image_urls": [LINK] * 3},
    {"model": "happyhorse-1.1", "action": "video-edit", "url": FILM["url"], "watermark": False},
]


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        VideoRequest(**{"prompt": "a boat", "model": UNKNOWN, **fields})
    assert len(str(caught.value)) < 300
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ what is sent


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["model"]))
def test_what_a_page_shows_is_taken_and_sent_as_it_is(example: dict[str, Any]) -> None:
    request = VideoRequest.of(example)
    assert json.loads(json.dumps(request.body())) == example
    assert request.local_files() == ()
    assert VideoRequest.of(request.given()) == request
    assert request_of(request.given()) == request
    assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301
    assert copy.deepcopy(request) == request
    hash(request)
    assert len(repr(request)) < 300


def test_local_files_are_uploaded_wherever_a_link_stands() -> None:
    request = VideoRequest(
        "a boat",
        model=UNKNOWN,
        image=b"one",
        video_list=[Path("two.mp4"), {"video_url": b"three"}],
        image_with_roles=[{"url": Path("four.png"), "role": "first_frame"}],
        metadata={"last_frame_image": b"five"},
    )
    files = request.local_files()
    assert set(files) == {b"one", Path("two.mp4"), b"three", Path("four.png"), b"five"}
    links = {file: f"https://up.example/{place}" for place, file in enumerate(files)}
    body = with_links(request.body(), list(links.values()))
    assert files_in(body) == ()
    assert body["image"] == links[b"one"]
    assert body["video_list"] == [links[Path("two.mp4")], {"video_url": links[b"three"]}]
    assert body["image_with_roles"] == [{"url": links[Path("four.png")], "role": "first_frame"}]
    assert body["metadata"] == {"last_frame_image": links[b"five"]}
    json.dumps(body)


def test_extra_goes_over_everything_and_past_every_check() -> None:
    extra = {"duration": 99, "resolution": "8k", "never_heard_of": [1]}
    request = VideoRequest("a", model="seedance-2", duration=5, extra=extra)
    assert request.body() == {"model": "seedance-2", "prompt": "a", **extra}
    assert body_of(request.given()) == {"kind": "video", **request.body()}


def test_a_later_change_by_the_caller_does_not_reach_the_request() -> None:
    roles = [dict(FRAME)]
    request = VideoRequest("a", model=UNKNOWN, image_with_roles=roles, metadata=(meta := {"a": [1]}))
    roles[0]["role"] = "last_frame"
    meta["a"].append(2)
    assert request.body()["image_with_roles"] == [FRAME]
    assert request.body()["metadata"] == {"a": [1]}


def test_remix_and_extend_pick_the_route_and_are_not_sent() -> None:
    remix = VideoRequest("a", model="sora-2", remix_of="video_1")
    assert (remix.route, remix.body()) == ("remix", {"model": "sora-2", "prompt": "a"})
    extend = VideoRequest("a", model="grok-video-1.5", extend_of="video_1")  # which else needs an image
    assert (extend.route, "extend_of" in extend.body()) == ("extend", False)
    assert VideoRequest("a", model="sora-2").route == "generations"
    assert remix.given() != VideoRequest("a", model="sora-2").given()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "m", "duration": 5, "resolution": "720p"}, "m 720p 5"),
        ({"model": "m", "metadata": {"resolution": "4k"}}, "m 4k "),
        ({"model": "m", "mode": "pro", "duration": 10}, "m pro 10"),
        ({"model": "m", "extra": {"duration": 7}}, "m  7"),
        ({"model": "m" * 300}, "m" * 200),
    ],
)
def test_what_takes_as_long_is_one_class(fields: dict[str, Any], expected: str) -> None:
    assert VideoRequest("a", **fields).poll_class == expected


def test_off_peak_is_known() -> None:
    assert VideoRequest("a", model="viduq3", metadata={"off_peak": True}, image_urls=[LINK]).is_off_peak
    assert not VideoRequest("a", model="viduq3", image_urls=[LINK]).is_off_peak
    assert not ImageRequest("a").is_off_peak


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("model", [UNKNOWN, "seedance-2"])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"duration": "5"}, "duration must be a whole number, as an int, not '5'"),
        ({"duration": 5.0}, "duration must be a whole number"),
        ({"duration": True}, "duration must be a whole number"),
        ({"seed": "1"}, "seed must be a whole number"),
        ({"generate_audio": "no"}, "generate_audio must be True or False"),
        ({"prompt": 5}, "prompt must be text"),
        ({"resolution": 720}, "resolution must be text"),
        ({"image_urls": LINK}, "image_urls must be a list"),
        ({"image_urls": [5]}, "image_urls[0] must be a URL, a Path or bytes"),
        ({"image_urls": ["boat.png"]}, "image_urls[0]='boat.png' is not an http(s) URL"),
        ({"image_with_roles": FRAME}, "image_with_roles must be a list"),
        ({"image_with_roles": [LINK]}, "image_with_roles[0] must be an object with a url"),
        ({"image_with_roles": [{"role": "first_frame"}]}, "image_with_roles[0] must be an object with a url"),
        ({"image_with_roles": [{"url": "boat.png"}]}, "image_with_roles[0].url='boat.png' is not an http(s) URL"),
        ({"image_with_roles": [{"url": LINK, "role": 1}]}, "image_with_roles[0] must be an object with a url"),
        ({"image_with_roles": [FRAME], "image_urls": [LINK]}, "image_urls can't stand beside image_with_roles"),
        ({"image": 5}, "image must be a URL, a Path or bytes"),
        ({"metadata": []}, "metadata must be a mapping"),
        ({"metadata": {"a": object()}}, "metadata can't be sent as JSON"),
        ({"image_urls": [{"url": float("nan")}]}, "image_urls can't be sent as JSON"),
        ({"callback_url": "me.example"}, "callback_url must be an http(s) URL"),
        ({"client_business_id": ""}, "client_business_id must be a non-empty text"),
        ({"remix_of": "a", "extend_of": "b"}, "not by both"),
        ({"remix_of": ".."}, "remix_of must be a non-empty text"),
        ({"aspect_ratio": "16:09"}, "looks like a time of day"),
        ({"durration": 5}, "did you mean 'duration'?"),
        ({"model": ""}, "model is empty"),
    ],
)
def test_what_no_model_could_take_is_refused_for_all(model: str, fields: dict[str, Any], words: str) -> None:
    assert words in refused(**{"model": model, **fields})


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        ("seedance-2", {"duration": 16}, "a whole number from 4 to 15, or 0, or -1"),
        ("seedance-2", {"resolution": "540p"}, "480p, 720p, 1080p, 4k"),
        ("seedance-2-fast", {"resolution": "1080p"}, "480p, 720p"),
        ("seedance-2-mini", {"duration": -1}, "from 4 to 15"),
        ("seedance-2", {"aspect_ratio": "2:1"}, "adaptive"),
        ("seedance-2", {"image_with_roles": [FRAME, FRAME]}, "at most 1"),
        ("seedance-2", {"image_with_roles": [PICTURE] * 10}, "at most 9"),
        ("seedance-2", {"image_with_roles": [PICTURE, FRAME]}, "not both"),
        ("seedance-2", {"image_with_roles": [{"url": LINK, "role": "middle"}]}, "first_frame, last_frame, reference_"),
        ("seedance-2", {"audio_with_roles": [SOUND]}, "audio only beside"),
        ("seedance-2-mini", {"video_with_roles": [FILM] * 4}, "at most 3"),
        ("veo3.1-fast", {"duration": 5}, "takes 8"),
        ("veo3.1-lite", {"metadata": {"resolution": "480p"}}, "720p, 1080p, 4k"),
        ("veo3.1-quality", {"image_urls": [LINK] * 4}, "at most 3"),
        ("sora-2", {"duration": 5}, "4, 8, 12"),
        ("sora-2-vvip", {"metadata": {"n": 5}}, "from 1 to 4"),
        ("sora-2-official", {"aspect_ratio": "1:1"}, "16:9, 9:16"),
        ("kling-v3", {"duration": 16}, "from 3 to 15"),
        ("kling-v3", {"mode": "fast"}, "std, pro"),
        ("kling-v2-6", {"mode": "std", "audio": True}, "mode='pro'"),
        ("kling-v3-omni", {"audio": True, "video_list": [FILM["url"]]}, "not both"),
        ("wan2.6", {"duration": 6}, "5, 10, 15"),
        ("wan2.6-flash", {"resolution": "480p"}, "720p, 1080p"),
        ("wan2.6", {"image_urls": [LINK, LINK]}, "at most 1"),
        ("MiniMax-Hailuo-02", {"duration": 10, "resolution": "1080P"}, "6 seconds at 1080P"),
        ("MiniMax-Hailuo-2.3", {"resolution": "512P"}, "768P, 1080P"),
        ("MiniMax-Hailuo-2.3-Fast", {}, "works from image_urls"),
        ("MiniMax-Hailuo-2.3", {"prompt": "x" * 2_001}, "2,001 characters"),
        ("MiniMax-H3", {"image_with_roles": [PICTURE] * 10}, "at most 9"),
        ("grok-video-1.0", {"duration": 0}, "from 1 to 15"),
        ("grok-video-1.5", {}, "works from image"),
        ("gemini-omni-flash", {"image_urls": [LINK], "video_list": [FILM["url"]]}, "not both"),
        ("happyhorse-1.1", {"action": "text-to-image"}, "text-to-video"),
    ],
)
def test_a_known_model_names_itself_what_it_takes_and_the_way_out(
    model: str, fields: dict[str, Any], words: str
) -> None:
    message = refused(model=model, **fields)
    assert model in message
    assert words in message
    assert "sends it unchecked" in message or "shorten it" in message
    VideoRequest(**{"prompt": "a boat", **fields}, model=UNKNOWN)  # of which nobody knows


def test_a_model_is_needed_and_a_prompt_is_not() -> None:
    make: Any = VideoRequest
    with pytest.raises(InvalidRequest, match="model is missing: say which"):
        make("a boat")
    assert VideoRequest(model=UNKNOWN, image_urls=[LINK]).prompt is None


def test_the_signature_is_what_readers_and_type_checkers_see() -> None:
    taken = inspect.signature(VideoRequest).parameters
    assert next(iter(taken)) == "prompt"
    assert {taken[name].kind for name in list(taken)[1:]} == {inspect.Parameter.KEYWORD_ONLY}
    contract = {
        *("prompt", "model", "duration", "aspect_ratio", "resolution", "image_urls", "image_with_roles"),
        *("video_with_roles", "audio_with_roles", "reference_images", "seed", "metadata", "remix_of", "extend_of"),
        *("client_business_id", "callback_url", "extra"),
    }
    assert contract <= taken.keys()


def test_the_models_that_were_asked_for_are_known() -> None:
    for name in ("seedance-2", "veo3.1-fast", "sora-2", "kling-v3", "wan2.6", "MiniMax-Hailuo-02", "grok-video-1.0"):
        assert VIDEO_MODELS[name].kind == "video"
        assert "duration" in VIDEO_MODELS[name].rules


# ------------------------------------------------------------------------------------------------ either kind


def test_a_row_says_of_which_kind_it_is_or_its_batch_does() -> None:
    assert request_of("a kite") == ImageRequest("a kite")
    assert request_of({"prompt": "a kite"}, size="1:1") == ImageRequest("a kite", size="1:1")
    assert request_of({"kind": "video", **BOAT}) == VideoRequest(**BOAT)
    assert request_of(BOAT, "video") == VideoRequest(**BOAT)
    assert request_of({"kind": "image", "prompt": "a"}, "video") == ImageRequest("a")
    assert request_of({"kind": "", "prompt": "a"}) == ImageRequest("a")
    assert request_of(VideoRequest(**BOAT), prompt="b").body()["prompt"] == "b"
    source = {"kind": "video", **BOAT}
    request_of(source)
    assert source["kind"] == "video"


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ({"kind": "sound", "prompt": "a"}, "image", "kind is 'image' or 'video', not 'sound'"),
        ({"kind": 5, "prompt": "a"}, "image", "kind is 'image' or 'video', not 5"),
        ({"kind": [], "prompt": "a"}, "image", "kind is 'image' or 'video'"),
        (["a"], "image", "a request is an ImageRequest, a mapping of its fields or a prompt"),
        ("a", "video", "model is missing"),
    ],
)
def test_what_is_of_no_kind_is_refused(source: Any, kind: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_of(source, kind)
    assert words in str(caught.value)


def test_a_row_of_the_other_kind_is_not_taken_for_this_one() -> None:
    with pytest.raises(InvalidRequest, match="this is no request for images: its kind is 'video'"):
        ImageRequest.of({"kind": "video", "prompt": "a"})


def test_every_place_of_a_link_is_mapped_and_nothing_else() -> None:
    row: dict[str, Any] = {
        "prompt": "a.png",
        "image": "one",
        "mask_url": None,
        "image_urls": ["two", 5],
        "video_list": ["three", {"video_url": "four", "refer_type": "base"}],
        "image_with_roles": [{"url": "five", "role": "first_frame"}],
        "audio_with_roles": "no list",
        "metadata": {"url": "left alone"},
    }
    seen: dict[str, object] = {}
    mapped = map_links(row, lambda where, value: seen.setdefault(where, f"<{value}>"))
    assert seen == {
        "image": "<one>",
        "image_urls[0]": "<two>",
        "image_urls[1]": "<5>",
        "video_list[0]": "<three>",
        "video_list[1].video_url": "<four>",
        "image_with_roles[0].url": "<five>",
    }
    assert mapped == {
        **row,
        "image": "<one>",
        "image_urls": ["<two>", "<5>"],
        "video_list": ["<three>", {"video_url": "<four>", "refer_type": "base"}],
        "image_with_roles": [{"url": "<five>", "role": "first_frame"}],
    }
    assert row["image_urls"] == ["two", 5]
