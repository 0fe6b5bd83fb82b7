"""The fixtures as a user's test sees them; virtual time is exact, so durations are asserted to the millisecond."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from toapis_async import (
    InsufficientQuota,
    LinkExpired,
    Settings,
    TaskFailed,
    TaskNotFound,
    TaskOverdue,
    ToAPIs,
    WaitTimeout,
)
from toapis_async.testing import (
    ANSWER_LOST,
    EXPIRES_BEFORE_DOWNLOAD,
    NEVER_ENDS,
    NOT_SENT,
    OUT_OF_CREDITS,
    RATE_LIMITED,
    SECOND_POLL_FAILS,
    TASK_FAILS,
    TASK_VANISHES,
)

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.testing import ThreadedSandbox


async def test_a_generation_costs_what_the_books_say(
    toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs, tmp_path: Path
) -> None:
    async with toapis_client:
        generation = await toapis_client.generate("a red kite")
        [file] = await generation.save(tmp_path)
    assert file.read_bytes().startswith(b"\x89PNG")
    [entry] = toapis_sandbox.ledger
    assert (entry.prompt, entry.status) == ("a red kite", "completed")
    assert toapis_sandbox.ledger.credits_paid == entry.credits > 0
    assert toapis_sandbox.requests.count("submit") == 1


@pytest.mark.toapis_sandbox(service_time_s=40)
async def test_a_task_of_forty_seconds_is_awaited_in_forty_virtual_ones(
    toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs
) -> None:
    async with toapis_client:
        generation = await toapis_client.generate("a red kite")
    assert generation.completed_at is not None
    assert (generation.completed_at - generation.created_at).total_seconds() in {39, 40, 41}  # type: ignore[operator]
    assert 40 <= toapis_sandbox.elapsed_s < 60


@pytest.mark.toapis_sandbox(service_time_s=40)
async def test_patience_ends_when_it_says(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        begun_s = toapis_sandbox.elapsed_s
        with pytest.raises(WaitTimeout):
            await toapis_client.generate("a red kite", timeout_s=30)
        assert toapis_sandbox.elapsed_s - begun_s == pytest.approx(30, abs=1e-3)


@pytest.mark.toapis_sandbox(NEVER_ENDS)
@pytest.mark.toapis_client(max_task_age_s=900)
async def test_a_task_that_never_ends_is_overdue(toapis_sandbox: ThreadedSandbox, toapis_client: ToAPIs) -> None:
    async with toapis_client:
        with pytest.raises(TaskOverdue):
            await toapis_client.generate("a red kite")
        assert 900 <= toapis_sandbox.elapsed_s < 1_000
