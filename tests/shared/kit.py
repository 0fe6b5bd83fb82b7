"""Stores, and processes that share, for the tests of this folder."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from toapis_async.engine.shared.port import StoreLost
from toapis_async.protocol.leasing import Account

if TYPE_CHECKING:
    from toapis_async.protocol.leasing import Ask, Grant
    from toapis_async.protocol.tiers import Category

_BOUNDS = ("host.STORE_TIMEOUT_S", "leases.STORE_TIMEOUT_S", "redis.STORE_TIMEOUT_S", "redis.PONG_S", "ends.READY_S")
PATIENCE = tuple(f"toapis_async.engine.shared.{bound}" for bound in _BOUNDS)
"""What decides that a store is lost. A busy machine meets it, unless each is `PATIENT_S`."""
PATIENT_S = 60.0


class MemoryStore:
    """A store in this process, by the loop's clock; `trouble` is what happens to those who ask."""

    kind = "memory"

    def __init__(self, lease_s: float = 0.5) -> None:
        self.lease_s = lease_s
        self.account = Account()
        self.trouble: str | None = None
        self.asks: list[Ask] = []
        self.closed = 0

    async def lease(self, category: Category, ask: Ask) -> Grant:
        if self.trouble == "refused":
            raise StoreLost("nobody is there", unchanged=True)
        if self.trouble == "silent":
            await asyncio.sleep(3_600)
        if self.trouble == "bug":
            raise ZeroDivisionError
        self.asks.append(ask)
        self.account, grant = self.account.lease(category, ask, asyncio.get_running_loop().time() + 1e6)
        return grant

    async def aclose(self) -> None:
        self.closed += 1
