"""The one poller: it queries every watched task when it is due, and reports what it learns to `engine.tasks`."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import TYPE_CHECKING

from toapis_async.errors import ServiceError, TaskNotFound, ToAPIsError, UnreadableAnswer
from toapis_async.log import logger
from toapis_async.protocol.lifecycle import is_confirmed
from toapis_async.protocol.wire import decode_task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from toapis_async.engine.agenda import Agenda
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.queries import StatusPort
    from toapis_async.engine.tasks import Tasks
    from toapis_async.protocol.lenient import Answer
    from toapis_async.settings import Settings
    from toapis_async.task import TaskSnapshot


UNREADABLE_POLLS = 3
"""A task that is completed, but whose result can't be read in this many polls, is given to its waiters as such."""


class Poller:
    """One loop that takes the agenda's next task, and as many GETs at once as the query gate allows.

    A poll that fails never fails its task: it is repeated later. Two polls of one task never overlap, since a task
    is back on the agenda only after its poll has ended.
    """

    def __init__(self, *, port: StatusPort, agenda: Agenda, tasks: Tasks, settings: Settings) -> None:
        self._port = port
        self._agenda = agenda
        self._tasks = tasks
        self._settings = settings
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Until cancelled. An unexpected error here is a bug of ours; the client then ends every watch with it."""
        async with asyncio.TaskGroup() as polls:
            while True:
                await self._agenda.wait_due()
                await self._port.gate.acquire()
                entries = list(islice(self._due(), self._port.ids_per_request))
                if entries:
                    polls.create_task(self._poll(entries))
                else:
                    self._port.gate.give_back()
                    await asyncio.sleep(0)  # more are due than the schedule examines in one step

    def _due(self) -> Iterator[Entry]:
        """The tasks to poll now. One that is too old is polled a last time, unless that would be too soon after the
        poll before."""
        for entry in self._agenda.due(self._port.gate.fullness):
            waited_s = self._loop.time() - entry.polled_s
            if self._tasks.is_too_old(entry) and waited_s < self._settings.min_poll_interval_s:
                self._tasks.overdue(entry)
            else:
                yield entry

    async def _poll(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.polls += 1
        for entry, answer in zip(entries, await self._port.query_all(entries), strict=True):
            if not entry.ended:  # by an event, while it was queried
                self._put_back(entry, at_once=self._report(entry, answer))

    def _report(self, entry: Entry, answer: Answer | ToAPIsError) -> bool:
        """Learn from what a poll was answered. True: the task is to be polled again at once, as one of another kind."""
        try:
            if isinstance(answer, ToAPIsError):
                raise answer
            if entry.claimed is not None or not entry.is_repeated_by(answer.body):
                self._tasks.saw(entry, _read(entry, answer), answer.body)
        except TaskNotFound as error:
            entry.failures = 1  # nothing was seen, so nothing is to be learned from it
            return self._tasks.missing(entry, error)
        except ToAPIsError as error:
            entry.failures += 1
            if isinstance(error, UnreadableAnswer) and error.is_of_result and entry.failures >= UNREADABLE_POLLS:
                self._tasks.unreadable(entry, error)
            level = logging.WARNING if isinstance(error, ServiceError) and error.status < 500 else logging.DEBUG
            logger.log(level, "poll of task %s failed (%d in a row): %s", entry.task_id, entry.failures, error)
        else:
            if entry.failures:
                entry.failures = 0
                self._tasks.found(entry)
        return False

    def _put_back(self, entry: Entry, *, at_once: bool) -> None:
        """Back on the agenda, unless it ended meanwhile."""
        if entry.ended:
            return
        if at_once:
            self._agenda.add(entry, "unknown")
            return
        if self._tasks.is_too_old(entry):
            self._tasks.overdue(entry)
        else:
            self._agenda.put_back(entry)


def _read(entry: Entry, answer: Answer) -> TaskSnapshot:
    """What an answer shows. Another gateway's word for the end counts when two polls in a row agree on it."""
    snapshot = decode_task(answer, entry.query_id, kind=entry.endpoint.kind)
    if is_confirmed(entry.claimed, snapshot):
        return decode_task(answer, entry.query_id, kind=entry.endpoint.kind, believe=True)
    entry.claimed = snapshot.claimed_status
    return snapshot
