"""The gate: every request of both hosts passes here, is counted, and meets its faults. aiohttp on one side,
`Answer`s on the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from aiohttp import web

from toapis_async.sandbox import answers
from toapis_async.sandbox.answers import Answer
from toapis_async.sandbox.faults import DEFAULT_SLOW_S, HTML_PAGES, Drawn, Fault, FaultPlan, Kind
from toapis_async.sandbox.service import Caller
from toapis_async.sandbox.traffic import LoggedRequest, RequestLog
from toapis_async.sandbox.variants import error_variant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toapis_async.sandbox.limits import Category, RateLimiter

Handle = Callable[[Drawn], Awaitable[Answer]]

CATEGORIES: dict[Kind, Category] = {"submit": "async_submit", "query": "async_query"}
"""The kinds of requests that a bucket limits; uploads, models and balances have none."""

_HTML_TITLES = {
    502: "502 Bad Gateway",
    503: "503 Service Temporarily Unavailable",
    504: "504 Gateway Time-out",
    524: "toapis.com | 524: A timeout occurred",
}
ONLY_USER = "user"
_RESETTING_LINGER = struct.pack("ii", 1, 0)


class KeyRing:
    """The keys that are let in; without a list, any non-empty one is, and all belong to one user."""

    def __init__(self, keys: Mapping[str, str] | None) -> None:
        self._keys = None if keys is None else dict(keys)

    def caller(self, headers: Mapping[str, str]) -> Caller | None:
        """Who sent these headers; `None` when the service does not know them."""
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            return None
        user = ONLY_USER if self._keys is None else self._keys.get(key)
        return None if user is None else Caller(user, hashlib.sha256(key.encode()).hexdigest()[:16])


@dataclass(slots=True)
class Gate:
    """What every request meets before and after its handler."""

    faults: FaultPlan
    traffic: RequestLog
    limiter: RateLimiter
    keys: KeyRing
    clock: Callable[[], float]
    speed: float
    closing: asyncio.Event
    """Set when the sandbox closes: nothing slow outlives it."""

    async def serve(
        self,
        request: web.Request,
        kind: Kind,
        handle: Handle,
        *,
        subjects: tuple[str, ...] = (),
        task_id: str | None = None,
    ) -> web.StreamResponse:
        """Count a request, answer it through `handle`, and let its faults happen."""
        path = request.rel_url.raw_path_qs
        self.traffic.note(LoggedRequest(self.clock(), kind, request.method, path, request.headers, task_id))
        drawn = self.faults.draw(kind, subjects)
        if Fault.DROPPED in drawn or Fault.DROPPED_RESET in drawn:
            return self._hang_up(request, kind, reset=Fault.DROPPED_RESET in drawn)
        answer = self._instead(request, kind, drawn)
        if answer is None:
            answer = _afterwards(await handle(drawn), drawn)
        answer = error_variant(answer, drawn)
        closing = await self._linger(drawn)
        if closing or Fault.LOST_ANSWER in drawn or Fault.LOST_ANSWER_RESET in drawn:
            return self._hang_up(request, kind, reset=Fault.LOST_ANSWER_RESET in drawn)
        self.traffic.statuses[kind, answer.status] += 1
        if Fault.BREAKS_OFF in drawn:
            return await _broken_off(request, answer)
        return _response(answer)

    def _instead(self, request: web.Request, kind: Kind, drawn: Drawn) -> Answer | None:
        """The answer of a fault that comes before the handler, so that nothing is accepted."""
        for fault in drawn:
            if fault in HTML_PAGES and not HTML_PAGES[fault][1]:
                return _html(HTML_PAGES[fault][0])
        if Fault.RATE_LIMITED in drawn:
            return self._too_fast(request, kind, drawn[Fault.RATE_LIMITED])
        if Fault.REDIRECT in drawn:
            return Answer(307, b"", {"Location": _elsewhere(request, kind)}, "text/html")
        for fault, answer in _INSTEAD.items():
            if fault in drawn:
                return answer()
        return None

    def _too_fast(self, request: web.Request, kind: Kind, seconds: float | None) -> Answer:
        headers: dict[str, str] = {}
        caller = self.keys.caller(request.headers)
        if kind in CATEGORIES and caller is not None:
            headers = self.limiter.peek(caller.user, CATEGORIES[kind], self.clock())
            headers["X-RateLimit-Remaining"] = "0"
        headers["Retry-After"] = f"{(1.0 if seconds is None else seconds) / self.speed:.6g}"
        return replace(answers.too_fast(), headers=headers)

    async def _linger(self, drawn: Drawn) -> bool:
        """Wait as long as a slow answer takes; true when the sandbox closed meanwhile."""
        if Fault.SLOW not in drawn:
            return False
        seconds = drawn[Fault.SLOW]
        try:
            async with asyncio.timeout((DEFAULT_SLOW_S if seconds is None else seconds) / self.speed):
                await self.closing.wait()
        except TimeoutError:
            return False
        return True

    def _hang_up(self, request: web.Request, kind: Kind, *, reset: bool) -> web.StreamResponse:
        self.traffic.unanswered[kind] += 1
        transport = request.transport
        if transport is not None:
            if reset:
                # Lingering for no time turns the close into a RST, which clients see as another error than a
                # FIN.
                connection: socket.socket = transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETTING_LINGER)
            transport.abort()
        # aiohttp wants a response; with the transport gone it goes nowhere.
        return web.Response()


def _afterwards(answer: Answer, drawn: Drawn) -> Answer:
    """The answer of a fault that comes after the handler has done its work."""
    for fault in drawn:
        if fault in HTML_PAGES:
            return _html(HTML_PAGES[fault][0])
    if Fault.ERROR_500_ACCEPTED in drawn:
        return answers.internal_error()
    if Fault.TRUNCATED_JSON in drawn:
        whole = _encoded(answer)
        return replace(answer, body=whole[: len(whole) * 2 // 3])
    return answer


def _elsewhere(request: web.Request, kind: Kind) -> str:
    # A file is really there behind the redirect; whoever follows one of the API shows up among the unknown
    # paths.
    return str(request.url) if kind == "file" else str(request.url.origin() / "redirected")


def _response(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.status,
        body=_encoded(answer),
        headers=answer.headers,
        content_type=answer.content_type,
        charset="utf-8" if answer.content_type == "application/json" else None,
    )


async def _broken_off(request: web.Request, answer: Answer) -> web.StreamResponse:
    body = _encoded(answer)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_type = answer.content_type
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        # Not abort(): what was written shall arrive, and then nothing more.
        request.transport.close()
    return response


def _encoded(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    # "replace": an id can hold half of a surrogate pair, which JSON can say and UTF-8 can't.
    return json.dumps(answer.body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


@lru_cache
def _html(status: int) -> Answer:
    """A gateway's page of some 300 kB, as such pages are when they bring their styles and pictures along."""
    title = _HTML_TITLES[status]
    padding = "\n".join(f"<!-- {index:04d} {'padding ' * 12}-->" for index in range(2_700))
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><title>{title}</title></head>\n<body>\n'
        f"<center><h1>{title}</h1></center>\n<hr><center>nginx</center>\n{padding}\n</body>\n</html>\n"
    )
    return Answer(status, page.encode(), {}, "text/html")


_INSTEAD: dict[Fault, Callable[[], Answer]] = {
    Fault.LIMITER_DOWN: answers.limiter_down,
    Fault.UNAUTHORIZED: answers.unauthorized_as_seen,
    Fault.QUOTA_403: answers.quota_403,
    Fault.MODEL_FORBIDDEN: answers.model_forbidden,
    Fault.FAIL_TO_FETCH: answers.fail_to_fetch,
    Fault.PRICING_UNAVAILABLE: answers.pricing_unavailable,
    Fault.ERROR_500: answers.internal_error,
    Fault.NOT_FOUND: answers.task_not_found,
    Fault.NOT_EXIST: answers.task_not_exist,
    Fault.SUCCESS_FALSE: lambda: answers.plainly_failed(200, "temporarily unavailable"),
}
