"""The client that tests are handed."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self
from unittest import mock

from toapis_async.client import ToAPIs
from toapis_async.lifetime import Lifetime
from toapis_async.shared import OFF

if TYPE_CHECKING:
    from collections.abc import Generator

    from toapis_async.settings import Settings
    from toapis_async.testing.threaded import ThreadedSandbox

KEY = "sk-sandbox"


class VirtualClient(ToAPIs):
    """A client of a sandbox, in virtual time from its opening to its end."""

    def __init__(self, sandbox: ThreadedSandbox, settings: Settings) -> None:
        super().__init__(KEY, base_url=sandbox.base_url, settings=settings, shared=OFF)
        self._sandbox = sandbox
        self._time = ExitStack()

    async def start(self) -> Self:
        """Open the client, and virtual time on the running loop."""
        with ExitStack() as stack:
            stack.enter_context(self._sandbox.virtual_time())
            await super().start()
            self._time = stack.pop_all()
        return self

    async def aclose(self) -> None:
        """Close the client, and then end virtual time."""
        try:
            await super().aclose()
        finally:
            self._time.close()


@contextmanager
def virtual_clients(sandbox: ThreadedSandbox) -> Generator[None]:
    """Within it, time is virtual while a client is open, whoever opens it, in whichever thread its loop runs."""
    times: dict[Lifetime, ExitStack] = {}
    start, aclose = Lifetime.start, Lifetime.aclose

    async def start_virtual(self: Lifetime) -> Lifetime:
        with ExitStack() as stack:
            stack.enter_context(sandbox.virtual_time())
            await start(self)
            times[self] = stack.pop_all()
        return self

    async def aclose_virtual(self: Lifetime) -> None:
        try:
            await aclose(self)
        finally:
            times.pop(self, ExitStack()).close()

    with mock.patch.multiple(Lifetime, start=start_virtual, aclose=aclose_virtual):
        yield
