"""A task's files onto the disk, and into the journal that they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toapis_async.errors import DownloadFailed, LinkExpired
from toapis_async.protocol.links import absolute
from toapis_async.protocol.naming import file_stem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from pathlib import Path

    from toapis_async.engine.downloads import Downloads
    from toapis_async.engine.journal.port import JournalPort
    from toapis_async.engine.journal.records import Record
    from toapis_async.models import Generation


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
    ) -> tuple[Path, ...]:
        """Fetch its files into `folder`, named after `stem`, or `name` made safe (default: the task), and note them in
        the journal.

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
        self._note(generation.client_business_id, [file.name for file in files])
        return files

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
