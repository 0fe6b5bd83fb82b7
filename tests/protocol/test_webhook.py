"""Events as they are documented, as they might come, and as nonsense."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from toapis_async import TaskStatus, WebhookRejected
from toapis_async.protocol.webhook import WebhookEvent, decode_event
from toapis_async.task import Billing, GeneratedImage, TaskError, ToolUsage, Usage

URL = "https://files.toapis.com/generated/a.jpg"
DATA: dict[str, Any] = {
    "task_id": "task_img_1",
    "client_business_id": "order-1",
    "task_type": "image",
    "model": "gpt-image-2-vip",
    "status": "SUCCESS",
    "progress": "100%",
    "result": {"type": "image", "data": [{"url": URL}]},
    "error": None,
    "submitted_at": 1_755_000_000,
    "finished_at": 1_755_000_020,
}
FAILED: dict[str, Any] = {
    **DATA,
    "status": "FAILURE",
    "result": None,
    "error": {"code": "generation_failed", "message": "no luck"},
}


def event(data: Any = DATA, kind: Any = "generation.completed", **more: Any) -> WebhookEvent:
    body = {"id": "evt_1", "type": kind, "api_version": "v1", "created_at": 1_755_000_020, "data": data, **more}
    return decode_event(json.dumps(body).encode(), "evt_1")


def without(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in names}


def test_a_completed_task_is_a_snapshot_like_any_other() -> None:
    told = event()
    assert (told.event_id, told.type, told.is_test) == ("evt_1", "generation.completed", False)
    snapshot = told.snapshot
    assert snapshot is not None
    finished_at = datetime(2025, 8, 12, 12, 0, 20, tzinfo=UTC)
    expires_at = datetime(2025, 8, 13, 12, 0, 20, tzinfo=UTC)
    assert (snapshot.task_id, snapshot.client_business_id) == ("task_img_1", "order-1")
    assert (snapshot.status, snapshot.raw_status, snapshot.progress) == (TaskStatus.COMPLETED, "SUCCESS", 100)
    assert snapshot.model == "gpt-image-2-vip"
    assert snapshot.created_at == datetime(2025, 8, 12, 12, 0, tzinfo=UTC)
    assert (snapshot.completed_at, snapshot.expires_at) == (finished_at, expires_at)
    assert snapshot.images == (GeneratedImage(URL, expires_at),)
    assert snapshot.error is None
    assert snapshot.raw == DATA


def test_a_video_is_one_by_its_task_type_and_its_bill_and_usage_are_read() -> None:
    billing = {"status": "settled", "credits": "100", "cost_usd": "0.5"}
    result = {"type": "video", "data": [{"url": URL, "last_frame_url": URL}]}
    told = event(
        {**DATA, "task_type": "video", "result": result, "billing": billing, "usage": {"tool_usage": {"web_search": 1}}}
    )
    assert told.kind == "video"
    assert told.snapshot is not None
    assert [video.last_frame_url for video in told.snapshot.videos] == [URL]
    assert told.snapshot.images == ()
    assert told.snapshot.billing == Billing("settled", Decimal(100), Decimal("0.5"))
    assert told.snapshot.usage == Usage(tool_usage=ToolUsage(1))
    assert told.snapshot.raw_status == "SUCCESS"
    assert event(without(DATA, "task_type", "result")).kind is None
    assert event().kind == "image"


def test_a_failed_task_tells_why() -> None:
    snapshot = event(FAILED, "generation.failed").snapshot
    assert snapshot is not None
    assert snapshot.status is TaskStatus.FAILED
    assert snapshot.error == TaskError("generation_failed", "no luck")
    assert snapshot.images == ()


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (without(DATA, "status"), "generation.completed", TaskStatus.COMPLETED),
        ({**DATA, "status": None}, "generation.completed", TaskStatus.COMPLETED),
        ({**DATA, "status": "DONE"}, "generation.completed", TaskStatus.COMPLETED),
        ({**DATA, "status": "completed"}, "generation.completed", TaskStatus.COMPLETED),
        ({**DATA, "status": " success "}, "some.new.type", TaskStatus.COMPLETED),
        (without(FAILED, "status"), "generation.failed", TaskStatus.FAILED),
        (without(FAILED, "status", "error"), "generation.failed", TaskStatus.FAILED),
        ({**FAILED, "status": "FAILED", "error": "plain"}, "generation.completed", TaskStatus.FAILED),
    ],
)
def test_the_status_decides_and_where_it_says_nothing_the_type(data: Any, kind: str, status: TaskStatus) -> None:
    snapshot = event(data, kind).snapshot
    assert snapshot is not None
    assert snapshot.status is status


def test_only_the_id_and_a_link_are_needed() -> None:
    snapshot = event({"task_id": "t", "result": {"data": [{"url": URL}]}}).snapshot
    assert snapshot is not None
    assert (snapshot.task_id, snapshot.client_business_id, snapshot.completed_at) == ("t", None, None)
    assert [image.url for image in snapshot.images] == [URL]


def test_the_id_of_something_else_in_the_data_is_not_the_tasks() -> None:
    snapshot = event({**DATA, "id": "job_7"}).snapshot
    assert snapshot is not None
    assert snapshot.task_id == "task_img_1"


def test_without_a_task_id_the_callers_own_stands_in() -> None:
    snapshot = event(without(DATA, "task_id")).snapshot
    assert snapshot is not None
    assert snapshot.task_id == snapshot.client_business_id == "order-1"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (None, "generation.completed"),
        ([], "generation.completed"),
        ({}, "generation.completed"),
        (without(DATA, "task_id", "client_business_id"), "generation.completed"),
        ({**DATA, "task_id": "..", "client_business_id": None}, "generation.completed"),
        ({**DATA, "status": "PROCESSING"}, "generation.progress"),
        ({**DATA, "status": "SUBMITTED"}, "generation.started"),
        ({**DATA, "result": None}, "generation.completed"),
        ({**DATA, "result": {"data": []}}, "generation.completed"),
        ({**DATA, "result": {"data": [{"url": 5}]}}, "generation.completed"),
        ({**DATA, "result": {"message": "nothing"}}, "generation.completed"),
    ],
)
def test_an_event_that_shows_no_end_we_can_use_shows_none(data: Any, kind: str) -> None:
    assert event(data, kind).snapshot is None


def test_the_consoles_test_is_one_though_it_looks_like_a_success() -> None:
    told = event(
        {**without(DATA, "model"), "result": {"message": "hi"}, "submitted_at": 0, "finished_at": 0}, "endpoint.test"
    )
    assert told.is_test
    assert told.snapshot is None


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"text"', b"{}", b'{"type": ""}', b'{"type": 5.5}', b"\xff", b"{", b"[" * 100_000]
)
def test_what_is_no_event_is_refused_as_such(body: bytes) -> None:
    with pytest.raises(WebhookRejected, match="no event") as caught:
        decode_event(body, "evt_1")
    assert caught.value.status == 400


@pytest.mark.parametrize("depth", [100, *range(800, 1_000, 4)])
def test_a_result_too_deep_to_be_read_is_no_crash(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    body = b'{"type": "generation.completed", "data": {"task_id": "t", "status": "SUCCESS", "result": %s}}' % deep
    with suppress(WebhookRejected):
        assert decode_event(body, "evt_1").snapshot is None
