"""Where `generate` puts its files, under which names, and the journal beside them while it runs.

A journal whose command ended well is removed; one that is left names what is paid for and not on disk.
"""

from __future__ import annotations

import glob
import os
import secrets
from itertools import count
from typing import TYPE_CHECKING, Final, Self

from attrs import frozen

from toapis_async.engine.journal.reader import plain_submissions
from toapis_async.errors import JournalError
from toapis_async.protocol.filetype import MIME_TYPES
from toapis_async.protocol.naming import file_stem, row_key

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

_JOURNAL: Final = ".journal"
_KINDS: Final = {**MIME_TYPES, ".jpeg": "image/jpeg"}  #: of files, by their extension


@frozen
class Place:
    """Where the files of one request go."""

    folder: Path
    stem: str  #: of their names, until they are `named`
    file: Path | None = None  #: what the user calls the file; None for names of ours

    @classmethod
    def reserved(cls, out: Path, prompt: str, digest: str) -> Self:
        """The place that `--out` means: a file, when it has the extension of one and is no folder, else a folder, in
        which no two commands get one name. Makes the folder and the journal. Raises `OSError`."""
        if out.suffix.lower() in _KINDS and not out.is_dir():
            out.parent.mkdir(parents=True, exist_ok=True)
            place = cls(out.parent, f"{file_stem(out.stem)}~{secrets.token_hex(4)}", out)
            place.journal.touch(exist_ok=False)
            return place
        out.mkdir(parents=True, exist_ok=True)
        for occurrence in count(1):
            place = cls(out, file_stem(row_key(prompt, digest[:8], occurrence)))
            if not place._is_taken():
                try:
                    place.journal.touch(exist_ok=False)
                except FileExistsError:  # another command was faster, or one was killed here
                    continue
                return place
        raise AssertionError

    @property
    def journal(self) -> Path:
        return self.folder / f"{self.stem}{_JOURNAL}"

    def _is_taken(self) -> bool:
        stem = glob.escape(self.stem)
        return any(next(self.folder.glob(f"{stem}{end}"), None) is not None for end in (".*", "-[0-9]*.*"))

    def named(self, files: Sequence[Path]) -> tuple[Path, ...]:
        """Give saved files the name that the user chose; the file itself decides its extension. A file of the very
        name that was asked for is replaced, others are not. Blocks."""
        if self.file is None:
            return tuple(files)
        return tuple(self._renamed(path, self.file) for path in files)

    def _renamed(self, path: Path, asked: Path) -> Path:
        number = path.stem[len(self.stem) :]  # "-2" of several
        if not number and _KINDS.get(path.suffix) == _KINDS[asked.suffix.lower()]:
            return path.replace(asked)
        for occurrence in count(1):
            again = "" if occurrence == 1 else f".{occurrence}"
            target = asked.with_name(f"{asked.stem}{number}{again}{path.suffix}")
            try:
                os.link(path, target)  # fails where a file of that name is
            except FileExistsError:
                continue
            except OSError:  # no links on this file system
                return path.replace(target)
            path.unlink()
            return target
        raise AssertionError

    def release(self) -> None:
        """Remove the journal: nothing of it is left to be fetched. Blocks."""
        remove_journal(self.journal)


def remove_journal(journal: Path) -> None:
    """Remove a journal and what sqlite keeps beside it."""
    for path in journal.parent.glob(f"{glob.escape(journal.name)}*"):
        path.unlink(missing_ok=True)


def left_in(folder: Path, task_ids: Collection[str]) -> dict[str, Place]:
    """The places that commands which were cut short left in `folder`, by the ids of their tasks (of those given)."""
    places: dict[str, Place] = {}
    for path in folder.glob(f"*{_JOURNAL}"):
        try:
            known = plain_submissions(path)
        except JournalError:
            continue
        for record in known:
            for name in (record.task_id, record.intent.client_business_id):
                if name is not None and name in task_ids:
                    places[name] = Place(folder, path.name.removesuffix(_JOURNAL))
    return places
