"""Results of every form: videos, layers, files inside the answer, usage, and other gateways' words for the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.kit import json_values
from toapis_async.errors import UnreadableAnswer
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.lifecycle import CLAIMS, is_confirmed
from toapis_async.protocol.wire import decode_task, decode_task_id
from toapis_async.task import (
    Billing,
    GeneratedImage,
    GeneratedVideo,
    TaskError,
    TaskSnapshot,
    TaskStatus,
    TokenDetails,
    ToolUsage,
    Usage,
)

LINK = "https://files.toapis.com/videos/a.mp4"
FRAME = "https://files.toapis.com/videos/a-last.png"
COMPLETED_AT = datetime(2026, 9, 1, 12, tzinfo=UTC)
EXPIRES_AT = COMPLETED_AT + timedelta(hours=24)


def answer(**members: Any) -> Answer:
    return Answer(200, {}, json.dumps({"id": "t", **members}).encode())


def completed(**members: Any) -> TaskSnapshot:
    return decode_task(answer(status="completed", completed_at=COMPLETED_AT.timestamp(), **members))


# ------------------------------------------------------------------------------------------------ videos


def test_the_documented_video_decodes() -> None:
    snapshot = completed(
        object="generation.task",
        model="seedance-2",
        result={"type": "video", "data": [{"url": LINK, "format": "mp4", "last_frame_url": FRAME}]},
        billing={"status": "settled", "credits": "100", "cost_usd": "0.5"},
    )
    assert snapshot.videos == (GeneratedVideo(LINK, EXPIRES_AT, FRAME, "mp4"),)
    assert snapshot.images == ()
    assert snapshot.files == snapshot.videos
    assert snapshot.billing == Billing("settled", Decimal(100), Decimal("0.5"))


def test_a_video_that_was_just_submitted_is_queued_under_its_task_id() -> None:
    body = {"id": "video_1", "task_id": "tsk_vid_1", "object": "video", "model": "sora-2", "status": "", "progress": 0}
    snapshot = decode_task(Answer(200, {}, json.dumps(body).encode()))
    assert (snapshot.task_id, snapshot.status, snapshot.raw_status) == ("tsk_vid_1", TaskStatus.QUEUED, "")
    assert decode_task_id(Answer(200, {}, json.dumps(body).encode())) == "tsk_vid_1"


@pytest.mark.parametrize(
    ("members", "kind", "is_video"),
    [
        ({"result": {"type": "video", "data": [{"url": LINK}]}}, None, True),
        ({"result": {"type": "image", "data": [{"url": LINK}]}}, None, False),
        ({"result": {"data": [{"url": LINK}]}}, None, False),
        ({"result": {"data": [{"url": LINK}]}}, "video", True),
        ({"object": "video", "url": LINK}, None, True),
        ({"url": LINK}, "video", True),
        ({"videos": [LINK]}, "video", True),
        ({"task_type": "video", "output": [LINK]}, None, True),
        ({"result": {"type": "video", "data": [{"url": LINK}]}}, "image", False),
    ],
)
def test_the_kind_that_is_known_counts_and_else_the_answers_own(
    members: dict[str, Any], kind: Any, is_video: bool
) -> None:
    body = answer(status="completed", **members)
    snapshot = decode_task(body, kind=kind)
    assert (len(snapshot.videos), len(snapshot.images)) == ((1, 0) if is_video else (0, 1))


def test_what_is_odd_beside_a_link_hides_it_not() -> None:
    snapshot = completed(result={"type": "video", "data": [{"url": LINK, "format": 5, "last_frame_url": [1]}, 7]})
    assert snapshot.videos == (GeneratedVideo(LINK, EXPIRES_AT),)


# ------------------------------------------------------------------------------------------------ images


def test_layers_keep_their_order_and_their_members() -> None:
    layers = [{"url": f"https://x.example/{place}.png", "z_index": 9 - place, "name": "é"} for place in range(3)]
    snapshot = completed(result={"type": "image", "data": layers})
    assert [image.url for image in snapshot.images] == [layer["url"] for layer in layers]
    assert snapshot.raw["result"]["data"] == layers


def test_a_file_inside_the_answer_is_a_link_that_holds_it() -> None:
    snapshot = completed(result={"data": [{"b64_json": "iVBORw0KGgo="}, {"url": "data:image/png;base64,AAAA"}]})
    assert [image.url for image in snapshot.images] == [
        "data:application/octet-stream;base64,iVBORw0KGgo=",
        "data:image/png;base64,AAAA",
    ]
    odd = completed(result={"data": [5, {"b64_json": "AAAA"}, {"url": "/__files/a.png"}]})
    assert [image.url for image in odd.images] == ["data:application/octet-stream;base64,AAAA", "/__files/a.png"]


def test_a_task_that_is_wrapped_in_data_is_read_and_kept_as_it_came() -> None:
    task = {"task_id": "t", "status": "completed", "data": [{"url": LINK}]}
    snapshot = decode_task(Answer(200, {}, json.dumps({"code": "success", "data": task}).encode()))
    assert snapshot.images == (GeneratedImage(LINK),)
    assert snapshot.raw == task


def test_a_task_may_be_finished_at_once() -> None:
    submitted = answer(status="completed", result={"data": [{"url": LINK}]})
    assert decode_task_id(submitted) == "t"
    assert decode_task(submitted).images == (GeneratedImage(LINK),)


# ------------------------------------------------------------------------------------------------ bills and tokens


def test_the_state_of_a_bill_is_apart_from_the_tasks() -> None:
    pending = decode_task(answer(status="failed", billing={"status": "pending"}))
    assert (pending.status, pending.billing) == (TaskStatus.FAILED, Billing("pending"))
    refunded = decode_task(answer(status="failed", billing={"status": "refunded", "credits": "0", "cost_usd": "0"}))
    assert refunded.billing == Billing("refunded", Decimal(0), Decimal(0))


def test_documented_usage_decodes() -> None:
    usage = {
        "input_tokens": 50,
        "output_tokens": 1_000,
        "total_tokens": 1_050,
        "input_tokens_details": {
            "text_tokens": 10,
            "image_tokens": 40,
            "cached_tokens": 5,
            "cached_tokens_details": {"text_tokens": 2, "image_tokens": 3},
        },
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 1_000},
        "tool_usage": {"web_search": 2},
    }
    cached = TokenDetails(2, 3)
    assert completed(url=LINK, usage=usage).usage == Usage(
        50, 1_000, 1_050, TokenDetails(10, 40, 5, cached), TokenDetails(0, 1_000), ToolUsage(2)
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        (5, None),
        ({"input_tokens": "5", "output_tokens": -1, "total_tokens": True}, None),
        ({"input_tokens": 5, "input_tokens_details": [1]}, Usage(5)),
        ({"tool_usage": {"web_search": 1}}, Usage(tool_usage=ToolUsage(1))),
    ],
)
def test_usage_is_whole_numbers_or_nothing(usage: object, expected: Usage | None) -> None:
    assert completed(url=LINK, usage=usage).usage == expected


# ------------------------------------------------------------------------------------------------ others' words


@pytest.mark.parametrize("word", sorted(CLAIMS))
def test_another_gateways_word_for_the_end_ends_nothing_by_itself(word: str) -> None:
    snapshot = decode_task(answer(status=word.upper()), believe=True)
    assert (snapshot.status, snapshot.claimed_status) == (TaskStatus.IN_PROGRESS, None)


@pytest.mark.parametrize("word", ["success", "SUCCESS", "succeeded", "finished", "done"])
def test_a_success_with_files_is_claimed_and_believed_when_asked_to(word: str) -> None:
    body = answer(status=word, result={"data": [{"url": LINK}]}, completed_at=COMPLETED_AT.timestamp())
    first = decode_task(body)
    assert (first.status, first.claimed_status, first.images) == (TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, ())
    believed = decode_task(body, believe=True)
    assert (believed.status, believed.claimed_status) == (TaskStatus.COMPLETED, None)
    assert believed.images == (GeneratedImage(LINK, EXPIRES_AT),)
    assert believed.raw_status == word


@pytest.mark.parametrize("word", ["failure", "error", "cancelled", "canceled", "EXPIRED", "rejected"])
def test_a_failure_with_an_error_and_no_files_is_claimed_and_believed_when_asked_to(word: str) -> None:
    body = answer(status=word, error={"code": "x", "message": "no"})
    first = decode_task(body)
    assert (first.status, first.claimed_status, first.error) == (TaskStatus.IN_PROGRESS, TaskStatus.FAILED, None)
    believed = decode_task(body, believe=True)
    assert (believed.status, believed.error) == (TaskStatus.FAILED, TaskError("x", "no"))
    assert decode_task(answer(status=word, fail_reason="no")).claimed_status is TaskStatus.FAILED
    with_links = decode_task(answer(status=word, error="no", url=LINK), believe=True)
    assert (with_links.status, with_links.claimed_status) == (TaskStatus.IN_PROGRESS, None)


@pytest.mark.parametrize("word", ["completed", "SUCCESS"])
def test_a_link_where_the_reason_of_a_failure_stands_is_the_file_of_a_success(word: str) -> None:
    believed = decode_task(answer(status=word, fail_reason=LINK), believe=True)
    assert (believed.status, [image.url for image in believed.images]) == (TaskStatus.COMPLETED, [LINK])
    known = decode_task(answer(status=word, fail_reason="https://elsewhere/x", url=LINK), believe=True)
    assert [image.url for image in known.images] == [LINK]


def test_a_failure_whose_reason_is_a_link_is_a_failure() -> None:
    for word in ("failed", "FAILURE"):
        failed = decode_task(answer(status=word, fail_reason="https://toapis.com/policy"), believe=True)
        assert (failed.status, failed.error) == (TaskStatus.FAILED, TaskError("", "https://toapis.com/policy"))


def test_links_that_can_not_be_read_bear_nothing_out() -> None:
    snapshot = decode_task(answer(status="success", result={"data": [5]}), believe=True)
    assert (snapshot.status, snapshot.claimed_status) == (TaskStatus.IN_PROGRESS, None)
    with pytest.raises(UnreadableAnswer):
        completed(result={"data": [5]})


def test_two_polls_must_agree() -> None:
    done = decode_task(answer(status="done", url=LINK))
    failed = decode_task(answer(status="error", error="no"))
    at_work = decode_task(answer(status="processing"))
    for before in (done, failed, at_work):
        assert is_confirmed(before.claimed_status, done) == (before is done)
        assert is_confirmed(before.claimed_status, failed) == (before is failed)
        assert not is_confirmed(before.claimed_status, at_work)
    assert is_confirmed(done.claimed_status, decode_task(answer(status="success", url=LINK)))


@settings(max_examples=200)
@given(
    word=st.sampled_from([*CLAIMS, "completed", "failed", ""]),
    members=st.dictionaries(
        st.sampled_from(["result", "url", "data", "videos", "usage", "billing", "error", "task_id"]), json_values
    ),
    believe=st.booleans(),
    kind=st.sampled_from([None, "image", "video"]),
)
def test_whatever_comes_is_read_or_unreadable(word: str, members: dict[str, Any], believe: bool, kind: Any) -> None:
    try:
        snapshot = decode_task(answer(status=word, **members), "asked", kind=kind, believe=believe)
    except UnreadableAnswer:
        assert word == "completed" or (believe and CLAIMS.get(word) is TaskStatus.COMPLETED)
    else:
        assert snapshot.status is TaskStatus.COMPLETED or not snapshot.files
