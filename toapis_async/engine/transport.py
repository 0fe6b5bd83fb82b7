"""The only place that speaks HTTP, and the only one that knows the key.

Every exchange ends in one of three ways, and the whole library turns on the third:

- an `Answer` came, whatever its status;
- `TransportError(may_have_been_accepted=False)`: the request was never begun to be written;
- `TransportError(may_have_been_accepted=True)`: it was, and no answer came.

Which one is decided by the request itself, which is told when it has a connection and goes out. The exception's type
can't tell: the total time-out raises the same error while a request is queued for a connection and while its answer is
awaited. aiohttp's trace events tell it, too, for a sixth of a request's CPU.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
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
from toapis_async.engine.watchdog import Watchdog
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
from toapis_async.scrub import protect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping

    from aiohttp.connector import Connection

    from toapis_async.engine.connections import ProxyOptions
    from toapis_async.engine.emitter import Emitter
    from toapis_async.engine.watchdog import Watch
    from toapis_async.settings import Credentials, Settings

USER_AGENT = "toapis-async"
_send = aiohttp.ClientRequest.send  # an aiohttp without it must not be used: it would be told that nothing was sent


@define
class Trace:
    """How often one request went out; aiohttp resends a GET on a stale connection without telling anyone else."""

    sent: int = 0
    before_send: Callable[[], Awaitable[None]] | None = None
    """Awaited when there is a connection, right before a POST goes out. What it raises keeps it from being sent."""
    watch: Watch | None = None
    """Its time-outs, unless aiohttp has them."""

    def moved(self, now_s: float) -> None:
        """It was sent, or a piece of its answer came."""
        if self.watch is not None:
            self.watch.heard_s = now_s


_trace: ContextVar[Trace] = ContextVar("toapis_trace")


class _TracedRequest(aiohttp.ClientRequest):
    """A request that is asked about once more when its connection is there, which may take a while, and is counted
    each time it goes out."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        trace = _trace.get()
        if trace.before_send is not None:
            await trace.before_send()
        trace.sent += 1
        trace.moved(self.loop.time())
        return await _send(self, conn)


class Transport:
    """One aiohttp session for the API, and others for files. Opened and closed by the client."""

    def __init__(self, credentials: Credentials, settings: Settings, emit: Emitter) -> None:
        self._key = credentials.api_key
        protect(self._key)
        self.base_url: str = credentials.base_url
        self._base = URL(credentials.base_url)
        self._settings = settings
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._api: aiohttp.ClientSession | None = None
        self._proxy: ProxyOptions = {}
        self._reading: set[aiohttp.ClientResponse] = set()
        self._proxy_of = ProxyChoice(settings.proxy, credentials.proxies)
        self._files = FileHosts(credentials.base_url, settings, self._proxy_of, {"User-Agent": USER_AGENT})
        self._has_answered = False  # the API
        self._answered: set[tuple[str | None, int | None]] = set()  # hosts and ports that answered a request
        self._watchdog = Watchdog(settings.request_timeout_s, settings.read_timeout_s)
        # For a request under the watchdog.
        self._timeouts = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s)
        self._most_bytes = settings.max_answer_bytes
        # A task's pictures may be in its answer, as base64.
        self._most_bytes_of_task = max(self._most_bytes, settings.max_file_bytes * 4 // 3 + self._most_bytes)
        self.closed: asyncio.Event = asyncio.Event()
        self.sent: int = 0

    def open(self) -> None:
        """Make the sessions. Raises `ClientStateError` when the environment names a proxy for the API that is none."""
        try:
            self._proxy = self._proxy_of(self._base)
        except TransportError as error:
            raise ClientStateError(str(error)) from None
        tls, settings = tls_context(), self._settings
        self._api = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.max_connections, ssl=tls),
            timeout=aiohttp.ClientTimeout(
                total=settings.request_timeout_s,
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.read_timeout_s,
            ),
            # Of this session alone, which follows no redirect: no download bears the key.
            headers={
                "Authorization": f"Bearer {self._key}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": USER_AGENT,
            },
            request_class=_TracedRequest,
            auto_decompress=False,  # the labels are sometimes wrong
            cookie_jar=aiohttp.DummyCookieJar(),
            **HEADER_LIMITS,
        )
        self._files.open(tls)

    async def aclose(self) -> None:
        session, self._api = self._api, None
        self.closed.set()
        self._watchdog.stop()
        # aiohttp forgets those who are in the middle of a body: nobody would wake them before their time-out.
        for response in self._reading:
            response.content.set_exception(aiohttp.ClientConnectionError("the client was closed"))
        async with AsyncExitStack() as stack:  # each is closed, also when another fails or we are cancelled
            stack.push_async_callback(self._files.aclose)
            if session is not None:
                stack.push_async_callback(session.close)

    def post(
        self,
        kind: str,
        path: str,
        json: Any = None,
        *,
        form: aiohttp.FormData | None = None,
        before_send: Callable[[], Awaitable[None]] | None = None,
    ) -> Coroutine[None, None, Answer]:
        """POST to the API. A lost answer is `TransportError(may_have_been_accepted=True)`; what `before_send` raises,
        right before it goes out, is raised as it is, and nothing was sent."""
        trace = Trace(before_send=before_send)
        if form is not None:  # it may be long: aiohttp counts silence from its end
            return self._exchange(kind, "POST", path, trace, is_watched=False, data=form)
        return self._exchange(kind, "POST", path, trace, timeout=self._timeouts, json=json)

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

    def get(self, kind: str, path: str, *, params: dict[str, str] | None = None) -> Coroutine[None, None, Answer]:
        """GET from the API: harmless, so a lost answer is just a `TransportError`."""
        return self._exchange(kind, "GET", path, Trace(), timeout=self._timeouts, params=params)

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

    async def _exchange(
        self, kind: str, method: str, path: str, trace: Trace, *, is_watched: bool = True, **options: Any
    ) -> Answer:
        started_s = self._loop.time()
        answer: Answer | None = None
        failure: TransportError | None = None
        try:
            with self._watchdog.watch() if is_watched else nullcontext() as trace.watch:
                answer = await self._answer(kind, method, path, trace, options)
        except (*FAILURES, asyncio.CancelledError) as error:
            if self._is_cancelled(error):
                raise
            failure = self.lost(error)
            failure.may_have_been_accepted = kind == "submit" and trace.sent > 0
            failure.sent = trace.sent
            if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
                failure.add_note("TLS failed: is a proxy or a wrong clock in the way?")
        finally:
            self.sent += trace.sent
            duration_s = self._loop.time() - started_s
            self._emit(RequestDone, kind, answer.status if answer else None, duration_s, trace.sent)
        # Raised out here, so that aiohttp's error is no context of ours: some hold the request's headers.
        if failure is not None:
            raise failure
        assert answer is not None
        return answer

    async def _answer(self, kind: str, method: str, path: str, trace: Trace, options: dict[str, Any]) -> Answer:
        if self._api is None:
            raise SessionClosed("the client is closed, and its connections with it")
        _trace.set(trace)
        url = self._base.with_path(f"{self._base.raw_path}{path}", encoded=True)
        async with await self._api.request(method, url, allow_redirects=False, **self._proxy, **options) as response:
            if not self._has_answered:
                self._has_answered = True
                self._note_answer(self._base, self._proxy)
            try:
                body = await self._read(kind, response, trace)
            except FAILURES:
                if response.status < 300:
                    raise
                body = b""  # the status alone says what became of the request
            return Answer(response.status, response.headers, body, trace.sent)

    async def _read(self, kind: str, response: aiohttp.ClientResponse, trace: Trace) -> bytes:
        """The decoded body; of an error page that is too long, its beginning."""
        cap_bytes = self._most_bytes_of_task if kind in {"submit", "query"} else self._most_bytes
        if response.content.is_eof():  # it came with the head, as most do
            body = response.content.read_nowait()
        else:
            body = await self._read_on(response, cap_bytes, trace)
        body = decoded(body, response.headers.get("Content-Encoding", ""), cap_bytes)
        if len(body) > cap_bytes and response.status < 400:
            raise UnreadableAnswer(f"the answer is longer than {cap_bytes} bytes", status=response.status)
        return body

    async def _read_on(self, response: aiohttp.ClientResponse, cap_bytes: int, trace: Trace) -> bytes:
        """The body as it comes, or a little more than `cap_bytes` of it."""
        body = bytearray()
        trace.moved(self._loop.time())  # the head came
        self._reading.add(response)
        try:
            async for chunk in response.content.iter_any():
                trace.moved(self._loop.time())
                body += chunk
                if len(body) > cap_bytes:
                    response.close()
                    break
        finally:
            self._reading.discard(response)
        return bytes(body)

    def _is_cancelled(self, error: BaseException) -> bool:
        """Whether the caller was cancelled. aiohttp raises the same error in those who queue for a connection when the
        session closes; they did not cancel anything, and get a failure like the others."""
        task = asyncio.current_task()
        by_caller = not self.closed.is_set() or task is None or task.cancelling() > 0
        return isinstance(error, asyncio.CancelledError) and by_caller
