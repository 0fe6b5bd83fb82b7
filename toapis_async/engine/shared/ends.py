"""The ends of tasks, told to the other processes of the account and learned from them.

Every outcome that this process sees is published once, and so is every event about a task that it does not watch. What
others publish is looked up by its ids, and reported to `engine.tasks` as an event is. A message that is lost costs a
poll; while messages may be lost, polls are what they are without events.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import evolve, frozen

from toapis_async.engine.journal.resume import answer_of
from toapis_async.engine.shared.port import Outgoing, StoreLost, check_cancelled
from toapis_async.errors import UnreadableAnswer
from toapis_async.log import logger
from toapis_async.protocol.end_message import EndMessage, decode_end, encode_end
from toapis_async.protocol.retry import backoff_s

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from toapis_async.engine.agenda import Agenda
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.shared.port import Channel
    from toapis_async.engine.tasks import Tasks

T = TypeVar("T")

MOST_AT_ONCE: Final = 100
"""Messages, or ids, that go to the channel in one call."""
MOST_QUEUED_BYTES: Final = 16 * 2**20
"""What waits to be published at most; more is not told, and an event is not handed on."""
READY_S: Final = 1.0
"""How long opening a client waits for the channel."""
FLUSH_S: Final = 1.0
"""How long closing waits until what waits is published."""
_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 1.0


@frozen
class _Queued:
    outgoing: Outgoing
    published: asyncio.Future[bool] | None  #: of whoever waits for it


class Ends:
    """Two tasks on the loop: one listens, one sends. `start` and `aclose` are called by the engine."""

    def __init__(self, channel: Channel, agenda: Agenda, rng: random.Random) -> None:
        self._channel = channel
        self._agenda = agenda
        self._rng = rng
        self._me = secrets.token_hex(8)
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._asked: deque[Entry] = deque()
        self._work = asyncio.Event()
        self._tried = asyncio.Event()
        self._tasks: Tasks | None = None
        self._running: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._has_noted_malformed = False
        self.is_connected: bool = False  #: whether messages of others reach us
        agenda.events_interrupted()

    def start(self, tasks: Tasks) -> None:
        """Listen and send from now on; what is learned is reported to `tasks`."""
        self._tasks = tasks
        loop = asyncio.get_running_loop()
        self._running = [
            loop.create_task(self._listen(), name="toapis-ends-listen"),
            loop.create_task(self._send(), name="toapis-ends-send"),
        ]
        for task in self._running:
            task.add_done_callback(self._ended)

    async def ready(self) -> None:
        """Wait until messages come, or can't be had: at most `READY_S`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                await self._tried.wait()

    async def aclose(self) -> None:
        """Publish what waits, then stop."""
        self._is_closing = True
        self._work.set()
        if self._running:
            listening, sending = self._running
            listening.cancel()
            await asyncio.wait([sending], timeout=FLUSH_S)
            sending.cancel()
            await asyncio.wait(self._running)

    def forget(self) -> None:
        """Stop without publishing what waits."""
        self._is_closing = True
        for task in self._running:
            task.cancel()

    # -------------------------------------------------------------------------------------- what we know

    def tell(self, entry: Entry, *, by_event: bool) -> None:
        """Publish the outcome of a task of ours."""
        kind, snapshot = entry.endpoint.kind, entry.snapshot
        self.pass_on(EndMessage(entry.task_id, entry.client_business_id, kind, by_event, decoded=snapshot))

    def pass_on(self, end: EndMessage) -> None:
        """Publish it, if the channel can take it."""
        self._put(end, None)

    async def hand_on(self, end: EndMessage) -> bool:
        """Publish it; whether that was done."""
        published: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        return self._put(end, published) and await published

    def _put(self, end: EndMessage, published: asyncio.Future[bool] | None) -> bool:
        if self._is_closing or self._queued_bytes > MOST_QUEUED_BYTES:
            return False
        if end.answer is None and end.decoded is not None and (answer := answer_of(end.decoded)) is not None:
            end = evolve(end, answer=answer.encode())
        message = encode_end(evolve(end, sender=self._me))
        self._queue.append(_Queued(Outgoing(message, end.task_id if end.can_be_told else None), published))
        self._queued_bytes += len(message)
        self._work.set()
        return True

    def ask(self, entry: Entry) -> bool:
        """Whether it is asked now if another process knows the task's end. Its polls begin when that is answered."""
        if not self.is_connected or self._is_closing:
            return False
        self._asked.append(entry)
        self._work.set()
        return True

    # -------------------------------------------------------------------------------------- the task that sends

    async def _send(self) -> None:
        try:
            while not self._is_closing or self._queue:
                self._work.clear()
                if self._queue:
                    await self._publish(_first(self._queue))
                if self._asked:
                    await self._ask(_first(self._asked))
                if not self._queue and not self._asked and not self._is_closing:
                    await self._work.wait()
        finally:
            for queued in self._queue:
                _resolve(queued, is_published=False)
            self._begin_polls(self._asked)

    async def _publish(self, batch: list[_Queued]) -> None:
        is_published = False
        try:
            await self._channel.publish([queued.outgoing for queued in batch])
            is_published = True
        except StoreLost as error:
            logger.debug("%d ends were not told to other processes: %s", len(batch), error)
        finally:
            for queued in batch:
                self._queued_bytes -= len(queued.outgoing.message)
                _resolve(queued, is_published=is_published)

    async def _ask(self, entries: list[Entry]) -> None:
        try:
            for message in await self._channel.kept([entry.task_id for entry in entries]):
                if message is not None:
                    self._learn(message, also_own=True)
        except StoreLost as error:
            logger.debug("the ends that other processes know can't be read: %s", error)
        finally:
            self._begin_polls(entries)

    def _begin_polls(self, entries: Iterable[Entry]) -> None:
        assert self._tasks is not None
        for entry in entries:
            self._tasks.begin_polls(entry, "unknown")

    # -------------------------------------------------------------------------------------- the task that listens

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with aclosing(self._channel.messages()) as messages:
                    async for message in messages:
                        if message is None:
                            failures = 0
                            self._connected()
                        else:
                            self._learn(message)
                            await asyncio.sleep(0)  # a burst of them is no reason to stop everything else
            except StoreLost as error:
                check_cancelled()
                self._disconnected(error)
            failures += 1
            await asyncio.sleep(backoff_s(failures, base_s=_RETRY_S, cap_s=_LONGEST_RETRY_S, rng=self._rng))

    def _connected(self) -> None:
        if self._tried.is_set():
            logger.info("events and ends of other processes come again")
        self.is_connected = True
        self._agenda.events_resumed()
        self._tried.set()

    def _disconnected(self, error: StoreLost) -> None:
        if self.is_connected or not self._tried.is_set():
            logger.warning("events and ends of other processes do not come, polls are as without them: %s", error)
        if self.is_connected:
            self.is_connected = False
            self._agenda.events_interrupted()
        self._tried.set()

    def _learn(self, message: bytes, *, also_own: bool = False) -> None:
        assert self._tasks is not None
        try:
            end = decode_end(message)
            if also_own or end.sender != self._me:
                self._tasks.learn(end)
        except (ValueError, UnreadableAnswer) as error:
            if not self._has_noted_malformed:
                self._has_noted_malformed = True
                logger.warning("a message from other processes can't be read; such ones are ignored: %s", error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.critical("sharing ends with other processes ended by a bug", exc_info=task.exception())
            self.forget()
            self._agenda.events_interrupted()
            self.is_connected = False


def _first(waiting: deque[T]) -> list[T]:
    """Take the first ones, at most as many as go in one call."""
    return [waiting.popleft() for _ in range(min(len(waiting), MOST_AT_ONCE))]


def _resolve(queued: _Queued, *, is_published: bool) -> None:
    if queued.published is not None and not queued.published.done():
        queued.published.set_result(is_published)
