"""Blocking steps, run in worker threads to their end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(act: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
    """Run a blocking step to its end, also when the caller is cancelled meanwhile.

    A thread can't be stopped, and anyio's shield stops anyio's own cancellations only: without this wait, a clean-up
    would run beside the step that it cleans up after.
    """
    step = asyncio.ensure_future(anyio.to_thread.run_sync(act, *args))
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        while not step.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([step])
        if not step.cancelled():
            step.exception()  # marks it retrieved: the cancellation goes first
        raise
