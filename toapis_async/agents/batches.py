"""Batches that run beyond the call that began them. Each is a run of the journal: the same batch, begun again by any
process, goes on where it was, and pays for no row twice."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import frozen

from toapis_async.agents.requests import sameness
from toapis_async.agents.rows import requests_from
from toapis_async.engine.journal.reader import fact_of
from toapis_async.engine.threads import in_thread
from toapis_async.errors import InvalidRequest, ToAPIsError
from toapis_async.log import logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from toapis_async.agents.caps import CappedClient
    from toapis_async.agents.folder import Folder
    from toapis_async.agents.jobs import Report
    from toapis_async.batch.item import BatchItem
    from toapis_async.request import Request

Given: TypeAlias = Mapping[str, Any]
"""What an agent gave: its `prompts`, or the name of a `file`."""
PREFIX: Final = "batch-"
"""Tokens of batches begin so, and the names of their files."""


class BatchJob:
    """One batch, and what became of its rows."""

    def __init__(
        self, client: CappedClient, folder: Folder, token: str, rows: Sequence[Mapping[str, Any]], same: str
    ) -> None:
        self._client = client
        self._folder = folder
        self.token = token
        self.same = same  #: what batches of the same rows have in common
        self.rows: Sequence[Mapping[str, Any]] = rows
        self.total: int = len(rows)
        self.items: dict[int, BatchItem] = {}  #: rows that ended, by their place
        self.error: ToAPIsError | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def begin(self) -> BatchJob:
        """Run it, for the first time or once more: rows that are done already cost nothing."""
        self.items.clear()
        self.error = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name="toapis-agent-batch")
        return self

    @property
    def done(self) -> bool:
        return self._task is None or self._task.done()

    @property
    def is_whole(self) -> bool:
        """Whether every row ended well."""
        return len(self.items) == self.total and all(item.ok for item in self.items.values())

    async def _run(self) -> None:
        try:
            batch = self._client.batch(self.rows, save_to=self._folder.path, run=self.token)
            async for item in batch:
                self.items[item.index] = item
                self._changed.set()
            self.error = batch.stopped_by
            if self.is_whole:
                self.rows = ()  # they may hold pictures
        except ToAPIsError as error:
            self.error = error
        except Exception as error:  # a bug, or the system's: told as such, and never lost in a task
            logger.exception("the batch %s ended unexpectedly", self.token)
            self.error = ToAPIsError(f"unexpected {type(error).__name__}: {error}")

    async def wait(self, wait_s: float, report: Report) -> bool:
        """Whether it ended within so many seconds. Leaving earlier leaves it running."""
        if not self.done and wait_s > 0:
            assert self._task is not None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while not self.done:
                        self._changed.clear()
                        changed = asyncio.ensure_future(self._changed.wait())
                        try:
                            await asyncio.wait([self._task, changed], return_when=asyncio.FIRST_COMPLETED)
                        finally:
                            changed.cancel()
                        await self._report(report)
        return self.done

    async def _report(self, report: Report) -> None:
        """What can't be told does not end the wait."""
        try:
            await report(len(self.items), self.total, f"{len(self.items)} of {self.total} rows")
        except Exception as error:  # the host's connection
            logger.debug("progress can't be told: %s", error)

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


class Batches:
    """All of them, by token."""

    def __init__(self, client: CappedClient, folder: Folder, journal: Path) -> None:
        self._client = client
        self._folder = folder
        self._journal = journal
        self._beginning = asyncio.Lock()
        self._batches: dict[str, BatchJob] = {}
        self._newest: dict[str, BatchJob] = {}

    async def begin(self, given: Given, request_id: str | None, *, again: bool) -> tuple[BatchJob, bool]:
        """The batch of these rows, and whether it is an earlier one of this process: of the same `request_id`, or else
        of the same rows. With `again` it is always a new one. Raises `InvalidRequest`."""
        requests = await self._requests(given)
        same = await _sameness(requests)
        identity = f"id:{request_id}" if request_id is not None else same
        name = PREFIX + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        token = f"{name}-{secrets.token_hex(4)}" if again else name
        async with self._beginning:
            known = None if again else self._newest.get(name, self._batches.get(name))
            kept = None if again or known is not None else await self._kept(name)
            earlier = known.same if known is not None else kept.same if kept is not None else same
            if earlier != same:
                raise InvalidRequest(
                    "this request_id was used for another batch: give this one a request_id of its own",
                    field="request_id",
                )
            if known is not None:
                if known.done and not known.is_whole:
                    known.begin()
                return known, True
            if kept is None:
                await self._client.keep(_fact(token), json.dumps({"same": same, **given}))
            batch = self._newest[name] = self._begun(token, requests, same)
        return batch, False

    def find(self, token: str) -> BatchJob | None:
        """The batch of a token; None when this process has begun none."""
        return self._batches.get(token)

    async def was_begun(self, token: str) -> bool:
        """Whether an earlier process began it."""
        return await self._kept(token) is not None

    async def go_on(self, token: str) -> BatchJob | None:
        """The batch of a token, also of one that an earlier process began, which goes on: what that one sent is not
        sent again. None when nobody has begun it. Raises `InvalidRequest` when its rows are others by now."""
        async with self._beginning:
            known = self._batches.get(token)
            kept = None if known is not None else await self._kept(token)
            if kept is None:
                return known
            requests = await self._requests(kept.given)
            if await _sameness(requests) != kept.same:
                raise InvalidRequest(
                    "the files of this batch are others than when it was begun: its rows were not sent again; what was "
                    "made of it is in recent",
                    field="token",
                )
            return self._begun(token, requests, kept.same)

    def _begun(self, token: str, requests: Sequence[tuple[str | None, Request]], same: str) -> BatchJob:
        rows = [
            {**request.as_named(), "kind": request.kind, "key": f"{token}-{key or f'row{number}'}"}
            for number, (key, request) in enumerate(requests, 1)
        ]
        batch = self._batches[token] = BatchJob(self._client, self._folder, token, rows, same).begin()
        return batch

    async def _requests(self, given: Given) -> list[tuple[str | None, Request]]:
        return await in_thread(requests_from, self._folder, given.get("prompts"), given.get("file"))

    async def _kept(self, token: str) -> _Kept | None:
        """What an earlier process wrote down of a batch."""
        text = await in_thread(fact_of, self._journal, _fact(token))
        if text is None:
            return None
        given: dict[str, Any] = json.loads(text)
        return _Kept(given.pop("same"), given)

    async def aclose(self) -> None:
        """Stop all of them. What was sent stays in the journal."""
        await asyncio.gather(*(batch.aclose() for batch in self._batches.values()))


@frozen
class _Kept:
    same: str
    given: Given


def _fact(token: str) -> str:
    return f"agents {token}"


async def _sameness(requests: Sequence[tuple[str | None, Request]]) -> str:
    text = "\n".join([f"{key or ''} {await sameness(request)}" for key, request in requests])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
