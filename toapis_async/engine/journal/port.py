"""What the engine and a batch's run use of a journal, so that another store can stand there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from toapis_async.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from toapis_async.engine.journal.records import End, Intent, Record
    from toapis_async.task import Billing


class TakenMeanwhile(JournalError):
    """Another process came first with this id: what the journal says of it is to be read again. No caller sees this."""


class JournalPort(Protocol):
    """Every submission, from its intent to its files.

    The methods that return nothing at once are noted without waiting; a process that dies before they are durable finds
    the same out again from the service.
    """

    async def intend(self, intent: Intent) -> None:
        """Returns once the intent is durable. Raises `TakenMeanwhile`, or another `JournalError`, and then nothing may
        be sent."""
        ...

    async def hold(self, client_business_id: str) -> None:
        """Returns once an intent that was left in doubt is this process's to look up. Raises `TakenMeanwhile`."""
        ...

    def left(self, client_business_id: str) -> None:
        """Its submission ended in doubt: any process may look it up."""
        ...

    async def released(self, client_business_id: str) -> bool:
        """Returns once no other process is submitting it: False at once, or True after a wait. Raises `JournalLocked`
        when that takes longer than a submission can."""
        ...

    async def begin_run(self, name: str) -> None:
        """Returns once the run is this process's. Raises `JournalLocked` while it is going on in another."""
        ...

    def end_run(self, name: str) -> None:
        """The run may go on in any process."""
        ...

    async def confirm(self, intent: Intent) -> None:
        """Right before its POST goes out: returns when this process may still send it. Raises `JournalError` when
        another has taken it over since it was intended, and then nothing may be sent."""
        ...

    def accepted(self, client_business_id: str, task_id: str, query_id: str) -> None:
        """The service has taken it; `query_id` is the id by which it is known to be found."""
        ...

    def ended(self, client_business_id: str, end: End) -> None:
        """Its final state, or that it was not taken."""
        ...

    def billed(self, client_business_id: str, billing: Billing) -> None:
        """A newer bill of a task that ended."""
        ...

    def saved(self, client_business_id: str, names: Sequence[str | None]) -> None:
        """Names of its files on disk, in the images' order; None for one that is not there."""
        ...

    def lost(self, client_business_id: str) -> None:
        """Its links are dead, and none of its files could be had."""
        ...

    def acknowledged(self, client_business_id: str) -> None:
        """Its result is in good hands: it need not be given again."""
        ...

    async def of_row(self, run: str, key: str | None, digest: str, occurrence: int) -> Record | None:
        """What is known of a batch's row from this run's earlier passes."""
        ...

    async def of_id(self, client_business_id: str) -> Record | None:
        """What is known of a submission."""
        ...

    def paid(self, run: str, *, unsaved: bool = False) -> AsyncIterator[Record]:
        """The rows of a run that the service has charged, or may have, in the order they were sent; with `unsaved`,
        those that may have images which are not on disk."""
        ...

    async def flush(self) -> None:
        """Returns once everything called for so far was tried, and whoever waits for it has its result or error."""
        ...

    async def aclose(self) -> None:
        """Write what is left, and free the journal for other processes."""
        ...

    def forget(self) -> None:
        """The same without waiting. May be called in any thread."""
        ...
