"""Queries that are sent again while the failure may pass by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from toapis_async.errors import ServiceError, ToAPIsError
from toapis_async.protocol.retry import backoff_s, may_pass

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

MOST_TRIES: Final = 4

T = TypeVar("T")


async def with_retries(
    query: Callable[[], Awaitable[T]], *, within_s: float, closed: asyncio.Event, rng: random.Random
) -> T:
    """What `query` returns, called again after a lost answer, a 429 or a 5xx: at most 4 times in all, the last begun
    within `within_s` seconds of the first failure.

    Between two calls it waits for what `Retry-After` says, at least for a back-off from half a second; the end of the
    client (`closed`) ends the wait, so that the next call is refused. Raises the last error. Nothing runs on when the
    caller is cancelled.
    """
    loop = asyncio.get_running_loop()
    deadline_s: float | None = None
    tries = 0
    while True:
        tries += 1
        try:
            return await query()
        except ToAPIsError as error:
            now_s = loop.time()
            deadline_s = now_s + within_s if deadline_s is None else deadline_s
            asked_s = (error.retry_after_s or 0.0) if isinstance(error, ServiceError) else 0.0
            wait_s = max(asked_s, backoff_s(tries, base_s=0.5, cap_s=10.0, rng=rng))
            if not may_pass(error) or tries == MOST_TRIES or now_s + wait_s > deadline_s:
                if tries > 1:
                    error.add_note(f"tried {tries} times")
                raise
        with anyio.move_on_after(wait_s):
            await closed.wait()
