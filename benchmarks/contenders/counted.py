"""What is counted by callgrind (`benchmarks.instructions`): stretches of the same work.

A stretch lies between two marks. A mark is a call of libc's `getpriority`, which nothing else here makes: callgrind
writes down what it has counted whenever that function is entered.
"""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AT_ONCE = 10
WARM = 20
"""Rounds before each stretch: connections, caches, and the first plans of the poller."""


async def stretch(count: int, work: Callable[[], Awaitable[object]]) -> None:
    """`count` rounds between two marks, some at once: the poller of one task alone would wake for each."""
    await rounds(WARM, work)
    gc.collect()
    mark()
    await rounds(count, work)
    mark()


async def rounds(count: int, work: Callable[[], Awaitable[object]]) -> None:
    numbers = iter(range(count))

    async def some() -> None:
        for _ in numbers:
            await work()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def mark() -> None:
    os.getpriority(os.PRIO_PROCESS, 0)
