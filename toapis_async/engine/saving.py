"""A task's files onto the disk, and into the journal that they are there."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

from toapis_async.engine.describing import asked_in, describe, facts_of
from toapis_async.engine.threads import in_thread
from toapis_async.errors import DownloadFailed, LinkExpired
from toapis_async.protocol.lenient import shorten
from toapis_async.protocol.links import absolute
from toapis_async.protocol.naming import file_stem
from toapis_async.sinks import StoredFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from pathlib import Path

    from toapis_async.engine.downloads import Downloads
    from toapis_async.engine.journal.port import JournalPort
    from toapis_async.engine.journal.records import Record
    from toapis_async.models import Generation
    from toapis_async.sinks import Sink


class Saving:
    """What a `Generation` saves through, and acknowledges to."""

    def __init__(self, downloads: Downloads, journal: JournalPort | None, base_url: str) -> None:
        self._downloads = downloads
        self._base_url = base_url
        self._journal = journal

    async def save(
        self,
        generation: Generation,
        folder: str | PathLike[str],
        name: str | None = None,
        *,
        stem: str | None = None,
        record: Record | None = None,
        embed: bool = False,
        asked: Mapping[str, object] | None = None,
    ) -> tuple[Path, ...]:
        """Fetch its files into `folder`, named after `stem`, or `name` made safe (default: the task), and note them in
        the journal. With `embed`, what is known of how they were made is written into them or beside them first:
        `asked` (see `asked_of`), else what the journal knows.

        Those that are there by an earlier process's `record` are not fetched again. Raises `DownloadFailed` and
        `LinkExpired`, whose `files` are noted, too.
        """
        stem = file_stem(name) if name else stem
        have = record.files.values() if record is not None else ()
        known_since = record.ended_at if record is not None else None
        try:
            files = await self._downloads.save(generation, folder, stem, have=have, known_since=known_since)
        except DownloadFailed as error:
            self._note_failure(generation, error)
            raise
        if embed:
            facts = await self._facts(generation, asked)
            for file in files:
                await _describe(file, facts, files)
        self._note(generation.client_business_id, [file.name for file in files])
        return files

    async def store(
        self,
        generation: Generation,
        sink: Sink,
        stem: str | None = None,
        record: Record | None = None,
        *,
        embed: bool = False,
        asked: Mapping[str, object] | None = None,
    ) -> tuple[StoredFile, ...]:
        """Fetch its files, hand each to `sink` under the name that it would have on disk, and note them in the journal.
        Raises as `save` does; a file that can't be stored, or whose size is then another, is `DownloadFailed`."""
        stored: dict[str, StoredFile] = {}
        facts = await self._facts(generation, asked) if embed else None

        async def put(file: Path) -> str:
            sidecar = None if facts is None else await _describe(file, facts)
            if sidecar is not None:
                await _put(sink, sidecar)
            stored[file.name] = await _put(sink, file)
            return stored[file.name].url

        folder = await in_thread(partial(tempfile.mkdtemp, prefix="toapis-"))
        try:
            known_since = record.ended_at if record is not None else None
            files = await self._downloads.save(generation, folder, stem, known_since=known_since, then=put)
        except DownloadFailed as error:
            self._note_failure(generation, error)
            error.files = tuple(stored[file.name] for file in error.files)
            raise
        finally:
            await in_thread(partial(shutil.rmtree, folder, ignore_errors=True))
        self._note(generation.client_business_id, [file.name for file in files])
        return tuple(stored[file.name] for file in files)

    async def _facts(self, generation: Generation, asked: Mapping[str, object] | None) -> dict[str, Any]:
        """What is known of how it was made."""
        if asked is not None:
            return facts_of(generation, asked)
        journal, business_id = self._journal, generation.client_business_id
        record = await journal.of_id(business_id) if journal is not None and business_id is not None else None
        return facts_of(generation, asked_in(json.loads(record.intent.request)) if record is not None else None)

    def _note(self, client_business_id: str | None, names: Sequence[str | None]) -> None:
        if self._journal is not None and client_business_id is not None:
            self._journal.saved(client_business_id, names)

    def _note_failure(self, generation: Generation, error: DownloadFailed) -> None:
        """Note what arrived nevertheless; links are lost only when nothing did."""
        if error.files:
            names = iter(file.name for file in error.files)
            numbers = range(1, len(generation.files) + 1)
            self._note(generation.client_business_id, [None if n in error.missing else next(names) for n in numbers])
        elif isinstance(error, LinkExpired) and self._journal is not None and generation.client_business_id is not None:
            self._journal.lost(generation.client_business_id)

    def acknowledge(self, client_business_id: str | None) -> None:
        """The result is in good hands: a journal need not give it again."""
        if self._journal is not None and client_business_id is not None:
            self._journal.acknowledged(client_business_id)

    def absolute(self, link: str) -> str:
        """A link with a host: the API's, where it has none."""
        return absolute(link, self._base_url) or link


async def _describe(file: Path, facts: Mapping[str, Any], saved: Sequence[Path] = ()) -> Path | None:
    """Write facts into a file, or beside it; returns where, if beside. Raises `DownloadFailed`; the file is whole."""
    try:
        return await in_thread(describe, file, facts)
    except OSError as error:
        text = f"{file} is saved, but how it was made can't be written into it: {error.strerror}"
        raise DownloadFailed(text, files=saved) from error


async def _put(sink: Sink, file: Path) -> StoredFile:
    """Store one file and see that it is whole; the copy here is removed."""
    name, size_bytes = file.name, (await in_thread(file.stat)).st_size
    try:
        await sink.put(name, file)
        stored_bytes = await sink.size_bytes(name)
        url = sink.url(name)
    except Exception as error:  # the sink's own, whatever it is
        reason = shorten(str(error).strip(), 200) or type(error).__name__
        raise DownloadFailed(f"can't store the file {name}: {reason}") from error
    if stored_bytes != size_bytes:
        raise DownloadFailed(f"can't store the file {name}: {stored_bytes} of its {size_bytes} bytes are there")
    await in_thread(partial(file.unlink, missing_ok=True))
    return StoredFile(url)
