"""Reference images on the way up: local files become links the service can read."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import aiohttp
import anyio
import anyio.to_thread

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.filetype import HEAD_BYTES, UPLOADABLE, sniff
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.wire import decode_upload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toapis_async.engine.transport import Transport
    from toapis_async.models import Upload
    from toapis_async.request import Reference

UPLOAD_PATH = "/uploads/images"
MAX_UPLOAD_BYTES = 10_000_000
"""The service says 10 MB; the strict reading is safe under both."""
_CONCURRENCY = 4

Uploadable: TypeAlias = str | Path | bytes | IO[bytes]


class Uploads:
    """Checks and sends local files, a few at once."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._turns = asyncio.Semaphore(_CONCURRENCY)

    async def upload(self, source: Uploadable) -> Upload:
        """Send one picture. Raises `InvalidRequest` before anything is sent when it can't be one."""
        async with self._turns:
            content = await _read(source)
            kind = sniff(content[:HEAD_BYTES])
            if kind not in UPLOADABLE:
                raise InvalidRequest(f"{_named(source)} is not a JPEG, PNG, WebP or GIF", field="reference_images")
            form = aiohttp.FormData()
            # The name is ours: what a file is called at home is nobody's business.
            # As a file: aiohttp warns about raw bytes of a megabyte, and sends a file piece by piece.
            form.add_field("file", BytesIO(content), filename=f"image{kind.extension}", content_type=kind.mime_type)
            form.add_field("purpose", "generation")
            answer = await self._transport.post("upload", UPLOAD_PATH, form=form)
        if not 200 <= answer.status < 300:
            raise decode_error(answer)
        return decode_upload(answer)

    async def resolve(self, references: Sequence[Reference | Mapping[str, Any]]) -> list[object]:
        """The references in their order, with every local file replaced by the link of its upload."""
        resolved: list[object] = list(references)
        local = [(place, item) for place, item in enumerate(references) if isinstance(item, Path | bytes)]
        if not local:
            return resolved

        async def send(place: int, item: Path | bytes) -> None:
            resolved[place] = (await self.upload(item)).url

        try:
            async with anyio.create_task_group() as group:
                for place, item in local:
                    group.start_soon(send, place, item)
        except ExceptionGroup as failures:
            raise _first(failures) from None
        return resolved


async def _read(source: Uploadable) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
    elif isinstance(source, str | Path):
        content = await anyio.to_thread.run_sync(_read_path, Path(source))
    else:
        content = await anyio.to_thread.run_sync(_read_file, source)
    if len(content) > MAX_UPLOAD_BYTES:
        raise InvalidRequest(
            f"{_named(source)} is larger than {MAX_UPLOAD_BYTES:,} bytes, the most the service takes; "
            "scale it down or save it as JPEG",
            field="reference_images",
        )
    return content


def _read_path(path: Path) -> bytes:
    try:
        if stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            with path.open("rb") as file:
                return file.read(MAX_UPLOAD_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InvalidRequest(f"can't read {str(path)!r}: {reason}", field="reference_images") from error
    raise InvalidRequest(f"{path} is not a regular file", field="reference_images")


def _read_file(file: IO[bytes]) -> bytes:
    content: object = None
    if hasattr(file, "read"):
        # Told by what it gives: not every text file is a TextIOBase (tempfile's wrappers are not).
        with contextlib.suppress(UnicodeDecodeError):
            content = file.read(MAX_UPLOAD_BYTES + 1)
    if not isinstance(content, bytes):
        raise InvalidRequest(
            "upload takes a path, bytes or a file opened in binary mode ('rb')", field="reference_images"
        )
    return content


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    """The first error of a group: a request with a bad reference fails with the reason, not with a bundle of them."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _named(source: Uploadable) -> str:
    return str(source) if isinstance(source, str | Path) else "the file"
