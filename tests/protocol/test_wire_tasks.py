"""Submissions out, task objects in."""

from __future__ import annotations

import contextlib
import copy
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.errors import UnreadableAnswer
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.wire import (
    Unfinished,
    decode_course,
    decode_task,
    decode_task_id,
    encode_request,
    glance,
    with_id,
)
from toapis_async.request import ImageRequest
from toapis_async.task import Billing, GeneratedImage, TaskError, TaskSnapshot, TaskStatus

from .kit import answer, json_objects, json_values, nested, task

SEED_CURL = """{
    "model": "gpt-image-2-vip",
    "prompt": "Generate a cinematic widescreen poster of a futuristic neon city at night",
    "n": 1,
    "size": "16:9",
    "resolution": "2k",
    "quality": "high",
    "response_format": "url"
  }"""
SEED_ANSWER = b"""{
  "id": "task_img_abc123def456",
  "object": "generation.task",
  "model": "gpt-image-2-vip",
  "status": "queued",
  "progress": 0,
  "created_at": 1703884800,
  "metadata": {}
}"""
CREATED = datetime(2023, 12, 29, 21, 20, tzinfo=UTC)
LINK = "https://files.toapis.com/generated/a.jpg"
OTHER = "https://files.toapis.com/generated/b.jpg"


# ------------------------------------------------------------------------------------------------ requests


def test_the_curl_example_of_the_seed_round_trips() -> None:
    body = json.loads(SEED_CURL)
    request = ImageRequest.of(body)
    assert encode_request(request, (), "biz-1") == {**body, "client_business_id": "biz-1"}


def test_what_was_not_given_is_not_sent() -> None:
    assert encode_request(ImageRequest("a kite"), (), "biz") == {
        "model": "gpt-image-2-vip",
        "prompt": "a kite",
        "client_business_id": "biz",
    }


def test_every_field_is_sent_under_the_name_the_caller_used() -> None:
    fields: dict[str, Any] = {
        "prompt": "a",
        "model": "m",
        "size": "1:1",
        "resolution": "1K",
        "quality": "x",
        "n": 2,
        "response_format": "url",
        "background": "transparent",
        "callback_url": "https://me.example/hook",
        "metadata": {"google_search": True},
    }
    request = ImageRequest(**fields, image_urls=[LINK], client_business_id="mine")
    body = encode_request(request, (), "mine")
    assert body == {**fields, "image_urls": [LINK], "client_business_id": "mine"}


def test_local_references_are_sent_as_the_links_of_their_uploads() -> None:
    request = ImageRequest("a", reference_images=[LINK, Path("kite.png"), b"png"])
    body = encode_request(request, [OTHER, "https://x.example/3"], "biz")
    assert body["reference_images"] == [LINK, OTHER, "https://x.example/3"]
    json.dumps(body)


def test_extra_goes_over_everything_but_the_tracked_id_and_is_not_sent_itself() -> None:
    request = ImageRequest("a", size="1:1", extra={"size": "auto", "seed": 5, "client_business_id": "theirs"})
    body = encode_request(request, (), request.given_business_id or "")
    assert body["size"] == "auto"
    assert body["seed"] == 5
    assert body["client_business_id"] == "theirs"
    assert "extra" not in body


# ------------------------------------------------------------------------------------------------ answers as documented


def test_the_submit_answer_of_the_seed_decodes() -> None:
    assert decode_task(answer(SEED_ANSWER)) == TaskSnapshot(
        task_id="task_img_abc123def456",
        status=TaskStatus.QUEUED,
        raw_status="queued",
        model="gpt-image-2-vip",
        progress=0,
        created_at=CREATED,
    )


def test_a_completed_answer_with_everything_documented_decodes() -> None:
    body = {
        "id": "task_01K",
        "object": "generation.task",
        "model": "gpt-image-2-vip",
        "status": "completed",
        "progress": 100,
        "created_at": 1703884800,
        "completed_at": 1703884830,
        "expires_at": 1703971200,
        "client_business_id": "order-7",
        "result": {
            "type": "image",
            "data": [
                {"url": LINK, "size": "1:1", "z_index": 0},
                {"url": OTHER, "output_format": "png"},
            ],
        },
        "billing": {"status": "settled", "credits": "174.6", "cost_usd": "0.135"},
        "metadata": {},
    }
    expires = CREATED + timedelta(days=1)
    assert decode_task(answer(body)) == TaskSnapshot(
        task_id="task_01K",
        status=TaskStatus.COMPLETED,
        raw_status="completed",
        client_business_id="order-7",
        model="gpt-image-2-vip",
        progress=100,
        created_at=CREATED,
        completed_at=CREATED + timedelta(seconds=30),
        expires_at=expires,
        images=(GeneratedImage(LINK, expires), GeneratedImage(OTHER, expires)),
        billing=Billing("settled", Decimal("174.6"), Decimal("0.135")),
    )


def test_a_failed_answer_with_a_refund_decodes() -> None:
    snapshot = decode_task(
        task(
            status="failed",
            completed_at=1703884830,
            error={"code": "generation_failed", "message": "生成失败。请重试"},
            billing={"status": "refunded", "credits": "3", "cost_usd": "0.015"},
            result={"data": [{"url": LINK}]},
        )
    )
    assert snapshot.status is TaskStatus.FAILED
    assert snapshot.error == TaskError("generation_failed", "生成失败。请重试")
    assert snapshot.billing == Billing("refunded", Decimal(3), Decimal("0.015"))
    assert snapshot.images == ()
    assert snapshot.expires_at is None


def test_the_answer_is_kept_as_it_came() -> None:
    assert decode_task(answer(SEED_ANSWER)).raw == json.loads(SEED_ANSWER)


# ------------------------------------------------------------------------------------------------ ids


@pytest.mark.parametrize(
    ("members", "asked", "expected"),
    [
        ({"id": "img_1"}, None, "img_1"),
        ({"task_id": "tsk_img_01ARZ"}, None, "tsk_img_01ARZ"),
        ({"id": "a", "task_id": "b"}, "c", "b"),
        ({"id": "", "task_id": "b"}, "c", "b"),
        ({"id": None}, "c", "c"),
        ({}, "c", "c"),
        ({"id": 12345}, None, "12345"),
        ({"id": True}, "c", "c"),
        ({"id": ["a"]}, "c", "c"),
        ({"id": "\ud800"}, "c", "c"),  # could not be put into a URL
        ({"id": "a\nb", "task_id": "b"}, None, "b"),
    ],
)
def test_the_id_is_found_wherever_it_stands(members: dict[str, Any], asked: str | None, expected: str) -> None:
    body = json.dumps({"status": "queued", **members}).encode()
    assert decode_task(Answer(200, {}, body), asked).task_id == expected


@pytest.mark.parametrize("members", [{}, {"id": ""}, {"id": None}, {"id": {}}, {"id": "\ud800"}])
def test_a_submission_without_an_id_can_not_be_understood(members: dict[str, Any]) -> None:
    with pytest.raises(UnreadableAnswer, match=r"no task id @ \$\.id") as caught:
        decode_task(Answer(200, {}, json.dumps({"status": "queued", **members}).encode()))
    assert caught.value.place == "$.id"
    assert "queued" in caught.value.text


@pytest.mark.parametrize(
    ("task_id", "business_id", "expected"),
    [("asked", "mine", ("asked", "mine")), ("asked", None, ("asked", "b")), ("t", "b", ("t", "b"))],
)
def test_a_snapshot_takes_the_ids_its_task_is_known_by(
    task_id: str, business_id: str | None, expected: tuple[str, str]
) -> None:
    snapshot = decode_task(answer({"id": "t", "client_business_id": "b", "status": "queued"}))
    renamed = with_id(snapshot, task_id, business_id)
    assert (renamed.task_id, renamed.client_business_id) == expected
    assert (renamed is snapshot) == (expected == ("t", "b"))


# ------------------------------------------------------------------------------------------------ statuses


@pytest.mark.parametrize(
    ("word", "status", "raw"),
    [
        ("submitted", TaskStatus.QUEUED, "submitted"),
        ("pending", TaskStatus.QUEUED, "pending"),
        ("processing", TaskStatus.IN_PROGRESS, "processing"),
        ("dreaming", TaskStatus.IN_PROGRESS, "dreaming"),
        ("cancelled", TaskStatus.IN_PROGRESS, "cancelled"),
        (" Completed ", TaskStatus.COMPLETED, " Completed "),
        (5, TaskStatus.IN_PROGRESS, "5"),
        (None, TaskStatus.QUEUED, ""),
        (["completed"], TaskStatus.QUEUED, ""),
    ],
)
def test_a_status_is_folded_and_its_word_kept(word: object, status: TaskStatus, raw: str) -> None:
    snapshot = decode_task(task(status=word))
    assert (snapshot.status, snapshot.raw_status) == (status, raw)


def test_links_of_an_unfinished_task_are_not_read_and_can_not_break_it() -> None:
    assert decode_task(task(status="in_progress", result=7, url=LINK)).images == ()


# ------------------------------------------------------------------------------------------------ links


@pytest.mark.parametrize(
    ("members", "links"),
    [
        ({"result": {"type": "image", "data": [{"url": LINK}, {"url": OTHER}]}}, [LINK, OTHER]),
        ({"result": {"data": [LINK]}}, [LINK]),
        ({"result": {"data": {"url": LINK}}}, [LINK]),
        ({"result": {"data": LINK}}, [LINK]),
        ({"url": LINK}, [LINK]),
        ({"result": {"data": []}, "url": LINK}, [LINK]),
        ({"result": {"data": None}, "url": LINK}, [LINK]),
        ({"result": None, "url": LINK}, [LINK]),
        ({"result": {}, "url": LINK}, [LINK]),
        ({"result": {"data": [{"url": LINK}]}, "url": OTHER}, [LINK]),
        ({"result": {"data": [{"url": ""}, {"url": None}, {"b64_json": "…"}, {"url": LINK}]}}, [LINK]),
        ({"url": "", "data": [{"url": LINK}]}, [LINK]),
        ({"data": [{"url": LINK}, OTHER]}, [LINK, OTHER]),
        ({"output": [LINK, OTHER]}, [LINK, OTHER]),
        ({"output": LINK}, [LINK]),
        ({"outputs": [{"url": LINK, "type": "image"}]}, [LINK]),
        ({"images": [LINK]}, [LINK]),
        ({"images": [{"url": LINK}]}, [LINK]),
        ({"result": {"data": [{"url": LINK}]}, "images": 1, "output": True, "data": [5]}, [LINK]),
        ({}, []),
        ({"result": None, "url": None, "images": []}, []),
    ],
)
def test_links_are_found_in_every_place_they_were_seen(members: dict[str, Any], links: list[str]) -> None:
    assert [image.url for image in decode_task(task(**members)).images] == links


@pytest.mark.parametrize(
    ("members", "place", "words"),
    [
        ({"result": {"data": [{"url": 5}]}}, "$.result.data[0].url", "expected text, got int"),
        ({"result": {"data": [{"url": None}, {"url": {}}]}}, "$.result.data[1].url", "expected text, got dict"),
        ({"result": {"data": [5]}}, "$.result.data[0]", "expected a link or an object with one, got int"),
        ({"result": {"data": [[5]]}}, "$.result.data[0]", "expected a link or an object with one, got list"),
        ({"result": [5]}, "$.result", "expected a link or an object with one, got list"),
        ({"result": "done"}, "$.result", "expected a link or an object with one, got str"),
        ({"url": 5}, "$.url", "expected text, got int"),
        ({"url": False}, "$.url", "expected text, got bool"),
        ({"images": 1}, "$.images[0]", "expected a link or an object with one, got int"),
        ({"output": [{"url": None}, {"url": 1.5}]}, "$.output[1].url", "expected text, got float"),
    ],
)
def test_a_link_that_can_not_be_read_names_its_place(members: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        decode_task(task(**members))
    assert caught.value.place == place
    assert str(caught.value) == f"{words} @ {place} (HTTP 200, unreadable)"
    assert caught.value.text.startswith('{"id": "task_1"')
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "members",
    [
        {"result": "", "url": LINK},
        {"result": [], "url": LINK},
        {"result": [{"url": LINK}]},
        {"result": LINK},
        {"result": {"data": [{"url": LINK}, None]}},
        {"result": {"data": [5, {"url": LINK}]}},
        {"data": [{"url": 5}], "url": LINK},
        {"result": {"data": 7}, "images": [LINK]},
    ],
)
def test_what_is_odd_hides_no_link_of_a_task_that_is_paid_for(members: dict[str, Any]) -> None:
    assert [image.url for image in decode_task(task(**members)).images] == [LINK]


@pytest.mark.parametrize(
    "members",
    [
        {"result": {"url": LINK}},
        {"result": {"data": [[LINK]]}},
        {"result": {"image_url": LINK, "thumbnail_url": OTHER}},
        {"result": {"thumbnail_url": OTHER, "cover": OTHER, "image_url": LINK, "download_url": OTHER}},
        {"result": {"data": [{"image_url": {"url": LINK}}]}},
        {"result": {"images": [{"url": [LINK], "expires_at": 5}]}},
        {"result": {"type": "image", "image_urls": [LINK, LINK]}},
        {"result": json.dumps({"data": [{"url": LINK}]})},
        {"resultJson": json.dumps({"resultUrls": [LINK]})},
        {"result_url": LINK},
        {"data": {"task": {"output": [LINK]}}},
        {"output": {"image": LINK, "seed": 5}},
        {"content": {"image_url": LINK}, "image_urls": [OTHER], "reference_images": [OTHER], "callback_url": OTHER},
        {"result": {"input": {"image_urls": [OTHER]}, "picture_url": LINK}},
    ],
)
def test_links_under_other_gateways_names_are_found_when_the_known_places_have_none(members: dict[str, Any]) -> None:
    assert [image.url for image in decode_task(task(**members)).images] == [LINK]


@pytest.mark.parametrize(
    "members",
    [
        {"image_urls": [LINK], "metadata": {"image_url": LINK}},
        {"result": {"reference_images": [LINK], "mask_url": LINK, "message": LINK, "prompt": LINK, "url": "see below"}},
        {"result": [[[[[[[[[[[[LINK]]]]]]]]]]]]},
        {"resultJson": "{" * 9_000},
        {"result": {"image": "[" * 9_000}},
    ],
)
def test_a_link_that_is_no_file_of_the_result_is_none(members: dict[str, Any]) -> None:
    with contextlib.suppress(UnreadableAnswer):
        assert decode_task(task(**members)).images == ()


@pytest.mark.parametrize("body", [{}, {"data": None}, {"code": "success", "message": "", "data": []}, {"progress": 30}])
def test_an_answer_without_id_and_status_shows_no_task(body: dict[str, Any]) -> None:
    assert glance(answer(body), "asked") is None
    with pytest.raises(UnreadableAnswer, match="no task"):
        decode_task(answer(body), "asked")


def test_a_task_that_a_list_holds_alone_is_read() -> None:
    body = {"code": "success", "data": [{"id": "t", "status": "completed", "result": {"data": [{"url": LINK}]}}]}
    assert [image.url for image in decode_task(answer(body), "asked").images] == [LINK]


@pytest.mark.parametrize("task_id", ["..", ".", "", "a\x00b", None])
def test_an_id_that_could_not_be_asked_for_is_none(task_id: object) -> None:
    with pytest.raises(UnreadableAnswer, match=r"\$\.id"):
        decode_task_id(answer({"id": task_id, "status": "queued"}))


def test_an_image_expires_a_day_after_completion_when_nobody_says_when() -> None:
    snapshot = decode_task(task(url=LINK, completed_at=1703884800))
    assert snapshot.expires_at == CREATED + timedelta(hours=24)
    assert snapshot.images == (GeneratedImage(LINK, snapshot.expires_at),)


def test_an_image_of_unknown_age_has_no_known_expiry() -> None:
    assert decode_task(task(url=LINK)).images == (GeneratedImage(LINK, None),)


# ------------------------------------------------------------------------------------------------ single members


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (42, 42),
        (0, 0),
        (100, 100),
        (-5, 0),
        (250, 100),
        (10**400, None),
        (33.9, 33),
        ("50%", 50),
        (" 50% ", 50),
        ("100", 100),
        ("", None),
        ("half", None),
        (None, None),
        (True, None),
        ([5], None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_progress_is_a_percentage_or_nothing(value: object, expected: int | None) -> None:
    assert decode_task(task(progress=value)).progress == expected


@pytest.mark.parametrize("name", ["created_at", "completed_at", "expires_at"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1703884800, CREATED),
        (1703884800.0, CREATED),
        ("1703884800", CREATED),
        (0, None),
        (-1, None),
        (1703884800000, None),  # milliseconds
        (253_402_300_799, None),  # the last second that datetime knows: a day later there is none
        (10**30, None),
        (10**400, None),
        (float("nan"), None),
        (float("-inf"), None),
        ("2023-12-29T21:20:00Z", None),
        (True, None),
        ({}, None),
    ],
)
def test_a_time_is_an_aware_utc_datetime_or_nothing(name: str, value: object, expected: datetime | None) -> None:
    moment = getattr(decode_task(task(**{name: value})), name)
    assert moment == expected
    assert moment is None or moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"status": "settled", "credits": "174.6"}, Billing("settled", Decimal("174.6"), None)),
        ({"status": "settled", "credits": 3, "cost_usd": 0.135}, Billing("settled", Decimal(3), Decimal("0.135"))),
        ({"credits": "many", "cost_usd": True}, Billing("", None, None)),
        ({"credits": "NaN", "cost_usd": "Infinity"}, Billing("", None, None)),
        ({"credits": [1], "status": {}}, Billing("", None, None)),
        ({}, None),
        (None, None),
        ("settled", None),
        ([1], None),
    ],
)
def test_billing_is_used_when_it_comes(value: object, expected: Billing | None) -> None:
    assert decode_task(task(billing=value)).billing == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"error": {"code": "generation_failed", "message": "no"}}, TaskError("generation_failed", "no")),
        ({"error": {"code": 500, "message": "no"}}, TaskError("500", "no")),
        ({"error": {"code": "", "type": "new_api_error", "message": "no"}}, TaskError("new_api_error", "no")),
        ({"error": {"code": True, "message": "no"}}, TaskError("", "no")),
        ({"error": {"msg": "no"}}, TaskError("", "no")),
        ({"error": {"code": "moderated"}}, TaskError("moderated", "moderated")),
        ({"error": {"message": ["no"]}}, TaskError("", "no message")),
        ({"error": {"message": "\x1b \x00"}}, TaskError("", "no message")),
        ({"error": "不允许"}, TaskError("", "不允许")),
        ({"error": "\x1b", "fail_reason": "why"}, TaskError("", "why")),
        ({"error": {}, "fail_reason": "why"}, TaskError("", "why")),
        ({"error": None, "fail_reason": {"message": "why"}}, TaskError("", "why")),
        ({"error": 5, "message": "top"}, TaskError("", "top")),
        ({"fail_reason": " ", "message": " "}, TaskError("", "the service gave no reason")),
        ({}, TaskError("", "the service gave no reason")),
    ],
)
def test_a_failed_task_always_has_a_reason(members: dict[str, Any], expected: TaskError) -> None:
    assert decode_task(task(status="failed", **members)).error == expected


def test_an_error_beside_another_status_is_no_reason() -> None:
    assert decode_task(task(status="in_progress", error="hm")).error is None


@pytest.mark.parametrize(("value", "expected"), [("x", "x"), ("", None), (5, None), (None, None), ({}, None)])
def test_model_and_business_id_are_text_or_nothing(value: object, expected: str | None) -> None:
    snapshot = decode_task(task(model=value, client_business_id=value))
    assert (snapshot.model, snapshot.client_business_id) == (expected, expected)


# ------------------------------------------------------------------------------------------------ what is no task


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "an empty answer"),
        (b"null", "expected an object, got NoneType"),
        (b"[]", "expected an object, got list"),
        (b'"task"', "expected an object, got str"),
        (b"7", "expected an object, got int"),
        (SEED_ANSWER[:40], "truncated or not JSON"),
        (b"<html><title>Oops</title></html>", "an HTML page"),
        (b'{"id": "\xff\xfe"}', "truncated or not JSON (UnicodeDecodeError)"),
        (b'{"progress": ' + b"9" * 5_000 + b"}", "truncated or not JSON (ValueError)"),
        (nested(), "truncated or not JSON (RecursionError)"),
    ],
)
def test_what_is_no_json_object_is_unreadable_at_the_root(body: bytes, words: str) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        decode_task(answer(body), "asked")
    assert caught.value.place == "$"
    assert words in str(caught.value)
    assert len(str(caught.value)) < 150
    assert len(caught.value.text) <= 300


@pytest.mark.parametrize("end", range(0, len(SEED_ANSWER) - 1, 7))
def test_an_answer_cut_anywhere_is_unreadable(end: int) -> None:
    with pytest.raises(UnreadableAnswer):
        decode_task(answer(SEED_ANSWER[:end]), "asked")


def _check_unreadable(error: UnreadableAnswer) -> None:
    assert error.status == 200
    assert error.place.startswith("$")
    assert len(error.text) <= 300


@settings(max_examples=100)
@given(body=json_objects, asked=st.sampled_from([None, "asked"]))
def test_an_arbitrary_object_decodes_or_is_unreadable(body: dict[str, Any], asked: str | None) -> None:
    try:
        snapshot = decode_task(Answer(200, {}, json.dumps(body).encode()), asked)
    except UnreadableAnswer as error:
        _check_unreadable(error)
        return
    assert snapshot.task_id.isprintable()
    assert all(image.url for image in snapshot.images)
    assert snapshot.progress is None or 0 <= snapshot.progress <= 100
    assert (snapshot.error is not None) == (snapshot.status is TaskStatus.FAILED)
    assert copy.deepcopy(snapshot) == snapshot


@settings(max_examples=80)
@given(body=st.one_of(st.binary(max_size=60), json_values.map(lambda value: json.dumps(value).encode())))
def test_arbitrary_bytes_decode_or_are_unreadable(body: bytes) -> None:
    try:
        assert decode_task(Answer(200, {}, body), "asked").task_id
    except UnreadableAnswer as error:
        _check_unreadable(error)


# ------------------------------------------------------------------------------------------------ a glance


@pytest.mark.parametrize("word", ["queued", "in_progress", "processing", "submitted", "pending", ""])
@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: {"code": 200, "data": body}])
def test_a_task_at_work_is_known_at_a_glance(word: str, wrap: Any) -> None:
    body = wrap({"id": "res_1", "task_id": "task_1", "status": word, "progress": "7%", "client_business_id": "mine"})
    snapshot = decode_task(answer(body), "asked")
    seen = glance(answer(body), "asked")
    assert seen == (snapshot.task_id, snapshot.client_business_id, snapshot.status, snapshot.progress)
    assert seen is not None
    assert seen.task_id == "task_1"


@pytest.mark.parametrize("word", ["completed", "failed", "success", "cancelled", "Queued", "frobnicating"])
def test_an_end_and_a_word_that_needs_a_closer_look_are_no_matter_of_a_glance(word: str) -> None:
    assert glance(answer({"id": "task_1", "status": word, "result": {"data": [{"url": LINK}]}}), "task_1") is None


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: json_values | st.sampled_from(["queued", "processing", "task_1", "mine", 7, "7", 50.5, True])
            for name in ("id", "task_id", "status", "progress", "client_business_id", "data")
        },
    )
)
def test_a_glance_sees_what_the_whole_answer_says_or_nothing(body: dict[str, Any]) -> None:
    seen = glance(answer(body), "asked")
    if seen is not None:
        snapshot = decode_task(answer(body), "asked")
        assert seen == Unfinished(snapshot.task_id, snapshot.client_business_id, snapshot.status, snapshot.progress)
        assert snapshot.claimed_status is None


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {"id": st.just("task_1")},
        optional={
            **{
                name: json_values | st.sampled_from([1703884800, "1703884830", 0, True])
                for name in ("created_at", "completed_at")
            },
            "billing": json_values | st.fixed_dictionaries({"status": st.just("settled"), "credits": json_values}),
            "data": json_values | st.fixed_dictionaries({"id": st.just("task_2"), "created_at": st.just(1703884800)}),
        },
    )
)
def test_a_course_is_what_the_whole_answer_says(body: dict[str, Any]) -> None:
    snapshot = decode_task(answer(body))
    assert decode_course(answer(body)) == (snapshot.created_at, snapshot.completed_at, snapshot.billing)


def test_the_course_of_what_another_gateway_wraps_is_that_of_the_task() -> None:
    body = {"code": 200, "data": {"id": "task_1", "status": "completed", "created_at": 1703884800}}
    assert decode_course(answer(body)).created_at == CREATED
