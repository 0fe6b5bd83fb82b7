"""What the service means when it says no."""

from __future__ import annotations

import json
import pickle
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.errors import (
    AuthenticationFailed,
    ContentRefused,
    InsufficientQuota,
    RateLimited,
    ServiceError,
    TaskNotFound,
)
from toapis_async.protocol.lenient import Answer, shorten
from toapis_async.protocol.refusals import decode_error, refusal_in

from .kit import answer, json_values, nested

if TYPE_CHECKING:
    from toapis_async.errors import ToAPIsError


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, {"error": {"code": "invalid_request", "message": "m"}}, ServiceError, "invalid_request"),
        (400, {"error": {"code": "webhook_not_configured", "message": "m"}}, ServiceError, "webhook_not_configured"),
        (401, {"error": {"code": "unauthorized", "message": "m"}}, AuthenticationFailed, "unauthorized"),
        (
            401,
            {"error": {"code": "authentication_error", "message": "m"}},
            AuthenticationFailed,
            "authentication_error",
        ),
        (
            401,
            {"error": {"code": "", "message": "m", "type": "new_api_error"}},
            AuthenticationFailed,
            "new_api_error",
        ),
        (402, {"error": {"code": "insufficient_quota", "message": "m"}}, InsufficientQuota, "insufficient_quota"),
        (402, {"error": {"code": 402, "type": "payment_required", "message": "m"}}, InsufficientQuota, "402"),
        (403, {"error": {"code": "forbidden", "message": "m"}}, ServiceError, "forbidden"),
        (404, {"error": {"code": "task_not_found", "message": "m"}}, ServiceError, "task_not_found"),
        (404, {"error": {"code": 404, "type": "not_found_error", "message": "m"}}, ServiceError, "404"),
        (
            422,
            {"error": {"code": "content_policy_violation", "message": "m"}},
            ContentRefused,
            "content_policy_violation",
        ),
        (429, {"error": {"code": "rate_limit_exceeded", "message": "m"}}, RateLimited, "rate_limit_exceeded"),
        (429, {"error": {"code": 429, "message": "m"}}, RateLimited, "429"),
        (500, {"error": {"code": "internal_error", "message": "m"}}, ServiceError, "internal_error"),
        (503, {"error": {"code": "rate_limit_unavailable", "message": "m"}}, ServiceError, "rate_limit_unavailable"),
        (
            503,
            {"error": {"code": "model_not_found", "type": "new_api_error", "message": "m"}},
            ServiceError,
            "model_not_found",
        ),
        (307, {"message": "m"}, ServiceError, ""),
        (500, {"code": "internal_error", "message": "m"}, ServiceError, "internal_error"),
        (500, {"error": "m", "code": 5}, ServiceError, "5"),
        (500, {"detail": "m"}, ServiceError, ""),
        (500, {"error": None, "message": "m"}, ServiceError, ""),
        (500, {"error": [], "message": "m"}, ServiceError, ""),
    ],
)
def test_each_documented_error_is_its_class_and_keeps_its_code(
    status: int, body: dict[str, Any], kind: type[ServiceError], code: str
) -> None:
    error = decode_error(answer(body, status))
    assert type(error) is kind
    assert (error.status, error.code, error.message) == (status, code, "m")


@pytest.mark.parametrize(
    ("status", "body", "about_task", "kind"),
    [
        (404, {"error": {"code": "task_not_found", "message": "m"}}, True, TaskNotFound),
        (404, {"error": {"code": "task_not_found", "message": "m"}}, False, ServiceError),
        (404, b"<html><title>404</title></html>", True, ServiceError),  # a gateway's, which can't know
        (404, b"404: Not Found", True, TaskNotFound),
        (400, {"message": "task_not_exist"}, True, TaskNotFound),
        (400, {"code": "task_not_exist", "message": "任务不存在"}, True, TaskNotFound),
        (400, {"error": {"code": "task_not_exist", "message": "任务不存在"}}, True, TaskNotFound),
        (400, {"code": "task_not_exist"}, True, TaskNotFound),
        (400, {"message": "task_not_exist"}, False, ServiceError),
        (400, {"message": "bad prompt about a task_not_exist"}, True, ServiceError),
        (500, {"message": "task_not_exist"}, True, ServiceError),
    ],
)
def test_only_a_question_about_a_task_finds_it_unknown(
    status: int, body: object, about_task: bool, kind: type[ToAPIsError]
) -> None:
    assert type(decode_error(answer(body, status), about_task=about_task)) is kind


def test_a_429_keeps_how_long_to_wait() -> None:
    error = decode_error(answer(b"", 429), retry_after_s=2.5)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 2.5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"code": "invalid_request", "message": "too big", "param": "size"}}, "too big [size]"),
        ({"error": {"message": "too big", "param": ""}}, "too big"),
        ({"error": {"message": "too big", "param": 5}}, "too big"),
        ({"error": {"code": "x"}}, "x"),
        ({"code": "x"}, "x"),
        ({"error": {"message": "当前分组上游负载已饱和。请稍后再试"}}, "当前分组上游负载已饱和。请稍后再试"),
        ({"error": {"message": "요청이 너무 많습니다"}}, "요청이 너무 많습니다"),
        ({"error": {"message": "\x1b]0;pwned\x07\x1b[31mred\r\n\tline\u202e"}}, "]0;pwned[31mred line"),
        ({"error": "\x1b", "message": "m"}, "m"),
        ({"error": {"message": "x" * 1_000}}, "x" * 299 + "…"),
        (b"", "an empty answer"),
        (b" \r\n ", "an empty answer"),
        (b"upstream connect error", "upstream connect error"),
        (b"[1, 2]", "[1, 2]"),
        (b"null", "null"),
        (b'{"error": {"mess', '{"error": {"mess'),
        (b"\xff\xfe\xfa", "\ufffd\ufffd\ufffd"),
        (b"<!DOCTYPE html><HTML><body>no title", "an HTML page"),
        (b"<html><title> \n </title></html>", "an HTML page"),
        (b"<TITLE lang='en'>502:\n Bad   gateway</TITLE>", "502: Bad gateway"),
    ],
)
def test_the_message_is_one_short_line_for_people(body: object, message: str) -> None:
    error = decode_error(answer(body, 500))
    assert error.message == message


def test_a_gateway_page_becomes_its_title() -> None:
    page = b"<!DOCTYPE html><html><head><title>toapis.com | 504: Gateway time-out</title>" + b"<p>x</p>" * 37_500
    error = decode_error(answer(page, 504))
    assert len(page) > 300_000
    assert str(error) == "toapis.com | 504: Gateway time-out (HTTP 504)"


@pytest.mark.parametrize("piece", [b"<title>", b"<title", b"<title>x</titl", b"<", b"<html", b"\x1b"])
def test_a_page_made_to_be_slow_is_read_in_no_time(piece: bytes) -> None:
    began = time.process_time()
    decode_error(answer(piece * (300_000 // len(piece)), 502))
    assert time.process_time() - began < 1.0


def test_an_error_nested_without_end_is_still_an_error() -> None:
    assert len(decode_error(answer(nested(), 500)).message) <= 300


@settings(max_examples=80)
@given(status=st.integers(300, 599), value=json_values, about_task=st.booleans())
def test_arbitrary_json_is_an_error_with_a_short_printable_message(
    status: int, value: object, about_task: bool
) -> None:
    error = decode_error(Answer(status, {}, json.dumps(value).encode()), about_task=about_task)
    assert error.status == status
    assert error.message
    assert error.message.isprintable()
    assert len(error.message) <= 300
    assert len(error.code) <= 100


@settings(max_examples=100)
@given(status=st.integers(300, 599), body=st.binary(max_size=400))
def test_arbitrary_bytes_are_an_error_with_a_short_printable_message(status: int, body: bytes) -> None:
    error = decode_error(Answer(status, {}, body))
    assert error.message
    assert error.message.isprintable()


@settings(max_examples=200)
@given(text=st.text(max_size=400), limit=st.integers(1, 100))
def test_shortened_text_is_printable_folded_and_within_its_limit(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short.isprintable()
    assert short == " ".join(short.split())
    if text.isprintable() and len(text) <= limit:
        assert short == " ".join(text.split())


# ------------------------------------------------------------------------------------------- quota


@pytest.mark.parametrize("status", [200, 400, 402, 403, 429])
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "insufficient_quota", "message": "m"}},
        {"error": {"code": "insufficient_user_quota", "message": "m", "type": "new_api_error"}},
        {"error": {"code": 429, "message": "m", "type": "insufficient_quota"}},
        {"error": {"code": "quota_not_enough", "message": "m"}},
        {"error": {"code": "", "type": "Quota_Not_Enough", "message": "m"}},
        {"code": "quota_not_enough", "message": "m", "data": None},
        {"success": False, "code": "insufficient_user_quota", "message": "m"},
        {"error": "insufficient_quota"},
        {"success": False, "message": "insufficient_quota"},
    ],
    ids=json.dumps,
)
def test_a_quota_code_is_an_empty_account_whatever_the_status(status: int, body: dict[str, Any]) -> None:
    error = refusal_in(answer(body, status)) if status == 200 else decode_error(answer(body, status))
    assert type(error) is InsufficientQuota
    assert error.status == status


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, {"error": {"code": "model_not_allowed", "message": "not with this quota group"}}),
        (429, {"error": {"code": "rate_limit_exceeded", "message": "quota of requests a minute is used up"}}),
        (500, {"error": {"code": "insufficient_quota", "message": "of the service, not of the account"}}),
        (400, {"code": "fail_to_fetch_task", "message": '{"code": "insufficient_quota", "message": "upstream"}'}),
    ],
)
def test_other_words_about_quota_are_none_of_the_account(status: int, body: dict[str, Any]) -> None:
    assert not isinstance(decode_error(answer(body, status)), InsufficientQuota)


# ------------------------------------------------------------------------------------------- good answers that are none


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"code": "x", "message": "m"}}, "m", "x"),
        ({"error": "m"}, "m", ""),
        ({"error": {"code": "x"}}, "x", "x"),
        ({"error": {"code": "x", "message": "m"}, "data": None, "id": None}, "m", "x"),
        ({"success": False, "message": "m", "data": None}, "m", ""),
        ({"success": "false", "message": "m"}, "m", ""),
        ({"success": False, "data": {"error": "m"}}, "m", ""),
        ({"success": False}, "the service refused without a reason", ""),
        ({"success": False, "id": "req-1", "status": "error", "message": "m"}, "m", ""),
        ({"code": 40001, "message": "m", "data": None}, "m", "40001"),
        ({"code": "fail_to_fetch_task", "message": '{"error": {"code": "x", "message": "m"}}', "data": None}, "m", "x"),
        ({"status": 500, "error": "m", "path": "/v1"}, "m", ""),
        ({"status": "error", "error": {"message": "m"}}, "m", ""),
        ({"status": "fail", "message": "m"}, "m", ""),
        ({"message": "m"}, "m", ""),
        ({"detail": "m"}, "m", ""),
        ({"id": "t", "status": "", "error": {"message": "m"}}, "m", ""),
    ],
    ids=str,
)
def test_a_good_answer_without_a_task_is_the_error_it_holds(body: dict[str, Any], message: str, code: str) -> None:
    error = refusal_in(answer(body))
    assert error is not None
    assert (error.status, error.message, error.code) == (200, message, code)


@pytest.mark.parametrize(
    "body",
    [
        {"id": "t", "status": "queued"},
        {"task_id": "t", "status": ""},
        {"id": "t"},
        {"id": "t", "status": "queued", "error": None},
        {"id": "t", "status": "failed", "error": {"code": "x", "message": "m"}},
        {"id": "t", "status": "cancelled", "error": {"code": "x", "message": "m"}},
        {"id": "t", "status": "queued", "error": {}, "message": "m"},
        {"code": "success", "message": "", "data": {"task_id": "t", "status": "SUCCESS"}},
        {"code": "success", "message": "ok", "data": {"id": "t"}},
        {"success": True, "message": "ok", "data": {"id": "t", "status": "failed", "error": {"message": "m"}}},
        {"data": []},
        {"object": "list", "message": "ok"},
        {"code": 0, "message": "ok"},
        {"success": True, "remain_credits": 5, "message": "ok"},
        {},
        [],
        "text",
    ],
    ids=str,
)
def test_a_task_or_another_result_is_no_error(body: Any) -> None:
    assert refusal_in(answer(body)) is None
    assert refusal_in(answer(body), about_task=True) is None


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"error": "m"', b"\xff"])
def test_what_is_no_json_is_left_to_the_decoders(content: bytes) -> None:
    assert refusal_in(answer(content)) is None


def test_a_status_is_enough_for_a_query_and_not_for_a_submission() -> None:
    failed = answer({"status": "failed", "error": {"message": "m"}})
    assert refusal_in(failed, about_task=True) is None
    assert refusal_in(failed) is not None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "task_not_exist", "message": "m", "type": "new_api_error"}, TaskNotFound),
        ({"code": "unauthorized", "message": "m"}, AuthenticationFailed),
        ({"code": "rate_limit_exceeded", "message": "m"}, RateLimited),
        ({"code": "content_policy_violation", "message": "m"}, ContentRefused),
        ({"code": "internal_error", "message": "m"}, ServiceError),
    ],
)
def test_an_error_in_a_good_answer_is_of_the_class_of_its_code(error: dict[str, str], kind: type[ServiceError]) -> None:
    assert type(refusal_in(answer({"error": error}), about_task=True)) is kind


# ------------------------------------------------------------------------------------------- who is meant


def test_a_403_to_a_status_query_is_about_the_key_when_the_service_says_it_and_about_a_gateway_when_a_page_does() -> (
    None
):
    said = decode_error(answer({"error": {"code": "forbidden", "message": "m"}}, 403), about_task=True)
    page = decode_error(answer(b"<html><title>403 Forbidden</title>", 403), about_task=True)
    assert (type(said), type(page)) == (AuthenticationFailed, ServiceError)


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "forbidden"), (503, "model_not_found"), (404, "model_not_found"), (400, "model_not_found")],
)
def test_a_refusal_of_a_model_names_it_and_where_to_look(status: int, code: str) -> None:
    refused = answer({"error": {"code": code, "message": "m"}}, status)
    error = decode_error(refused, model="gpt-image-9")
    assert str(error).startswith("m: ")
    assert "'gpt-image-9'" in error.message
    assert "`toapis models`" in error.message
    assert decode_error(refused).message == "m"


def test_a_refusal_for_want_of_money_does_not_speak_of_the_model() -> None:
    error = decode_error(answer({"error": {"code": "quota_not_enough", "message": "m"}}, 403), model="gpt-image-2")
    assert error.message == "m"


def test_a_real_person_in_a_reference_is_refused_content_in_the_words_of_who_refused() -> None:
    for code in ("PrivacyInformation", "InputImageSensitiveContentDetected.PrivacyInformation"):
        inner = json.dumps({"code": code, "message": "a face"})
        error = decode_error(answer({"code": "fail_to_fetch_task", "message": inner, "data": None}, 400))
        assert type(error) is ContentRefused
        assert (error.code, error.message) == (code, "a face")


# ------------------------------------------------------------------------------------------- for a support ticket


@pytest.mark.parametrize(
    ("headers", "body", "request_id"),
    [
        ({"x-request-id": "req_1"}, {"error": {"message": "m"}}, "req_1"),
        ({"x-oneapi-request-id": "2026", "cf-ray": "ray"}, {"error": {"message": "m"}}, "2026"),
        ({"cf-ray": "8abc-FRA"}, {"error": {"message": "m"}}, "8abc-FRA"),
        ({"cf-ray": "8abc-FRA"}, {"error": {"message": "m (request id: 20260101ab)"}}, "20260101ab"),
        ({}, {"error": {"message": "m"}, "request_id": "4f-77-ab"}, "4f-77-ab"),
        ({}, {"error": {"message": "request id is missing"}}, None),
        ({}, {"error": {"message": "m"}}, None),
        ({"x-request-id": "\x1b[31m" + "x" * 500}, {}, "[31m" + "x" * 75 + "…"),
    ],
)
def test_a_request_id_is_kept_for_the_support(headers: dict[str, str], body: object, request_id: str | None) -> None:
    error = decode_error(Answer(500, headers, json.dumps(body).encode()))
    assert error.request_id == request_id
    assert request_id is None or str(error).count(request_id) == 1
    assert pickle.loads(pickle.dumps(error)).request_id == request_id  # noqa: S301


@pytest.mark.parametrize("model", [None, "gpt-image-2"])
def test_an_unknown_path_names_the_base_url(model: str | None) -> None:
    body = {"error": {"code": "", "message": "Invalid URL (GET /v1/v1/balance)", "type": "invalid_request_error"}}
    assert "TOAPIS_BASE_URL" in decode_error(answer(body, 404), model=model).message
