"""The error table, row by row: what an answer to a question and to a submission becomes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aioresponses import aioresponses
from aioresponses import core as aioresponses_core
from attrs import frozen

from toapis_async import (
    AuthenticationFailed,
    ContentRefused,
    InsufficientQuota,
    RateLimited,
    ServiceError,
    SubmitUncertain,
    TaskNotFound,
    ToAPIs,
    TransportError,
    UnreadableAnswer,
)

from .kit import KEY, fast, task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BASE = "https://toapis.example/api"
SUBMIT = f"{BASE}/v1/images/generations"
QUERY = f"{SUBMIT}/task_1"


class _Writer:
    output_size = 0


class _Response(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know that aiohttp 3.14 wants a `stream_writer`."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **{"stream_writer": _Writer(), **named})


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    monkeypatch.setattr(aioresponses_core, "ClientResponse", _Response)
    with aioresponses() as web:
        yield web


@pytest.fixture
async def client(web: aioresponses) -> AsyncIterator[ToAPIs]:
    async with ToAPIs(KEY, base_url=BASE, settings=fast(first_poll_s=60)) as client:
        yield client


def body(code: object, message: str, **more: object) -> str:
    return json.dumps({"error": {"code": code, "message": message, **more}})


HTML = "<!DOCTYPE html><html><head><title>502 Bad\n Gateway</title></head><body>…</body></html>"


@frozen
class Row:
    """An answer, the error it is to a question, and whether a submission so answered may have been accepted."""

    status: int
    text: str
    kind: type[ServiceError]
    code: str
    message: str
    unknown: bool

    def __str__(self) -> str:
        return f"{self.status}-{self.code or self.message}"


ROWS = [
    Row(
        400,
        body("invalid_request", "bad size", param="size"),
        ServiceError,
        "invalid_request",
        "bad size [size]",
        False,
    ),
    Row(400, body("webhook_not_configured", "off"), ServiceError, "webhook_not_configured", "off", False),
    Row(401, body("unauthorized", "wrong key"), AuthenticationFailed, "unauthorized", "wrong key", False),
    Row(401, body("", "无效", type="new_api_error"), AuthenticationFailed, "new_api_error", "无效", False),
    Row(402, body("insufficient_quota", "too low"), InsufficientQuota, "insufficient_quota", "too low", False),
    Row(402, body(402, "pay", type="payment_required"), InsufficientQuota, "402", "pay", False),
    Row(403, "", ServiceError, "", "an empty answer", False),
    Row(422, body("content_policy_violation", "refused"), ContentRefused, "content_policy_violation", "refused", False),
    Row(429, body(429, "slow down"), RateLimited, "429", "slow down", False),
    Row(503, body("rate_limit_unavailable", "down"), ServiceError, "rate_limit_unavailable", "down", False),
    Row(503, body("model_not_found", "no channel"), ServiceError, "model_not_found", "no channel", False),
    Row(307, "", ServiceError, "", "an empty answer", False),
    Row(418, '{"message": "teapot"}', ServiceError, "", "teapot", False),
    Row(500, body("internal_error", "oops"), ServiceError, "internal_error", "oops", True),
    Row(502, HTML, ServiceError, "", "502 Bad Gateway", True),
    Row(503, HTML, ServiceError, "", "502 Bad Gateway", True),
    Row(504, "<html><body>no title", ServiceError, "", "an HTML page", True),
    Row(524, "", ServiceError, "", "an empty answer", True),
    Row(599, '{"error": "as a text"}', ServiceError, "", "as a text", True),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_question_that_is_answered_no_raises_the_row_s_error(
    client: ToAPIs, web: aioresponses, row: Row
) -> None:
    web.get(QUERY, status=row.status, body=row.text)
    with pytest.raises(ServiceError) as caught:
        await client.status("task_1")
    error = caught.value
    assert type(error) is row.kind
    assert (error.status, error.code, error.message) == (row.status, row.code, row.message)
    assert error.task_id == "task_1"
    assert row.message in str(error)


def _posts(web: aioresponses) -> int:
    return sum(len(calls) for (method, _), calls in web.requests.items() if method == "POST")


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_submission_that_is_answered_no_is_refused_or_uncertain_by_the_last_column(
    client: ToAPIs, web: aioresponses, row: Row
) -> None:
    web.post(SUBMIT, status=row.status, body=row.text)
    with pytest.raises((ServiceError, SubmitUncertain)) as caught:
        await client.submit({"prompt": "kite", "client_business_id": "mine"})
    error = caught.value
    assert error.client_business_id == "mine"
    assert error.task_id is None
    if row.unknown:
        assert type(error) is SubmitUncertain
        assert "client.find('mine')" in str(error)
        assert row.message in str(error)
    else:
        assert type(error) is row.kind
        assert isinstance(error, ServiceError)
        assert (error.status, error.code) == (row.status, row.code)
        assert error.message.partition(": is ")[0] == row.message  # what follows names the model
    assert _posts(web) == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (404, body("task_not_found", "no such task")),
        (404, body(404, "none", type="not_found_error")),
        (404, ""),
        (400, '{"message": "task_not_exist"}'),
    ],
)
async def test_an_unknown_task_is_told_in_every_form_that_was_seen(
    client: ToAPIs, web: aioresponses, status: int, text: str
) -> None:
    web.get(QUERY, status=status, body=text, repeat=True)
    web.get(QUERY.replace("images", "videos"), status=status, body=text, repeat=True)
    with pytest.raises(TaskNotFound) as caught:
        await client.status("task_1")
    assert (caught.value.status, caught.value.task_id) == (status, "task_1")
    assert await client.find("task_1") is None


async def test_a_404_to_a_submission_says_nothing_of_a_task(client: ToAPIs, web: aioresponses) -> None:
    web.post(SUBMIT, status=404, body=body("", "Invalid URL"))
    with pytest.raises(ServiceError) as caught:
        await client.submit("kite")
    assert type(caught.value) is ServiceError


@pytest.mark.parametrize(
    "text",
    ["", "[]", '"text"', '{"id": "task_1", "sta', "<html><title>Welcome</title></html>", '{"status": "queued"}'],
    ids=["empty", "list", "text", "truncated", "html", "no-id"],
)
async def test_a_200_that_names_no_task_leaves_a_submission_uncertain(
    client: ToAPIs, web: aioresponses, text: str
) -> None:
    web.post(SUBMIT, status=200, body=text)
    with pytest.raises(SubmitUncertain) as caught:
        await client.submit("kite")
    assert isinstance(caught.value.__cause__, UnreadableAnswer)
    assert _posts(web) == 1


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_any_2xx_with_a_task_is_an_acceptance(client: ToAPIs, web: aioresponses, status: int) -> None:
    web.post(SUBMIT, status=status, body=json.dumps(task("task_9")))
    assert (await client.submit("kite")).task_id == "task_9"


async def test_an_unreadable_status_answer_names_the_place_and_keeps_the_text_short(
    client: ToAPIs, web: aioresponses
) -> None:
    text = json.dumps({"id": "task_1", "status": "completed", "result": {"data": [{"url": 5}]}, "x": "y" * 9_000})
    web.get(QUERY, status=200, body=text)
    with pytest.raises(UnreadableAnswer) as caught:
        await client.status("task_1")
    assert caught.value.place == "$.result.data[0].url"
    assert len(caught.value.text) <= 300


async def test_a_request_bears_the_key_and_the_path_prefix_of_base_url(client: ToAPIs, web: aioresponses) -> None:
    web.get(QUERY, body=json.dumps(task()))
    await client.status("task_1")
    (((method, url), (call,)),) = web.requests.items()
    assert (method, str(url)) == ("GET", QUERY)
    assert call.kwargs["headers"]["Authorization"] == f"Bearer {KEY}"
    assert call.kwargs["allow_redirects"] is False


@pytest.mark.parametrize(
    "failure", [aiohttp.ClientConnectionError("gone"), TimeoutError(), OSError("odd"), aiohttp.ClientPayloadError()]
)
async def test_whatever_aiohttp_raises_becomes_a_transport_error(
    client: ToAPIs, web: aioresponses, failure: Exception
) -> None:
    web.get(QUERY, exception=failure)
    with pytest.raises(TransportError) as caught:
        await client.status("task_1")
    assert type(failure).__name__ in str(caught.value)
    assert caught.value.__context__ is None
    assert not caught.value.may_have_been_accepted


async def test_balances_and_models_are_read_and_refused_alike(client: ToAPIs, web: aioresponses) -> None:
    web.get(f"{BASE}/v1/balance", body=json.dumps({"success": True, "remain_credits": 5, "unlimited_quota": False}))
    web.get(f"{BASE}/v1/user/balance", body=json.dumps({"success": False, "message": "later"}))
    web.get(f"{BASE}/v1/models?type=image", body=json.dumps({"data": [{"id": "a"}, {"id": "b"}]}))
    web.get(f"{BASE}/v1/models?type=video", status=401, body=body("unauthorized", "no"))
    assert (await client.balance()).remain_credits == 5
    with pytest.raises(ServiceError, match="later"):
        await client.balance("user")
    assert [model.id for model in await client.models()] == ["a", "b"]
    with pytest.raises(AuthenticationFailed):
        await client.models("video")
    with pytest.raises(ValueError, match="'key' and 'user'"):
        await client.balance("both")  # type: ignore[arg-type]


async def test_a_limited_balance_says_when_to_ask_again(web: aioresponses, client: ToAPIs) -> None:
    web.get(f"{BASE}/v1/balance", status=429, headers={"Retry-After": "7"}, payload={"error": {"message": "slow"}})
    with pytest.raises(RateLimited) as caught:
        await client.balance()
    assert caught.value.retry_after_s == 7
