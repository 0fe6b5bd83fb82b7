"""The desk: in one process, the journal and the limits of a run whose engines are in others.

It knows whose each row is. An engine claims the rows of its part; when another claims them later, since the first was
taken for dead, the first may send none of them any more, whatever it was allowed before.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen

from toapis_async.engine.journal.disk import refuse_network_disk
from toapis_async.engine.journal.reader import fact_of
from toapis_async.engine.journal.writer import JournalWriter
from toapis_async.engine.threads import in_thread
from toapis_async.errors import ClientStateError, JournalError, SessionClosed
from toapis_async.protocol.leasing import Account
from toapis_async.settings import Credentials, Journal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from toapis_async.engine.desk.line import Call
    from toapis_async.engine.journal.records import End, Intent, Record
    from toapis_async.protocol.leasing import Ask, Grant
    from toapis_async.protocol.tiers import Category
    from toapis_async.task import Billing

PROBES: Final = 25
"""Look-ups whose results are awaited before a row that a new journal does not know is sent: they tell whether the run
was ever at work before."""
PROBES_S: Final = 10.0
"""How long they are awaited."""


@frozen(kw_only=True)
class Opening:
    """What the driver of a run says when it begins."""

    session: str  #: a name of its own for this pass
    driver: str  #: by which the desk learns that the driver has gone
    run: str
    journal: Path
    account: str  #: stands for the API key, which the desk never sees
    salt: str  #: of the journal, and …
    bound_as: str  #: … what the journal keeps of the key, made with it (`Credentials.account`)
    same_account: bool = False  #: a journal that another key has written is taken, too
    base_url: str
    fresh: bool  #: the run was never at work before


@frozen
class _Keyless(Credentials):
    """An account whose key only the engines have: one of them has said what a journal keeps of it."""

    salt: str = field(kw_only=True)
    bound_as: str = field(kw_only=True)

    def account(self, salt: str) -> str:
        return self.bound_as if salt == self.salt else ""

    def new_salt(self) -> str:
        return self.salt


class Desk:
    """All runs of one process. Everything runs on its loop."""

    def __init__(self) -> None:
        self._ledgers: dict[Path, Ledger] = {}
        self._sessions: dict[str, Session] = {}
        self._accounts: dict[str, Account] = {}
        self._opening = asyncio.Lock()

    async def salt(self, journal: Path) -> str:
        """What a key is hashed with for this journal (`Opening.salt`). Raises `JournalError` for what is none."""
        return await in_thread(fact_of, journal, "salt") or secrets.token_hex(16)

    async def begin(self, opening: Opening) -> str | None:
        """A driver begins a pass over a run. Returns why not, when another driver is at it.

        Raises `JournalError` and `JournalLocked`. What an earlier driver of the run, which has gone, left behind can
        send nothing more.
        """
        async with self._opening:
            for other in self._sessions.values():
                if other.opening.run == opening.run and other.opening.journal == opening.journal and not other.stopped:
                    return f"the run {opening.run!r} is going on already"
            ledger = self._ledgers.get(opening.journal)
            if ledger is None:
                credentials = _Keyless("", opening.base_url, salt=opening.salt, bound_as=opening.bound_as)
                journal = Journal(opening.journal, same_account=opening.same_account)
                await in_thread(refuse_network_disk, opening.journal)
                ledger = Ledger(await JournalWriter.open(journal, credentials), opening.account)
                self._ledgers[opening.journal] = ledger
            if ledger.account != opening.account:
                return f"the journal {opening.journal} is in use with another API key"
            text = json.dumps({"born_s": time.time(), "complete": opening.fresh})
            fact = json.loads(await ledger.writer.fact(f"run:{opening.run}", text))
            memory = Memory(is_complete=bool(fact["complete"]), born_s=float(fact["born_s"]))
            self._sessions[opening.session] = Session(opening, ledger, memory)
            return None

    def stop(self, session: str) -> None:
        """Nothing that was not sent yet is to be sent."""
        self._sessions[session].stopped = True

    async def end(self, session: str) -> None:
        """The pass is over. Its journal is closed with the last that uses it."""
        ended = self._sessions.pop(session, None)
        if ended is not None and not any(each.ledger is ended.ledger for each in self._sessions.values()):
            self._ledgers.pop(ended.opening.journal, None)
            await ended.ledger.writer.aclose()

    async def paid_page(self, session: str, after: int) -> tuple[Record, ...]:
        """The next few rows of the run that the service has charged, or may have: see `JournalWriter.paid_page`."""
        known = self._sessions[session]
        return await known.ledger.writer.paid_page(known.opening.run, after)

    def counts(self, session: str) -> dict[str, int]:
        """What the engines of a pass have told, counted: those that died since included."""
        return dict(self._sessions[session].counts)

    def driver_left(self, driver: str) -> list[str]:
        """A driver has gone, perhaps without a word: nothing more is to be sent. Returns its sessions."""
        left = list[str]()
        for session in self._sessions.values():
            if session.opening.driver == driver:
                session.stopped = True
                left.append(session.opening.session)
        return left

    async def exchange(self, session: str, line: str, number: int, calls: Sequence[Call]) -> list[object]:
        """What each call of an engine gave, an exception for one that failed; see `line.Desk`."""
        known = self._sessions.get(session)
        if known is None:
            over = SessionClosed("the run is over; nothing was sent")
            return [over for _ in calls]
        return await known.exchange(line, number, calls)

    def lease(self, account: str, category: Category, ask: Ask) -> Grant:
        """Turns of an account's bucket."""
        state = self._accounts.get(account, Account())
        self._accounts[account], grant = state.lease(category, ask, time.monotonic())
        return grant

    async def aclose(self) -> None:
        """Close every journal."""
        ledgers = tuple(self._ledgers.values())
        self._sessions.clear()
        self._ledgers.clear()
        for ledger in ledgers:
            await ledger.writer.aclose()


@define
class Ledger:
    """A journal, and whose each row is."""

    writer: JournalWriter
    account: str
    owners: dict[str, tuple[str, int]] = field(factory=dict[str, tuple[str, int]])  #: with how often it claimed it


@define(kw_only=True)
class Memory:
    """How far the journal's silence about a row of one run can be believed."""

    is_complete: bool
    born_s: float  #: Unix seconds when this journal first heard of the run
    looked_up: int = 0
    wanted: int = 0  #: look-ups to be awaited; those of the first part
    was_met: bool = False  #: something was found that this journal did not know
    decided: asyncio.Event = field(factory=asyncio.Event)

    async def note(self, *, was_found: bool, window_s: float) -> bool:
        """Whether "not found" may still be wrong: the run was at work before this journal heard of it, and that may be
        less than a window ago."""
        self.looked_up += 1
        self.was_met = self.was_met or was_found
        if self.was_met or self.looked_up >= self.wanted:
            self.decided.set()
        if time.time() - self.born_s >= window_s:
            return False
        try:
            async with asyncio.timeout(PROBES_S):
                await self.decided.wait()
        except TimeoutError:
            self.decided.set()
        return self.was_met


class Session:
    """One pass of a driver over a run. Its methods that a line may call are those in `_CALLS`."""

    def __init__(self, opening: Opening, ledger: Ledger, memory: Memory) -> None:
        self.opening = opening
        self.ledger = ledger
        self.memory = memory
        self.stopped = False
        self.counts: dict[str, int] = {}
        self._journal = ledger.writer
        self._latest: dict[str, tuple[int, asyncio.Future[list[object]]]] = {}

    async def exchange(self, line: str, number: int, calls: Sequence[Call]) -> list[object]:
        """Do a group of calls, once; asked for again it gives what it gave."""
        latest = self._latest.get(line)
        if latest is None or latest[0] != number:
            latest = self._latest[line] = (number, asyncio.ensure_future(self._do_all(calls)))
        return await asyncio.shield(latest[1])

    async def _do_all(self, calls: Sequence[Call]) -> list[object]:
        # Each begins at once and in order, so that the journal takes them in this order and in one commit.
        return list(await asyncio.gather(*(self._do(call) for call in calls), return_exceptions=True))

    async def _do(self, call: Call) -> object:
        name, args = call
        if name not in _CALLS:
            raise ClientStateError(f"the desk knows no {name!r}: is toapis-async the same everywhere in the cluster?")
        act: Any = getattr(self, name)
        return await act(*args)

    def _check_owner(self, owner: str, row: str) -> None:
        if self.ledger.owners.get(row, ("", 0))[0] != owner:
            raise JournalError("another worker has taken this row over; nothing was sent")

    async def claim(self, owner: str, rows: Sequence[str]) -> bool:
        """These rows are this engine's from now on."""
        owners = self.ledger.owners
        for row in rows:
            held_by, times = owners.get(row, (owner, 0))
            owners[row] = (owner, times + 1 if held_by == owner else 1)
        self.memory.wanted = self.memory.wanted or min(len(rows), PROBES)
        return self.memory.is_complete

    async def release(self, owner: str, rows: Sequence[str]) -> None:
        """This engine is done with these rows."""
        owners = self.ledger.owners
        for row in rows:
            held_by, times = owners.get(row, ("", 0))
            if held_by == owner and times > 1:
                owners[row] = (owner, times - 1)
            elif held_by == owner:
                del owners[row]

    async def looked_up(self, was_found: bool, window_s: float) -> bool:
        """A look-up of a row that the journal does not know gave this."""
        return await self.memory.note(was_found=was_found, window_s=window_s)

    async def intend(self, owner: str, row: str, intent: Intent) -> None:
        """The engine is about to send a row."""
        self._check_owner(owner, row)
        if self.stopped:
            raise SessionClosed("the run was stopped before this was sent")
        await self._journal.intend(intent)
        self._count("intended")

    async def confirm(self, owner: str, row: str) -> None:
        """The same, moments later."""
        self._check_owner(owner, row)

    async def accepted(self, client_business_id: str, task_id: str, query_id: str) -> None:
        self._journal.accepted(client_business_id, task_id, query_id)
        self._count("accepted")

    async def ended(self, client_business_id: str, end: End) -> None:
        self._journal.ended(client_business_id, end)
        self._count(end.state.value)

    async def not_taken(self, owner: str, row: str | None, client_business_id: str, end: End) -> None:
        """It was certainly not accepted. Of a row that another has taken over, only that one can say so."""
        if row is not None and self.ledger.owners.get(row, ("", 0))[0] == owner:
            self._journal.ended(client_business_id, end)
            self._count(end.state.value)

    async def billed(self, client_business_id: str, billing: Billing) -> None:
        self._journal.billed(client_business_id, billing)

    async def saved(self, client_business_id: str, names: Sequence[str | None]) -> None:
        self._journal.saved(client_business_id, names)
        self._count("saved")

    async def lost(self, client_business_id: str) -> None:
        self._journal.lost(client_business_id)

    async def acknowledged(self, client_business_id: str) -> None:
        self._journal.acknowledged(client_business_id)

    async def of_row(self, run: str, key: str | None, digest: str, occurrence: int) -> Record | None:
        return await self._journal.of_row(run, key, digest, occurrence)

    async def of_id(self, client_business_id: str) -> Record | None:
        return await self._journal.of_id(client_business_id)

    async def paid_page(self, run: str, after: int, unsaved: bool) -> tuple[Record, ...]:
        return await self._journal.paid_page(run, after, unsaved=unsaved)

    async def flush(self) -> None:
        await self._journal.flush()

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


_CALLS: Final = frozenset(
    {"claim", "release", "looked_up", "intend", "confirm", "accepted", "ended", "not_taken", "billed", "saved", "lost"}
    | {"acknowledged", "of_row", "of_id", "paid_page", "flush"}
)
