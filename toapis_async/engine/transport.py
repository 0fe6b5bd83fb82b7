"""The only place that speaks HTTP, and the only one that knows the key.

Every exchange ends in one of three ways, and the whole library turns on the third:

- an `Answer` came, whatever its status;
- `TransportError(may_have_been_accepted=False)`: the request's body was never begun to be written;
- `TransportError(may_have_been_accepted=True)`: it was (at least in part), and no answer came.

Which one is decided by aiohttp's trace events. The exception's type can't tell: the total time-out raises the same
error while a request is queued for a connection and while its answer is awaited. A query is harmless, so of a GET
it is only counted how often it went out.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from json import dumps
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import define
from yarl import URL

from toapis_async.engine.connections import (
    FAILURES,
    HEADER_LIMITS,
    HOPELESS,
    ProxyChoice,
    advice_on,
    tls_context,
)
from toapis_async.engine.filehosts import FileHosts
from toapis_async.errors import (
    ClientStateError,
    DownloadFailed,
    SessionClosed,
    TransportError,
    UnreadableAnswer,
)
from toapis_async.events import RequestDone
from toapis_async.protocol.encoding import decoded
from toapis_async.protocol.lenient import Answer, shorten
from toapis_async.protocol.refusals import SUPPORT_HEADERS
from toapis_async.scrub import protect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
    from types import SimpleNamespace

    from aiohttp.connector import Connection

    from toapis_async.engine.connections import ProxyOptions
    from toapis_async.engine.emitter import Emitter
    from toapis_async.settings import Credentials, Settings

USER_AGENT = "toapis-async"
HEADERS_READ = (
    "retry-after",
    "x-ratelimit-category",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    *SUPPORT_HEADERS,
)


@define
class Trace:
    """What one request did on the wire; aiohttp resends a GET on a stale connection without telling anyone else."""

    headers_sent: int = 0
    body_begun: bool = False
    before_send: Callable[[], Awaitable[None]] | None = None
    """Awaited when there is a connection, right before a POST goes out. What it raises keeps it from being sent."""


_trace: ContextVar[Trace] = ContextVar("toapis_trace")


class _CountedGet(aiohttp.ClientRequest):
    """A GET, counted each time it goes out. Nobody needs to know more of one, and trace events, which tell more, cost
    a sixth of a request's CPU."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        _trace.get().headers_sent += 1
        return await super().send(conn)


class _CheckedPost(aiohttp.ClientRequest):
    """A POST that is asked about once more when its connection is there, which may take a while."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        trace = _trace.get(None)
        if trace is not None and trace.before_send is not None:
            await trace.before_send()
        return await super().send(conn)


class Transport:
    """One aiohttp session for submissions, one for queries (on the same connections) and one for files. Opened and
    closed by the client."""

    def __init__(self, credentials: Credentials, settings: Settings, emit: Emitter) -> None:
        self._key = credentials.api_key
        protect(self._key)
        self._base = URL(credentials.base_url)
        self._settings = settings
        self._emit = emit
        self._posts: aiohttp.ClientSession | None = None
        self._gets: aiohttp.ClientSession | None = None
        self._reading: set[aiohttp.ClientResponse] = set()
        self._proxy_of = ProxyChoice(settings.proxy, credentials.proxies)
        self._files = FileHosts(credentials.base_url, settings, self._proxy_of, {"User-Agent": USER_AGENT})
        self._answered: set[tuple[str | None, int | None]] = set()  # hosts and ports that answered a request
        self.closed = asyncio.Event()
        self.sent = 0

    def open(self) -> None:
        """Make the sessions. Raises `ClientStateError` when the environment names a proxy for the API that is none."""
        try:
            self._proxy_of(self._base)
        except TransportError as error:
            raise ClientStateError(str(error)) from None
        settings = self._settings
        tls = tls_context()
        connector = aiohttp.TCPConnector(limit=settings.max_connections, ssl=tls)
        api: dict[str, Any] = {"auto_decompress": False}  # whose labels are sometimes wrong
        self._posts = self._session_on(
            connector, settings.request_timeout_s, request_class=_CheckedPost, trace_configs=[_tracing()], **api
        )
        self._gets = self._session_on(
            connector, settings.request_timeout_s, connector_owner=False, request_class=_CountedGet, **api
        )
        self._files.open(tls)

    def _session_on(self, connector: aiohttp.TCPConnector, total_s: float, **options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout(total_s),
            # The key is no default header: it is added to API requests one by one, so that no download bears it.
            headers={"User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            **HEADER_LIMITS,
            **options,
        )

    async def aclose(self) -> None:
        sessions = [session for session in (self._gets, self._posts) if session is not None]
        self._gets = self._posts = None
        self.closed.set()
        # aiohttp forgets those who are in the middle of a body: nobody would wake them before their time-out.
        for response in self._reading:
            response.content.set_exception(aiohttp.ClientConnectionError("the client was closed"))
        async with AsyncExitStack() as stack:  # each is closed, also when another fails or we are cancelled
            stack.push_async_callback(self._files.aclose)
            for session in sessions:
                stack.push_async_callback(session.close)

    async def post(
        self,
        kind: str,
        path: str,
        *,
        json: Any = None,
        form: aiohttp.FormData | None = None,
        before_send: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """POST to the API. A lost answer is `TransportError(may_have_been_accepted=True)`; what `before_send` raises,
        right before it goes out, is raised as it is, and nothing was sent."""
        return await self._exchange(kind, "POST", path, Trace(before_send=before_send), json=json, data=form)

    def post_form(
        self,
        kind: str,
        path: str,
        fields: Mapping[str, object],
        *,
        before_send: Callable[[], Awaitable[None]] | None = None,
    ) -> Coroutine[None, None, Answer]:
        """The same as multipart/form-data, a text part for each field."""
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in fields.items():
            form.add_field(name, value if isinstance(value, str) else dumps(value))
        return self.post(kind, path, form=form, before_send=before_send)

    async def get(self, kind: str, path: str, *, params: dict[str, str] | None = None) -> Answer:
        """GET from the API: harmless, so a lost answer is just a `TransportError`."""
        return await self._exchange(kind, "GET", path, Trace(), params=params)

    @asynccontextmanager
    async def download(self, link: str, headers: Mapping[str, str]) -> AsyncGenerator[aiohttp.ClientResponse]:
        """An open answer of any host. Never bears the key; redirects are followed, a few, over http(s) only.

        Raises `TransportError` for failures while opening, and `DownloadFailed` when the link, or one it leads to, can
        never work; failures while reading are the reader's to map (`lost`).
        """
        response: aiohttp.ClientResponse | None = None
        failure: TransportError | DownloadFailed | None = None
        try:
            # Without compression, Content-Length counts the very bytes we store.
            response = await self._files.get(link, {"Accept-Encoding": "identity", **headers})
            self._note_answer(response.url, self._proxy_of(response.url))
        except TransportError as error:  # no proxy that can be used
            failure = DownloadFailed(f"the link can't be reached: {error}", url=link)
        except (*FAILURES, asyncio.CancelledError) as error:
            if self._is_cancelled(error):
                raise
            failure = self.lost(error)
            if isinstance(error, HOPELESS) or not failure.retryable:
                failure = DownloadFailed(f"the link can't work: {failure}", url=link)
        if failure is not None:
            raise failure
        assert response is not None
        async with response:
            self._reading.add(response)
            try:
                yield response
            finally:
                self._reading.discard(response)

    def _timeout(self, total_s: float) -> aiohttp.ClientTimeout:
        settings = self._settings
        return aiohttp.ClientTimeout(
            total=total_s, sock_connect=settings.connect_timeout_s, sock_read=settings.read_timeout_s
        )

    def lost(self, error: BaseException) -> TransportError:
        """Our error for a foreign one, with the key and control characters taken out of its words."""
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if self.closed.is_set():
            words = "the client was closed"
        message = shorten(words)
        # A host that answered before has a name and a certificate: now it is the network that fails.
        address = (getattr(error, "host", None), getattr(error, "port", None))
        advice = advice_on(error) if address not in self._answered else None
        if advice is None:
            return TransportError(message)
        return TransportError(f"{message}: {advice}", retryable=False)

    def _note_answer(self, url: URL, proxy: ProxyOptions) -> None:
        for each in (url, proxy.get("proxy", url)):
            self._answered.add((each.raw_host, each.port))

    async def _exchange(self, kind: str, method: str, path: str, trace: Trace, **options: Any) -> Answer:
        started_s = asyncio.get_running_loop().time()
        answer: Answer | None = None
        failure: TransportError | None = None
        try:
            answer = await self._answer(kind, method, path, trace, options)
        except (*FAILURES, asyncio.CancelledError) as error:
            if self._is_cancelled(error):
                raise
            failure = self.lost(error)
            failure.may_have_been_accepted = kind == "submit" and trace.body_begun
            failure.sent = trace.headers_sent
            if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
                failure.add_note("TLS failed: is a proxy or a wrong clock in the way?")
        finally:
            self.sent += trace.headers_sent
            duration_s = asyncio.get_running_loop().time() - started_s
            self._emit(RequestDone, kind, answer.status if answer else None, duration_s, trace.headers_sent)
        # Raised out here, so that aiohttp's error is no context of ours: some hold the request's headers.
        if failure is not None:
            raise failure
        assert answer is not None
        return answer

    async def _answer(self, kind: str, method: str, path: str, trace: Trace, options: dict[str, Any]) -> Answer:
        session = _opened(self._gets if method == "GET" else self._posts)
        proxy = self._proxy_of(self._base)
        _trace.set(trace)
        async with session.request(
            method,
            self._base.with_path(f"{self._base.raw_path}{path}", encoded=True),
            headers={
                "Authorization": f"Bearer {self._key}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            allow_redirects=False,
            **proxy,
            trace_request_ctx=trace,
            **options,
        ) as response:
            self._note_answer(self._base, proxy)
            self._reading.add(response)
            try:
                body = await self._read(kind, response)
            except FAILURES:
                if response.status < 300:
                    raise
                body = b""  # the status alone says what became of the request
            finally:
                self._reading.discard(response)
            return Answer(response.status, _headers_read(response), body, trace.headers_sent)

    async def _read(self, kind: str, response: aiohttp.ClientResponse) -> bytes:
        """The decoded body; of an error page that is too long, its beginning."""
        cap_bytes = self._settings.max_answer_bytes
        if kind in {"submit", "query"}:  # a task's pictures may be in its answer, as base64
            cap_bytes = max(cap_bytes, self._settings.max_file_bytes * 4 // 3 + cap_bytes)
        body = await self._read_raw(response, cap_bytes)
        body = decoded(body, response.headers.get("Content-Encoding", ""), cap_bytes)
        if len(body) > cap_bytes and response.status < 400:
            raise UnreadableAnswer(f"the answer is longer than {cap_bytes} bytes", status=response.status)
        return body

    async def _read_raw(self, response: aiohttp.ClientResponse, cap_bytes: int) -> bytes:
        """The body as it came, or a little more than `cap_bytes` of it."""
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > cap_bytes:
                response.close()
                break
        return bytes(body)

    def _is_cancelled(self, error: BaseException) -> bool:
        """Whether the caller was cancelled. aiohttp raises the same error in those who queue for a connection when the
        session closes; they did not cancel anything, and get a failure like the others."""
        task = asyncio.current_task()
        by_caller = not self.closed.is_set() or task is None or task.cancelling() > 0
        return isinstance(error, asyncio.CancelledError) and by_caller


def _opened(session: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
    if session is None:
        raise SessionClosed("the client is closed, and its connections with it")
    return session


def _headers_read(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers that anyone here reads, their names in lower case."""
    headers = response.headers
    return {name: headers[name] for name in HEADERS_READ if name in headers}


def _tracing() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()

    async def on_headers(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.headers_sent += 1

    async def on_chunk(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.body_begun = True

    config.on_request_headers_sent.append(on_headers)
    config.on_request_chunk_sent.append(on_chunk)
    return config
