"""The one folder that agents may name files in. Everything here blocks."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.lenient import shorten

SCHEME: Final = "toapis://files/"
"""How a file of the folder is named as an MCP resource; its name follows, percent-encoded."""
MOST_NAME_CHARACTERS: Final = 1_000
MOST_DEPTH: Final = 32
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not be waited for


class Folder:
    """A folder whose files are read by way of its descriptor, so that no link leads out of it, also not one that is
    put there between a check and the reading."""

    def __init__(self, path: Path) -> None:
        """Make it if missing. Raises `OSError`."""
        path.mkdir(parents=True, exist_ok=True)
        self.path: Path = path.resolve()
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._fd)

    def read(self, name: str, most_bytes: int) -> bytes:
        """The content of a file by its name: relative to the folder, absolute and inside it, or as a resource.

        Raises `InvalidRequest` for what is outside, no regular file, behind a symbolic link, or larger.
        """
        content, _ = self.begin(name, most_bytes + 1)
        if len(content) > most_bytes:
            raise refused(name, f"is larger than {most_bytes:,} bytes")
        return content

    def begin(self, name: str, most_bytes: int) -> tuple[bytes, int]:
        """The beginning of a file, and the size of all of it. Raises `InvalidRequest` likewise."""
        *folders, last = self._parts(name)
        try:
            with ExitStack() as stack:
                at = self._fd
                for part in folders:
                    at = os.open(part, _READ | os.O_DIRECTORY, dir_fd=at)
                    stack.callback(os.close, at)
                fd = os.open(last, _READ, dir_fd=at)
                file = stack.enter_context(open(fd, "rb"))
                state = os.fstat(fd)
                if not stat.S_ISREG(state.st_mode):
                    raise refused(name, "is no regular file")
                return file.read(most_bytes), state.st_size
        except OSError as error:
            raise refused(name, _reason(error)) from None

    def _parts(self, name: str) -> list[str]:
        """The folders on the way to a file, and its own name. Raises `InvalidRequest` for a name that leads out."""
        if not name or len(name) > MOST_NAME_CHARACTERS or not name.isprintable():
            raise refused(name, f"is no name of a file: 1 to {MOST_NAME_CHARACTERS:,} printable characters")
        if name.startswith(SCHEME):
            name = unquote(name.removeprefix(SCHEME))
        elif "://" in name:
            raise refused(name, "is neither an http(s) link nor the name of a file")
        path = Path(name)
        if path.is_absolute():
            if not path.is_relative_to(self.path):
                raise refused(name, f"is outside of {self.path}, the only folder that this server reads")
            path = path.relative_to(self.path)
        if ".." in path.parts or not path.parts or len(path.parts) > MOST_DEPTH or "\0" in name:
            raise refused(name, f"does not name a file inside {self.path}")
        return list(path.parts)

    def files(self, most: int) -> list[tuple[str, int]]:
        """Names and sizes of the newest regular files directly in the folder, hidden ones left out."""
        found: list[tuple[float, str, int]] = []
        with os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                with suppress(FileNotFoundError):  # removed just now
                    state = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(state.st_mode):
                        found.append((state.st_mtime, entry.name, state.st_size))
        return [(name, size) for _, name, size in sorted(found, reverse=True)[:most]]


def refused(name: str, reason: str) -> InvalidRequest:
    """The error for a file that is not to be had."""
    return InvalidRequest(f"{shorten(name, 100)!r} {reason}", field="file")


def _reason(error: OSError) -> str:
    if error.errno in {errno.ELOOP, errno.EMLINK}:
        return "is a symbolic link, which this server does not follow"
    if error.errno == errno.ENOTDIR:
        return "leads through a symbolic link or through what is no folder"
    if error.errno == errno.ENOENT:
        return "is not there: files are named relative to the server's folder"
    return f"can't be read: {error.strerror}"
