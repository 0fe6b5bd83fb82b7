"""What the service returns, as frozen values: comparable, picklable, with short reprs."""

from __future__ import annotations

import copy
import enum
import json
import math
from typing import TYPE_CHECKING, Any, Protocol

from attrs import asdict, evolve, field, fields, frozen

from toapis_async.display.html import block, gallery, tile, words
from toapis_async.errors import ClientStateError
from toapis_async.task import count_repr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal
    from os import PathLike
    from pathlib import Path

    from toapis_async.task import Billing, GeneratedImage, GeneratedVideo, Usage


class WebhookOutcome(enum.StrEnum):
    """What became of an event that was delivered. All of them are successes: answer the service with a 2xx."""

    RESOLVED = "resolved"  #: it ended a task that this client watches
    DUPLICATE = "duplicate"  #: the event was handled before, or its task's end was known already
    EARLY = "early"  #: the answer to its submission is still awaited; kept, and applied when that comes
    UNKNOWN_TASK = "unknown_task"  #: no task of this client: pass it on to the process that has it
    HANDED_ON = "handed_on"  #: the same, and it was passed on (`ToAPIs(shared="redis://…")`): nothing is left to do
    TEST_EVENT = "test_event"  #: the console's test; nothing was done
    IGNORED = "ignored"  #: of a kind we don't know, or without a result that can be read: polling will tell


class Saver(Protocol):
    """Fetches a generation's files into a folder, and notes in the journal that they are on disk."""

    async def save(
        self,
        generation: Generation,
        folder: str | PathLike[str],
        name: str | None = None,
        *,
        embed: bool = False,
        asked: Mapping[str, object] | None = None,
    ) -> tuple[Path, ...]: ...
    def acknowledge(self, client_business_id: str | None) -> None: ...
    def absolute(self, link: str) -> str: ...


@frozen
class Generation:
    """A finished generation: what `await handle` gives."""

    task_id: str
    client_business_id: str | None
    model: str | None
    images: tuple[GeneratedImage, ...] = field(repr=count_repr)
    created_at: datetime | None = field(default=None, repr=False)
    completed_at: datetime | None = None
    billing: Billing | None = field(default=None, repr=False)
    raw: Mapping[str, Any] = field(factory=dict[str, Any], eq=False, repr=False)
    _saver: Saver | None = field(default=None, eq=False, repr=False)
    videos: tuple[GeneratedVideo, ...] = field(default=(), repr=count_repr, kw_only=True)
    usage: Usage | None = field(default=None, repr=False, kw_only=True)
    _saved: list[Path] = field(factory=list["Path"], eq=False, repr=False, kw_only=True)  # where its files are, to show
    _asked: Mapping[str, object] | None = field(default=None, eq=False, repr=False, kw_only=True)

    @property
    def files(self) -> tuple[GeneratedImage | GeneratedVideo, ...]:
        """What there is to save: images or videos, in the service's order."""
        return (*self.images, *self.videos)

    def _repr_html_(self) -> str:
        """Its pictures, for notebooks: those that `save` put on disk from there, others by their links."""
        return block(
            gallery([tile(self.files, self._saved)]), words(f"{self.task_id} · {self.model or 'unknown model'}")
        )

    def __copy__(self) -> Generation:
        return evolve(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Generation:
        return evolve(self, raw=copy.deepcopy(self.raw, memo))  # the rest can't change, and the saver is shared

    def __getstate__(self) -> dict[str, Any]:
        # The saver holds the client's connections: it can't travel, and a copy elsewhere belongs to no client.
        return {a.name: getattr(self, a.name) for a in fields(type(self))} | {"_saver": None, "_asked": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    async def save(
        self, folder: str | PathLike[str], *, name: str | None = None, embed: bool = False
    ) -> tuple[Path, ...]:
        """Download every file into `folder` (made if missing) and return the paths, in the order of `files`.

        They are named after the task, or `name` (without an extension, which the file itself decides; made safe as the
        keys of a batch are), and appear only when whole; a file of that name is replaced. Each is saved on its own:
        raises `DownloadFailed` or `LinkExpired` when some can't be had, with those that are there in `error.files`;
        and `ClientStateError` when this generation was unpickled and so belongs to no client.

        `embed` writes prompt, model, settings, task id and times into PNG, JPEG and WebP files (their pixels stay as
        they are), and into `NAME.json` beside others and beside those with a C2PA signature, which it would break.
        """
        if self._saver is None:
            raise ClientStateError(
                "this generation belongs to no client (it was unpickled or made by hand): "
                "use client.attach(generation.task_id) and save what that returns"
            ).concerning(self.task_id, self.client_business_id)
        files = await self._saver.save(self, folder, name, embed=embed, asked=self._asked)
        note_saved(self, files)
        return files

    def acknowledge(self) -> None:
        """The result is in good hands: the journal need not give it again (`client.recovered()`). `save` does the
        same; a generation that belongs to no client has no journal."""
        if self._saver is not None:
            self._saver.acknowledge(self.client_business_id)


def note_saved(generation: Generation, files: Sequence[Path]) -> None:
    """All its files are on disk now: it is shown from there."""
    generation._saved[:] = files  # pyright: ignore[reportPrivateUsage]


@frozen
class Upload:
    """A file the service keeps for us; its `url` goes into `reference_images`."""

    id: str
    url: str
    mime_type: str | None = None
    size_bytes: int | None = None


@frozen
class Balance:
    """Money left. Credits are exact (200 = 1 USD); the unit of `*_balance` depends on the site [docs]."""

    remain_credits: float | None = None
    used_credits: float | None = None
    remain_balance: float | None = None  #: -1 when unlimited
    used_balance: float | None = None
    credits_per_usd: float | None = None
    unlimited_quota: bool = False


@frozen
class Price:
    """One row of the service's prices for this key, discounts included; prices change, and are no quote [docs]."""

    model: str
    type: str  #: "image" or "video"
    conditions: Mapping[str, Any] = field(hash=False)  #: what it holds for, such as `{"resolution": "720p"}`
    charge_type: str  #: "per_request", "per_second" or "per_token"
    price_basis: str  #: "request", "output_seconds", "total_tokens" or "text_input_tokens"
    unit: str  #: "request", "second" or "1m_tokens"
    unit_price: Decimal  #: USD
    raw: Mapping[str, Any] = field(factory=dict[str, Any], eq=False, repr=False)  #: the row, with what else it says


@frozen
class Model:
    """One entry of the service's list of models."""

    id: str
    raw: Mapping[str, Any] = field(factory=dict[str, Any], eq=False, repr=False)


@frozen
class Evidence:
    """What was seen of one request class: seconds its tasks were watched and tasks that finished, by age bin."""

    watched_s: tuple[float, ...] = field(repr=False)
    finished: tuple[float, ...] = field(repr=lambda counts: f"{sum(counts):g}")


@frozen
class Learned:
    """How long each class of requests takes, as a client learned it: `client.learned()`, `Settings(prior=…)`.

    A script that runs daily keeps it as JSON between runs and starts warm.
    """

    interval_s: float  #: the `min_poll_interval_s` it was learned under; under another one it is of no use
    classes: Mapping[str, Evidence]  #: by model, resolution, quality and n

    def to_json(self) -> str:
        """A JSON text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Learned:
        """What `to_json` wrote. Raises `ValueError` for anything else."""
        try:
            body = json.loads(text)
            classes = {
                str(name): Evidence(_amounts(seen["watched_s"]), _amounts(seen["finished"]))
                for name, seen in body["classes"].items()
            }
            return cls(interval_s=_amount(body["interval_s"]), classes=classes)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            reason = f"{type(error).__name__}: {str(error)[:80]}"
            raise ValueError(f"this is not what Learned.to_json wrote: {reason}") from None


def _amounts(values: Any) -> tuple[float, ...]:
    return tuple(_amount(value) for value in values)


def _amount(value: Any) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is no count")
    return number
