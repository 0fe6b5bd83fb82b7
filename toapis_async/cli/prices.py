"""What rows cost by the prices stated and, where those leave some open, by the service's."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from toapis_async.cli.output import CliError
from toapis_async.cli.session import Session
from toapis_async.errors import ClientStateError, ToAPIsError
from toapis_async.protocol.budget import Prices
from toapis_async.protocol.pricing import ServicePrices
from toapis_async.protocol.wording import count

if TYPE_CHECKING:
    from toapis_async.cli.options import Caps, Options
    from toapis_async.cli.output import Output
    from toapis_async.cli.prompts import Checked
    from toapis_async.client import ToAPIs

MOST_CLASSES_SHOWN: Final = 5
QUERY_S: Final = 10.0
"""How long the service's prices are waited for: a dry run works without them."""


async def checked_prices(options: Options, out: Output, found: Checked, caps: Caps) -> Prices:
    """The prices of a file's rows: the service is asked for those that are not stated, if there is a key. Raises
    `CliError` when a budget on credits is to be kept and some row has none."""
    prices = Prices(caps.prices)
    if _unpriced(found, prices):
        prices.service = await _service_prices(options, out)
    missing = _unpriced(found, prices) if caps.budget_credits is not None else {}
    if missing:
        rows = sum(missing.values())
        words = " ".join(f"--price {name}=CREDITS" for name in list(missing)[:MOST_CLASSES_SHOWN])
        more = " …" if len(missing) > MOST_CLASSES_SHOWN else ""
        raise CliError(
            f"a budget needs prices, and {count(rows, 'row')} {'has' if rows == 1 else 'have'} none, stated or "
            f"the service's: add {words}{more} (or --price CREDITS for all); nothing was sent"
        )
    return prices


def _unpriced(found: Checked, prices: Prices) -> dict[str, int]:
    """The classes that have no price, with their rows."""
    return {str(kind): rows for kind, rows in found.classes.items() if prices.of(kind) is None}


async def _service_prices(options: Options, out: Output) -> ServicePrices | None:
    """None without a key, and when they can't be had: then it is said why."""
    try:
        session = Session(options, out)
    except ClientStateError:
        return None
    try:
        async with session.opened(), asyncio.timeout(QUERY_S):
            return await _asked(session.client)
    except (ToAPIsError, TimeoutError) as error:
        out.warn(f"the service's prices are not to be had: {str(error) or f'no answer within {QUERY_S:g} s'}")
        return None


async def _asked(client: ToAPIs) -> ServicePrices:
    found = [*await client.prices(), *await client.prices(type="video")]
    per_usd = (await client.balance()).credits_per_usd
    return ServicePrices(found, Decimal(str(per_usd)) if per_usd and per_usd > 0 else None)
