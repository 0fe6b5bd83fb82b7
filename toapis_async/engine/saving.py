"""A task's files onto the disk, and into the journal that they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toapis_async.errors import LinkExpired

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    from toapis_async.engine.downloads import Downloads
    from toapis_async.engine.journal.port import JournalPort
    from toapis_async.models import Generation


class Saving:
    """What a `Generation` saves through, and acknowledges to."""

    def __init__(self, downloads: Downloads, journal: JournalPort | None) -> None:
        self._downloads = downloads
        self._journal = journal

    async def save(
        self, generation: Generation, folder: str | PathLike[str], stem: str | None = None
    ) -> tuple[Path, ...]:
        """Fetch its files into `folder`, named after `stem` (default: the task), and note them in the journal. Raises
        `DownloadFailed` and `LinkExpired`."""
        journal, business_id = self._journal, generation.client_business_id
        try:
            files = await self._downloads.save(generation, folder, stem)
        except LinkExpired:
            if journal is not None and business_id is not None:
                journal.lost(business_id)
            raise
        if journal is not None and business_id is not None:
            journal.saved(business_id, [file.name for file in files])
        return files

    def acknowledge(self, client_business_id: str | None) -> None:
        """The result is in good hands: a journal need not give it again."""
        if self._journal is not None and client_business_id is not None:
            self._journal.acknowledged(client_business_id)
