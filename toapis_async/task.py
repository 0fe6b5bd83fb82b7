"""A task as the service tells of it: its status, its error, its bill, and all of it in one snapshot."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from decimal import Decimal


class TaskStatus(enum.StrEnum):
    """Where a task stands. The service's other words are folded into these; `raw_status` keeps the word itself."""

    QUEUED = "queued"  #: taken, not begun (also `submitted`, `pending`)
    IN_PROGRESS = "in_progress"  #: being made (also `processing`, and any word we don't know)
    COMPLETED = "completed"  #: final: the images are there
    FAILED = "failed"  #: final: there will be no image

    @property
    def is_final(self) -> bool:
        return self in {TaskStatus.COMPLETED, TaskStatus.FAILED}


@frozen
class Billing:
    """What the service says a task cost. Mostly absent on image tasks [field]: use it when it comes."""

    status: str  #: "settled" or "refunded"
    credits: Decimal | None = None  #: 200 credits are 1 USD
    cost_usd: Decimal | None = None


@frozen
class TaskError:
    """Why a task failed, in the service's words (Chinese, English, Korean or Japanese)."""

    code: str  #: open-ended; "" when the service gave none
    message: str


@frozen
class GeneratedImage:
    """One finished image: its link, and when the link dies (24 hours after completion)."""

    url: str
    expires_at: datetime | None = None


def count_repr(images: tuple[GeneratedImage, ...]) -> str:
    return f"<{len(images)}>"


@frozen
class TaskSnapshot:
    """A task as one answer of the service showed it. Times are aware, in UTC."""

    task_id: str
    status: TaskStatus
    raw_status: str
    client_business_id: str | None = None
    model: str | None = None
    progress: int | None = None  #: 0-100
    created_at: datetime | None = field(default=None, repr=False)
    completed_at: datetime | None = field(default=None, repr=False)
    expires_at: datetime | None = field(default=None, repr=False)
    images: tuple[GeneratedImage, ...] = field(default=(), repr=count_repr)
    error: TaskError | None = None
    billing: Billing | None = field(default=None, repr=False)
    raw: Mapping[str, Any] = field(factory=dict[str, Any], eq=False, repr=False)  #: the answer, as it came
