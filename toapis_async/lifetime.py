"""The one life of a client: opened once, used on one loop, closed once."""

from __future__ import annotations

import asyncio
import enum
import warnings
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Self

from toapis_async.engine import account
from toapis_async.errors import ClientStateError, SessionClosed

if TYPE_CHECKING:
    from types import TracebackType

    from toapis_async.engine.core import Engine

CLOSE_BOUND_S = 10.0
"""How long a cancelled `aclose` waits for the rest of closing, which waits for nobody else."""


class ClientState(enum.Enum):
    """Where a client is in its one life."""

    NEW = "not open yet: use `async with ToAPIs() as client` or `await client.start()`"
    OPENING = "being opened"
    OPEN = "open"
    CLOSING = "closing: it takes no new work"
    CLOSED = "closed: make a new client"


class Lifetime(ABC):
    """What has an engine while it is open. May be opened in one task and closed in another."""

    def __init__(self) -> None:
        self._state = ClientState.NEW
        self._engine: Engine | None = None
        self._closed: asyncio.Future[None] | None = None

    @abstractmethod
    async def _opened(self) -> Engine:
        """A new engine, with all that it needs."""

    async def start(self) -> Self:
        """Open the client on the running loop. It can be opened once.

        Raises `JournalLocked` when another process uses the journal, `JournalError` when it can't be used, and
        `ClientStateError` for a store of `shared` that refuses to be used (one that is not there is tried again).
        """
        if self._state is not ClientState.NEW:
            raise ClientStateError(f"the client is {self._state.value}")
        self._state = ClientState.OPENING
        try:
            engine = await self._opened()
        except BaseException:
            if self._state is ClientState.OPENING:
                self._state = ClientState.NEW
            raise
        if self._state is not ClientState.OPENING:
            await engine.aclose()
            raise SessionClosed("the client was closed while it was being opened")
        engine.spending.load_prices = partial(account.service_prices, engine)
        self._engine = engine
        self._state = ClientState.OPEN
        return self

    async def aclose(self) -> None:
        """Close: refuse new work, wait `close_grace_s` for submissions under way, end every watch with
        `SessionClosed`, close the connections. Nothing is lost: the ids can be attached again. Safe to call again."""
        engine = self._engine
        if engine is None:
            self._state = ClientState.CLOSED
            return
        engine.check_loop()
        if self._closed is not None:  # a second closer waits for the first
            await asyncio.shield(self._closed)
            return
        self._state = ClientState.CLOSING
        self._closed = asyncio.ensure_future(self._close(engine))
        try:
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            # Half a client must not be left behind: skip the grace, and end.
            engine.submitter.give_up()
            await asyncio.wait([self._closed], timeout=CLOSE_BOUND_S)  # a batch's own source may be what closes us
            if (
                self._closed.cancelled() and self._state is ClientState.CLOSING
            ):  # before its first step: see asyncio.run
                await self._close(engine)
            raise

    async def _close(self, engine: Engine) -> None:
        try:
            await engine.aclose()
        finally:
            self._state = ClientState.CLOSED

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> NoReturn:
        raise ClientStateError("a client can't be pickled or copied: make one client in each process")

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and self._state is ClientState.OPEN and not engine.is_forked:
            engine.forget()  # first: the warning may be an error
            warnings.warn(f"unclosed client {self!r}", ResourceWarning, source=self, stacklevel=2)

    def _open_engine(self) -> Engine:
        engine = self._used_engine()
        if self._state is not ClientState.OPEN:
            raise SessionClosed(f"the client is {self._state.value}")
        engine.check_loop()
        return engine

    def _used_engine(self) -> Engine:
        if self._engine is None:
            raise ClientStateError(f"the client is {self._state.value}")
        return self._engine
