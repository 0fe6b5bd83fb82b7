"""Where a batch's files may be kept, other than in a folder of this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from os import PathLike


@runtime_checkable
class Sink(Protocol):
    """A place for files, for `save_to`: an object store of yours, a database, an archive. In a run on a cluster it must
    pickle. What its methods raise makes the item not ok; the next pass of the run stores the file again."""

    async def put(self, name: str, file: Path) -> None:
        """Store a file under a name, in place of what is there: whole, or not at all. `file` is a copy on this machine,
        checked, and removed afterwards."""
        ...

    async def size_bytes(self, name: str) -> int | None:
        """How many bytes are stored under a name; None when there is nothing. Asked after each `put`, and of a resumed
        run before a file is fetched again."""
        ...

    def url(self, name: str) -> str:
        """Where a file is, as its readers find it."""
        ...


if TYPE_CHECKING:
    _OnThisSystem = Path
else:
    _OnThisSystem = type(Path())  # before Python 3.12 only this can be extended


class StoredFile(_OnThisSystem):
    """A file in a `Sink`, in the place of a path: `name` and `suffix` are the file's, its text is its URL. It is not on
    this machine: `is_file()` is False, and opening it raises `FileNotFoundError`."""

    def __new__(cls, url: str) -> Self:
        """`url`: as `Sink.url` gave it."""
        return super().__new__(cls, url)

    def __init__(self, url: str) -> None:
        if sys.version_info >= (3, 12):
            super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return getattr(self, "url", "") or super().__str__()  # a parent has none

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url,)

    def with_segments(self, *segments: str | PathLike[str]) -> Path:
        """What is made of its parts (its parent, a name beside it) is a plain path. (Python 3.12 calls this.)"""
        return Path(*segments)
