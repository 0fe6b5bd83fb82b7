"""What runs beyond the call that began it: one job for each purchase, known by its token (its client_business_id).

A call waits for a job and may leave it; the job goes on, saves its files, and is found again by token, by the agent's
own `request_id`, or because the very same request is made again. The journal finds it in a later process, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from toapis_async.agents.requests import sameness, sameness_of
from toapis_async.engine.journal.reader import latest_of_prefix, record_of_any_id
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import Done, Refused, Send, decide, snapshot_of
from toapis_async.engine.threads import in_thread
from toapis_async.errors import (
    DownloadFailed,
    InvalidRequest,
    LinkExpired,
    SubmitUncertain,
    TaskFailed,
    TaskOverdue,
    ToAPIsError,
)
from toapis_async.log import logger
from toapis_async.protocol.budget import PriceClass, images_of
from toapis_async.protocol.token import decode_token
from toapis_async.request import body_of, check_task_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from toapis_async.agents.caps import CappedClient
    from toapis_async.agents.folder import Folder
    from toapis_async.engine.journal.records import Record
    from toapis_async.handle import TaskHandle
    from toapis_async.request import Kind, Request
    from toapis_async.task import TaskSnapshot

Report: TypeAlias = "Callable[[float, float, str], Awaitable[None]]"
"""Takes progress, what it is out of, and a word about it."""

SAME_FOR_S: Final = 600.0
"""How long the end of a job that no call was given is kept for the very same request."""
MOST_KEPT: Final = 1_000
"""Jobs in memory; of those beyond, the ones that ended first are forgotten, and the journal knows them."""
_NAMED: Final = "agr-"  #: ids of jobs with a `request_id` begin so; its hash follows
_PLAIN: Final = "ag-"
_TO_BE_TRIED: Final = (DownloadFailed, TaskOverdue, SubmitUncertain)
"""Errors after which waiting again may help."""


class Job:
    """One purchase."""

    def __init__(
        self,
        client: CappedClient,
        folder: Folder,
        token: str,
        *,
        kind: Kind | None,
        request: Request | None = None,
        body: Mapping[str, Any] | None = None,
        handle: TaskHandle | None = None,
        same: str | None = None,
    ) -> None:
        """With a `request` it is submitted, or taken up as the journal has it; else its task is watched. `body` is what
        the journal kept of its fields."""
        self._client = client
        self._folder = folder
        self.token = token
        self.kind: Kind | None = kind
        fields = body if request is None else request.body()
        prompt = fields.get("prompt") if fields is not None else None
        self.prompt: str | None = prompt if isinstance(prompt, str) else None
        self.price_class: PriceClass | None = None if fields is None else PriceClass.of(fields)
        self.images: int = 1 if fields is None else images_of(fields)  #: images or videos that it asks for
        self.request = request
        self.same = same
        self.handle = handle
        self.files: tuple[Path, ...] = ()
        self.error: ToAPIsError | None = None
        self.snapshot: TaskSnapshot | None = None  #: the final one
        self.was_told: bool = False  #: a call was given its end
        self.ended_s: float = 0.0  #: loop time
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> Job:
        """Run it, for the first time or once more."""
        self.error = None
        self._taken.clear()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="toapis-agent-job")
        return self

    @property
    def done(self) -> bool:
        return self._task is None or self._task.done()

    @property
    def is_open(self) -> bool:
        """Whether the very same request is this one: it is unfinished, or no call was given its end lately."""
        ended_ago_s = asyncio.get_running_loop().time() - self.ended_s
        return not self.done or (not self.was_told and ended_ago_s < SAME_FOR_S)

    @property
    def task_id(self) -> str | None:
        if self.handle is not None:
            return self.handle.task_id
        return self.snapshot.task_id if self.snapshot is not None else self.error.task_id if self.error else None

    async def _run(self) -> None:
        try:
            if self.handle is None:
                self.handle = await self._taken_up()
            self._taken.set()
            generation = await self.handle
            self.snapshot = self.handle.snapshot
            self.files = await generation.save(self._folder.path)
            self.request = None  # it may hold pictures
        except ToAPIsError as error:
            self.error = error
            self.snapshot = self.handle.snapshot if self.handle is not None else None
            if isinstance(error, DownloadFailed):
                self.files = error.files
            else:
                self.handle = None  # another try asks anew
        except Exception as error:  # a bug, or the system's: told as such, and never lost in a task
            logger.exception("the job %s ended unexpectedly", self.token)
            self.error = ToAPIsError(f"unexpected {type(error).__name__}: {error}")
        finally:
            self.ended_s = asyncio.get_running_loop().time()
            self.was_told = False
            self._taken.set()

    async def _taken_up(self) -> TaskHandle:
        if self.request is not None:
            return await self._client.submit(type(self.request).of(self.request, client_business_id=self.token))
        return self._client.attach(self.token, self.kind)

    def begin_again(self, request: Request | None = None) -> None:
        """Run a job once more that ended without its task's end being known: before it was sent, in doubt, overdue, or
        with files missing. With a `request` also one that was not sent; the journal says what is to be done."""
        if not self.done or self.error is None or isinstance(self.error, TaskFailed | LinkExpired):
            return
        if request is not None:
            self.request = request
            self.begin()
        elif isinstance(self.error, _TO_BE_TRIED):
            self.begin()

    async def wait(self, wait_s: float, report: Report) -> bool:
        """Whether it ended within so many seconds. Leaving earlier (cancelled) leaves it running."""
        if not self.done and wait_s > 0:
            assert self._task is not None
            reporting = asyncio.create_task(self._report(report))
            try:
                await asyncio.wait([self._task], timeout=wait_s)
            finally:
                reporting.cancel()
                await asyncio.wait([reporting])
        return self.done

    async def _report(self, report: Report) -> None:
        """Tell each higher progress. What can't be told ends the telling, not the job."""
        try:
            await self._taken.wait()
            told = -1.0
            if self.handle is None:
                return
            async for snapshot in self.handle.updates():
                if (progress := float(snapshot.progress or 0)) > told:
                    await report(progress, 100.0, snapshot.status.replace("_", " "))
                    told = progress
        except ToAPIsError:
            return
        except Exception as error:  # the host's connection
            logger.debug("progress can't be told: %s", error)

    async def aclose(self) -> None:
        """Stop waiting. What was sent stays in the journal."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


class Jobs:
    """All of them. A call for what was bought already finds it here or in the journal."""

    def __init__(self, client: CappedClient, folder: Folder, journal: Path) -> None:
        self._client = client
        self._folder = folder
        self._journal = journal
        self._jobs: dict[str, Job] = {}
        self._named: dict[str, Job] = {}  # by the prefix that a request_id gives to ids
        self._beginning = asyncio.Lock()

    # -------------------------------------------------------------------------------------- beginning

    async def begin(self, request: Request, request_id: str | None, *, again: bool) -> tuple[Job, bool]:
        """The job of a request, and whether it is an earlier one.

        It is the one of the same `request_id`, whenever that was; or one of the very same request that is unfinished,
        or ended within `SAME_FOR_S` with no call being given its end. With `again` it is always a new one. Raises
        `InvalidRequest` when another request bears the `request_id`.
        """
        same = await sameness(request)
        prefix = None if request_id is None else f"{_NAMED}{_hash(request_id)}-"
        async with self._beginning:
            known = None if again else await self._known(request, same, prefix)
            if known is not None:
                if prefix is not None:
                    self._named[prefix] = known[0]
                return known
            token = f"{_PLAIN}{secrets.token_hex(16)}" if prefix is None else f"{prefix}{secrets.token_hex(4)}"
            return self._begun(request, token, same, prefix), False

    async def _known(self, request: Request, same: str, prefix: str | None) -> tuple[Job, bool] | None:
        job = self._named.get(prefix or "")
        if job is None and prefix is not None:
            record = await in_thread(latest_of_prefix, self._journal, prefix)
            if record is not None:
                _check_same(same, sameness_of(record.intent.request))
                return self._begun(request, record.intent.client_business_id, same, prefix), is_bought(record)
        if job is not None:
            _check_same(same, job.same)
        else:
            job = next((job for job in self._jobs.values() if job.same == same and job.is_open), None)
            if job is None:
                return None
        job.begin_again(request)
        return job, True

    def _begun(self, request: Request, token: str, same: str, prefix: str | None) -> Job:
        job = Job(self._client, self._folder, token, kind=request.kind, request=request, same=same)
        if prefix is not None:
            self._named[prefix] = job
        return self._keep(job.begin())

    def _keep(self, job: Job) -> Job:
        self._jobs[job.token] = job
        if len(self._jobs) > MOST_KEPT:
            ended = next((old for old in self._jobs.values() if not old.is_open), None)
            if ended is not None:
                del self._jobs[ended.token]
                self._named = {name: known for name, known in self._named.items() if known is not ended}
        return job

    # -------------------------------------------------------------------------------------- finding

    def known(self, token: str) -> Job | None:
        """The job in memory that a token names: its own id, its task's id, or what `TaskHandle.token()` gave."""
        names = _names(token)
        return next((job for job in self._jobs.values() if job.token in names or job.task_id in names), None)

    async def record(self, token: str) -> Record | None:
        """What the journal knows of the submission that a token names."""
        for name in _names(token):
            record = await in_thread(record_of_any_id, self._journal, name)
            if record is not None:
                return record
        return None

    async def find(self, token: str) -> Job:
        """The job of a token, also of one from another program. Raises `InvalidRequest` for what is none."""
        job = self.known(token)
        if job is not None:
            job.begin_again()
            return job
        record = await self.record(token)
        if record is not None:
            return self._keep(self._of_record(record))
        return self._keep(Job(self._client, self._folder, token, kind=None).begin())

    def _of_record(self, record: Record, handle: TaskHandle | None = None) -> Job:
        """The job of a submission as the journal knows it."""
        intent = record.intent
        job = Job(
            self._client,
            self._folder,
            intent.client_business_id,
            kind=intent.kind,
            body=body_of(json.loads(intent.request)),
            handle=handle,
            same=sameness_of(intent.request) if intent.run is None else None,
        )
        verdict = decide(record)
        if isinstance(verdict, Done):
            job.snapshot = snapshot_of(record)
            job.files = tuple(self._folder.path / name for _, name in sorted(record.files.items()))
        elif isinstance(verdict, Refused):
            job.error = verdict.error
        elif isinstance(verdict, Send):
            job.error = ToAPIsError("this was not sent, or certainly not accepted: nothing was paid; generate it again")
        else:
            if handle is None and record.task_id is not None:
                job.handle = self._client.attach(record.task_id, intent.kind)
            job.begin()
        return job

    async def take_up(self) -> list[Record]:
        """Watch and save what earlier processes left unfinished, rows of batches too; and tell what that is."""
        recovered = {handle.client_business_id: handle for handle in self._client.recovered()}
        left: list[Record] = []
        async for record in self._client.unsaved():
            handle = recovered.get(record.intent.client_business_id)
            if record.lost_at is not None or (record.intent.run is None and handle is None):
                continue
            job = self._keep(self._of_record(record, handle))
            if job.token.startswith(_NAMED):
                self._named[job.token.rpartition("-")[0] + "-"] = job
            left.append(record)
        return left

    async def aclose(self) -> None:
        """Stop waiting for all of them."""
        await asyncio.gather(*(job.aclose() for job in self._jobs.values()))


def _names(token: str) -> tuple[str, ...]:
    """The ids that a token stands for. Raises `InvalidRequest`."""
    decoded = decode_token(token)
    if decoded is None:
        return (check_task_id(token, "token"),)
    return tuple(filter(None, (decoded.client_business_id, decoded.task_id)))


def prompt_of(record: Record) -> str | None:
    """The prompt of a submission as the journal has it."""
    prompt: Any = json.loads(record.intent.request).get("prompt")
    return prompt if isinstance(prompt, str) else None


def is_bought(record: Record) -> bool:
    """Whether a record stands for something that was paid for, or may have been."""
    return record.state not in {State.WITHDRAWN, State.REFUSED}


def _hash(request_id: str) -> str:
    return hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _check_same(same: str, earlier: str | None) -> None:
    if earlier is not None and same != earlier:
        raise InvalidRequest(
            "this request_id was used for another request: give this one a request_id of its own", field="request_id"
        )
