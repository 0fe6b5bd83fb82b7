"""The ready receivers, as an ASGI server would drive one and over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from toapis_async import Settings, ToAPIs
from toapis_async.protocol.signature import MAX_BODY_BYTES
from toapis_async.receivers import MOST_BODIES, aiohttp_handler, asgi_app

from ..engine.kit import KEY, FakeService
from .events import SECRET, event, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from toapis_async import Webhooks
    from toapis_async.receivers import Message

Post = Any


def with_header(told: tuple[bytes, dict[str, str]], name: str, value: str) -> tuple[bytes, dict[str, str]]:
    return told[0], {**told[1], name: value}


def signed_scope(**more: str) -> dict[str, Any]:
    """A POST whose headers are those of an event, as ASGI has it."""
    headers = {**signed(b"{}")[1], **more}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "headers": raw}


def client_of(service: FakeService) -> ToAPIs:
    return ToAPIs(KEY, settings=Settings(webhook_secrets=SECRET, close_grace_s=0))


async def by_asgi(
    webhooks: Webhooks, body: bytes, headers: dict[str, str], method: str = "POST", pieces: int = 1
) -> tuple[int, str, dict[str, str]]:
    """One request, its body in so many pieces."""
    size = -(-len(body) // pieces) or 1
    chunks = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, 1)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await asgi_app(webhooks)({"type": "http", "method": method, "headers": raw}, receive, send)
    start, end = sent
    assert (start["type"], end["type"]) == ("http.response.start", "http.response.body")
    return start["status"], end["body"].decode(), {n.decode(): v.decode() for n, v in start["headers"]}


@asynccontextmanager
async def served(webhooks: Webhooks) -> AsyncIterator[str]:
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/hook", aiohttp_handler(webhooks))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, lingering_time=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


async def by_aiohttp(
    webhooks: Webhooks, body: bytes, headers: dict[str, str], method: str = "POST", pieces: int = 1
) -> tuple[int, str, dict[str, str]]:
    async with (
        served(webhooks) as url,
        aiohttp.ClientSession() as session,
        session.request(method, url, data=io.BytesIO(body), headers=headers) as response,
    ):
        text = await response.text() if method != "HEAD" else ""
        return response.status, text, {name.lower(): value for name, value in response.headers.items()}


@pytest.fixture(params=[by_asgi, by_aiohttp], ids=["asgi", "aiohttp"])
def post(request: pytest.FixtureRequest) -> Post:
    how: Callable[..., Awaitable[tuple[int, str, dict[str, str]]]] = request.param
    return how


@pytest.mark.parametrize("pieces", [1, 3, 1_000])
async def test_an_event_is_taken_and_answered_with_what_became_of_it(
    service: FakeService, post: Post, pieces: int
) -> None:
    async with client_of(service) as client:
        handle = await client.submit("kite")
        told = signed(event(handle.task_id))
        assert (await post(client.webhooks, *told, pieces=pieces))[:2] == (200, "resolved")
        assert (await post(client.webhooks, *told))[:2] == (200, "duplicate")
        assert (await handle).task_id == handle.task_id


@pytest.mark.parametrize(  # signed when they run: a suite may take longer than a signature is good
    ("told_by", "status"),
    [
        (lambda: signed(event("task_1"), secret="wrong"), 401),
        (lambda: (b"", {}), 401),
        (lambda: (b"nonsense", {}), 401),
        (lambda: signed(b"nonsense"), 400),
        (lambda: signed(b"{}"), 400),
        (lambda: signed(b""), 400),
        (lambda: signed(b"x" * MAX_BODY_BYTES), 400),
        (lambda: signed(b"x" * (MAX_BODY_BYTES + 1)), 413),
        (lambda: (b"x" * (MAX_BODY_BYTES + 1), {}), 401),
        (lambda: with_header(signed(b"{}"), "Content-Encoding", "gzip"), 400),
        (lambda: with_header((b"{}", {}), "Content-Encoding", "gzip"), 401),
    ],
    ids=[
        "another-secret",
        "nothing",
        "unsigned",
        "no-json",
        "no-event",
        "empty",
        "largest",
        "too-large",
        "unsigned-too-large",
        "encoded",
        "unsigned-encoded",
    ],
)
async def test_what_can_not_be_taken_is_refused(
    service: FakeService, post: Post, told_by: Callable[[], tuple[bytes, dict[str, str]]], status: int
) -> None:
    async with client_of(service) as client:
        answered = await post(client.webhooks, *told_by(), pieces=7)
    assert answered[0] == status
    assert SECRET not in str(answered)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_other_methods_are_told_the_right_one(service: FakeService, post: Post, method: str) -> None:
    async with client_of(service) as client:
        status, _, headers = await post(client.webhooks, b"", {}, method)
    assert (status, headers["allow"]) == (405, "POST")


async def test_a_client_that_is_closed_asks_the_service_to_come_again(
    service: FakeService, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    client = client_of(service)
    told = signed(event("task_1"))
    assert (await post(client.webhooks, *told))[0] == 503
    assert "not open yet" in caplog.text
    async with client:
        assert (await post(client.webhooks, *told))[:2] == (200, "unknown_task")
    assert (await post(client.webhooks, *told))[0] == 503
    assert (await post(client.webhooks, b"", {}))[0] == 401
    assert "SECRET" not in caplog.text


@pytest.mark.looptime
async def test_a_body_that_does_not_come_in_time_is_not_waited_for(service: FakeService) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(4)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    async with client_of(service) as client:
        await asgi_app(client.webhooks)(signed_scope(), receive, send)
    assert sent[0]["status"] == 408
    assert asyncio.get_running_loop().time() == 10


async def test_no_more_of_a_large_body_is_read_than_shows_that_it_is_large(service: FakeService) -> None:
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 2**18, "more_body": True}

    async def send(message: Message) -> None:
        assert message.get("status", 413) == 413

    async with client_of(service) as client:
        await asgi_app(client.webhooks)(signed_scope(), receive, send)
    assert read == 5


async def test_a_sender_that_goes_away_is_not_answered(service: FakeService) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async with client_of(service) as client:
        await asgi_app(client.webhooks)(signed_scope(), receive, send)


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_not_http_is_refused_as_asgi_says(service: FakeService, kind: str) -> None:
    app: Any = asgi_app(client_of(service).webhooks)
    with pytest.raises(NotImplementedError, match=kind):
        await app({"type": kind}, None, None)


# ------------------------------------------------------------------------------------------- before the body


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ({"X-ToAPIs-Webhook-Timestamp": "1000"}, 401),
        ({"X-ToAPIs-Webhook-Signature": "v2=00"}, 401),
        ({"Content-Length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"Content-Length": "9" * 900}, 413),
        ({"Content-Encoding": "br"}, 400),
    ],
    ids=["unsigned", "old", "other-version", "too-large", "absurd-length", "encoded"],
)
async def test_what_the_headers_decide_is_answered_before_a_byte_of_the_body_is_read(
    service: FakeService, header: dict[str, str] | None, status: int
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    async with client_of(service) as client:
        scope = {"type": "http", "method": "POST", "headers": []} if header is None else signed_scope(**header)
        await asgi_app(client.webhooks)(scope, receive, send)
    assert sent[0]["status"] == status


@pytest.mark.looptime
async def test_bodies_that_trickle_are_bounded_in_number_and_do_not_keep_events_out(service: FakeService) -> None:
    statuses: list[int] = []
    began_s: list[float] = []

    async def trickle() -> Message:
        began_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(3)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async with client_of(service) as client:
        app = asgi_app(client.webhooks)
        slow = [asyncio.ensure_future(app(signed_scope(), trickle, send)) for _ in range(MOST_BODIES + 5)]
        await asyncio.sleep(1)
        assert statuses == [408] * 5
        assert [task.done() for task in slow] == [True] * 5 + [False] * MOST_BODIES
        body, headers = signed(event("task_1"))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        got: list[Message] = [{"type": "http.request", "body": body}]

        async def receive() -> Message:
            return got.pop()

        await app({"type": "http", "method": "POST", "headers": raw}, receive, send)
        assert statuses == [408] * 5 + [200]
        await asyncio.gather(*slow)
    assert statuses == [408] * 5 + [200] + [408] * MOST_BODIES


@pytest.mark.parametrize("body", [b"{}", b"abcd", gzip.compress(b"{}", mtime=0), b"x" * 9_999], ids=len)
async def test_an_encoded_body_is_no_traceback_of_aiohttp_s(
    service: FakeService, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(service) as client, served(client.webhooks) as url:
        for _, headers in (signed(body), (body, {})):
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, data=body, headers={**headers, "Content-Encoding": "gzip"}) as response,
            ):
                assert response.status == (400 if headers else 401)
    assert caplog.records == []


@pytest.mark.parametrize(
    "rest",
    ["Content-Length: 400\r\n\r\nabcd", "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"],
    ids=["length", "chunks"],
)
async def test_a_sender_that_hangs_up_is_no_traceback(
    service: FakeService, rest: str, caplog: pytest.LogCaptureFixture
) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in signed(b"{}")[1].items())
    async with client_of(service) as client, served(client.webhooks) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        writer.write(f"POST /hook HTTP/1.1\r\nHost: x\r\n{head}{rest}".encode())
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.02)
    assert caplog.records == []


# ------------------------------------------------------------------------------------------- a client made later


async def test_the_client_may_be_made_later(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    state: dict[str, ToAPIs] = {}
    for receiver in (by_asgi, by_aiohttp):
        state.clear()
        later: Any = lambda: state["client"].webhooks  # noqa: E731
        told = signed(event(f"task_{receiver.__name__}"))
        assert (await receiver(later, *told))[0] == 503
        assert "KeyError" in caplog.text
        async with client_of(service) as state["client"]:
            assert (await receiver(later, *told))[:2] == (200, "unknown_task")
        async with client_of(service) as state["client"]:  # once per test, say
            assert (await receiver(later, *told))[:2] == (200, "unknown_task")
