"""Where a batch's files go: a folder, or a sink. Both know what is there already."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import anyio.to_thread
from attrs import evolve, frozen

from toapis_async.engine.objectstore import ObjectStore, is_url
from toapis_async.engine.part import is_saved
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.endpoints import ENDPOINTS
from toapis_async.sinks import Sink, StoredFile

if TYPE_CHECKING:
    from toapis_async.engine.journal.records import Record
    from toapis_async.engine.saving import Saving
    from toapis_async.models import Generation
    from toapis_async.request import Kind

OnePlace: TypeAlias = "str | PathLike[str] | Sink"
SaveTo: TypeAlias = "OnePlace | Mapping[Kind, OnePlace]"
"""A folder, the URL of an object store (`s3://…`, `gs://…`, `az://…`) or a `Sink`; or one of these for each kind:
`{"image": …, "video": …}`; files of a kind that is left out are not saved."""


@frozen
class Files:
    """A generation's files, and how they are to be saved."""

    generation: Generation
    stem: str | None
    record: Record | None  #: what an earlier process left of them
    embed: bool = False  #: whether they say how they were made, …
    asked: Mapping[str, object] | None = None  #: … and what is known of that: see `asked_of`


class Place(Protocol):
    """Where the files of one kind go."""

    async def prepare(self) -> None:
        """Make ready, or raise `InvalidRequest`: now, and not after the first task is paid for."""
        ...

    async def as_there(self, record: Record) -> Record:
        """A record without the files that are not there any more."""
        ...

    def file(self, name: str) -> Path:
        """A file that is there."""
        ...

    async def save(self, saving: Saving, files: Files) -> tuple[Path, ...]:
        """Fetch them. Raises as `Saving.save` does."""
        ...


@frozen
class Folder:
    """A folder of this machine."""

    path: Path

    async def prepare(self) -> None:
        """Make it."""
        await anyio.to_thread.run_sync(self._make)

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            text = f"save_to: can't use {self.path}: {reason}; nothing was sent"
            raise InvalidRequest(text, field="save_to") from error

    async def as_there(self, record: Record) -> Record:
        """A record without the files that are not there any more."""
        return await anyio.to_thread.run_sync(self._as_there, record)

    def _as_there(self, record: Record) -> Record:
        return evolve(record, files={n: name for n, name in record.files.items() if is_saved(self.path / name)})

    def file(self, name: str) -> Path:
        """The file's path."""
        return self.path / name

    async def save(self, saving: Saving, files: Files) -> tuple[Path, ...]:
        """Fetch what is not there."""
        return await saving.save(
            files.generation, self.path, stem=files.stem, record=files.record, embed=files.embed, asked=files.asked
        )


@frozen
class InSink:
    """A sink, reached through copies on this machine."""

    sink: Sink

    async def prepare(self) -> None:
        """See that an object store can be written to; of a sink of the caller's own nothing is known."""
        if isinstance(self.sink, ObjectStore):
            await self.sink.check()

    async def as_there(self, record: Record) -> Record:
        """A record without the files that are not there any more."""
        there = {n: name for n, name in record.files.items() if await self.sink.size_bytes(name) is not None}
        return evolve(record, files=there)

    def file(self, name: str) -> StoredFile:
        """The file's URL."""
        return StoredFile(self.sink.url(name))

    async def save(self, saving: Saving, files: Files) -> tuple[StoredFile, ...]:
        """Fetch them all: one that is missing makes the others as good as missing."""
        return await saving.store(
            files.generation, self.sink, files.stem, files.record, embed=files.embed, asked=files.asked
        )


def places_of(save_to: SaveTo | None) -> dict[Kind, Place]:
    """The place of each kind of file that is saved."""
    if save_to is None:
        return {}
    by_kind = save_to if isinstance(save_to, Mapping) else dict.fromkeys(ENDPOINTS, save_to)
    for kind in by_kind:
        if kind not in ENDPOINTS:
            raise InvalidRequest(f"save_to has a place for {kind!r}: kinds are 'image' and 'video'", field="save_to")
    return {kind: _place(each) for kind, each in by_kind.items()}


def _place(save_to: object) -> Place:
    if isinstance(save_to, str | PathLike):
        text = fspath(cast("str | PathLike[str]", save_to))
        # A URL that was made a Path has lost a slash: `ObjectStore` says how to give it.
        return InSink(ObjectStore(text)) if is_url(text) else Folder(Path(text))
    if isinstance(save_to, Sink):
        return InSink(save_to)
    raise InvalidRequest(
        f"save_to takes a folder, the URL of an object store or a Sink, not {type(save_to).__name__}", field="save_to"
    )
