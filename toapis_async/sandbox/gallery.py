"""The files host: finished pictures and videos, made when they are first downloaded, and uploads."""

from __future__ import annotations

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from aiohttp import web

from toapis_async.sandbox.answers import Answer
from toapis_async.sandbox.api import file_names, last_frame_names
from toapis_async.sandbox.jobs import Job
from toapis_async.sandbox.uploads import MIME_TYPES

if TYPE_CHECKING:
    from toapis_async.sandbox.faults import Drawn
    from toapis_async.sandbox.gate import Gate
    from toapis_async.sandbox.service import Service
    from toapis_async.sandbox.store import Store
    from toapis_async.sandbox.tasks import Task

Painter = Callable[[Job, int, bytes | None], bytes]
"""Makes file number i of a job, with its first reference if that is an upload of ours. Blocking."""

_CACHE_BYTES = 32 * 1024 * 1024


@dataclass(slots=True)
class Gallery:
    """Handlers of the files host. No key is needed, and none should ever be sent."""

    gate: Gate
    service: Service
    store: Store
    painter: Painter
    filmer: Painter
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
        """A file of a task, from its completion until its links expire."""
        name = request.match_info["name"]
        task_id = name.rpartition("-")[0]
        task = self.service.tasks.get(task_id)

        async def handle(_: Drawn) -> Answer:
            if task is None or not self._available(task, name):
                return _nothing_there()
            return _file(request, await self._made(task, name), name)

        subjects = (name, task_id)
        known = None if task is None else task_id
        return await self.gate.serve(request, "file", handle, subjects=subjects, task_id=known)

    async def uploaded(self, request: web.Request) -> web.StreamResponse:
        """An upload."""
        name = request.match_info["name"]

        async def handle(_: Drawn) -> Answer:
            data = await self._upload(name)
            return _nothing_there() if data is None else _file(request, data, name)

        return await self.gate.serve(request, "file", handle, subjects=(name,))

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """Everything else."""

        async def handle(_: Drawn) -> Answer:
            return _nothing_there()

        return await self.gate.serve(request, "unknown", handle)

    async def aclose(self) -> None:
        """Wait for files being made (a video stops at its next frame) and let the threads go."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._cache.clear()

    def _available(self, task: Task, name: str) -> bool:
        now = self.gate.clock()
        completed = task.state(now).status == "completed"
        return completed and now < task.expires_at and name in (*file_names(task), *last_frame_names(task))

    async def _made(self, task: Task, name: str) -> bytes:
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        filmed = task.kind == "video" and name in file_names(task)
        index = (file_names(task) if filmed or task.kind == "image" else last_frame_names(task)).index(name)
        reference = await self._reference(task.job)
        make = self.filmer if filmed else self.painter
        data = await asyncio.get_running_loop().run_in_executor(self._threads, make, task.job, index, reference)
        self._keep(name, data)
        return data

    def _keep(self, name: str, data: bytes) -> None:
        self._cached_bytes += len(data) - len(self._cache.get(name, b""))
        self._cache[name] = data
        while self._cached_bytes > _CACHE_BYTES:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])

    async def _reference(self, job: Job) -> bytes | None:
        if not job.references:
            return None
        return await self._upload(job.references[0].rpartition("/")[2])

    async def _upload(self, name: str) -> bytes | None:
        # Our own names only: this becomes a path on disk, and a reference can be any URL.
        stem, dot, extension = name.rpartition(".")
        if not dot or extension not in MIME_TYPES or not stem.replace("_", "").isalnum():
            return None
        return await self.store.read_upload(name)


def _file(request: web.Request, data: bytes, name: str) -> Answer:
    """The file, or the one range of it that is asked for: a download that broke off may go on."""
    etag = f'"{zlib.crc32(data):08x}-{len(data):x}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag}
    mime_type = MIME_TYPES[PurePosixPath(name).suffix[1:]]
    wanted = _range(request, etag)
    if wanted is None:
        return Answer(200, data, headers, mime_type)
    start, stop, _ = wanted.indices(len(data))
    if start >= stop:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"}, mime_type)
    return Answer(
        206, data[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, mime_type
    )


def _range(request: web.Request, etag: str) -> slice | None:
    """The range of a request; `None` for the whole file, also when the range can't be read or is of another file."""
    if "Range" not in request.headers or request.headers.get("If-Range", etag) != etag:
        return None
    try:
        return request.http_range
    except ValueError:
        return None


def _nothing_there() -> Answer:
    return Answer(404, b"404 page not found\n", {}, "text/plain")
