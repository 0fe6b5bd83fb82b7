"""The API's host: the published endpoints over the service, one method each."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from aiohttp import web

from toapis_async.sandbox import answers, uploads
from toapis_async.sandbox.answers import Answer, BillingMode, Links
from toapis_async.sandbox.faults import FAILURES, STICKY, VANISHINGS, Drawn, Fault, Kind
from toapis_async.sandbox.gate import CATEGORIES, Gate
from toapis_async.sandbox.jobs import ImageJob, JsonObject, RefusedError, TaskKind, VideoJob, invalid, object_of
from toapis_async.sandbox.tasks import Failure, Task
from toapis_async.sandbox.validation import check_encoding, form_fields
from toapis_async.sandbox.variants import task_variant
from toapis_async.sandbox.video_validation import understand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from toapis_async.sandbox.service import Caller, Service
    from toapis_async.sandbox.store import Store
    from toapis_async.sandbox.webhooks import Webhooks

JSON_LIMIT_BYTES = 64 * 1024 * 1024
"""Far above any sane request: a body full of base64 deserves the service's own refusal, not a 413."""
_LAYERS = 2
"""How many layers come besides the whole picture."""


@dataclass(slots=True)
class Api:
    """Handlers of the API's host."""

    gate: Gate
    service: Service
    store: Store
    billing: BillingMode
    links: Callable[[Task], Links]
    files_url: Callable[[], str]
    webhooks: Webhooks
    uploads_taken: int = 0

    def application(self, others: Iterable[web.RouteDef] = ()) -> web.Application:
        """The routes and `others`; whatever matches none of them, in path or in method, is an invalid URL."""
        app = web.Application(client_max_size=JSON_LIMIT_BYTES)
        app.add_routes(others)
        for path in ("/v1/images/generations", "/v1/images/edits", "/v1/videos/generations"):
            app.router.add_post(path, self.submit)
        app.router.add_post("/v1/videos/{video_id:[^/]+}/{action:remix|extend}", self.submit)
        app.router.add_get("/v1/images/generations/{task_id:[^/]+}", self.query)
        app.router.add_get("/v1/videos/generations/{task_id:[^/]+}", self.query)
        app.router.add_post("/v1/uploads/images", self.upload)
        app.router.add_post("/v1/uploads/videos", self.upload)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/pricing", self.pricing)
        for path in ("/v1/balance", "/v1/user/balance", "/user/balance"):
            app.router.add_get(path, self.balance)
        app.router.add_route("*", "/{path:.*}", self.unknown)
        return app

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/images/generations`, `/v1/images/edits`, `/v1/videos/generations`, `/v1/videos/{id}/remix` and
        `/extend`."""
        body = await _submission(request)

        async def handle(drawn: Drawn) -> Answer:
            return await self._for_caller(request, "submit", lambda caller: self._submit(request, caller, body, drawn))

        return await self.gate.serve(request, "submit", handle, subjects=_subjects(body))

    async def query(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/images/generations/{task_id or client_business_id}`, and the same of videos."""
        wanted = request.match_info["task_id"]
        caller = self.gate.keys.caller(request.headers)
        kind: TaskKind = "image" if request.path.startswith("/v1/images/") else "video"
        task = None if caller is None else self.service.find(caller.user, wanted, self.gate.clock(), kind)

        async def handle(drawn: Drawn) -> Answer:
            return await self._for_caller(request, "query", lambda _: self._status(task, drawn))

        subjects = (wanted,) if task is None else task.subjects
        task_id = None if task is None else task.task_id
        return await self.gate.serve(request, "query", handle, subjects=subjects, task_id=task_id)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/uploads/images` and `/v1/uploads/videos`."""
        kind = uploads.IMAGES if request.path == "/v1/uploads/images" else uploads.VIDEOS
        data: bytes | uploads.UploadRefusedError
        try:
            data = await uploads.read_file_field(request, kind.most_bytes)
        except uploads.UploadRefusedError as refusal:
            data = refusal

        async def handle(_: Drawn) -> Answer:
            return await self._for_caller(request, "upload", lambda _: self._take(kind, data))

        return await self.gate.serve(request, "upload", handle)

    async def models(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/models?type=…`."""

        async def listed(_: Caller) -> Answer:
            return answers.models(request.query.get("type", ""))

        async def handle(_: Drawn) -> Answer:
            return await self._for_caller(request, "models", listed)

        return await self.gate.serve(request, "models", handle)

    async def pricing(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/pricing?model=…&type=…&limit=…&after=…`."""

        async def listed(_: Caller) -> Answer:
            return answers.pricing(request.query)

        async def handle(_: Drawn) -> Answer:
            return await self._for_caller(request, "pricing", listed)

        return await self.gate.serve(request, "pricing", handle)

    async def balance(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/balance` (this key), `GET /v1/user/balance` and `GET /user/balance` (the account)."""

        async def read(caller: Caller) -> Answer:
            now = self.gate.clock()
            if request.path == "/v1/balance":
                return answers.balance(self.service.balance_of_key(caller, now))
            return answers.balance(self.service.balance_of_user(caller.user, now))

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

    async def _submit(self, request: web.Request, caller: Caller, body: object, drawn: Drawn) -> Answer:
        now = self.gate.clock()
        try:
            if isinstance(body, uploads.UploadRefusedError):
                raise invalid(str(body))
            fields = object_of(body)
            check_encoding(fields, request.path, form=request.content_type == "multipart/form-data")
            job = understand(fields, request.path)
            if isinstance(job, VideoJob) and job.source_id is not None and not self._is_video(caller, job.source_id):
                return answers.task_not_found()
            receiver = self.webhooks.receiver_of(job.callback_url)
            task, new = self.service.accept(job, caller, now, frozenset(drawn.keys() & STICKY))
        except RefusedError as refusal:
            return answers.refused(refusal)
        at_once = Fault.FINISHED_AT_ONCE in drawn
        if new:
            if at_once:
                self.service.end(task, now, task.failure)
            await self.store.save_task(task)
            if receiver is not None:
                self.webhooks.watch(task, receiver)
        status, state = 201 if Fault.CREATED_201 in drawn else 200, task.state(now)
        body = answers.task_status(task, state, self.links(task), self.billing, now) if at_once else None
        return Answer(status, task_variant(body or answers.submitted(task, state), task.traits))

    def _is_video(self, caller: Caller, task_id: str) -> bool:
        """Whether that is a finished video of this user."""
        now = self.gate.clock()
        task = self.service.find(caller.user, task_id, now, "video")
        return task is not None and task.state(now).status == "completed"

    async def _status(self, task: Task | None, drawn: Drawn) -> Answer:
        if task is None:
            return answers.task_not_found()
        now = self.gate.clock()
        await self._strike(task, drawn, now)
        if task.vanished is Fault.TASK_VANISHES_400:
            return answers.task_not_exist()
        if task.vanished is not None:
            return answers.task_not_found()
        body = answers.task_status(task, task.state(now), self.links(task), self.billing, now)
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

    async def _take(self, kind: uploads.UploadKind, data: bytes | uploads.UploadRefusedError) -> Answer:
        try:
            if isinstance(data, uploads.UploadRefusedError):
                raise data
            upload = kind.checked(data, self.uploads_taken, self.gate.clock())
        except uploads.UploadRefusedError as refusal:
            return answers.plainly_failed(400, str(refusal))
        self.uploads_taken += 1
        await self.store.save_upload(upload.name, upload.data)
        url = f"{self.files_url()}/uploads/{upload.name}"
        return answers.uploaded(upload.upload_id, url, upload.mime_type, len(upload.data))


def file_names(task: Task) -> list[str]:
    """The names of a task's files on the files host."""
    extension = {"jpeg": "jpg"}.get(task.job.output_format, task.job.output_format)
    count = task.job.n + (_LAYERS if isinstance(task.job, ImageJob) and task.job.layered else 0)
    return [f"{task.task_id}-{index}.{extension}" for index in range(count)]


def last_frame_names(task: Task) -> list[str]:
    """The names of the last frames of a task's videos, if they were wanted."""
    wanted = isinstance(task.job, VideoJob) and task.job.with_last_frame
    return [f"{task.task_id}-{index}.png" for index in range(task.job.n if wanted else 0)]


async def _submission(request: web.Request) -> object:
    """The JSON value of a body, or the fields of a form; `None`, which is no object either, for what is no JSON."""
    if request.content_type == "multipart/form-data":
        try:
            return form_fields(await uploads.read_form(request))
        except uploads.UploadRefusedError as refusal:
            await request.read()
            return refusal
    try:
        return cast("object", json.loads(await request.read()))
    except (ValueError, RecursionError):
        return None


def _subjects(body: object) -> tuple[str, ...]:
    """What a scripted fault can name a submission by, and what chance draws it by: the prompt first."""
    if not isinstance(body, dict):
        return ()
    fields = cast("JsonObject", body)
    named = (fields.get("prompt"), fields.get("client_business_id"))
    return tuple(name for name in named if isinstance(name, str))
