"""A file on its way to disk: in memory while small, beside its target when it grows, and named when it is whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import zlib
from typing import IO, TYPE_CHECKING

from attrs import define, field

from toapis_async.protocol.filetype import ENDS_EXACTLY, HEAD_BYTES, FileType, labelled, looks_whole, sniff
from toapis_async.protocol.naming import digest, plain_stem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUFFER_BYTES = 1 << 20
"""A file below this size is checked, written and named in one step of one thread."""
_ZLIB_BEGINNINGS = (b"\x1f\x8b", b"x\x01", b"x^", b"x\x9c", b"x\xda")


class Unfit(Exception):
    """What came is no whole picture or video."""


class TooLarge(Exception):
    """What came is larger than it may be, and will be again."""


@define
class Part:
    """The bytes that came so far. All but `add` and `restart` block; they run in worker threads, one at a time."""

    target: Path  #: where the file will stand, without its extension
    limit_bytes: int  #: what a file that came compressed may grow to
    is_unpacked: bool = False
    written_bytes: int = 0
    head: bytes = b""
    buffer: bytearray = field(factory=bytearray)
    _file: IO[bytes] | None = None
    _path: Path = field(init=False)

    @_path.default  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUntypedFunctionDecorator]
    def _beside(self) -> Path:
        # Of characters that every file system holds; the target's own may be too much for it.
        return self.target.with_name(f".{digest(self.target.name)}.{secrets.token_hex(4)}.part")

    @property
    def size_bytes(self) -> int:
        return self.written_bytes + len(self.buffer)

    @property
    def is_full(self) -> bool:
        """Whether it is time to `flush`."""
        return len(self.buffer) >= BUFFER_BYTES

    @property
    def is_on_disk(self) -> bool:
        """Whether there is something to `discard`."""
        return self._file is not None

    def add(self, chunk: bytes) -> None:
        self.head += chunk[: HEAD_BYTES - len(self.head)]
        self.buffer += chunk

    def restart(self) -> None:
        """Forget what came."""
        self.written_bytes, self.head = 0, b""
        self.buffer.clear()

    def flush(self) -> IO[bytes]:
        """Write what is in memory to the file, and return that."""
        if self._file is None:
            self._file = self._opened()
        self._file.seek(self.written_bytes)
        self._file.write(self.buffer)
        self.written_bytes += len(self.buffer)
        self.buffer.clear()
        return self._file

    def _opened(self) -> IO[bytes]:
        try:
            return self._path.open("x+b")
        except FileNotFoundError:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            return self._path.open("x+b")

    def finish(self, content_type: str, *, is_complete: bool) -> Path:
        """Check the file, make it durable, then give it its name, then make the name durable. Returns the name.

        `is_complete`: the transfer told where it ends, and came there. Raises `Unfit`.
        """
        if self.head.startswith(_ZLIB_BEGINNINGS) and not self.is_unpacked:
            return self._finish_unpacked(content_type, is_complete=is_complete)
        kind = self._checked_type(content_type, is_complete=is_complete)
        file = self.flush()
        file.truncate(self.written_bytes)
        file.flush()
        os.fsync(file.fileno())
        file.close()
        named = self._named(kind.extension)
        self._file = None
        with contextlib.suppress(OSError):  # the file is saved; Windows and some FUSE systems refuse this
            _sync_folder(named.parent)
        return named

    def discard(self) -> None:
        """Leave nothing behind of a file that was not finished."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # a full disk fails again when the last buffer is written
            self._file.close()
        with contextlib.suppress(OSError):  # and why the file can't be saved is told already
            self._path.unlink(missing_ok=True)

    def _named(self, extension: str) -> Path:
        named = self.target.with_name(self.target.name + extension)
        try:
            self._path.replace(named)
        except (OSError, UnicodeError):
            # Too long for this file system, or of characters that it does not hold.
            plain = self.target.with_name(plain_stem(self.target.name) + extension)
            with contextlib.suppress(OSError):
                self._path.replace(plain)
                return plain
            raise
        return named

    def _checked_type(self, content_type: str, *, is_complete: bool) -> FileType:
        kind = sniff(self.head)
        if kind is None:
            # Only a transfer that reached its end vouches for a file of which nothing is known.
            kind = labelled(content_type, self.head) if is_complete else None
            if kind is None:
                raise Unfit(f"what came ({content_type}, {self.size_bytes} bytes) is no picture or video we know")
        elif (kind in ENDS_EXACTLY or self.is_unpacked or not is_complete) and not looks_whole(
            kind, self.flush(), self.size_bytes
        ):
            raise Unfit("the file broke off: its end is missing")
        return kind

    def _finish_unpacked(self, content_type: str, *, is_complete: bool) -> Path:
        """Finish the file inside of one that a host compressed unasked."""
        plain = Part(self.target, self.limit_bytes, is_unpacked=True)
        try:
            for block in self._unpacked():
                plain.add(block)
                if plain.size_bytes > self.limit_bytes:
                    raise TooLarge
                if plain.is_full:
                    plain.flush()
            return plain.finish(content_type, is_complete=is_complete)
        except zlib.error as error:
            raise Unfit(f"what came can't be unpacked: {error}") from error
        finally:
            plain.discard()

    def _unpacked(self) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib
        file = self.flush()
        file.seek(0)
        while (packed := file.read(BUFFER_BYTES)) and not unpacker.eof:
            while packed and not unpacker.eof:
                yield unpacker.decompress(packed, BUFFER_BYTES)
                packed = unpacker.unconsumed_tail
        if not unpacker.eof:
            raise Unfit("the file broke off: the end of its compression is missing")


def is_saved(path: Path) -> bool:
    """Whether a file is there and holds something: a full disk or a sync program may have left an empty one."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
