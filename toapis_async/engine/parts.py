"""The parts of an engine that submissions use, as one value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from toapis_async.engine.emitter import Emitter
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.journal.port import JournalPort
    from toapis_async.engine.limiter import Gate, Permits
    from toapis_async.engine.pacer import Pacer
    from toapis_async.engine.queries import Queries
    from toapis_async.engine.spending import Spending
    from toapis_async.engine.tasks import Tasks
    from toapis_async.engine.transport import Transport
    from toapis_async.engine.unclaimed import Unclaimed
    from toapis_async.engine.uploads import Uploads
    from toapis_async.errors import ToAPIsError
    from toapis_async.settings import Settings


@define
class SubmitCounts:
    """What became of submissions so far."""

    accepted: int = 0
    retried: int = 0  #: sent again after they certainly were not accepted
    adopted: int = 0  #: found by their id after their answer was lost
    resubmitted: int = 0  #: sent again after a whole window in which no task was to be found
    uncertain: int = 0  #: ended with nobody knowing


@frozen
class Parts:
    """Made once for a client; see `engine.core`."""

    transport: Transport
    pacer: Pacer
    permits: Gate[Permits]
    tasks: Tasks
    queries: Queries
    uploads: Uploads
    spending: Spending
    journal: JournalPort | None
    unclaimed: Unclaimed
    settings: Settings
    emit: Emitter
    counts: SubmitCounts
    attempts: dict[asyncio.Task[Entry | ToAPIsError], str]  #: POSTs under way, with their client_business_ids
    release: Callable[[Entry], None]  #: gives the permit of an ended task back; one for all, since it is kept by each
