"""Local pictures and videos on the way up: they become links that the service can read."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import stat
import time
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import aiohttp
import anyio
import anyio.to_thread
from attrs import define, field

from toapis_async.engine.threads import in_thread
from toapis_async.errors import InvalidRequest, ToAPIsError, TransportError
from toapis_async.protocol.endpoints import UPLOAD_PATHS, Kind
from toapis_async.protocol.filetype import HEAD_BYTES, UPLOADABLE, UPLOADABLE_VIDEOS, sniff
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.retry import backoff_s, retry_after_s
from toapis_async.protocol.wire import decode_upload
from toapis_async.request import is_http_url

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Sequence

    from toapis_async.engine.transport import Transport
    from toapis_async.errors import ServiceError
    from toapis_async.models import Upload
    from toapis_async.protocol.lenient import Answer
    from toapis_async.request import Request
    from toapis_async.settings import Settings

MAX_BYTES: Final[dict[Kind, int]] = {"image": 10_000_000, "video": 50_000_000}
"""The service says 10 MB and 50 MB [docs]; the strict reading is safe under both."""
_CONCURRENCY = 4
REUSED_S: Final = 3_600.0
"""How long the link of a request's local file serves further requests with the same content. The service does not say
how long it keeps uploads."""

Uploadable: TypeAlias = str | Path | bytes | IO[bytes]
T = TypeVar("T")


class _Passing(Exception):
    """The service did not take an upload, and may take another."""

    def __init__(self, error: ToAPIsError, wait_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


@define
class _Sent:
    """What was sent of one content. Whoever holds the lock sends it; the others wait for its link or its failure."""

    lock: asyncio.Lock = field(factory=asyncio.Lock)
    upload: Upload | None = None
    at_s: float = 0.0  #: loop time
    attempts: int = 0
    error: ToAPIsError | None = None  #: of the latest attempt

    def fresh(self, now_s: float) -> Upload | None:
        return self.upload if now_s < self.at_s + REUSED_S else None


class Uploads:
    """Checks and sends local files, a few at once; those of requests once an hour, however many requests have them."""

    def __init__(self, transport: Transport, settings: Settings, rng: random.Random) -> None:
        self._transport = transport
        self._settings = settings
        self._rng = rng
        self._turns = asyncio.Semaphore(_CONCURRENCY)
        self._sent: dict[tuple[str, Kind], _Sent] = {}  #: by the SHA-256 of the content, and what the request is for

    async def upload(self, source: Uploadable) -> Upload:
        """Send one picture or video, also one that was sent before. Raises as `_upload`."""
        sent, _ = await self._upload(source, "video")
        return sent

    async def _upload(self, source: Uploadable, for_kind: Kind) -> tuple[Upload, str]:
        """Send one picture or video; its bytes say which. Returns the SHA-256 of what was sent, too. Raises
        `InvalidRequest` before anything is sent when it is neither, or too large, or a video for a request of images.

        Unlike a submission it costs nothing and may arrive twice, so whatever may pass is tried again, for
        `submit_retry_s` after the first failure.
        """
        if not isinstance(source, str | Path):
            source = await _read(source)  # a stream gives its bytes once; a path is read again, not kept, in between
        loop = asyncio.get_running_loop()
        failures = 0
        failed_since_s: float | None = None
        while True:
            try:
                async with self._turns:
                    return await self._send(source, for_kind)
            except _Passing as passing:
                error, asked_s = passing.error, passing.wait_s
            failures += 1
            if failed_since_s is None:  # waiting for the first turn is not retrying
                failed_since_s = loop.time()
            wait_s = max(asked_s, backoff_s(failures, base_s=0.5, cap_s=10.0, rng=self._rng))
            if loop.time() + wait_s > failed_since_s + self._settings.submit_retry_s:
                error.add_note(f"tried {failures} times within submit_retry_s={self._settings.submit_retry_s:g}")
                raise error
            with anyio.move_on_after(wait_s):
                await self._transport.closed.wait()  # then the next attempt is refused

    async def _send(self, source: str | Path | bytes, for_kind: Kind) -> tuple[Upload, str]:
        content = await _read(source)
        kind = _kind_of(content)
        file_type = sniff(content[:HEAD_BYTES])
        if kind is None or file_type is None:
            raise InvalidRequest(
                f"{_named(source)} is not a JPEG, PNG, WebP or GIF picture, nor an MP4, WebM or MOV video",
                field="reference_images",
            )
        if len(content) > MAX_BYTES[kind]:
            raise InvalidRequest(
                f"{_named(source)} is larger than {MAX_BYTES[kind]:,} bytes, the most the service takes of {kind}s; "
                f"{'scale it down or save it as JPEG' if kind == 'image' else 'shorten it or scale it down'}",
                field="reference_images",
            )
        if kind == "video" and for_kind == "image":
            raise InvalidRequest(
                f"{_named(source)} is a video; a request for images takes a JPEG, PNG, WebP or GIF",
                field="reference_images",
            )
        form = aiohttp.FormData()
        # The name is ours: a local name may tell more than its owner wants to tell the service.
        # As a file: aiohttp warns about raw bytes of a megabyte, and sends a file piece by piece.
        name = f"{kind}{file_type.extension}"
        form.add_field("file", BytesIO(content), filename=name, content_type=file_type.mime_type)
        form.add_field("purpose", "generation")
        try:
            answer = await self._transport.post("upload", UPLOAD_PATHS[kind], form=form)
        except TransportError as error:
            error.may_have_been_accepted = False  # no task comes of an upload
            raise _Passing(error) from None
        if not 200 <= answer.status < 300:
            raise self._refusal(answer)
        return decode_upload(answer, self._transport.base_url), await in_thread(_digest, content)

    def _refusal(self, answer: Answer) -> ServiceError | _Passing:
        asked_s = retry_after_s(answer.headers.get("retry-after"), time.time(), self._settings.max_retry_after_s)
        error = decode_error(answer, retry_after_s=asked_s)
        return _Passing(error, asked_s or 0.0) if answer.status == 429 or answer.status >= 500 else error

    async def links_of(self, request: Request) -> list[str]:
        """Upload a request's local files side by side; their links, in the order of `request.local_files()`."""
        files = request.local_files()
        return await _together([self._link_of(file, request.kind) for file in files]) if files else []

    async def _link_of(self, file: Path | bytes, for_kind: Kind) -> str:
        """The link of a local file: of an earlier upload of the same content, when that is fresh."""
        loop = asyncio.get_running_loop()
        async with self._turns:  # bounds how many files are in memory
            digest = await in_thread(_digest_of, file)
        entry = self._sent.setdefault((digest, for_kind), _Sent())
        attempts = entry.attempts
        async with entry.lock:
            upload = entry.fresh(loop.time())
            if upload is not None:
                return upload.url
            if entry.error is not None and entry.attempts > attempts:  # it failed while this one waited
                raise copy(entry.error)
            entry.error = None
            try:
                upload, sent_digest = await self._upload(file, for_kind)
            except ToAPIsError as error:
                entry.error = copy(error)
                raise
            finally:
                entry.attempts += 1
            if sent_digest == digest:  # else the file was changed meanwhile
                self._forget_stale(loop.time())
                entry.upload, entry.at_s = upload, loop.time()
        return upload.url

    def _forget_stale(self, now_s: float) -> None:
        for key, entry in [*self._sent.items()]:
            if not entry.lock.locked() and entry.fresh(now_s) is None:
                del self._sent[key]


async def _together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Do these side by side. The first failure ends the others and is raised; a cancelled caller gets its cancellation.

    No task group: anyio's and asyncio's both give the failure of a child instead of a cancellation that comes while
    they wait for the other children's end, and a time-out around them is then lost.
    """
    running = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for each in running:
            each.cancel()
        await _ended(running)
    failed = [each for each in running if not each.cancelled() and each.exception() is not None]
    return [each.result() for each in failed or running]


async def _ended(running: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for the end of tasks that were cancelled, also when the caller is cancelled meanwhile."""
    try:
        await asyncio.wait(running)
    except asyncio.CancelledError:
        while not all(each.done() for each in running):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(running)
        raise
    finally:
        for each in running:
            if each.done() and not each.cancelled():
                each.exception()  # marks it retrieved: one error or a cancellation is told, the rest not logged


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(file: Path | bytes) -> str:
    return _digest(file if isinstance(file, bytes) else read_local(file))


async def _read(source: Uploadable) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str) and is_http_url(source):
        raise InvalidRequest(f"{source} is a link already: use it as it is", field="reference_images")
    if isinstance(source, str | Path):
        return await anyio.to_thread.run_sync(read_local, Path(source))
    return await anyio.to_thread.run_sync(_read_stream, source)


def read_local(path: Path) -> bytes:
    """A local file's bytes; of one that is too large, one more than may be sent. Blocks; raises `InvalidRequest`."""
    try:
        if stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            with path.open("rb") as file:
                return _bounded(file.read)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InvalidRequest(f"can't read {str(path)!r}: {reason}", field="reference_images") from error
    raise InvalidRequest(f"{path} is not a regular file", field="reference_images")


def _read_stream(file: IO[bytes]) -> bytes:
    if hasattr(file, "read"):
        # Told by what it gives: not every text file is a TextIOBase (tempfile's wrappers are not).
        with contextlib.suppress(UnicodeDecodeError, TypeError):
            return _bounded(file.read)
    raise InvalidRequest("upload takes a path, bytes or a file opened in binary mode ('rb')", field="reference_images")


def _bounded(read: Callable[[int], bytes]) -> bytes:
    """What `read` gives to the end, or one byte more than may be sent of it. Raises `TypeError` for text."""
    content = b""
    while len(content) <= (most_bytes := MAX_BYTES[_kind_of(content) or "image"]):
        block = read(most_bytes + 1 - len(content) if content else HEAD_BYTES)
        content += block
        if not block:
            break
    return content


def _kind_of(content: bytes) -> Kind | None:
    """Which of the service's uploads takes a file, by its bytes; None when none does."""
    file_type = sniff(content[:HEAD_BYTES])
    return "image" if file_type in UPLOADABLE else "video" if file_type in UPLOADABLE_VIDEOS else None


def _named(source: Uploadable) -> str:
    return str(source) if isinstance(source, str | Path) else "the file"
