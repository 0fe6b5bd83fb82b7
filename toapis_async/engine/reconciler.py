"""Was a submission accepted whose answer was lost? Asked by its client_business_id, patiently."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from toapis_async.errors import ClientStateError, TaskNotFound, ToAPIsError
from toapis_async.protocol.retry import look_up_gaps_s

if TYPE_CHECKING:
    from toapis_async.engine.queries import Queries
    from toapis_async.task import TaskSnapshot


class Reconciler:
    """Looks a submission up over a window of time: nobody says how soon the service can find a task by that id [open],
    so that a single "not found" proves nothing."""

    def __init__(self, queries: Queries, window_s: float) -> None:
        self._queries = queries
        self._window_s = window_s

    async def find(self, client_business_id: str) -> TaskSnapshot | None:
        """The task; None when the service, asked through the whole window, knew none at the end of it.

        A look-up that fails is no evidence: the last answer must be the service's own "not found", for which at most
        another window is waited. Raises the last failure when it never came, and `SessionClosed`.
        """
        failure: ToAPIsError | None = None
        waited_s = 0.0
        for gap_s in look_up_gaps_s(self._window_s):
            await asyncio.sleep(gap_s)
            waited_s += gap_s
            failure = None
            try:
                return await self._queries.find(client_business_id)
            except TaskNotFound:
                if waited_s >= self._window_s:
                    return None
            except ClientStateError:
                raise
            except ToAPIsError as error:
                failure = error
        assert failure is not None  # or the window's end would have been reached with an answer
        raise failure
