"""Ready receivers for `client.webhooks`: an ASGI app to mount, and a handler for aiohttp.web.

They judge by the headers before they read a body. They answer 200 with what became of the event; 401 to a signature
that is bad or missing; 400 to nonsense and to an encoded body; 405 to other methods than POST; 408 to a body that takes
longer than the service itself would wait, or that is the slowest of too many; 413 to one that is too large; and 503
while there is no open client, so that the service comes again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from toapis_async.errors import WebhookRejected
from toapis_async.log import logger
from toapis_async.protocol.signature import MAX_BODY_BYTES, Headers, check_headers

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


MOST_BODIES: Final = 16
"""Bodies read at once by one receiver, each of at most 1 MiB: anybody can begin one. One more ends the oldest, which is
the slowest: the service's own are a few kB and come at once."""


def asgi_app(webhooks: Webhooks | Callable[[], Webhooks]) -> AsgiApp:
    """An ASGI app to mount in FastAPI, Starlette, Litestar or any other: `app.mount("/toapis", asgi_app(…))`.

    `webhooks` is `client.webhooks`, or a callable that returns it for each event, where the client is made later:
    `asgi_app(lambda: app.state.client.webhooks)`. While that raises, events are answered with 503.
    """
    receiver = _Receiver(webhooks)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"webhooks come by http, not by {scope['type']}")
        with suppress(ConnectionError):  # nobody is there to be answered
            status, text = await receiver.answer(scope["method"], list(scope["headers"]), _asgi_reader(receive))
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


def aiohttp_handler(
    webhooks: Webhooks | Callable[[], Webhooks],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler for aiohttp.web: `app.router.add_post("/toapis", aiohttp_handler(client.webhooks))`.

    `webhooks` as in `asgi_app`.
    """
    from aiohttp import web  # noqa: PLC0415  (only for those whose server it is)

    receiver = _Receiver(webhooks)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            status, text = await receiver.answer(request.method, request.headers, request.content.readany)
        except (ConnectionError, web.RequestPayloadError):
            status, text = 400, "the body broke off"  # mostly nobody is there to be answered
        if "Content-Encoding" in request.headers:
            await _discard(request)
        return web.Response(status=status, text=text, headers={"Allow": "POST"} if status == 405 else None)

    return handle


async def _discard(request: web.Request) -> None:
    """Read what aiohttp decodes by itself, and would log as an error of ours when it can't."""
    with suppress(Exception):
        async with asyncio.timeout(READ_TIMEOUT_S):
            while await request.content.readany():
                pass
    if request.content.exception() is not None:
        request.content.feed_eof()


class _Receiver:
    """Decides what an event is answered with, whatever the server."""

    def __init__(self, webhooks: Webhooks | Callable[[], Webhooks]) -> None:
        self._webhooks = webhooks
        self._reading: dict[asyncio.Timeout, None] = {}  # of the bodies being read, the oldest first

    async def answer(self, method: str, headers: Headers, read: Read) -> tuple[int, str]:
        """The status and the text to answer with."""
        if method != "POST":
            return 405, "events are POSTed"
        try:
            check_headers(headers, time.time())
            body = await self._body(read)
            return 200, await self._current().deliver(body, headers)
        except WebhookRejected as rejected:
            if rejected.status == 503:
                logger.warning("an event will come again: %s", rejected)
                return 503, "come again"  # a stranger need not learn why
            return rejected.status, str(rejected)
        except TimeoutError:
            return 408, "the body did not come in time"

    def _current(self) -> Webhooks:
        if not callable(self._webhooks):
            return self._webhooks
        try:
            return self._webhooks()
        except Exception as error:  # whatever is missing as long as the application has not made its client
            raise WebhookRejected(f"the application gave no webhooks: {error!r}", status=503) from error

    async def _body(self, read: Read) -> bytes:
        """The body, or the beginning of one that is too large: enough to be refused for it."""
        if len(self._reading) >= MOST_BODIES:
            oldest = next(iter(self._reading))
            del self._reading[oldest]
            oldest.reschedule(asyncio.get_running_loop().time())
        body = bytearray()
        async with asyncio.timeout(READ_TIMEOUT_S) as deadline:
            self._reading[deadline] = None
            try:
                while len(body) <= MAX_BODY_BYTES and (chunk := await read()):
                    body += chunk
            finally:
                self._reading.pop(deadline, None)
        return bytes(body)
