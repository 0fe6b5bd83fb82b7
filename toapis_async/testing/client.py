"""The client that tests are handed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from toapis_async.client import ToAPIs
from toapis_async.shared import OFF

if TYPE_CHECKING:
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
