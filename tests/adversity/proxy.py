"""A bad network: a TCP proxy that cuts, stalls, trickles and garbles, as its seed says.

It garbles answers only, and only where HTTP or what it carries shows it (the first bytes of a chunk, or of the body in
it; of a file nothing after its beginning, and nothing of the rest of one that broke off): over TLS, which the service
speaks, any changed byte ends the connection, so that silent changes can't be met.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

How = Literal["cut", "reset", "stall", "trickle", "garble"]
HOW: Final[tuple[How, ...]] = get_args(How)
GARBAGE = b"\x00\xff\x00\xff\x00\xff\x00\xff"
TRICKLED_BYTES = 1_500
_BEGINS_A_FILE: Final = re.compile(rb"HTTP/1\.\d (?!206)")
LONGEST_STALL_S = 0.4


@dataclass
class Harm:
    """What befalls one direction of one connection."""

    how: How | None = None
    at_byte: int = 0
    seconds: float = 0.0
    piece_bytes: int = 1


class _CutError(Exception):
    """The connection is over."""


class Proxy:
    """Listens on a port of its own; `to` tells the port behind it. What a client sent goes on to the service, also
    after a stall in which that client died."""

    def __init__(
        self, rng: random.Random, to: Callable[[], int], harmed: float, *, carries_files: bool = False
    ) -> None:
        self.harmed = harmed  #: the share of connections that something befalls
        self.done: Counter[How] = Counter()  #: what befell connections, counted
        self._rng = rng
        self._to = to
        self._carries_files = carries_files
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _draw(self, *, answers: bool) -> Harm:
        rng = self._rng
        if rng.random() > self.harmed / 2:  # each direction has its half
            return Harm()
        how = rng.choice(HOW if answers else HOW[:-1])
        # From the first byte to some requests later: connections are kept alive.
        return Harm(how, int(rng.expovariate(1 / 900)), rng.uniform(0.05, LONGEST_STALL_S), rng.randint(1, 40))

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            up, upward = await asyncio.open_connection("127.0.0.1", self._to())
            writers.append(upward)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, upward, self._draw(answers=False)))
                pumps.create_task(self._pump(up, writer, self._draw(answers=True)))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # either side is gone, or we are: both go
        finally:
            self._connections.discard(task)
            for each in writers:
                each.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, harm: Harm) -> None:
        passed = 0
        while data := await source.read(1 << 16):
            begin, passed = passed, passed + len(data)
            if harm.how == "trickle" and begin < TRICKLED_BYTES:
                self._note(harm, once=begin == 0)
                await self._trickle(sink, data, harm.piece_bytes)
            elif begin <= harm.at_byte < passed and harm.how is not None:
                self._note(harm)
                await self._harm(sink, data, harm.at_byte - begin, harm)
            else:
                await _send(sink, data)
        with contextlib.suppress(OSError):
            sink.write_eof()

    async def _harm(self, sink: asyncio.StreamWriter, data: bytes, place: int, harm: Harm) -> None:
        if harm.how == "garble":
            if self._carries_files and not _BEGINS_A_FILE.match(data):
                await _send(sink, data)
                return
            head = data.find(b"\r\n\r\n") + 4
            start = head if head >= 4 and harm.at_byte % 2 and head < len(data) else 0
            await _send(sink, data[:start] + GARBAGE + data[start + len(GARBAGE) :])
            return
        await _send(sink, data[:place])
        if harm.how == "stall":
            await asyncio.sleep(harm.seconds)
            await _send(sink, data[place:])
            return
        if harm.how == "reset":
            sink.transport.abort()
        raise _CutError

    async def _trickle(self, sink: asyncio.StreamWriter, data: bytes, piece_bytes: int) -> None:
        for place in range(0, min(len(data), TRICKLED_BYTES), piece_bytes):
            await _send(sink, data[place : min(place + piece_bytes, TRICKLED_BYTES)])
            await asyncio.sleep(0.001)
        await _send(sink, data[TRICKLED_BYTES:])

    def _note(self, harm: Harm, *, once: bool = True) -> None:
        if harm.how is not None:
            self.done[harm.how] += once


async def _send(sink: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        sink.write(data)
        await sink.drain()
