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
        return self is TaskStatus.COMPLETED or self is TaskStatus.FAILED


@frozen
class Billing:
    """What the service says a task cost. Mostly absent on image tasks [field]: use it when it comes.

    A pending bill says nothing yet: that of a failed task is no refund. One amount a task: a newer one replaces it.
    """

    status: str  #: "pending", "settled" or "refunded": apart from the task's, which may have ended long before
    credits: Decimal | None = None  #: 200 credits are 1 USD
    cost_usd: Decimal | None = None


@frozen
class TaskError:
    """Why a task failed, in the service's words (Chinese, English, Korean or Japanese)."""

    code: str  #: open-ended; "" when the service gave none
    message: str


def _link_repr(url: str) -> str:
    return repr(url if len(url) <= 200 else f"{url[:60]}…")


@frozen
class GeneratedImage:
    """One finished image: its link, and when the link dies (24 hours after completion).

    Where the answer holds the file itself, the link is a `data:` URL; a batch that has saved the file drops its data.
    """

    url: str = field(repr=_link_repr)
    expires_at: datetime | None = None


@frozen
class GeneratedVideo:
    """One finished video: its link, and when the link dies (24 hours after completion)."""

    url: str = field(repr=_link_repr)
    expires_at: datetime | None = None
    last_frame_url: str | None = None  #: a picture, where the request asked for it
    format: str | None = None  #: such as "mp4", as the service says; a file is named by its bytes


def count_repr(files: tuple[GeneratedImage, ...] | tuple[GeneratedVideo, ...]) -> str:
    return f"<{len(files)}>"


@frozen
class TokenDetails:
    """What tokens were counted for."""

    text_tokens: int | None = None
    image_tokens: int | None = None
    cached_tokens: int | None = None  #: part of the input
    cached_tokens_details: TokenDetails | None = None


@frozen
class ToolUsage:
    """How often tools were used."""

    web_search: int | None = None


@frozen
class Usage:
    """Tokens that a task took, for models that are billed by token; it comes with a settled bill [docs]."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: TokenDetails | None = None
    output_tokens_details: TokenDetails | None = None
    tool_usage: ToolUsage | None = None


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
    raw: Mapping[str, Any] = field(factory=dict[str, Any], eq=False, repr=False)  #: the task object, as it came
    videos: tuple[GeneratedVideo, ...] = field(default=(), repr=count_repr, kw_only=True)
    usage: Usage | None = field(default=None, repr=False, kw_only=True)
    claimed_status: TaskStatus | None = field(default=None, repr=False, kw_only=True)
    """Another gateway's word for the end, of a task that the documented words leave unfinished; see `lifecycle`."""

    @property
    def files(self) -> tuple[GeneratedImage | GeneratedVideo, ...]:
        """What there is to save: images or videos, in the service's order."""
        return (*self.images, *self.videos)
