"""One row's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from pathlib import Path

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
    generation: Generation | None = field(default=None, repr=False)
    files: tuple[Path, ...] = ()
    error: ToAPIsError | None = field(default=None, eq=_compared)
    task_id: str | None = None
    client_business_id: str | None = None
