"""Harmless questions are asked again, a bounded number of times and within a bounded time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from toapis_async.engine.retrying import MOST_TRIES, with_retries
from toapis_async.errors import (
    AuthenticationFailed,
    InsufficientQuota,
    RateLimited,
    ServiceError,
    SessionClosed,
    ToAPIsError,
    TransportError,
    UnreadableAnswer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.looptime


class Query:
    """Fails as its script says, then answers; notes when it was called."""

    def __init__(self, *failures: ToAPIsError) -> None:
        self.failures = list(failures)
        self.called_s: list[float] = []
        self.closed = asyncio.Event()

    async def __call__(self) -> str:
        self.called_s.append(asyncio.get_running_loop().time())
        if self.failures:
            raise self.failures.pop(0)
        return "answer"

    async def retried(self, within_s: float = 120) -> str:
        return await with_retries(self, within_s=within_s, closed=self.closed, rng=random.Random(1))


PASSING: list[Callable[[], ToAPIsError]] = [
    lambda: TransportError("lost", sent=1),
    lambda: TransportError("not sent"),
    lambda: RateLimited("slow"),
    lambda: ServiceError("page", status=502),
    lambda: ServiceError("fault", status=500),
]


@pytest.mark.parametrize("failure", PASSING, ids=lambda make: str(make()))
async def test_what_may_pass_is_asked_again_with_growing_waits(failure: Callable[[], ToAPIsError]) -> None:
    query = Query(failure(), failure(), failure())
    assert await query.retried() == "answer"
    first, second, third, fourth = query.called_s
    assert 0.25 <= second - first <= 0.5
    assert 0.5 <= third - second <= 1
    assert 1 <= fourth - third <= 2


@pytest.mark.parametrize("failure", PASSING, ids=lambda make: str(make()))
async def test_the_last_failure_is_raised_after_four_tries(failure: Callable[[], ToAPIsError]) -> None:
    failures = [failure() for _ in range(MOST_TRIES + 1)]
    query = Query(*failures)
    with pytest.raises(type(failures[0])) as caught:
        await query.retried()
    assert caught.value is failures[MOST_TRIES - 1]
    assert len(query.called_s) == MOST_TRIES
    assert caught.value.__notes__ == ["tried 4 times"]


@pytest.mark.parametrize(
    "failure",
    [
        TransportError("nobody trusts it", retryable=False),
        AuthenticationFailed("no", status=401),
        InsufficientQuota("empty", status=429),
        ServiceError("bad", status=400),
        ServiceError("no channel", status=503, code="model_not_found"),
        UnreadableAnswer("what?", status=200),
        SessionClosed("closed"),
    ],
    ids=str,
)
async def test_what_stays_is_raised_at_once(failure: ToAPIsError) -> None:
    query = Query(failure)
    with pytest.raises(type(failure)):
        await query.retried()
    assert len(query.called_s) == 1
    assert not hasattr(failure, "__notes__")


async def test_retry_after_is_waited_for() -> None:
    query = Query(RateLimited("slow", retry_after_s=30))
    assert await query.retried() == "answer"
    assert query.called_s == [0, 30]


async def test_a_503_may_say_when_to_ask_again() -> None:
    failure = ServiceError("down", status=503)
    failure.retry_after_s = 7
    query = Query(failure)
    assert await query.retried() == "answer"
    assert query.called_s == [0, 7]


async def test_no_wait_passes_the_time_from_the_first_failure_on() -> None:
    query = Query(*(RateLimited("slow", retry_after_s=50) for _ in range(4)))
    with pytest.raises(RateLimited):
        await query.retried(within_s=120)
    assert query.called_s == [0, 50, 100]


async def test_without_time_nothing_is_asked_again() -> None:
    query = Query(RateLimited("slow"))
    with pytest.raises(RateLimited):
        await query.retried(within_s=0)
    assert query.called_s == [0]


async def test_a_cancelled_caller_leaves_at_once() -> None:
    query = Query(RateLimited("slow", retry_after_s=30))
    asking = asyncio.create_task(query.retried())
    await asyncio.sleep(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asyncio.get_running_loop().time() == 1
    assert query.called_s == [0]


async def test_the_end_of_the_client_ends_the_wait() -> None:
    query = Query(RateLimited("slow", retry_after_s=30), SessionClosed("closed"))
    asking = asyncio.create_task(query.retried())
    await asyncio.sleep(1)
    query.closed.set()
    with pytest.raises(SessionClosed):
        await asking
    assert query.called_s == [0, 1]
