"""What the tests of the engine and of the client share: a service without sockets for virtual time, a raw TCP server
for everything a well-behaved server would never send, and small words for settings and answers."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from attrs import define, field, frozen

from toapis_async import RateLimits, Settings, ToAPIs, TransportError
from toapis_async.protocol.lenient import Answer
from toapis_async.sandbox import Limits, Sandbox
from toapis_async.sandbox.clock import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

    from toapis_async.events import Event
    from toapis_async.settings import Credentials

KEY = "sk-SECRETsecret0123456789abcdefSECRETsecret0123456789"
UNLIMITED = RateLimits(submit_per_s=1e5, submit_burst=1e5, query_per_s=1e5, query_burst=1e5)
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64 + b"IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 64 + b"\xff\xd9"
GENERATIONS = "/v1/images/generations"


def fast(**changes: Any) -> Settings:
    """Settings for real sockets: waits of hundredths of a second, no limits."""
    values: dict[str, Any] = {
        "limits": UNLIMITED,
        "first_poll_s": 0.01,
        "min_poll_interval_s": 0.01,
        "poll_jitter": 0,
        "submit_retry_s": 0,
        "reconcile_window_s": 0.02,
        "uncertain_submits": "raise",
        "close_grace_s": 0.02,
        "request_timeout_s": 60,
        "vanish_grace_s": 0.03,
    }
    return Settings(**{**values, **changes})


def answer(status: int = 200, body: object = None, **headers: str) -> Answer:
    """An answer as the transport hands it over."""
    raw = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def task(task_id: str = "task_1", status: str = "queued", **more: object) -> dict[str, object]:
    """A task's body; a completed one has a link."""
    body: dict[str, object] = {"id": task_id, "object": "generation.task", "status": status, **more}
    if status == "completed":
        body.setdefault("result", {"data": [{"url": "https://files.example/a.png"}]})
    return body


def refusal(status: int, code: object = "some_code", message: str = "no", **headers: str) -> Answer:
    return answer(status, {"error": {"code": code, "message": message}}, **headers)


def not_sent() -> TransportError:
    return TransportError("ClientConnectorError: refused")


def lost() -> TransportError:
    return TransportError("ServerDisconnectedError", may_have_been_accepted=True, sent=1)


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Let the loop run until something is so. Bounded in turns of the loop, not in time."""
    for turn in range(60_000):
        if condition():
            return
        await asyncio.sleep(0 if turn < 50 else 0.001)
    raise AssertionError(f"{what} never came true")


async def turns(count: int = 10) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------- without sockets


class Hold:
    """A request that stays open until the test answers it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._outcome: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()

    def answer(self, outcome: Answer | Exception) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def wait(self) -> Answer | Exception:
        self.reached.set()
        return await self._outcome


Step = Answer | Exception | Hold


@frozen
class Seen:
    """One request: when (loop time), and about what."""

    at_s: float
    kind: str
    subject: str
    body: Any = None


@define
class _Task:
    task_id: str
    client_business_id: str | None
    accepted_s: float
    prompt: str


@define
class FakeService:
    """The service as the engine sees it through its transport. Takes what is submitted, and finishes it
    `service_time_s` later; the scripts go first."""

    service_time_s: float = 10.0
    latency_s: float = 0.0
    visible_after_s: float = 0.0
    seen: list[Seen] = field(factory=list[Seen])
    on_submit: deque[Step] = field(factory=deque[Step])
    on_query: deque[Step] = field(factory=deque[Step])
    on_close: Callable[[], None] | None = None
    tasks: dict[str, _Task] = field(factory=dict[str, _Task])
    querying: int = 0
    most_querying: int = 0
    closed: bool = False
    balance: Mapping[str, object] | None = None
    failures: int = 0  #: of the tasks taken from now on, so many fail
    bill: Callable[[str, float], Mapping[str, object] | None] = lambda prompt, since_end_s: None
    """A finished task's `billing`, by its prompt and the seconds since its end."""

    def transport(self, credentials: Credentials, settings: Settings, emit: Callable[[Event], None]) -> FakeTransport:
        return FakeTransport(self)

    def of(self, kind: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.kind == kind]

    def queries(self, subject: str) -> list[float]:
        """When a task was asked for."""
        return [seen.at_s for seen in self.seen if seen.kind == "query" and seen.subject == subject]

    def accept(self, body: Mapping[str, Any]) -> Answer:
        number = len(self.tasks) + 1
        prompt: str = body["prompt"] + (" [fail]" if self.failures > 0 else "")
        self.failures -= 1
        made = _Task(f"task_{number}", body.get("client_business_id"), _now_s(), prompt)
        self.tasks[made.task_id] = made
        return answer(200, task(made.task_id))

    def state(self, wanted: str) -> Answer:
        now_s = _now_s()
        found = [
            made
            for made in self.tasks.values()
            if wanted in (made.task_id, made.client_business_id) and now_s >= made.accepted_s + self.visible_after_s
        ]
        if not found:
            return refusal(404, "task_not_found", "task not found")
        made = found[-1]
        more: dict[str, Any] = {"client_business_id": made.client_business_id}
        if now_s - made.accepted_s < self.service_time_s - 1e-9:
            return answer(200, task(made.task_id, "in_progress", progress=50, **more))
        if (bill := self.bill(made.prompt, now_s - made.accepted_s - self.service_time_s)) is not None:
            more["billing"] = bill
        if "[fail]" in made.prompt:
            return answer(200, task(made.task_id, "failed", error={"code": "bad", "message": "no luck"}, **more))
        return answer(200, task(made.task_id, "completed", progress=100, **more))


class FakeTransport:
    """Stands in for `engine.transport.Transport`."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        self.base_url = "https://toapis.com/v1"
        self.closed = asyncio.Event()
        self.sent = 0

    def open(self) -> None: ...

    async def aclose(self) -> None:
        self._service.closed = True
        if self._service.on_close is not None:
            self._service.on_close()
            await turns(5)

    async def post(
        self,
        kind: str,
        path: str,
        json: Any = None,
        *,
        form: object = None,
        before_send: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        service = self._service
        if before_send is not None:
            await before_send()
        self.sent += 1
        service.seen.append(Seen(_now_s(), kind, json["prompt"] if json else path, json))
        await asyncio.sleep(service.latency_s)
        if kind == "upload":
            return answer(200, {"success": True, "data": {"id": "u", "url": "https://files.example/u.png"}})
        if service.on_submit:
            return await _played(service.on_submit.popleft())
        return service.accept(json)

    async def get(self, kind: str, path: str, *, params: dict[str, str] | None = None) -> Answer:
        service = self._service
        self.sent += 1
        subject = unquote(path.rpartition("/")[2])
        service.seen.append(Seen(_now_s(), kind, subject))
        service.querying += 1
        service.most_querying = max(service.most_querying, service.querying)
        try:
            await asyncio.sleep(service.latency_s)
            if kind == "balance":
                return refusal(404) if service.balance is None else answer(200, service.balance)
            if service.on_query:
                return await _played(service.on_query.popleft())
            return service.state(subject)
        finally:
            service.querying -= 1


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _played(step: Step) -> Answer:
    outcome = await step.wait() if isinstance(step, Hold) else step
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


# ------------------------------------------------------------------------------------------- raw sockets


@frozen
class Request:
    """One request as it came over a socket."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int  #: 1 for the first connection, and so on


class RawServer:
    """A server that does with each request what its script says, and the last step for ever. With `silence_s`, so much
    time passes at once for the whole event loop whenever it begins to `stall`."""

    def __init__(
        self,
        *script: Callable[[RawServer, Request, asyncio.StreamWriter], Awaitable[None]],
        silence_s: float | None = None,
    ) -> None:
        self.script = deque(script)
        self.silence_s = silence_s
        self.clock = Clock()
        self.requests: list[Request] = []
        self.closing = asyncio.Event()
        self._connections = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        if self.silence_s is not None:
            self.clock.follow(asyncio.get_running_loop())
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=2**20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self.closing.set()
        self._server.close()
        if self._serving:
            await asyncio.wait(self._serving)
        await self._server.wait_closed()

    @property
    def authority(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        serving = asyncio.ensure_future(self._serve(reader, writer, self._connections))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            while not self.closing.is_set():
                reading = asyncio.ensure_future(_read_request(reader, number))
                await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    return
                request = reading.result()
                if request is None:
                    return
                self.requests.append(request)
                act = self.script.popleft() if len(self.script) > 1 else self.script[0]
                await act(self, request, writer)
                if writer.is_closing():
                    return
        finally:
            closing.cancel()
            writer.close()


async def _read_request(reader: asyncio.StreamReader, number: int) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return None
    return Request(method, target, headers, body, number)


def raw(data: bytes, *, close: bool = False) -> Callable[[RawServer, Request, asyncio.StreamWriter], Awaitable[None]]:
    """Send these bytes; with `close`, then close the connection."""

    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(data)
            await writer.drain()
        except ConnectionError:
            writer.close()
        if close:
            writer.close()

    return act


def reply(
    status: int = 200, body: object = None, **headers: str
) -> Callable[[RawServer, Request, asyncio.StreamWriter], Awaitable[None]]:
    """A whole answer; a body that is no bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} Some reason\r\n{lines}Content-Length: {len(content)}\r\n\r\n"
    return raw(head.encode() + content)


def hang_up(after: bytes = b"") -> Callable[[RawServer, Request, asyncio.StreamWriter], Awaitable[None]]:
    """Close without an answer, or in the middle of one."""
    return raw(after, close=True)


def reset(after: bytes = b"") -> Callable[[RawServer, Request, asyncio.StreamWriter], Awaitable[None]]:
    """Close with a TCP reset."""

    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        if after:
            writer.write(after)
            await writer.drain()
            await asyncio.sleep(0.005)  # a reset overtakes what is still on its way
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return act


def stall(after: bytes = b"") -> Callable[[RawServer, Request, asyncio.StreamWriter], Awaitable[None]]:
    """Say nothing, or nothing more, until the server closes."""

    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(after)
        await writer.drain()
        if server.silence_s is not None:
            await turns(20)
            server.clock.advance(server.silence_s)
        await server.closing.wait()
        writer.close()

    return act


@asynccontextmanager
async def served(
    sandbox_options: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[Sandbox, ToAPIs]]:
    """A sandbox without limits whose tasks take two hundredths of a second, and a client that talks to it."""
    options: dict[str, Any] = {
        "pictures": False,
        "service_time_s": 0.02,
        "limits": Limits(1e5, 1e5, 1e5, 1e5),
        **(sandbox_options or {}),
    }
    async with (
        Sandbox(**options) as sandbox,
        ToAPIs(KEY, base_url=sandbox.base_url, settings=fast(**settings)) as client,
    ):
        yield sandbox, client
