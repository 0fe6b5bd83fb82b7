"""What the page is made from: one value a row of the batch, whoever knows it (a journal, a results file, a test)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from attrs import frozen

from toapis_async.protocol.pricing import PriceClass

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from toapis_async.request import Kind

RowStatus: TypeAlias = Literal["done", "failed", "running", "waiting"]
RequestClass: TypeAlias = tuple[str | None, str | None, str | None]
"""Model, resolution, and quality or a video's duration: what decides how long a request takes."""
ROW_STATUSES: Final[tuple[RowStatus, ...]] = get_args(RowStatus)


@lru_cache(maxsize=1_024)
def _class_of(
    kind: Kind, model: str | None, resolution: str | None, quality: str | None, duration_s: int | None
) -> RequestClass:
    given = {"kind": kind, "resolution": resolution, "quality": quality, "duration": duration_s}
    asked = {name: value for name, value in given.items() if value is not None}
    folded = PriceClass.of(asked if model is None else {"model": model, **asked})
    if kind == "image":
        return folded.model, folded.resolution, folded.quality
    return folded.model, folded.resolution, None if folded.seconds is None else f"{folded.seconds} s"


@frozen
class RowError:
    """Why a row failed: the name of our error, and the service's code ("" for none) and message."""

    type: str
    code: str
    message: str


@frozen(kw_only=True)
class ReportRow:
    """One row of a batch. `None` is "not known", or "not asked for" where the service has a default of its own."""

    index: int
    key: str
    status: RowStatus
    prompt: str
    kind: Kind = "image"
    model: str | None = None
    size: str | None = None
    resolution: str | None = None
    quality: str | None = None
    duration_s: int | None = None  #: of a video
    n: int | None = None
    files: tuple[str, ...] = ()  #: relative to the batch's folder, with forward slashes
    task_id: str | None = None
    client_business_id: str | None = None
    credits: Decimal | None = None  #: for all of the row's files
    submitted_at: datetime | None = None  #: this and the next two: aware
    completed_at: datetime | None = None  #: when the service ended the task, also in a failure
    saved_at: datetime | None = None  #: when the last file was whole on disk
    service_s: float | None = None  #: how long the service worked
    error: RowError | None = None

    references: tuple[str, ...] = ()  #: what it was made from: links, or files relative to the batch's folder

    @property
    def request_class(self) -> RequestClass:
        """What decides how long it takes, with the defaults of what was left out: "1k" and "1k · medium" are one."""
        return _class_of(self.kind, self.model, self.resolution, self.quality, self.duration_s)

    @property
    def duration(self) -> str | None:
        """The duration that was asked for, with its unit."""
        return None if self.duration_s is None else f"{self.duration_s} s"
