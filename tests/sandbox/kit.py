"""A raw HTTP caller and a clock for the sandbox's tests: what a stranger with any HTTP library would use."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from toapis_async.sandbox import Sandbox

SECRET = "whsec_test"
HTTPS = "https://hooks.example/toapis?key=1"
VIP = "gpt-image-2-vip"
SEEDANCE = "seedance-2"
PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclass(slots=True)
class Clock:
    """Unix seconds that pass only when told to."""

    now: float = 1_703_884_800.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so; the limit on every test's time ends it when it never is."""
    while not condition():  # noqa: ASYNC110  what is waited for tells nobody
        await asyncio.sleep(0)


@dataclass(slots=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.raw)
        return value

    @property
    def error(self) -> dict[str, Any]:
        value: dict[str, Any] = self.body["error"]
        return value


class Caller:
    """Sends requests with a key to one sandbox, never following a redirect."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox, key: str | None = "sk-one") -> None:
        self._session = session
        self._sandbox = sandbox
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        url = path if path.startswith("http") else self._sandbox.base_url + path
        headers = {**self._headers, **options.pop("headers", {})}
        request = self._session.request(
            method, URL(url, encoded=True), headers=headers, allow_redirects=False, **options
        )
        async with request as response:
            return Reply(response.status, response.headers, await response.read())

    async def submit(self, prompt: str = "a red kite", /, **fields: object) -> Reply:
        body = {"model": VIP, "prompt": prompt, **fields}
        return await self.call("POST", "/v1/images/generations", json=body)

    async def task(self, prompt: str = "a red kite", /, **fields: object) -> str:
        """The id of a task that must be accepted."""
        reply = await self.submit(prompt, **fields)
        assert reply.status == 200, reply.raw
        task_id: str = reply.body["id"]
        return task_id

    async def query(self, wanted: str) -> Reply:
        return await self.call("GET", f"/v1/images/generations/{quote(wanted, safe='')}")

    async def submit_video(self, path: str = "/v1/videos/generations", /, **fields: object) -> Reply:
        body = {"model": SEEDANCE, "prompt": "a paper boat", **fields}
        return await self.call("POST", path, json=body)

    async def video(self, **fields: object) -> str:
        """The id of a video task that must be accepted."""
        reply = await self.submit_video(**fields)
        assert reply.status == 200, reply.raw
        task_id: str = reply.body["id"]
        return task_id

    async def query_video(self, wanted: str) -> Reply:
        return await self.call("GET", f"/v1/videos/generations/{quote(wanted, safe='')}")

    async def balance(self, path: str = "/v1/user/balance") -> dict[str, Any]:
        return (await self.call("GET", path)).body

    async def upload(
        self, data: bytes, field: str = "file", filename: str = "a.png", path: str = "/v1/uploads/images"
    ) -> Reply:
        form = aiohttp.FormData()
        form.add_field("purpose", "generation")
        form.add_field(field, io.BytesIO(data), filename=filename, content_type="application/octet-stream")
        return await self.call("POST", path, data=form)

    async def file(self, url: str, **headers: str) -> Reply:
        """A file without any key."""
        async with self._session.get(url, allow_redirects=False, headers=headers) as response:
            return Reply(response.status, response.headers, await response.read())


@dataclass(slots=True)
class Receiver:
    """A server that keeps what it is sent, and answers as told (200 for ever after)."""

    answers: list[int] = field(default_factory=list[int])
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list[tuple[str, dict[str, str], bytes]])
    url: str = ""
    silent: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.path, dict(request.headers), await request.read()))
        if self.silent is not None:
            await self.silent.wait()
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 307 else None)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for _, _, raw in self.seen]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()


def signatures(raw: bytes, headers: dict[str, str], *secrets: str) -> str:
    signed = f"{headers['X-ToAPIs-Webhook-Id']}.{headers['X-ToAPIs-Webhook-Timestamp']}.".encode() + raw
    return ",".join(f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}" for secret in secrets)
