"""What `client.batch()` may be told: checked once, and asked by everything in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from attrs.validators import optional

from toapis_async.batch.places import Place, places_of
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.budget import Budget
from toapis_async.settings import checked_budget, checked_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from attrs import Attribute

    from toapis_async.protocol.budget import Prices
    from toapis_async.request import Kind


def _whole_from_1(_: object, attribute: Attribute[Any], value: object) -> None:
    if type(value) is not int or value < 1:
        raise InvalidRequest(f"{attribute.name} must be a whole number from 1, not {value!r}", field=attribute.name)


@frozen(kw_only=True, eq=False)
class BatchOptions:
    """What `client.batch()` takes beside its source. Raises `InvalidRequest` for a value that can't be."""

    key: Callable[[Any], str] | str | None = None
    save_to: dict[Kind, Place] = field(default=None, converter=places_of)  #: for each kind saved
    max_in_flight: int | None = field(default=None, validator=optional(_whole_from_1))
    budget_credits: Decimal | None = field(default=None, converter=checked_budget)
    max_images: int | None = field(default=None, converter=checked_images)
    run: str | None = None
    retry_failed: bool = False
    attempts: int = field(default=1, validator=_whole_from_1)
    kind: Kind = "image"
    progress: bool = False
    embed: bool = False

    def budget(self, prices: Prices) -> Budget:
        """A budget of one pass, nothing spent yet."""
        return Budget(prices, most_credits=self.budget_credits, most_images=self.max_images)
