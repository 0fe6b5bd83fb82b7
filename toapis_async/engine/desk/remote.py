"""The desk's journal, as an engine in another process uses it."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Final, cast

from toapis_async.engine.journal.records import State
from toapis_async.errors import JournalError, SessionClosed
from toapis_async.protocol.rowids import row_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from toapis_async.engine.desk.line import Line
    from toapis_async.engine.journal.records import End, Intent, Record
    from toapis_async.task import Billing

SHORTEST_TURN_S: Final = 0.5
_CONFIRMATIONS: Final = 10


def _now_s() -> float:
    """Seconds of a clock that goes on while a process is stopped or its machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class RemoteJournal:
    """Bound to one engine: a row that it has claimed is its own until another engine claims it.

    `turn_s` is how long after the desk was asked its word holds: a POST that goes out later is asked about once more.
    It is short beside the window through which whoever takes a row over looks it up.
    """

    def __init__(self, line: Line, reconcile_window_s: float) -> None:
        self._line = line
        self.owner: str = secrets.token_hex(8)
        self._turn_s = max(SHORTEST_TURN_S, reconcile_window_s / 5)
        self._names: dict[str, str] = {}  # of rows, by the client_business_id of what is not settled yet
        self._asked_s: dict[str, float] = {}  # when the desk was asked about it last

    async def claim(self, names: Sequence[str]) -> bool:
        """These rows are this engine's from now on. Returns whether the journal has known their run from its start."""
        return cast("bool", await self._line.call("claim", self.owner, tuple(names)))

    def release(self, names: Sequence[str]) -> None:
        """This engine is done with these rows."""
        self._line.note("release", self.owner, tuple(names))

    async def looked_up(self, *, was_found: bool, window_s: float) -> bool:
        """Told what a look-up of a row that the journal does not know gave; returns whether "not found" may still be
        wrong."""
        return cast("bool", await self._line.call("looked_up", was_found, window_s))

    async def intend(self, intent: Intent) -> None:
        """Returns once the intent is durable at the desk. Raises `JournalError`, and then nothing may be sent."""
        name, business_id, asked_s = _name_of(intent), intent.client_business_id, _now_s()
        self._names[business_id] = name
        await self._line.call("intend", self.owner, name, intent)
        self._asked_s[business_id] = asked_s

    async def hold(self, client_business_id: str) -> None:
        """Returns at once: whose a row is was settled when it was claimed."""

    def left(self, client_business_id: str) -> None:
        """Nothing: whoever claims the row may look it up."""

    async def released(self, client_business_id: str) -> bool:
        """False: whoever had the row before can send it no more."""
        return False

    async def begin_run(self, name: str) -> None:
        """Returns at once: the driver has the run."""

    def end_run(self, name: str) -> None:
        """Nothing: see `begin_run`."""

    async def confirm(self, intent: Intent) -> None:
        """Returns when the row is still this engine's, by a word of the desk's that is young enough."""
        business_id = intent.client_business_id
        self._names.setdefault(business_id, _name_of(intent))
        for _ in range(_CONFIRMATIONS):
            if _now_s() - self._asked_s.get(business_id, 0.0) < self._turn_s:
                return
            asked_s = _now_s()
            await self._line.call("confirm", self.owner, self._names[business_id])
            self._asked_s[business_id] = asked_s
        raise JournalError(f"the journal's desk needs over {self._turn_s:g} s for an answer; nothing was sent")

    def accepted(self, client_business_id: str, task_id: str, query_id: str) -> None:
        """The service has taken it."""
        self._settled(client_business_id)
        self._line.note("accepted", client_business_id, task_id, query_id)

    def ended(self, client_business_id: str, end: End) -> None:
        """Its final state; or that it was not taken, which the desk believes only of whose row it is."""
        name = self._names.get(client_business_id)
        self._settled(client_business_id)
        if end.state in {State.WITHDRAWN, State.REFUSED}:
            self._line.note("not_taken", self.owner, name, client_business_id, end)
        else:
            self._line.note("ended", client_business_id, end)

    def billed(self, client_business_id: str, billing: Billing) -> None:
        """A newer bill of a task that ended."""
        self._line.note("billed", client_business_id, billing)

    def saved(self, client_business_id: str, names: Sequence[str | None]) -> None:
        """Names of its files, in the images' order; None for one that is not there."""
        self._line.note("saved", client_business_id, tuple(names))

    def lost(self, client_business_id: str) -> None:
        """Its links are dead, and none of its files could be had."""
        self._line.note("lost", client_business_id)

    def acknowledged(self, client_business_id: str) -> None:
        """Its result is in good hands."""
        self._line.note("acknowledged", client_business_id)

    async def of_row(self, run: str, key: str | None, digest: str, occurrence: int) -> Record | None:
        """What is known of a row."""
        return cast("Record | None", await self._line.call("of_row", run, key, digest, occurrence))

    async def of_id(self, client_business_id: str) -> Record | None:
        """What is known of a submission."""
        return cast("Record | None", await self._line.call("of_id", client_business_id))

    async def paid(self, run: str, *, unsaved: bool = False) -> AsyncIterator[Record]:
        """The rows of a run that the service has charged, or may have."""
        after = 0
        while page := cast("tuple[Record, ...]", await self._line.call("paid_page", run, after, unsaved)):
            for record in page:
                yield record
            after = page[-1].number

    async def flush(self) -> None:
        """Returns once everything called for so far was tried."""
        with contextlib.suppress(JournalError, SessionClosed):
            await self._line.call("flush")

    async def aclose(self) -> None:
        """Send what is left."""
        await self._line.aclose()

    def hurry(self) -> None:
        """The desk is likely gone: try to reach it once only from now on."""
        self._line.hurry()

    def forget(self) -> None:
        """End without waiting."""
        self._line.forget()

    def _settled(self, client_business_id: str) -> None:
        self._names.pop(client_business_id, None)
        self._asked_s.pop(client_business_id, None)


def _name_of(intent: Intent) -> str:
    assert intent.run is not None
    return row_name(intent.run, intent.key, intent.digest, intent.occurrence)
