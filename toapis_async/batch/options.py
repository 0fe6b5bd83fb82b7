"""What `client.batch()` may be told: checked once, and asked by everything in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen
from attrs.validators import optional

from toapis_async.errors import InvalidRequest
from toapis_async.protocol.budget import Budget
from toapis_async.protocol.endpoints import ENDPOINTS
from toapis_async.settings import checked_budget, checked_images

if TYPE_CHECKING:
    from decimal import Decimal
    from os import PathLike

    from attrs import Attribute

    from toapis_async.protocol.budget import Prices
    from toapis_async.request import Kind

SaveTo: TypeAlias = "str | PathLike[str] | Mapping[Kind, str | PathLike[str]]"
"""A folder, or one for each kind: `{"image": …, "video": …}`; files of a kind that is left out are not saved."""


def _folders(save_to: SaveTo | None) -> dict[Kind, Path]:
    """The folder of each kind of file that is saved."""
    if save_to is None:
        return {}
    by_kind = save_to if isinstance(save_to, Mapping) else dict.fromkeys(ENDPOINTS, save_to)
    for kind in by_kind:
        if kind not in ENDPOINTS:
            raise InvalidRequest(f"save_to has a folder for {kind!r}: kinds are 'image' and 'video'", field="save_to")
    return {kind: Path(folder) for kind, folder in by_kind.items()}


def _whole_from_1(_: object, attribute: Attribute[Any], value: object) -> None:
    if type(value) is not int or value < 1:
        raise InvalidRequest(f"{attribute.name} must be a whole number from 1, not {value!r}", field=attribute.name)


@frozen(kw_only=True, eq=False)
class BatchOptions:
    """What `client.batch()` takes beside its source. Raises `InvalidRequest` for a value that can't be."""

    key: Callable[[Any], str] | str | None = None
    save_to: dict[Kind, Path] = field(default=None, converter=_folders)  #: for each kind saved
    max_in_flight: int | None = field(default=None, validator=optional(_whole_from_1))
    budget_credits: Decimal | None = field(default=None, converter=checked_budget)
    max_images: int | None = field(default=None, converter=checked_images)
    run: str | None = None
    retry_failed: bool = False
    attempts: int = field(default=1, validator=_whole_from_1)
    kind: Kind = "image"

    def budget(self, prices: Prices) -> Budget:
        """A budget of one pass, nothing spent yet."""
        return Budget(prices, most_credits=self.budget_credits, most_images=self.max_images)
