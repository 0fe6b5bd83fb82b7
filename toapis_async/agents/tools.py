"""The tools' bodies. Each takes checked arguments and gives an `Answer`; an error of the library becomes one, too."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from toapis_async.agents.answers import (
    MOST_RESOURCE_BYTES,
    Answer,
    budget,
    cost,
    described,
    failed,
    quoted,
)
from toapis_async.agents.batches import PREFIX, Batches
from toapis_async.agents.jobs import Jobs, is_bought, prompt_of
from toapis_async.agents.requests import reference, request_from
from toapis_async.agents.schemas import DEFAULT_WAIT_S
from toapis_async.engine.journal.reader import latest, run_status
from toapis_async.engine.journal.records import State
from toapis_async.engine.journal.resume import snapshot_of
from toapis_async.engine.threads import in_thread
from toapis_async.errors import BudgetExceeded, ContentRefused, InvalidRequest, TaskFailed, ToAPIsError
from toapis_async.log import logger
from toapis_async.protocol.budget import PriceClass, images_of
from toapis_async.protocol.filetype import HEAD_BYTES, sniff
from toapis_async.protocol.token import decode_token
from toapis_async.protocol.wording import amount, count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from toapis_async.agents.batches import BatchJob
    from toapis_async.agents.caps import CappedClient
    from toapis_async.agents.folder import Folder
    from toapis_async.agents.jobs import Job, Report
    from toapis_async.batch.item import BatchItem
    from toapis_async.engine.journal.records import Record
    from toapis_async.request import Kind
    from toapis_async.task import TaskSnapshot

MOST_LISTED: Final = 100
_WAITING: Final = frozenset({"generate", "generate_video", "batch", "wait"})
Arguments: TypeAlias = "Mapping[str, Any]"


class Tools:
    """What an agent may do, on one open client and inside one folder."""

    def __init__(self, client: CappedClient, folder: Folder, journal: Path) -> None:
        self._client = client
        self._folder = folder
        self._journal = journal
        self._jobs = Jobs(client, folder, journal)
        self._batches = Batches(client, folder, journal)

    async def take_up(self) -> list[str]:
        """Go on with what earlier sessions left unfinished; a line for each."""
        left = await self._jobs.take_up()
        return [f"{_row(record)}; call wait with its token" for record in left]

    async def aclose(self) -> None:
        """Stop waiting for everything. What was sent stays in the journal."""
        await self._batches.aclose()
        await self._jobs.aclose()

    async def call(self, name: str, arguments: Arguments, report: Report) -> Answer:
        """A tool's answer. `arguments` are of the types of its schema."""
        tool: Callable[..., Awaitable[Answer]] = getattr(self, f"_{name}")
        try:
            return await (tool(arguments, report) if name in _WAITING else tool(arguments))
        except ToAPIsError as error:
            return failed(error)
        except Exception as error:  # a bug, or the system's
            logger.exception("the tool %s ended unexpectedly", name)
            return failed(ToAPIsError(f"unexpected {type(error).__name__}"))

    # -------------------------------------------------------------------------------------- buying

    async def _generate(self, arguments: Arguments, report: Report) -> Answer:
        return await self._bought("image", arguments, report)

    async def _generate_video(self, arguments: Arguments, report: Report) -> Answer:
        return await self._bought("video", arguments, report)

    async def _bought(self, kind: Kind, arguments: Arguments, report: Report) -> Answer:
        fields = dict(arguments)
        wait_s, request_id, again = _taken(fields)
        request = await in_thread(request_from, self._folder, fields, kind)
        job, is_earlier = await self._jobs.begin(request, request_id, again=again)
        ended = await job.wait(wait_s, report)
        answer = await self._ended(job) if ended else self._unfinished(job, wait_s)
        if not is_earlier:
            return answer
        same = "under this request_id" if request_id is not None else "just before, and is the very same"
        return answer.with_lines(
            f"note: this was asked for {same}: nothing more was bought; again=true buys another", first=True
        )

    async def _batch(self, arguments: Arguments, report: Report) -> Answer:
        fields = dict(arguments)
        wait_s, request_id, again = _taken(fields)
        batch, is_earlier = await self._batches.begin(fields, request_id, again=again)
        await batch.wait(wait_s, report)
        answer = await self._of_batch(batch)
        if is_earlier:
            note = "note: this is the same batch as before: rows that are done cost nothing; again=true buys another"
            return answer.with_lines(note, first=True)
        return answer

    # -------------------------------------------------------------------------------------- looking

    async def _wait(self, arguments: Arguments, report: Report) -> Answer:
        token, wait_s = arguments["token"], arguments.get("wait_s", DEFAULT_WAIT_S)
        if token.startswith(PREFIX):
            batch = await self._batches.go_on(token)
            if batch is None:
                raise _no_batch()
            await batch.wait(wait_s, report)
            return await self._of_batch(batch)
        job = await self._jobs.find(token)
        ended = await job.wait(wait_s, report)
        return await self._ended(job) if ended else self._unfinished(job, wait_s)

    async def _status(self, arguments: Arguments) -> Answer:
        token = arguments["token"]
        if token.startswith(PREFIX):
            batch = self._batches.find(token)
            return await (self._of_batch(batch) if batch is not None else self._of_earlier_batch(token))
        job = self._jobs.known(token)
        if job is not None:
            return await self._ended(job, told=False) if job.done else self._unfinished(job, 0)
        record = await self._jobs.record(token)
        if record is not None and record.state not in {State.INTENT, State.ACCEPTED}:
            return Answer((_row(record),))
        decoded = decode_token(token)
        if record is not None:
            snapshot = await self._client.status(record.query_id or token, record.intent.kind)
        elif decoded is not None:
            snapshot = await self._client.status(decoded.query_id, decoded.kind)
        else:
            snapshot = await self._client.status(token)
        return Answer(tuple(_snapshot_lines(snapshot)))

    async def _of_earlier_batch(self, token: str) -> Answer:
        """What the journal knows of a batch that an earlier session began. Nothing is sent."""
        if not await self._batches.was_begun(token):
            raise _no_batch()
        known = await in_thread(run_status, self._journal, token)
        bad = known.failed + known.refused
        sent = count(known.rows - known.withdrawn, "row")
        summary = f"begun by an earlier session: of {sent} that were sent, {known.saved} done, {bad} failed"
        return Answer((summary, f'next: call wait with token "{token}": it goes on, and pays for no row twice'))

    async def _recent(self, arguments: Arguments) -> Answer:
        records = await in_thread(latest, self._journal, arguments.get("limit", 10))
        return Answer((f"{count(len(records), 'submission')}, the newest first", *map(_row, records)))

    async def _prices(self, arguments: Arguments) -> Answer:
        rows = await self._client.prices(arguments.get("model"), arguments.get("kind", "image"))
        lines = [
            f"{quoted(row.model, 80)} {quoted(json.dumps(dict(row.conditions)), 200)}: "
            f"{row.unit_price.normalize():f} USD per {quoted(row.unit, 40)}"
            for row in rows[:MOST_LISTED]
        ]
        more = [f"and {len(rows) - MOST_LISTED} more: name a model"] if len(rows) > MOST_LISTED else []
        return Answer((count(len(rows), "price"), *lines, *more))

    async def _balance(self, _: Arguments) -> Answer:
        found = await self._client.balance()
        left = "unlimited" if found.unlimited_quota else f"{found.remain_credits} credits"
        return Answer((f"left on the key: {left}", *budget(self._client.budget)))

    async def _upload(self, arguments: Arguments) -> Answer:
        content = await in_thread(reference, self._folder, arguments["file"])
        sent = await self._client.upload(content)
        return Answer((f"url: {quoted(sent.url, 2_000)}", "next: use it as a reference"))

    # -------------------------------------------------------------------------------------- resources

    async def resource(self, uri: str) -> tuple[bytes, str]:
        """A picture or video of the folder, and its MIME type. Raises `InvalidRequest` for any other file."""
        content = await in_thread(self._folder.read, uri, MOST_RESOURCE_BYTES)
        kind = sniff(content[:HEAD_BYTES])
        if kind is None:
            raise InvalidRequest("this is no picture or video, and nothing else is given as a resource", field="uri")
        return content, kind.mime_type

    # -------------------------------------------------------------------------------------- answers

    async def _ended(self, job: Job, *, told: bool = True) -> Answer:
        lines, files, previews = await in_thread(described, self._folder, job.files)
        nothing_sent = isinstance(job.error, InvalidRequest | BudgetExceeded | ContentRefused)
        ids = [] if nothing_sent else [f"token: {job.token}"]
        ids += [f"task: {quoted(job.task_id, 200)}"] if job.task_id else []
        told_by_service = [await self._cost_of(job)] if job.snapshot is not None else []
        prompt = [f"prompt: {quoted(job.prompt)}"] if job.prompt else []
        rest = (*lines, *ids, *told_by_service, *budget(self._client.budget), *prompt)
        job.was_told = job.was_told or told
        if job.error is not None:
            paid_again = (
                ["next: another request_id, or again=true, submits it anew (and pays)"]
                if isinstance(job.error, TaskFailed)
                else []
            )
            answer = failed(job.error, *rest, *paid_again)
            return Answer(answer.lines, previews, files, is_error=True)
        unseen = ["note: no preview: the files are at the paths above"] if len(previews) < len(files) else []
        return Answer((f"done: {count(len(job.files), job.kind or 'file')}", *rest, *unseen), previews, files)

    async def _cost_of(self, job: Job) -> str:
        billing = job.snapshot.billing if job.snapshot is not None else None
        if billing is not None or job.error is not None or job.price_class is None:
            return cost(billing)
        price = await self._client.price_of(job.price_class)
        return cost(None, None if price is None else price * job.images)

    async def _cost_of_rows(self, items: Sequence[BatchItem]) -> str:
        """What rows cost: by their bills, and where those are not there yet, by the price."""
        total, unbilled = Decimal(0), 0
        for item in items:
            billing = item.generation.billing if item.generation else None
            if billing is not None and billing.credits is not None:
                total += billing.credits
            elif item.request is not None:
                unbilled += 1
                body = item.request.body()
                total += (await self._client.price_of(PriceClass.of(body)) or Decimal(0)) * images_of(body)
        by_price = f", {count(unbilled, 'row')} by the price" if unbilled else ""
        return f"cost: {amount(total)} credits{by_price}"

    def _unfinished(self, job: Job, wait_s: float) -> Answer:
        handle = job.handle
        state = "waiting for its turn to be submitted" if handle is None else (handle.status or "submitted")
        progress = f", {handle.progress} %" if handle is not None and handle.progress is not None else ""
        within = f" within {wait_s:g} s" if wait_s else ""
        return Answer(
            (
                f"not finished{within}: {state.replace('_', ' ')}{progress}",
                "note: nothing is lost: it goes on, and is paid for once",
                f"token: {job.token}",
                *([f"task: {quoted(handle.task_id, 200)}"] if handle is not None else []),
                f'next: call wait with token "{job.token}"; do not generate it anew',
                *budget(self._client.budget),
            )
        )

    async def _of_batch(self, batch: BatchJob) -> Answer:
        items = [item for _, item in sorted(batch.items.items())]
        good = [item for item in items if item.ok]
        paths = [path for item in items for path in item.files]
        lines, files, previews = await in_thread(described, self._folder, paths[:MOST_LISTED])
        bad = [item for item in items if not item.ok]
        state = "ended" if batch.done else "not finished, it goes on"
        summary = f"{state}: {len(good)} of {batch.total} rows done, {len(bad)} failed"
        following = (
            [f'next: call wait with token "{batch.token}"']
            if not batch.done
            else []
            if batch.is_whole
            else ["next: the same batch again sends the rows that were not sent; it pays for no row twice"]
        )
        more = [f"and {len(paths) - MOST_LISTED} more files"] if len(paths) > MOST_LISTED else []
        rest = (
            *lines,
            *more,
            *map(_failure, bad[:MOST_LISTED]),
            f"token: {batch.token}",
            await self._cost_of_rows(good),
            *budget(self._client.budget),
            *following,
        )
        if batch.error is not None:
            return Answer((summary, *failed(batch.error).lines, *rest), previews, files, is_error=True)
        return Answer((summary, *rest), previews, files, is_error=batch.done and not good)


def _no_batch() -> InvalidRequest:
    return InvalidRequest(
        "no batch of this token was begun here: call batch with its rows; what was paid for is not paid for again",
        field="token",
    )


def _taken(fields: dict[str, Any]) -> tuple[float, str | None, bool]:
    """`wait_s`, `request_id` and `again`, taken out of a call's arguments."""
    request_id: str | None = fields.pop("request_id", None)
    if request_id is not None and not request_id.strip():
        raise InvalidRequest("request_id is empty: leave it out, or give one", field="request_id")
    return fields.pop("wait_s", DEFAULT_WAIT_S), request_id, fields.pop("again", False)


def _failure(item: BatchItem) -> str:
    assert item.error is not None
    return f"row {item.index + 1} failed: {type(item.error).__name__}, {quoted(item.error)}"


def _row(record: Record) -> str:
    """A submission of the journal on one line."""
    parts = [f"token {record.intent.client_business_id}", f"{record.intent.kind} {_state(record)}"]
    if record.answer is not None and record.state in {State.COMPLETED, State.FAILED}:
        with contextlib.suppress(ToAPIsError):  # an answer that can't be read any more
            parts.append(cost(snapshot_of(record).billing))
    if record.files:
        parts.append("files " + ", ".join(quoted(name, 200) for _, name in sorted(record.files.items())))
    if record.intent.run is not None:
        parts.append(f"of the batch {quoted(record.intent.run, 100)}")
    parts.append(f"prompt {quoted(prompt_of(record) or '', 100)}")
    return "; ".join(parts)


def _state(record: Record) -> str:
    words = {State.INTENT: "perhaps submitted", State.ACCEPTED: "unfinished", State.WITHDRAWN: "not sent"}
    saved = "done" if record.is_saved else "done, not saved"
    word = saved if record.state is State.COMPLETED else words.get(record.state, record.state.value)
    return word if is_bought(record) else f"{word}, not paid"


def _snapshot_lines(snapshot: TaskSnapshot) -> list[str]:
    progress = "" if snapshot.progress is None else f", {snapshot.progress} %"
    lines = [f"status: {snapshot.status.replace('_', ' ')}{progress}", f"task: {quoted(snapshot.task_id, 200)}"]
    if snapshot.error is not None:
        lines.append(f"reason: {quoted(f'{snapshot.error.message} ({snapshot.error.code})')}")
    return [*lines, cost(snapshot.billing)]
