"""`DIR/results.jsonl`: one row a request.

Rows are appended as they complete, so that a killed run leaves what it knew. A run that ends (also by Ctrl-C) adds
those that the service still works on and puts all into the order of the input, in one atomic step. It is for reading:
what a run goes on from is the journal beside it.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final

from toapis_async.batch.item import BatchItem
from toapis_async.cli.output import CliError, error_record

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from datetime import datetime
    from pathlib import Path

    from toapis_async.batch.item import RunningRow
    from toapis_async.models import Generation
    from toapis_async.request import Kind
    from toapis_async.task import Billing

NAME: Final = "results.jsonl"
FOLDERS: Final[dict[Kind, str]] = {"image": "images", "video": "videos"}
"""Where files of each kind are, below the batch's folder."""
_NOT_YET: Final = -1


class Results:
    """The results file of one run. Holds eight bytes a row: where in the file it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._part = folder / f".{NAME}.part"
        self._offsets = array("q")
        self._in_order = True
        self._last_index = -1
        self._file: IO[bytes] | None = None

    @contextmanager
    def opened(self) -> Generator[None]:
        """Make the folders; at the end, however it comes, put the rows in order, and remove the folders that nothing
        came into.

        Raises `CliError` when files can't be written.
        """
        folders = [self._folder / name for name in FOLDERS.values()]
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            if self._path.exists():
                with self._path.open("ab"):  # leaves what is there as it is
                    pass
        except OSError as error:
            raise CliError(f"can't write to {self._folder}: {error.strerror}") from None
        try:
            yield
        finally:
            self._close()
            for folder in folders:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()

    @property
    def kept(self) -> bool:
        """Whether there is a row, and so a file that stays."""
        return bool(self._offsets)

    def add(self, item: BatchItem, columns: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Append a row that has ended, with the columns that are kept of it; returns it."""
        return self._append(item, error_record(item.error) if item.error else None, columns)

    def add_running(self, row: RunningRow, message: str, columns: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Append a row that was left before its end; returns it."""
        item = BatchItem(
            row.index,
            row.key,
            row.request,
            ok=False,
            task_id=row.task_id,
            client_business_id=row.client_business_id,
            attempts=row.attempts,
        )
        return self._append(item, {"type": "StillRunning", "code": "", "message": message}, columns)

    def _append(
        self, item: BatchItem, error: dict[str, Any] | None, columns: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if self._file is None:  # not before: until the first row, an earlier run's results stay
            self._part.unlink(missing_ok=True)  # of a process that was killed while it put its rows in order
            self._file = self._path.open("w+b")
        row = self._row(item, error) | ({"columns": dict(columns)} if columns else {})
        missing = item.index + 1 - len(self._offsets)
        if missing > 0:
            self._offsets.extend([_NOT_YET] * missing)
        self._offsets[item.index] = self._file.tell()
        self._in_order &= item.index > self._last_index
        self._last_index = item.index
        self._file.write(_encoded(row))
        self._file.flush()
        return row

    def _close(self) -> None:
        if self._file is not None:
            with self._file as file:
                if not self._in_order:
                    self._rewrite(file)

    def _rewrite(self, rows: IO[bytes]) -> None:
        with self._part.open("wb") as ordered:
            for offset in self._offsets:
                if offset != _NOT_YET:
                    rows.seek(offset)
                    ordered.write(rows.readline())
            ordered.flush()
            os.fsync(ordered.fileno())
        self._part.replace(self._path)

    def _row(self, item: BatchItem, error: dict[str, Any] | None) -> dict[str, Any]:
        billing = item.generation.billing if item.generation else getattr(item.error, "billing", None)
        return {
            "index": item.index,
            "key": item.key,
            "ok": item.ok,
            "task_id": item.task_id,
            "client_business_id": item.client_business_id,
            "files": [file.relative_to(self._folder).as_posix() for file in item.files],
            "error": error,
            "billing": billing_record(billing),
            "attempts": item.attempts,
        }


def generation_record(generation: Generation, files: tuple[Path, ...]) -> dict[str, Any]:
    """A finished generation and its files as --json tells it."""
    return {
        "ok": True,
        "task_id": generation.task_id,
        "client_business_id": generation.client_business_id,
        "model": generation.model,
        "files": [file.as_posix() for file in files],
        "urls": [file.url for file in generation.files],
        "created_at": time_record(generation.created_at),
        "completed_at": time_record(generation.completed_at),
        "billing": billing_record(generation.billing),
    }


def billing_record(billing: Billing | None) -> dict[str, str | None] | None:
    """What a task cost, its decimals as text, as the service writes them."""
    if billing is None:
        return None
    amounts = {"credits": billing.credits, "cost_usd": billing.cost_usd}
    return {
        "status": billing.status,
        **{name: None if a is None else str(a) for name, a in amounts.items()},
    }


def time_record(time: datetime | None) -> str | None:
    """A time as ISO 8601, in UTC."""
    return None if time is None else time.isoformat()


def _encoded(row: dict[str, Any]) -> bytes:
    # UTF-8 as people read it. Half a surrogate pair (JSON may smuggle one in) has no UTF-8; its backslash escape is
    # the very escape that JSON has for it.
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
