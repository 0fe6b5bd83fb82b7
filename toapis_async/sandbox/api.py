"""The API's host: the published endpoints over the service, one method each."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from aiohttp import web

from toapis_async.sandbox import answers, uploads
from toapis_async.sandbox.answers import Answer, BillingMode
from toapis_async.sandbox.faults import FAILURES, STICKY, VANISHINGS, Drawn, Fault, Kind
from toapis_async.sandbox.gate import CATEGORIES, Gate
from toapis_async.sandbox.tasks import Failure, Task
from toapis_async.sandbox.validation import JsonObject, RefusedError, understand
from toapis_async.sandbox.variants import task_variant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from toapis_async.sandbox.service import Caller, Service
    from toapis_async.sandbox.store import Store
    from toapis_async.sandbox.webhooks import Webhooks

JSON_LIMIT_BYTES = 64 * 1024 * 1024
"""Far above any sane request: a body full of base64 deserves the service's own refusal, not a 413."""


@dataclass(slots=True)
class Api:
    """Handlers of the API's host."""

    gate: Gate
    service: Service
    store: Store
    billing: BillingMode
    links: Callable[[Task], list[str]]
    files_url: Callable[[], str]
    webhooks: Webhooks
    uploads_taken: int = 0

    def application(self, others: Iterable[web.RouteDef] = ()) -> web.Application:
        """The routes and `others`; whatever matches none of them, in path or in method, is an invalid URL."""
        app = web.Application(client_max_size=JSON_LIMIT_BYTES)
        app.add_routes(others)
        app.router.add_post("/v1/images/generations", self.submit)
        app.router.add_post("/v1/images/edits", self.submit)
        app.router.add_get("/v1/images/generations/{task_id:[^/]+}", self.query)
        app.router.add_post("/v1/uploads/images", self.upload)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/balance", self.balance)
        app.router.add_get("/v1/user/balance", self.balance)
        app.router.add_route("*", "/{path:.*}", self.unknown)
        return app

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/images/generations` (and `/edits`)."""
        body = _parsed(await request.read())

        async def handle(drawn: Drawn) -> Answer:
            return await self._for_caller(request, "submit", lambda caller: self._submit(caller, body, drawn))

        return await self.gate.serve(request, "submit", handle, subjects=_subjects(body))

    async def query(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/images/generations/{task_id or client_business_id}`."""
        wanted = request.match_info["task_id"]
        caller = self.gate.keys.caller(request.headers)
        task = None if caller is None else self.service.find(caller.user, wanted, self.gate.clock())

        async def handle(drawn: Drawn) -> Answer:
            return await self._for_caller(request, "query", lambda _: self._status(task, drawn))

        subjects = (wanted,) if task is None else task.subjects
        task_id = None if task is None else task.task_id
        return await self.gate.serve(request, "query", handle, subjects=subjects, task_id=task_id)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/uploads/images`."""
        data: bytes | uploads.UploadRefusedError
        try:
            data = await uploads.read_file_field(request)
        except uploads.UploadRefusedError as refusal:
            data = refusal

        async def handle(_: Drawn) -> Answer:
            return await self._for_caller(request, "upload", lambda _: self._take(data))

        return await self.gate.serve(request, "upload", handle)

    async def models(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/models?type=…`."""

        async def listed(_: Caller) -> Answer:
            return answers.models(request.query.get("type", ""))

        async def handle(_: Drawn) -> Answer:
            return await self._for_caller(request, "models", listed)

        return await self.gate.serve(request, "models", handle)

    async def balance(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/balance` (this key) and `GET /v1/user/balance` (the account)."""

        async def read(caller: Caller) -> Answer:
            now = self.gate.clock()
            if request.path == "/v1/user/balance":
                return answers.balance(self.service.balance_of_user(caller.user, now))
            return answers.balance(self.service.balance_of_key(caller, now))

        async def handle(_: Drawn) -> Answer:
            return await self._for_caller(request, "balance", read)

        return await self.gate.serve(request, "balance", handle)

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """Everything else."""

        async def handle(_: Drawn) -> Answer:
            return answers.invalid_url(request.method, request.rel_url.raw_path)

        return await self.gate.serve(request, "unknown", handle)

    async def _for_caller(self, request: web.Request, kind: Kind, act: Callable[[Caller], Awaitable[Answer]]) -> Answer:
        """Key first, then the bucket: a request that is admitted costs its token whatever becomes of it."""
        caller = self.gate.keys.caller(request.headers)
        if caller is None:
            return answers.unauthorized()
        if kind not in CATEGORIES:
            return await act(caller)
        verdict = self.gate.limiter.admit(caller.user, CATEGORIES[kind], self.gate.clock())
        answer = await act(caller) if verdict.admitted else answers.too_fast()
        return replace(answer, headers={**answer.headers, **verdict.headers})

    async def _submit(self, caller: Caller, body: object, drawn: Drawn) -> Answer:
        now = self.gate.clock()
        try:
            job = understand(body)
            receiver = self.webhooks.receiver_of(job.callback_url)
            task, new = self.service.accept(job, caller, now, frozenset(drawn.keys() & STICKY))
        except RefusedError as refusal:
            return answers.refused(refusal)
        if new:
            await self.store.save_task(task)
            if receiver is not None:
                self.webhooks.watch(task, receiver)
        return Answer(200, task_variant(answers.submitted(task, task.state(now)), task.traits))

    async def _status(self, task: Task | None, drawn: Drawn) -> Answer:
        if task is None:
            return answers.task_not_found()
        now = self.gate.clock()
        await self._strike(task, drawn, now)
        if task.vanished is Fault.TASK_VANISHES_400:
            return answers.task_not_exist()
        if task.vanished is not None:
            return answers.task_not_found()
        body = answers.task_status(task, task.state(now), self.links(task), self.billing)
        return Answer(200, task_variant(body, task.traits | drawn.keys()))

    async def _strike(self, task: Task, drawn: Drawn, now: float) -> None:
        """Faults of a query that befall the task itself."""
        fails, vanishes = drawn.keys() & FAILURES, drawn.keys() & VANISHINGS
        if fails and not task.state(now).final:
            task.traits |= fails
            self.service.end(task, now, Failure())
            self.webhooks.ended(task)
        if vanishes:
            task.vanished = next(iter(vanishes))
        if fails or vanishes:
            await self.store.save_task(task)

    async def _take(self, data: bytes | uploads.UploadRefusedError) -> Answer:
        try:
            if isinstance(data, uploads.UploadRefusedError):
                raise data
            upload = uploads.checked(data, self.uploads_taken, self.gate.clock())
        except uploads.UploadRefusedError as refusal:
            return answers.plainly_failed(400, str(refusal))
        self.uploads_taken += 1
        await self.store.save_upload(upload.name, upload.data)
        url = f"{self.files_url()}/uploads/{upload.name}"
        return answers.uploaded(upload.upload_id, url, upload.mime_type, len(upload.data))


def file_names(task: Task) -> list[str]:
    """The names of a task's pictures on the files host."""
    extension = "jpg" if task.job.output_format == "jpeg" else "png"
    return [f"{task.task_id}-{index}.{extension}" for index in range(task.job.n)]


def _parsed(raw: bytes) -> object:
    """The JSON value of a body; `None`, which is no object either, for what is no JSON."""
    try:
        return cast("object", json.loads(raw))
    except (ValueError, RecursionError):
        return None


def _subjects(body: object) -> tuple[str, ...]:
    """What a scripted fault can name a submission by, and what chance draws it by: the prompt first."""
    if not isinstance(body, dict):
        return ()
    fields = cast("JsonObject", body)
    named = (fields.get("prompt"), fields.get("client_business_id"))
    return tuple(name for name in named if isinstance(name, str))
