"""A fast raw server in a process of its own: `python -m benchmarks.server CONFIG`, with the configuration as JSON.

It prints its port, and serves on loopback until its standard input ends, so that it can't outlive who started it.
Hand-parsed HTTP/1.1 with keep-alive over `asyncio.Protocol`, standard library only: it must cost less than any client.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.dialects import DIALECTS, FAL, ID_DIGITS, Dialect, Reported
from benchmarks.tasks import Config, Tasks

if TYPE_CHECKING:
    from benchmarks.buckets import ServiceBucket

_END = b"\r\n\r\n"
_MOST_BYTES = 1 << 20


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        while (end := self._buffer.find(_END)) >= 0:
            head = self._buffer[:end]
            until = end + 4 + (_body_bytes(head) if head.startswith(b"POST") else 0)
            if len(self._buffer) < until:
                return
            self._buffer = self._buffer[until:]
            self._transport.write(self._service.answer(head))
        if len(self._buffer) > _MOST_BYTES:
            self._transport.close()


def _body_bytes(head: bytes) -> int:
    lower = head.lower()
    start = lower.find(b"\r\ncontent-length:")
    if start < 0:
        return 0
    return int(lower[start + 17 :].split(b"\r\n", 1)[0])


class Service:
    """Answers requests; the tasks they concern are in `tasks`."""

    def __init__(self, config: Config) -> None:
        self.tasks = Tasks(config, time.monotonic())
        self.base = self.tls_base = ""
        self._unix_s = time.time() - time.monotonic()
        self._submits = {dialect.submit: dialect for dialect in DIALECTS}

    def answer(self, head: bytes) -> bytes:
        """The whole answer to a request, from its head alone: nobody reads the bodies."""
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
        path = target.split(b"?", 1)[0]
        if path.startswith(b"/control/"):
            return _ok(self._control(path[9:]))
        self.tasks.counters.requests += 1
        if method == b"POST":
            dialect = self._submits.get(path)
            return self._submit(dialect) if dialect else _refusal(404)
        for dialect in DIALECTS:
            if path.startswith(dialect.status_path):
                return self._poll(dialect, path[len(dialect.status_path) :])
        return _refusal(404)

    def _submit(self, dialect: Dialect) -> bytes:
        number = self.tasks.submit(time.monotonic())
        if number is None:
            return _refusal(429, self.tasks.submits.retry_after_s, "async_submit")
        return _ok(dialect.submitted(self._reported(number, done=False)), _limits(self.tasks.submits, "async_submit"))

    def _poll(self, dialect: Dialect, rest: bytes) -> bytes:
        try:
            number = dialect.number_of(rest)
        except ValueError:
            number = -1
        if not 0 <= number < len(self.tasks.ends_s):
            self.tasks.counters.unknown += 1
            return _refusal(404)
        if dialect is FAL and len(rest) == ID_DIGITS:  # without "/status": the result, which fal fetches apart
            return _ok('{"images": [{"url": "https://files.invalid/1.jpg"}]}')
        done = self.tasks.poll(number, time.monotonic())
        if done is None:
            return _refusal(429, self.tasks.queries.retry_after_s, "async_query")
        body = (dialect.finished if done else dialect.unfinished)(self._reported(number, done=done))
        return _ok(body, _limits(self.tasks.queries, "async_query"))

    def _reported(self, number: int, *, done: bool) -> Reported:
        tasks = self.tasks
        completed_at = int(self._unix_s + tasks.ends_s[number]) if done and tasks.config.scale == 1.0 else None
        began_at = int(self._unix_s + tasks.began_s[number])
        return Reported(number, self.base, began_at, tasks.polls[number], completed_at)

    def _control(self, what: bytes) -> str:
        tasks = self.tasks
        if what.startswith(b"finish_after/"):
            tasks.finish_after = int(what.rpartition(b"/")[2])
        parts = {
            b"ends": tasks.ends_s,
            b"polls": tasks.polls,
            b"statistics": tasks.statistics(),
            b"tls_base": self.tls_base,  # where the same service answers over TLS
        }
        return json.dumps(parts.get(what))


def _ok(body: str, more: str = "") -> bytes:
    # The bodies are ASCII, so that their length is that of their text.
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


def _limits(bucket: ServiceBucket, category: str) -> str:
    """The headers that the service sends with every answer."""
    return (
        f"X-RateLimit-Limit: {bucket.burst}\r\nX-RateLimit-Remaining: {bucket.remaining}\r\n"
        f"X-RateLimit-Category: {category}\r\n"
    )


def _refusal(status: int, retry_after_s: int | None = None, category: str = "") -> bytes:
    if retry_after_s is None:
        body, more = '{"error": {"code": "not_found", "message": "no such thing"}}', ""
    else:
        body = '{"error": {"code": "rate_limit_exceeded", "message": "too fast"}}'
        more = f"Retry-After: {retry_after_s}\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Category: {category}\r\n"
    more = f"Content-Type: application/json\r\n{more}Content-Length: {len(body)}"
    return f"HTTP/1.1 {status} Refused\r\n{more}\r\n\r\n{body}".encode()


async def listen(service: Service, certificate: str | None = None) -> int:
    """The port where the service answers now."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=4096, ssl=context)
    port: int = server.sockets[0].getsockname()[1]
    return port


async def serve(config: Config) -> None:
    loop = asyncio.get_running_loop()
    service = Service(config)
    port = await listen(service)
    service.base = f"http://127.0.0.1:{port}"
    if config.certificate is not None:
        service.tls_base = f"https://127.0.0.1:{await listen(service, config.certificate)}"
    print(json.dumps({"port": port}), flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    loop.set_exception_handler(lambda _, what: _fail(ended, what))
    await ended.wait()


def _fail(ended: asyncio.Event, what: dict[str, Any]) -> None:
    """A bug of ours: end rather than tell it for every request."""
    print(what.get("message"), repr(what.get("exception")), file=sys.stderr)
    ended.set()


def main() -> None:
    config = Config.from_dict(json.loads(sys.argv[1]))
    if config.cpu is not None:
        os.sched_setaffinity(0, {config.cpu})
    asyncio.run(serve(config))


if __name__ == "__main__":
    main()
