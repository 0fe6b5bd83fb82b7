"""Images on the way down: streamed beside their target, checked, and named only when whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

import anyio
from attrs import define, field

from toapis_async.engine.connections import FAILURES
from toapis_async.engine.limiter import Gate, Permits
from toapis_async.engine.threads import in_thread
from toapis_async.errors import DownloadFailed, LinkExpired, ToAPIsError, TransportError
from toapis_async.events import FileSaved
from toapis_async.protocol.filetype import ENDS_EXACTLY, HEAD_BYTES, FileType, looks_whole, sniff
from toapis_async.protocol.naming import file_stem
from toapis_async.protocol.retry import backoff_s, retry_after_s
from toapis_async.protocol.wire import LINK_LIFE
from toapis_async.request import is_http_url

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import aiohttp

    from toapis_async.engine.transport import Transport
    from toapis_async.events import Event
    from toapis_async.models import Generation
    from toapis_async.settings import Settings
    from toapis_async.task import GeneratedImage

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BUFFER_BYTES = 1 << 20
_TAIL_BYTES = 64
_GONE = frozenset({403, 404, 410})


class _Passing(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@define
class _Part:
    """A file being written. Its methods block; they run in worker threads, one at a time."""

    path: Path
    file: IO[bytes] | None = None
    size_bytes: int = 0
    head: bytes = b""
    tail: bytes = b""
    buffer: bytearray = field(factory=bytearray)

    @classmethod
    def beside(cls, stem: Path) -> _Part:
        return cls(stem.with_name(f".{stem.name}.{secrets.token_hex(4)}.part"))

    def open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("xb")

    def add(self, chunk: bytes) -> None:
        self.head += chunk[: HEAD_BYTES - len(self.head)]
        self.tail = (self.tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        self.size_bytes += len(chunk)
        self.buffer += chunk

    def flush(self) -> None:
        assert self.file is not None
        self.file.write(self.buffer)
        self.buffer.clear()

    def publish(self, target: Path) -> None:
        """Make it durable, then give it its name, then make the name durable."""
        assert self.file is not None
        self.flush()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.path.replace(target)
        with contextlib.suppress(OSError):  # the image is saved; Windows and some FUSE systems refuse this
            _sync_folder(target.parent)

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # a full disk fails again when the last buffer is written
            if self.file is not None:
                self.file.close()
        with contextlib.suppress(OSError, ValueError):  # and why the image can't be saved is told already
            self.path.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Downloads:
    """Fetches and saves images, a few at once. Never sends the key."""

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        rng: random.Random,
        emit: Callable[[Event], None],
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._rng = rng
        self._emit = emit
        self._turns = Gate(Permits(settings.download_concurrency))
        self.saved = 0
        self.saved_bytes = 0

    async def save(
        self, generation: Generation, folder: str | os.PathLike[str], stem: str | None = None
    ) -> tuple[Path, ...]:
        """Every image of a generation in `folder`, named `stem` (else the task's id), numbered if there are several.

        A relative `folder` is taken from the working directory of this moment; the paths begin as it does.
        """
        name = stem or file_stem(generation.task_id)
        ids = (generation.task_id, generation.client_business_id)
        if not generation.images:
            raise DownloadFailed("the service called the task completed but named no image").concerning(*ids)
        several = len(generation.images) > 1
        try:
            base = _absolute(folder)
        except OSError as error:  # the working directory is gone
            raise DownloadFailed(f"can't save the image: {error.strerror}").concerning(*ids) from error
        stems = [base / (f"{name}-{number}" if several else name) for number in range(1, len(generation.images) + 1)]
        files: list[Path] = []
        for image, target in zip(generation.images, stems, strict=True):
            try:
                files.append(Path(folder) / (await self._fetch(generation.task_id, image, target)).name)
            except ToAPIsError as error:
                error.concerning(*ids)
                raise
        return tuple(files)

    async def _fetch(self, task_id: str, image: GeneratedImage, stem: Path) -> Path:
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._turns.acquire(urgent=_closes_soon(image))
                try:
                    file, size_bytes = await self._attempt(image, stem)
                finally:
                    self._turns.give_back()
            except _Passing as error:
                if attempt >= self._settings.download_tries:
                    raise DownloadFailed(f"{error} (tried {attempt} times)", url=image.url) from None
                wait_s = backoff_s(attempt, base_s=0.5, cap_s=30.0, rng=self._rng)
                with anyio.move_on_after(max(wait_s, error.wait_s or 0.0)):
                    await self._transport.closed.wait()  # then there is no next attempt to wait for
            else:
                self.saved += 1
                self.saved_bytes += size_bytes
                self._emit(FileSaved(task_id, str(file), size_bytes, attempt))
                return file

    async def _attempt(self, image: GeneratedImage, stem: Path) -> tuple[Path, int]:
        if not is_http_url(image.url):
            raise DownloadFailed("the image's link is no http(s) URL", url=image.url)
        try:
            async with self._transport.download(image.url) as response:
                self._check_status(response, image)
                return await self._receive(response, stem)
        except TransportError as error:
            raise _Passing(f"could not fetch the image: {error}") from None
        except FAILURES as error:
            raise _Passing(f"the image broke off: {self._transport.lost(error)}") from None

    def _check_status(self, response: aiohttp.ClientResponse, image: GeneratedImage) -> None:
        status = response.status
        if status == 200:
            return
        expired = image.expires_at is not None and image.expires_at <= datetime.now(UTC)
        if status == 410 or (status in _GONE and expired):
            raise LinkExpired(
                "the image's link has expired (files live 24 hours); the file is gone from the service",
                url=image.url,
            )
        message = f"the file host answered HTTP {status}"
        # A fresh file's 404 may be a host that lags; the other refusals stay refusals.
        if status in {404, 408, 425, 429} or status >= 500:
            cap_s = self._settings.max_retry_after_s
            raise _Passing(message, retry_after_s(response.headers.get("Retry-After"), time.time(), cap_s))
        raise DownloadFailed(message, url=image.url)

    async def _receive(self, response: aiohttp.ClientResponse, stem: Path) -> tuple[Path, int]:
        url = str(response.url)
        limit_bytes = self._settings.max_file_bytes
        if (response.content_length or 0) > limit_bytes:
            raise _too_large(url, limit_bytes)
        part = _Part.beside(stem)
        try:
            await _on_disk(url, part.open)
            async for chunk in response.content.iter_any():
                part.add(chunk)
                if part.size_bytes > limit_bytes:
                    raise _too_large(url, limit_bytes)
                if len(part.buffer) >= _BUFFER_BYTES:
                    await _on_disk(url, part.flush)
            kind = _checked_type(part, response)
            target = stem.with_name(stem.name + kind.extension)
            await _on_disk(url, part.publish, target)
        finally:
            await _discard(part)
        return target, part.size_bytes


def _closes_soon(image: GeneratedImage) -> bool:
    """Whether a link has lived half of its day: such downloads go first."""
    return image.expires_at is not None and image.expires_at - datetime.now(UTC) < LINK_LIFE / 2


def _absolute(folder: str | os.PathLike[str]) -> Path:
    """The folder wherever the working directory moves to. Links in it stay, and nothing of it need exist."""
    return Path(folder).absolute()


def _checked_type(part: _Part, response: aiohttp.ClientResponse) -> FileType:
    kind = sniff(part.head)
    if kind is None:
        raise _Passing(f"what came ({response.content_type}, {part.size_bytes} bytes) is not an image we know")
    # Only a length that counts the stored bytes vouches for the end of a format that shows it inexactly.
    vouched = response.content_length is not None and "Content-Encoding" not in response.headers
    doubtful = kind in ENDS_EXACTLY or not vouched
    if doubtful and not looks_whole(kind, part.head, part.tail, part.size_bytes):
        raise _Passing("the image broke off: its end is missing")
    return kind


def _too_large(url: str, limit_bytes: int) -> DownloadFailed:
    return DownloadFailed(f"the image is larger than max_file_bytes={limit_bytes}", url=url)


async def _on_disk(url: str, act: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
    """Run a blocking step of `_Part`; its errors are the disk's, not the network's, and are not retried."""
    try:
        return await in_thread(act, *args)
    except Exception as error:  # also a NUL in a name (ValueError), or no thread to be had (RuntimeError)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DownloadFailed(f"can't save the image: {reason}", url=url) from error


async def _discard(part: _Part) -> None:
    try:
        await in_thread(part.discard)
    except RuntimeError:  # no thread to be had, and why the image can't be saved is told already
        part.discard()
