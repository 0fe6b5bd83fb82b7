"""One row's end, and how all of them stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from attrs import field, frozen

from toapis_async.models import note_saved

if TYPE_CHECKING:
    from decimal import Decimal
    from pathlib import Path

    from toapis_async.batch.rows import Row
    from toapis_async.errors import ToAPIsError
    from toapis_async.models import Generation
    from toapis_async.request import Request


def _compared(error: ToAPIsError | None) -> object:
    """What two errors are compared by: exceptions themselves are equal only to themselves."""
    return error if error is None else (type(error), error.args, vars(error))


@frozen
class BatchItem:
    """One row's end. `ok` means: finished, and on disk when the batch saves."""

    index: int  #: the row's place in the source, from 0
    key: str
    request: Request | None = field(repr=False)  #: None when the row never became a request
    ok: bool
    generation: Generation = field(default=cast("Generation", None), repr=False)
    """What was generated, also when its files could not be saved. None, whatever type checkers are told, when nothing
    was: neither mypy nor pyright takes `if item.ok:` for proof that it is there."""
    files: tuple[Path, ...] = ()  #: of one saved to an object store or a `Sink`: `StoredFile`s
    error: ToAPIsError | None = field(default=None, eq=_compared)
    task_id: str | None = None
    client_business_id: str | None = None
    attempts: int = 0
    """How often the row was submitted, earlier passes of its run included; more than once with `batch(attempts=…)` or
    `retry_failed`."""
    result: object = None
    """What `each` of a run on a cluster returned for it."""


@frozen
class RunningRow:
    """A row that was taken from the source and has not ended: `Batch.running()`. The ids are those that are known by
    now; what was sent is paid for."""

    index: int  #: the row's place in the source, from 0
    key: str
    request: Request | None = field(repr=False)  #: None when the row never became a request
    task_id: str | None = None
    client_business_id: str | None = None
    attempts: int = 0


@frozen
class BatchStatistics:
    """A batch at one moment."""

    taken: int  #: rows taken from the source
    in_flight: int  #: rows being submitted or worked on by the service
    saving: int  #: rows whose files are being fetched
    done: int  #: rows that ended well
    failed: int  #: rows that ended with an error
    waiting_for_consumer: int
    total: int | None  #: rows in all; None when the source has no length
    elapsed_s: float
    credits_spent: Decimal  #: by `billing`, or else by `Settings(prices=…)`; earlier passes of a capped run included
    images: int  #: paid for, counted likewise

    @property
    def ended(self) -> int:
        """Rows that ended, well or not."""
        return self.done + self.failed

    @property
    def rows_per_s(self) -> float:
        """How fast rows ended so far."""
        return self.ended / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def left_s(self) -> float | None:
        """Until the end at that rate; None while there is no rate, or the source has no length."""
        return (self.total - self.ended) / self.rows_per_s if self.total is not None and self.rows_per_s else None


def item_of(
    row: Row,
    generation: Generation | None = None,
    files: tuple[Path, ...] = (),
    error: ToAPIsError | None = None,
) -> BatchItem:
    """The item of a row that ended so."""
    if generation is not None and files and error is None:
        note_saved(generation, files)
    return BatchItem(
        index=row.index,
        key=row.key,
        request=row.request,
        ok=error is None,
        generation=cast("Generation", generation),
        files=files,
        error=error,
        task_id=row.handle.task_id if row.handle else error.task_id if error else None,
        client_business_id=row.client_business_id,
        attempts=row.attempts,
    )


def running_row(row: Row) -> RunningRow:
    """How a row stands that has not ended."""
    task_id = row.handle.task_id if row.handle else None
    return RunningRow(row.index, row.key, row.request, task_id, row.client_business_id, row.attempts)
