"""The one poller: it queries every watched task when it is due, and reports what it learns to `engine.tasks`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from toapis_async.errors import AuthenticationFailed, ServiceError, TaskNotFound, ToAPIsError, UnreadableAnswer
from toapis_async.events import UnknownStatus
from toapis_async.log import logger
from toapis_async.protocol.lenient import shorten
from toapis_async.protocol.lifecycle import is_confirmed, is_unknown
from toapis_async.protocol.wire import decode_task, glance

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from toapis_async.engine.agenda import Agenda
    from toapis_async.engine.emitter import Emitter
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.queries import StatusPort
    from toapis_async.engine.tasks import Tasks
    from toapis_async.protocol.lenient import Answer
    from toapis_async.settings import Settings


MOST_FAILURES: Final = 3
"""Polls in a row that lead to nothing, before the watch ends."""
MOST_UNKNOWN: Final = 100
"""Unknown status words that are reported, each once."""


class Poller:
    """Polls the agenda's tasks when they are due, as many at once as the query gate allows.

    A worker, which is a task of the event loop, makes one poll, and goes on with others while some are due: a poll
    costs no more turns of the loop than a GET does. While the gate has no turn, one worker waits for it, and takes the
    likeliest task then.

    A poll that fails never fails its task: it is repeated later. Two polls of one task never overlap, since a task
    is back on the agenda only after its poll has ended.
    """

    def __init__(self, *, port: StatusPort, agenda: Agenda, tasks: Tasks, settings: Settings, emit: Emitter) -> None:
        self._port = port
        self._agenda = agenda
        self._tasks = tasks
        self._settings = settings
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._workers: set[asyncio.Task[None] | None] = set()
        self._bug: asyncio.Future[None] = self._loop.create_future()
        self._refused: tuple[float, int] | None = None  # since when, and how many polls in a row, of whichever task
        self._unknown: set[str] = set()

    async def run(self) -> None:
        """Until cancelled. An unexpected error here is a bug of ours; the client then ends every watch with it."""
        self._agenda.start(self._begin_polls)
        try:
            await self._bug
        finally:
            self._agenda.stop()
            workers = [worker for worker in self._workers if worker is not None]
            for worker in workers:
                worker.cancel()
            if workers:
                await asyncio.wait(workers)

    def _begin_polls(self) -> None:
        """A worker for each poll that can be made now."""
        try:
            while entries := self._take():
                self._begin(self._work(entries))
        except Exception as bug:
            self._fail(bug)

    def _take(self) -> list[Entry]:
        """The tasks of one poll, with a turn of the gate. Without a turn a worker waits for one, and the alarm is
        silent until it has it; else, when nothing is due, the alarm is set."""
        due_s, now_s = self._agenda.next_due_s(), self._loop.time()
        if due_s <= now_s:
            if not self._port.gate.try_acquire(now_s):
                self._begin(self._wait_for_turn())
                return []
            if entries := self._due(now_s):
                return entries
            self._port.gate.give_back()
            due_s = self._agenda.next_due_s()
        self._agenda.rest(due_s)
        return []

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._workers.add(self._loop.create_task(work))

    async def _work(self, entries: list[Entry]) -> None:
        try:
            while entries:
                for entry in entries:
                    entry.polls += 1
                for entry, answer in zip(entries, await self._port.query_all(entries), strict=True):
                    if not entry.ended:  # by an event, while it was queried
                        self._put_back(entry, at_once=self._report(entry, answer))
                entries = self._take() if self._agenda.is_late else []
        except Exception as bug:
            self._fail(bug)
        finally:
            self._workers.discard(asyncio.current_task())

    async def _wait_for_turn(self) -> None:
        entries: list[Entry] = []
        try:
            await self._port.gate.acquire()
            if not (entries := self._due(self._loop.time())):
                self._port.gate.give_back()
            self._begin_polls()
        except Exception as bug:
            self._fail(bug)
        await self._work(entries)

    def _fail(self, bug: Exception) -> None:
        if not self._bug.done():
            self._bug.set_exception(bug)

    def _due(self, now_s: float) -> list[Entry]:
        """The tasks to poll now. One that is too old is polled a last time, unless that would be too soon after the
        poll before."""
        entries: list[Entry] = []
        fullness = self._port.gate.fullness(now_s)
        while len(entries) < self._port.ids_per_request and (entry := self._agenda.pop(now_s, fullness)) is not None:
            if now_s - entry.polled_s < self._settings.min_poll_interval_s and self._tasks.is_too_old(entry):
                self._tasks.overdue(entry)
            else:
                entries.append(entry)
        return entries

    def _report(self, entry: Entry, answer: Answer | ToAPIsError) -> bool:
        """Learn from what a poll was answered. True: the task is to be polled again at once, as one of another kind."""
        try:
            if isinstance(answer, ToAPIsError):
                raise answer
            self._refused = None
            self._read(entry, answer)
        except TaskNotFound as error:
            entry.failures = 1  # nothing was seen, so nothing is to be learned from it
            return self._tasks.missing(entry, error)
        except ToAPIsError as error:
            entry.failures += 1
            level = logging.WARNING if isinstance(error, ServiceError) and error.status < 500 else logging.DEBUG
            logger.log(level, "poll of task %s failed (%d in a row): %s", entry.task_id, entry.failures, error)
            self._give_up(entry, error)
        else:
            if entry.failures:
                entry.failures = 0
                self._tasks.found(entry)
        return False

    def _read(self, entry: Entry, answer: Answer) -> None:
        """Report an answer's snapshot. Another gateway's word for the end counts when two polls in a row have it."""
        if entry.claimed is None:
            if entry.is_repeated_by(answer.body):
                return
            if (task := glance(answer, entry.query_id)) is not None:
                self._tasks.saw(entry, task, answer.body)
                return
        snapshot = decode_task(answer, entry.query_id, kind=entry.endpoint.kind)
        if is_confirmed(entry.claimed, snapshot):
            snapshot = decode_task(answer, entry.query_id, kind=entry.endpoint.kind, believe=True)
        elif is_unknown(snapshot.raw_status) and len(self._unknown) < MOST_UNKNOWN:
            self._note_unknown(entry, shorten(snapshot.raw_status, 60))
        self._tasks.saw(entry, snapshot, answer.body)

    def _note_unknown(self, entry: Entry, word: str) -> None:
        if word not in self._unknown:
            self._unknown.add(word)
            logger.warning("task %s has a status nobody knows, %r: taken for unfinished", entry.task_id, word)
            self._emit(UnknownStatus, entry.task_id, entry.client_business_id, word)

    def _give_up(self, entry: Entry, error: ToAPIsError) -> None:
        """End the watch of a task whose polls lead to nothing: of one whose result can't be read, or whose queries are
        answered 200 with an error, after three in a row; of one that is refused (401, 403) alone likewise. When polls
        are refused three times in a row, whichever tasks they are of, and for two intervals at least, the key is no
        good any more, and every watch ends."""
        if isinstance(error, AuthenticationFailed):
            now_s = self._loop.time()
            since_s, count = self._refused or (now_s, 0)
            self._refused = since_s, count + 1
            if count + 1 < MOST_FAILURES:
                if entry.failures >= MOST_FAILURES:
                    self._tasks.give_up(entry, error)
            elif now_s - since_s >= 2 * self._settings.min_poll_interval_s:
                self._refused = None
                self._tasks.give_up_all(error)
        elif isinstance(error, UnreadableAnswer):
            if error.is_of_result and entry.failures >= MOST_FAILURES:
                self._tasks.give_up(entry, error)
        elif isinstance(error, ServiceError) and error.status < 300 and entry.failures >= MOST_FAILURES:
            self._tasks.give_up(entry, error)

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
