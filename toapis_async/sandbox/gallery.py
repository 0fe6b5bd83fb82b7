"""The files host: finished pictures, drawn when they are first downloaded, and uploads."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from aiohttp import web

from toapis_async.sandbox.answers import Answer
from toapis_async.sandbox.api import file_names
from toapis_async.sandbox.uploads import MIME_TYPES
from toapis_async.sandbox.validation import ImageJob

if TYPE_CHECKING:
    from toapis_async.sandbox.faults import Drawn
    from toapis_async.sandbox.gate import Gate
    from toapis_async.sandbox.service import Service
    from toapis_async.sandbox.store import Store
    from toapis_async.sandbox.tasks import Task

Painter = Callable[[ImageJob, int, bytes | None], bytes]
"""Draws picture number i of a job, with its first reference if that is an upload of ours. Blocking."""

_CACHE_BYTES = 32 * 1024 * 1024


@dataclass(slots=True)
class Gallery:
    """Handlers of the files host. No key is needed, and none should ever be sent."""

    gate: Gate
    service: Service
    store: Store
    painter: Painter
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="toapis-sandbox-painter")
    )
    _cache: OrderedDict[str, bytes] = field(default_factory=OrderedDict[str, bytes])
    _cached_bytes: int = 0

    def application(self) -> web.Application:
        """The routes of the files host."""
        app = web.Application()
        app.router.add_get("/generated/{name}", self.generated)
        app.router.add_get("/uploads/{name}", self.uploaded)
        app.router.add_route("*", "/{path:.*}", self.unknown)
        app.on_response_prepare.append(self._date)
        return app

    async def _date(self, _: web.Request, response: web.StreamResponse) -> None:
        """A host's `Date` tells clients whether a link's life is over: both are by the sandbox's clock."""
        response.headers["Date"] = formatdate(self.gate.clock(), usegmt=True)

    async def generated(self, request: web.Request) -> web.StreamResponse:
        """A picture, from its task's completion until its links expire."""
        name = request.match_info["name"]
        task_id = name.rpartition("-")[0]
        task = self.service.tasks.get(task_id)

        async def handle(_: Drawn) -> Answer:
            if task is None or not self._on_show(task, name):
                return _nothing_there()
            data = await self._picture(task, name)
            return Answer(200, data, {}, "image/jpeg" if name.endswith("jpg") else "image/png")

        subjects = (name, task_id)
        known = None if task is None else task_id
        return await self.gate.serve(request, "file", handle, subjects=subjects, task_id=known)

    async def uploaded(self, request: web.Request) -> web.StreamResponse:
        """An upload."""
        name = request.match_info["name"]

        async def handle(_: Drawn) -> Answer:
            data = await self._upload(name)
            if data is None:
                return _nothing_there()
            return Answer(200, data, {}, MIME_TYPES[PurePosixPath(name).suffix[1:]])

        return await self.gate.serve(request, "file", handle, subjects=(name,))

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """Everything else."""

        async def handle(_: Drawn) -> Answer:
            return _nothing_there()

        return await self.gate.serve(request, "unknown", handle)

    async def aclose(self) -> None:
        """Wait for drawings under way (none takes a tenth of a second) and let the threads go."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._cache.clear()

    def _on_show(self, task: Task, name: str) -> bool:
        now = self.gate.clock()
        completed = task.state(now).status == "completed"
        return completed and now < task.expires_at and name in file_names(task)

    async def _picture(self, task: Task, name: str) -> bytes:
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        index = file_names(task).index(name)
        reference = await self._reference(task.job)
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._threads, self.painter, task.job, index, reference)
        self._keep(name, data)
        return data

    def _keep(self, name: str, data: bytes) -> None:
        self._cached_bytes += len(data) - len(self._cache.get(name, b""))
        self._cache[name] = data
        while self._cached_bytes > _CACHE_BYTES:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])

    async def _reference(self, job: ImageJob) -> bytes | None:
        if not job.reference_images:
            return None
        return await self._upload(job.reference_images[0].rpartition("/")[2])

    async def _upload(self, name: str) -> bytes | None:
        # Our own names only: this becomes a path on disk, and a reference can be any URL.
        stem, dot, extension = name.rpartition(".")
        if not dot or extension not in MIME_TYPES or not stem.replace("_", "").isalnum():
            return None
        return await self.store.read_upload(name)


def _nothing_there() -> Answer:
    return Answer(404, b"404 page not found\n", {}, "text/plain")
