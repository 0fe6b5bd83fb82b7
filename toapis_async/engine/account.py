"""Queries about the account. Each is tried again after a failure that may pass."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from toapis_async.errors import AuthenticationFailed, ServiceError, TransportError
from toapis_async.log import logger
from toapis_async.protocol.pricing import PRICES_A_PAGE, PRICING_PATH, ServicePrices, decode_prices
from toapis_async.protocol.refusals import decode_error
from toapis_async.protocol.retry import retry_after_s
from toapis_async.protocol.wire import decode_balance

if TYPE_CHECKING:
    from toapis_async.engine.core import Engine
    from toapis_async.models import Price
    from toapis_async.protocol.lenient import Answer
    from toapis_async.request import Kind

MOST_PRICE_PAGES: Final = 100  #: however many more the service says there are


async def query(engine: Engine, kind: str, path: str, params: dict[str, str] | None = None) -> Answer:
    """The answer to a GET. Raises `ServiceError` for one outside 2xx, and `TransportError`."""

    async def once() -> Answer:
        answer = await engine.transport.get(kind, path, params=params)
        if not 200 <= answer.status < 300:
            wait_s = retry_after_s(answer.headers.get("retry-after"), time.time(), engine.settings.max_retry_after_s)
            raise decode_error(answer, retry_after_s=wait_s)
        return answer

    return await engine.retried(once)


async def prices(engine: Engine, model: str | None, kind: Kind) -> tuple[Price, ...]:
    """The prices of one model, or of all of a kind; page by page."""
    params = {"limit": str(PRICES_A_PAGE), **({"type": kind} if model is None else {"model": model})}
    found: list[Price] = []
    cursors: set[str] = set()
    for _ in range(MOST_PRICE_PAGES):
        page = decode_prices(await query(engine, "prices", PRICING_PATH, params))
        found += page.prices
        if page.next_after is None or page.next_after in cursors:
            break
        cursors.add(page.next_after)
        params["after"] = page.next_after
    return tuple(found)


async def service_prices(engine: Engine) -> ServicePrices:
    """What images and videos cost by the service's prices, for budgets. None at all when it does not tell them: what
    has no price of the user's own is then refused under a budget."""
    try:
        found = [*await prices(engine, None, "image"), *await prices(engine, None, "video")]
        balance = decode_balance(await query(engine, "balance", "/balance"))
    except AuthenticationFailed:
        raise  # a wrong key is not a missing price
    except (ServiceError, TransportError) as error:
        logger.warning("the service's prices are not to be had (%s): state yours in Settings(prices=…)", error)
        return ServicePrices(())
    per_usd = balance.credits_per_usd
    return ServicePrices(found, Decimal(str(per_usd)) if per_usd and per_usd > 0 else None)
