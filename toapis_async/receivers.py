"""Ready receivers for `client.webhooks`: an ASGI app to mount, and a handler for aiohttp.web.

They answer 200 with what became of the event, 401 to a bad signature, 400 to nonsense, 405 to other methods than POST,
408 to a body that takes longer than the service itself would wait, 413 to one that is too large, and 503 while the
client is not open, so that the service comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from toapis_async.errors import ClientStateError, WebhookRejected
from toapis_async.log import logger
from toapis_async.protocol.signature import MAX_BODY_BYTES, Headers

if TYPE_CHECKING:
    from aiohttp import web

    from toapis_async.webhooks import Webhooks

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Read: TypeAlias = Callable[[], Awaitable[bytes]]  # the next piece of a body, b"" at its end

READ_TIMEOUT_S: Final = 10.0
"""The service gives a delivery up after 10 s [docs]."""


def asgi_app(webhooks: Webhooks) -> AsgiApp:
    """An ASGI app to mount in FastAPI, Starlette, Litestar or any other: `app.mount("/toapis", asgi_app(…))`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"webhooks come by http, not by {scope['type']}")
        try:
            status, text = await _answer(webhooks, scope["method"], scope["headers"], _asgi_reader(receive))
        except ConnectionError:  # nobody is there to be answered
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if status == 405:
            headers.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    return app


def _asgi_reader(receive: Receive) -> Read:
    more = True

    async def read() -> bytes:
        nonlocal more
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            more = message.get("more_body", False)
            if chunk := message.get("body", b""):
                return bytes(chunk)
        return b""

    return read


def aiohttp_handler(webhooks: Webhooks) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler for aiohttp.web: `app.router.add_post("/toapis", aiohttp_handler(client.webhooks))`."""
    from aiohttp import web  # noqa: PLC0415  (only for those whose server it is)

    async def handle(request: web.Request) -> web.Response:
        status, text = await _answer(webhooks, request.method, request.headers, request.content.readany)
        return web.Response(status=status, text=text, headers={"Allow": "POST"} if status == 405 else None)

    return handle


async def _answer(webhooks: Webhooks, method: str, headers: Headers, read: Read) -> tuple[int, str]:
    """The status and the text to answer with."""
    if method != "POST":
        return 405, "events are POSTed"
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            body = await _all_of(read)
    except TimeoutError:
        return 408, "the body did not come in time"
    try:
        return 200, await webhooks.deliver(body, headers)
    except WebhookRejected as rejected:
        return rejected.status, str(rejected)
    except ClientStateError as error:
        logger.warning("an event came that could not be taken, it will come again: %s", error)
        return 503, "not open"


async def _all_of(read: Read) -> bytes:
    """The body, or the beginning of one that is too large: enough to be refused for it."""
    body = bytearray()
    while len(body) <= MAX_BODY_BYTES and (chunk := await read()):
        body += chunk
    return bytes(body)
