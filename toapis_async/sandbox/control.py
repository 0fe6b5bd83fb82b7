"""The control API and the page at `/`: for people and for tests in other languages.

It obeys whoever reaches it, so it must not be reached from a browser's other pages: it answers only under a loopback
name (else another site's name could be pointed here), to its own pages, and acts only on `application/json`, which no
foreign page can send without being asked first.
"""

from __future__ import annotations

import ipaddress
import json
from collections import deque
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Protocol, cast

from aiohttp import web
from yarl import URL

from toapis_async.sandbox.faults import Fault, Kind, Step, TimedFault
from toapis_async.sandbox.tasks import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from toapis_async.sandbox.faults import FaultPlan
    from toapis_async.sandbox.jobs import JsonObject
    from toapis_async.sandbox.ledger import Ledger, LedgerEntry
    from toapis_async.sandbox.traffic import RequestLog
    from toapis_async.sandbox.webhooks import Webhooks

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PREFIX: Final = "/_sandbox"
MOST: Final = 1e15
"""The largest number that a command may hold: JSON has integers that no float can."""
MOST_BYTES: Final = 64 * 1024
MOST_SHOWN: Final = 200
MOST_STEPS: Final = 10_000
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
}
_ASSETS: Final = {"/": "control.html", f"{PREFIX}/page.js": "control.js", f"{PREFIX}/page.css": "control.css"}


class _RefusedError(Exception):
    """The request is not obeyed; `status` and text are the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Controlled(Protocol):
    """What can be seen and done of a sandbox from outside."""

    ledger: Ledger
    requests: RequestLog
    faults: FaultPlan
    webhooks: Webhooks

    def now(self) -> float: ...
    def finish(self, task_id: str) -> None: ...
    def fail(self, task_id: str, code: str, message: str) -> None: ...
    def advance(self, seconds: float) -> None: ...
    def reset(self) -> None: ...


class Control:
    """Handlers over one sandbox. The requests that come here are not the service's: they are neither counted nor met by
    faults."""

    def __init__(self, sandbox: Controlled) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[web.RouteDef]:
        """What to serve besides the API."""
        reads = {"state": self._state, "ledger": self._ledger, "requests": self._requests}
        acts = {
            "faults/script": self._script,
            "faults/chance": self._chance,
            "faults/clear": self._clear,
            "tasks/finish": self._finish,
            "tasks/fail": self._fail,
            "clock/advance": self._advance,
            "reset": self._reset,
        }
        return [
            *(web.get(path, _guarded(_asset(name))) for path, name in _ASSETS.items()),
            *(web.get(f"{PREFIX}/{path}", _guarded(_answering(read))) for path, read in reads.items()),
            *(web.post(f"{PREFIX}/{path}", _guarded(_obeying(act))) for path, act in acts.items()),
            web.route("*", f"{PREFIX}/{{path:.*}}", _guarded(_nothing_there)),
        ]

    # -------------------------------------------------------------------------------------- what there is

    def _state(self) -> JsonObject:
        sandbox = self._sandbox
        entries = tuple(sandbox.ledger)
        statuses = [entry.status for entry in entries]
        return {
            "now": sandbox.now(),
            "tasks": {status: statuses.count(status) for status in ("queued", "in_progress", "completed", "failed")},
            # Summed here and not by the ledger, which would go through all entries for each.
            "credits": {
                "charged": round(sum(entry.credits for entry in entries), 4),
                "refunded": round(sum(entry.refunded for entry in entries), 4),
                "paid": round(sum(entry.paid for entry in entries), 4),
            },
            "paid_twice": list(sandbox.ledger.paid_twice()),
            "requests": {"total": sandbox.requests.total, "by_kind": dict(sandbox.requests.counts)},
            "rate_limited": sandbox.requests.rate_limited,
            "unanswered": sandbox.requests.unanswered.total(),
            "faults": {
                "scripts": [
                    {"kind": kind, "about": about, "steps": [_written(step) for step in steps[:MOST_SHOWN]]}
                    for kind, about, steps in sandbox.faults.scripts
                ],
                "chances": [
                    {"kind": kind, "fault": _written(fault), "probability": probability}
                    for kind, fault, probability in sandbox.faults.chances
                ],
                "happened": [
                    {"kind": kind, "fault": fault.value, "times": times}
                    for (kind, fault), times in sandbox.faults.drawn.most_common()
                ],
            },
            "events": [
                {
                    "at": sent.at,
                    "type": sent.type,
                    "task_id": sent.task_id,
                    "number": sent.number,
                    "status": sent.status,
                }
                for sent in deque(sandbox.webhooks.log, maxlen=MOST_SHOWN)
            ],
            "latest": [_entry(entry) for entry in entries[: -MOST_SHOWN - 1 : -1]],
        }

    def _ledger(self) -> JsonObject:
        return {"entries": [{**_entry(entry), "request": dict(entry.request)} for entry in self._sandbox.ledger]}

    def _requests(self) -> JsonObject:
        log = self._sandbox.requests
        return {
            "counts": dict(log.counts),
            "statuses": [{"kind": kind, "status": status, "times": n} for (kind, status), n in log.statuses.items()],
            "unanswered": dict(log.unanswered),
            # Never the headers: they hold the key.
            "log": [
                {"at": one.at, "kind": one.kind, "method": one.method, "path": one.path, "task_id": one.task_id}
                for one in log.log
            ],
        }

    # -------------------------------------------------------------------------------------- what can be done

    def _script(self, parameters: JsonObject) -> None:
        steps = parameters.get("steps")
        if not isinstance(steps, list) or len(cast("list[object]", steps)) > MOST_STEPS:
            raise ValueError(f'steps must be a list of at most {MOST_STEPS:,}, such as [null, "error_500"]')
        about = None if parameters.get("about") is None else _text(parameters, "about")
        read = [_step(step) for step in cast("list[object]", steps)]
        self._sandbox.faults.script(cast("Kind", _text(parameters, "kind")), *read, about=about)

    def _chance(self, parameters: JsonObject) -> None:
        fault = _step(parameters.get("fault"))
        if not isinstance(fault, Fault | TimedFault):
            raise ValueError("fault must be one fault")  # noqa: TRY004
        self._sandbox.faults.chance(cast("Kind", _text(parameters, "kind")), fault, _number(parameters, "probability"))

    def _clear(self, _: JsonObject) -> None:
        self._sandbox.faults.clear()

    def _finish(self, parameters: JsonObject) -> None:
        self._sandbox.finish(_text(parameters, "task_id"))

    def _fail(self, parameters: JsonObject) -> None:
        usual = Failure()
        given = {"code": usual.code, "message": usual.message, **parameters}
        self._sandbox.fail(_text(given, "task_id"), _text(given, "code"), _text(given, "message"))

    def _advance(self, parameters: JsonObject) -> None:
        self._sandbox.advance(_number(parameters, "seconds"))

    def _reset(self, _: JsonObject) -> None:
        self._sandbox.reset()


def _guarded(handler: Handler) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            _check_origin(request)
            response = await handler(request)
        except _RefusedError as refusal:
            response = web.json_response({"error": str(refusal)}, status=refusal.status)
        response.headers.update(_HEADERS)
        return response

    return guarded


def _check_origin(request: web.Request) -> None:
    if not _is_loopback(request.host):
        raise _RefusedError(403, "the sandbox answers under localhost or a loopback address only")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{request.host}":
        raise _RefusedError(403, "not from another page")
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise _RefusedError(403, "not from another page")


def _is_loopback(host: str) -> bool:
    try:
        name = URL(f"http://{host}").host or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _answering(read: Callable[[], JsonObject]) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(read())

    return answer


def _obeying(act: Callable[[JsonObject], None]) -> Handler:
    async def obey(request: web.Request) -> web.StreamResponse:
        parameters = await _parameters(request)
        try:
            act(parameters)
        except KeyError as error:
            raise _RefusedError(404, f"no task {error.args[0]}") from None
        except ValueError as error:
            raise _RefusedError(400, str(error)) from None
        return web.json_response({"ok": True})

    return obey


def _asset(name: str) -> Handler:
    kind = {"html": "text/html", "js": "text/javascript", "css": "text/css"}[name.rpartition(".")[2]]
    text = files("toapis_async.sandbox").joinpath("assets", name).read_text("utf-8")

    async def show(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=kind)

    return show


async def _nothing_there(request: web.Request) -> web.StreamResponse:
    raise _RefusedError(404, f"nothing to {request.method} here: see docs/testing.md")


async def _parameters(request: web.Request) -> JsonObject:
    """The JSON object of a body, which may be left out."""
    if request.content_type != "application/json":
        raise _RefusedError(415, "say Content-Type: application/json")
    raw = bytearray()
    async for chunk in request.content.iter_any():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise _RefusedError(413, f"at most {MOST_BYTES:,} bytes")
    try:
        parameters: object = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        raise _RefusedError(400, "the body is no JSON") from None
    if not isinstance(parameters, dict):
        raise _RefusedError(400, "the body must be a JSON object")
    return cast("JsonObject", parameters)


def _text(parameters: JsonObject, name: str) -> str:
    value = parameters.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text")  # noqa: TRY004
    return value


def _number(parameters: JsonObject, name: str) -> float:
    value = parameters.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST:
        raise ValueError(f"{name} must be a number of at most {MOST:,.0f}")
    return value


def _step(value: object) -> Step:
    """A step as JSON has it: null, a fault's name, {"fault": name, "lasting_s": 30}, or a list of the latter two."""
    if value is None:
        return None
    if isinstance(value, str):
        return Fault(value)
    if isinstance(value, list):
        together = [_step(part) for part in cast("list[object]", value)]
        if all(isinstance(part, Fault | TimedFault) for part in together):
            return tuple(cast("list[Fault | TimedFault]", together))
    if isinstance(value, dict):
        given = cast("JsonObject", value)
        return Fault(_text(given, "fault")).lasting(_number(given, "lasting_s"))
    raise ValueError('a step is null, "error_500", {"fault": "slow", "lasting_s": 30}, or a list of faults')


def _written(step: Step) -> object:
    if isinstance(step, TimedFault):
        return {"fault": step.fault.value, "lasting_s": step.seconds}
    if isinstance(step, tuple):
        return [_written(part) for part in step]
    return None if step is None else step.value


def _entry(entry: LedgerEntry) -> JsonObject:
    named = (
        "task_id", "kind", "client_business_id", "user", "model", "prompt", "n", "credits", "refunded", "accepted_at",
        "status", "finished_at",
    )  # fmt: skip
    return {**{name: getattr(entry, name) for name in named}, "references": len(entry.references)}
