"""Uploads, balances and lists of models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.errors import ServiceError, UnreadableAnswer
from toapis_async.models import Balance, Model, Upload
from toapis_async.protocol.lenient import Answer
from toapis_async.protocol.pricing import decode_prices
from toapis_async.protocol.wire import decode_balance, decode_models, decode_upload

from .kit import answer, json_values, nested

if TYPE_CHECKING:
    from collections.abc import Callable

LINK = "https://upload.toapis.com/u/1.png"
BALANCE = {
    "success": True,
    "remain_balance": 10.5,
    "used_balance": 2.3,
    "remain_credits": 2100,
    "used_credits": 460,
    "credits_per_usd": 200,
    "unlimited_quota": False,
}
DECODERS: tuple[Callable[[Answer], object], ...] = (decode_upload, decode_balance, decode_models)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"success": True, "message": "", "data": {"id": "u1", "url": LINK, "mime_type": "image/png", "size": 12}},
            Upload("u1", LINK, "image/png", 12),
        ),
        ({"data": {"id": 7, "url": LINK}}, Upload("7", LINK)),
        ({"url": LINK, "size": "12", "mime_type": 5}, Upload("", LINK)),
        ({"data": {"url": LINK, "size": True}}, Upload("", LINK)),
        ({"data": None, "url": LINK}, Upload("", LINK)),
    ],
)
def test_an_upload_is_its_link(body: dict[str, Any], expected: Upload) -> None:
    upload = decode_upload(answer(body))
    assert upload == expected
    assert type(upload.size_bytes) is not bool


def test_a_link_of_an_upload_without_a_host_is_on_the_apis() -> None:
    upload = decode_upload(answer({"data": {"url": "/__files/a.png"}}), "https://toapis.com/v1")
    assert upload.url == "https://toapis.com/__files/a.png"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"url": ""},
        {"url": 5},
        {"url": "javascript:x"},
        {"url": "file:///a"},
        {"url": "https://a.b/\0"},
        [],
        "x",
        None,
    ],
)
def test_an_upload_without_a_link_is_unreadable(data: object) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        decode_upload(answer({"success": True, "data": data}))
    assert caught.value.place == "$.data.url"


def test_the_documented_balance_decodes() -> None:
    assert decode_balance(answer(BALANCE)) == Balance(
        remain_credits=2100,
        used_credits=460,
        remain_balance=10.5,
        used_balance=2.3,
        credits_per_usd=200,
        unlimited_quota=False,
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"remain_balance": -1, "unlimited_quota": True}, Balance(remain_balance=-1, unlimited_quota=True)),
        ({"remain_credits": "2100.5"}, Balance(remain_credits=2100.5)),
        ({"data": {"remain_credits": 5}}, Balance(remain_credits=5)),
        ({"remain_credits": 0, "used_credits": "much", "unlimited_quota": 1}, Balance(remain_credits=0)),
    ],
)
def test_a_balance_is_read_where_it_varies(body: dict[str, Any], expected: Balance) -> None:
    assert decode_balance(answer(body)) == expected


@pytest.mark.parametrize(
    "body", [{}, {"success": True}, {"remain_credits": "x"}, {"data": []}, {"remain_balance": True}]
)
def test_an_answer_without_a_balance_is_unreadable(body: dict[str, Any]) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        decode_balance(answer(body))
    assert caught.value.place == "$.remain_credits"


def test_models_keep_what_came_and_rows_without_an_id_are_passed_over() -> None:
    rows = [{"id": "gpt-image-2-vip", "owned_by": "x"}, {"id": 5}, "flux", None, {}, {"id": "flux"}]
    models = decode_models(answer({"object": "list", "data": rows}))
    assert models == (Model("gpt-image-2-vip"), Model("flux"))
    assert models[0].raw == rows[0]


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"id": "x"}}, {"data": "x"}])
def test_an_answer_without_a_list_of_models_is_unreadable(body: dict[str, Any]) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        decode_models(answer(body))
    assert caught.value.place == "$.data"


@pytest.mark.parametrize("decode", [decode_upload, decode_balance])
@pytest.mark.parametrize(
    ("members", "message", "code"),
    [
        ({"message": "Unsupported image type: text/html"}, "Unsupported image type: text/html", ""),
        ({"error": {"code": 7, "message": "余额查询失败"}, "message": "x"}, "余额查询失败", "7"),
        ({"data": {"url": LINK, "remain_credits": 1}}, "the service refused without a reason", ""),
    ],
)
def test_a_200_with_success_false_is_a_refusal(
    decode: Callable[[Answer], object], members: dict[str, Any], message: str, code: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        decode(answer({"success": False, **members}))
    assert (caught.value.message, caught.value.code, caught.value.status) == (message, code, 200)
    assert not isinstance(caught.value, UnreadableAnswer)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b'{"data": {"url"', b"<html>", nested()])
def test_what_is_no_json_object_is_unreadable(decode: Callable[[Answer], object], body: bytes) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        decode(answer(body))
    assert caught.value.place == "$"


@settings(max_examples=80)
@given(decode=st.sampled_from(DECODERS), value=json_values)
def test_arbitrary_json_decodes_or_is_refused(decode: Callable[[Answer], object], value: object) -> None:
    outcome: object
    try:
        outcome = decode(Answer(200, {}, json.dumps(value).encode()))
    except ServiceError as error:
        outcome = error
    assert isinstance(outcome, Upload | Balance | tuple | ServiceError)
    assert not isinstance(outcome, ServiceError) or len(str(outcome)) < 450


@pytest.mark.parametrize("decode", [decode_balance, decode_models, decode_prices, decode_upload])
def test_an_error_in_place_of_the_result_is_raised_in_its_own_words(decode: Callable[[Answer], object]) -> None:
    for body in ({"error": {"code": "x", "message": "m"}}, {"success": False, "message": "m"}, {"message": "m"}):
        with pytest.raises(ServiceError, match=r"^m \(HTTP 200"):
            decode(answer(body))
