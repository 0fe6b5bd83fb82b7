"""The only place that speaks HTTP, and the only one that knows the key.

Every exchange ends in one of three ways, and the whole library turns on the third:

- an `Answer` came, whatever its status;
- `TransportError(may_have_been_accepted=False)`: the request's body was never begun to be written;
- `TransportError(may_have_been_accepted=True)`: it was (at least in part), and no answer came.

Which one is decided by aiohttp's trace events. The exception's type can't tell: the total time-out raises the same
error while a request is queued for a connection and while its answer is awaited.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
from attrs import define
from yarl import URL

from toapis_async.errors import SessionClosed, TransportError, UnreadableAnswer
from toapis_async.events import RequestDone
from toapis_async.protocol.lenient import Answer, shorten

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import SimpleNamespace

    from toapis_async.events import Event
    from toapis_async.settings import Credentials, Settings

USER_AGENT = "toapis-async"
MAX_REDIRECTS = 5
FAILURES = (aiohttp.ClientError, OSError, TimeoutError, UnicodeError)
"""What aiohttp raises when a request fails; `UnicodeError` is the resolver's for a host name with an endless label."""


@define
class Trace:
    """What one request did on the wire; aiohttp resends a GET on a stale connection without telling anyone else."""

    headers_sent: int = 0
    body_begun: bool = False


class Transport:
    """One aiohttp session for the API and for files. Opened and closed by the client."""

    def __init__(self, credentials: Credentials, settings: Settings, emit: Callable[[Event], None]) -> None:
        self._key = credentials.api_key
        self._base = URL(credentials.base_url)
        self._settings = settings
        self._emit = emit
        self._session: aiohttp.ClientSession | None = None
        self._reading: set[aiohttp.ClientResponse] = set()
        self.closed = asyncio.Event()
        self.sent = 0

    def open(self) -> None:
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.max_connections),
            timeout=aiohttp.ClientTimeout(
                total=settings.request_timeout_s,
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.read_timeout_s,
            ),
            # The key is no default header: it is added to API requests one by one, so that no download bears it.
            headers={"User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[_tracing()],
        )

    async def aclose(self) -> None:
        session, self._session = self._session, None
        self.closed.set()
        # aiohttp forgets those who are in the middle of a body: nobody would wake them before their time-out.
        for response in self._reading:
            response.content.set_exception(aiohttp.ClientConnectionError("the client was closed"))
        if session is not None:
            await session.close()

    async def post(self, kind: str, path: str, *, json: Any = None, form: aiohttp.FormData | None = None) -> Answer:
        """POST to the API. A lost answer is `TransportError(may_have_been_accepted=True)`."""
        return await self._exchange(kind, "POST", path, json=json, data=form)

    async def get(self, kind: str, path: str, *, params: dict[str, str] | None = None) -> Answer:
        """GET from the API: harmless, so a lost answer is just a `TransportError`."""
        return await self._exchange(kind, "GET", path, params=params)

    @asynccontextmanager
    async def download(self, url: str) -> AsyncGenerator[aiohttp.ClientResponse]:
        """An open answer of any host. Never bears the key; redirects are followed, a few, over http(s) only.

        Raises `TransportError` for failures while opening; those while reading are the reader's to map (`lost`).
        """
        session = self._open_session()
        timeout = aiohttp.ClientTimeout(
            total=self._settings.download_timeout_s,
            sock_connect=self._settings.connect_timeout_s,
            sock_read=self._settings.read_timeout_s,
        )
        response: aiohttp.ClientResponse | None = None
        failure: TransportError | None = None
        try:
            # Without compression, Content-Length counts the very bytes we store.
            response = await session.get(
                url,
                headers={"Accept-Encoding": "identity"},
                timeout=timeout,
                max_redirects=MAX_REDIRECTS,
                proxy=self._settings.proxy,
            )
        except (*FAILURES, asyncio.CancelledError) as error:
            if self._is_cancelled(error):
                raise
            failure = self.lost(error)
        if failure is not None:
            raise failure
        assert response is not None
        async with response:
            self._reading.add(response)
            try:
                yield response
            finally:
                self._reading.discard(response)

    def lost(self, error: BaseException) -> TransportError:
        """Our error for a foreign one, with the key and control characters taken out of its words."""
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if self.closed.is_set():
            words = "the client was closed"
        return TransportError(shorten(words.replace(self._key, "sk-***")))

    async def _exchange(self, kind: str, method: str, path: str, **options: Any) -> Answer:
        started_s = asyncio.get_running_loop().time()
        trace = Trace()
        answer: Answer | None = None
        failure: TransportError | None = None
        try:
            answer = await self._answer(method, path, trace, options)
        except (*FAILURES, asyncio.CancelledError) as error:
            if self._is_cancelled(error):
                raise
            failure = self.lost(error)
            failure.may_have_been_accepted = method == "POST" and trace.body_begun
            failure.sent = trace.headers_sent
            if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
                failure.add_note("TLS failed: is a proxy or a wrong clock in the way?")
        finally:
            self.sent += trace.headers_sent
            duration_s = asyncio.get_running_loop().time() - started_s
            self._emit(RequestDone(kind, answer.status if answer else None, duration_s, trace.headers_sent))
        # Raised out here, so that aiohttp's error is no context of ours: some hold the request's headers.
        if failure is not None:
            raise failure
        assert answer is not None
        return answer

    async def _answer(self, method: str, path: str, trace: Trace, options: dict[str, Any]) -> Answer:
        session = self._open_session()
        async with session.request(
            method,
            URL(f"{self._base}{path}", encoded=True),
            headers={"Authorization": f"Bearer {self._key}", "Accept": "application/json"},
            allow_redirects=False,
            proxy=self._settings.proxy,
            trace_request_ctx=trace,
            **options,
        ) as response:
            self._reading.add(response)
            try:
                body = await self._read(response)
            except FAILURES:
                if response.status < 400:
                    raise
                body = b""  # the status alone says that the service refused
            finally:
                self._reading.discard(response)
            return Answer(response.status, _told(response), self._without_key(body), trace.headers_sent)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        cap_bytes = self._settings.max_answer_bytes
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > cap_bytes:
                response.close()
                if response.status >= 400:
                    break  # a gateway's page: its title is at the start
                raise UnreadableAnswer(f"the answer is longer than {cap_bytes} bytes", status=response.status)
        return bytes(body)

    def _is_cancelled(self, error: BaseException) -> bool:
        """Whether the caller was cancelled. aiohttp raises the same error in those who queue for a connection when the
        session closes; they asked for nothing of the kind and get a failure like the others."""
        task = asyncio.current_task()
        by_caller = not self.closed.is_set() or task is None or task.cancelling() > 0
        return isinstance(error, asyncio.CancelledError) and by_caller

    def _without_key(self, text: bytes) -> bytes:
        return text.replace(self._key.encode(), b"sk-***")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise SessionClosed("the client is closed, and its connections with it")
        return self._session


def task_path(task_id: str) -> str:
    """The status URL of a task, by its id or its client_business_id: opaque text, so every byte is encoded."""
    return f"/images/generations/{quote(task_id, safe='')}"


def _told(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers that anyone here reads."""
    lower = ((name.lower(), value) for name, value in response.headers.items())
    return {name: value for name, value in lower if name == "retry-after" or name.startswith("x-ratelimit-")}


def _tracing() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()

    async def on_headers(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        if (trace := context.trace_request_ctx) is not None:
            trace.headers_sent += 1

    async def on_chunk(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        if (trace := context.trace_request_ctx) is not None:
            trace.body_begun = True

    config.on_request_headers_sent.append(on_headers)
    config.on_request_chunk_sent.append(on_chunk)
    return config
