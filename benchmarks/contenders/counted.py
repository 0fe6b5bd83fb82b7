"""What is counted by callgrind (`benchmarks.instructions`): stretches of the same work, one request at a time.

A stretch lies between two marks. A mark is a call of libc's `getpriority`, which nothing else here makes: callgrind
writes down what it has counted whenever that function is entered.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WARM = 20
"""Rounds before each stretch: connections, caches, and the first plans of the poller."""


async def stretch(count: int, work: Callable[[], Awaitable[object]]) -> None:
    """`count` rounds between two marks."""
    for _ in range(WARM):
        await work()
    gc.collect()
    mark()
    for _ in range(count):
        await work()
    mark()


def mark() -> None:
    os.getpriority(os.PRIO_PROCESS, 0)
