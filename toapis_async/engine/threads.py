"""Blocking steps, run in worker threads to their end."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(act: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
    """Run a blocking step to its end, also when the caller is cancelled meanwhile.

    A thread can't be stopped: without this wait, a clean-up would run beside the step that it cleans up after. The
    threads are the loop's own; a step in one of anyio's takes half as much CPU again.
    """
    context = copy_context()
    step = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(act, *args))
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        while not step.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([step])
        if not step.cancelled():
            step.exception()  # marks it retrieved: the cancellation goes first
        raise
