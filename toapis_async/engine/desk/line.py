"""An engine's connection to the desk: calls and notes go in groups, one group at a time, in the order they came."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from attrs import define

from toapis_async.errors import JournalError, SessionClosed
from toapis_async.log import logger

if TYPE_CHECKING:
    from collections.abc import Sequence

Call: TypeAlias = tuple[str, tuple[object, ...]]
"""The name of what the desk is to do, and with what."""

NOTES_WAIT_S: Final = 0.05
"""How long notes gather when nobody waits for anything."""
MOST_IN_GROUP: Final = 500
MOST_NOTES: Final = 100_000
"""Notes that are kept while the desk can't be reached; beyond, the oldest are dropped."""
_GAPS_S: Final = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0, 2.0, 2.0)
"""Waits between tries to reach the desk, before those who wait are told that it can't be."""


class Desk(Protocol):
    """The desk as a line reaches it."""

    async def exchange(self, line: str, number: int, calls: Sequence[Call]) -> Sequence[object]:
        """What each call gave, an exception for one that failed. A group with the number of the one before is that one
        again, and is not done twice. Raises `OSError` when the desk can't be reached."""
        ...


@define(eq=False)
class _Item:
    call: Call
    done: asyncio.Future[Any] | None  #: None: a note


class Line:
    """Calls wait for their result; notes are sent when there is time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.name: str = secrets.token_hex(8)
        self._number = 0
        self._items: deque[_Item] = deque()
        self._news = asyncio.Event()
        self._called = asyncio.Event()  # somebody waits
        self._closed = self._hurries = False
        self._loop = asyncio.get_running_loop()
        self._sending = self._loop.create_task(self._send_all(), name="toapis-desk")

    async def call(self, name: str, *args: object) -> Any:
        """What the desk answers, or the error it raised. `JournalError` when it can't be reached."""
        if self._closed:
            raise SessionClosed("the client was closed before this was sent")
        done: asyncio.Future[Any] = self._loop.create_future()
        self._items.append(_Item((name, args), done))
        self._called.set()
        self._news.set()
        return await done

    def note(self, name: str, *args: object) -> None:
        """Tell the desk without waiting."""
        if self._closed:
            return
        if len(self._items) >= MOST_NOTES and self._items[0].done is None:
            self._items.popleft()
        self._items.append(_Item((name, args), None))
        self._news.set()

    async def aclose(self) -> None:
        """Send what is left, and end."""
        self._closed = True
        self._called.set()
        self._news.set()
        await asyncio.wait([self._sending])

    def hurry(self) -> None:
        """Try to reach the desk once only from now on."""
        self._hurries = True

    def forget(self) -> None:
        """End without waiting. May be called in any thread."""
        self._closed = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._sending.cancel)

    async def _send_all(self) -> None:
        try:
            while self._items or not self._closed:
                if not self._items:
                    self._news.clear()
                    await self._news.wait()
                    continue
                if not self._called.is_set():
                    await _first_of(self._called, NOTES_WAIT_S)
                self._called.clear()
                group = [self._items.popleft() for _ in range(min(len(self._items), MOST_IN_GROUP))]
                await self._send(group)
        finally:
            self._fail(self._items, "the client was closed")

    async def _send(self, group: list[_Item]) -> None:
        self._number += 1
        calls = [item.call for item in group]
        for gap_s in (*_GAPS_S, None):
            try:
                results = await self._desk.exchange(self.name, self._number, calls)
            except OSError as error:
                if gap_s is not None and not self._hurries:
                    await asyncio.sleep(gap_s)
                    continue
                logger.warning("the journal's desk can't be reached: %s", error)
                self._fail(group, f"the journal's desk can't be reached ({error})")
                if not self._closed:
                    self._items.extendleft(item for item in reversed(group) if item.done is None)
                    await asyncio.sleep(_GAPS_S[-1])
                return
            except asyncio.CancelledError:
                self._fail(group, "the client was closed")
                raise
            except Exception as error:  # a bug, there or here, which must not end this task
                logger.exception("the journal's desk failed at a group of calls")
                self._fail(group, f"the journal's desk failed ({type(error).__name__})")
            else:
                self._hand_over(group, results)
            return

    def _hand_over(self, group: list[_Item], results: Sequence[object]) -> None:
        for item, result in zip(group, results, strict=False):
            failed = isinstance(result, BaseException)
            if item.done is None:
                if failed:
                    logger.error("the journal's desk refused a note (%s): %s", item.call[0], result)
            elif not item.done.done():
                if isinstance(result, BaseException):
                    item.done.set_exception(result)
                else:
                    item.done.set_result(result)
        self._fail(group, "the journal's desk gave no answer")

    def _fail(self, items: Sequence[_Item] | deque[_Item], reason: str) -> None:
        for item in items:
            if item.done is not None and not item.done.done():
                item.done.set_exception(JournalError(f"{reason}; nothing was sent"))


async def _first_of(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
