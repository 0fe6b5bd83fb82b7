"""The session manager: one object that owns every lifetime."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, Unpack

from attrs import evolve

from toapis_async.batch.batch import Batch
from toapis_async.batch.options import BatchOptions
from toapis_async.engine import account
from toapis_async.engine.core import ClientStatistics, Engine
from toapis_async.engine.describing import asked_of
from toapis_async.engine.journal.writer import JournalWriter
from toapis_async.engine.recovery import Recovery, watch_again
from toapis_async.engine.shared.opening import checked_shared, open_store
from toapis_async.engine.shared.port import Channel
from toapis_async.engine.submitter import mint_business_id
from toapis_async.errors import TaskNotFound
from toapis_async.handle import StoredHandle, TaskHandle, patience_of, wait_timeout
from toapis_async.lifetime import Lifetime
from toapis_async.protocol.endpoints import endpoints_of
from toapis_async.protocol.token import decode_token
from toapis_async.protocol.wire import decode_balance, decode_models
from toapis_async.request import check_task_id, request_of
from toapis_async.settings import Credentials, Journal, Settings, checked_budget
from toapis_async.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from decimal import Decimal
    from os import PathLike

    from toapis_async.batch.places import SaveTo
    from toapis_async.batch.rows import Source
    from toapis_async.engine.entry import Entry
    from toapis_async.engine.shared.port import Store
    from toapis_async.engine.uploads import Uploadable
    from toapis_async.events import Event
    from toapis_async.models import Balance, Generation, Learned, Model, Price, Upload
    from toapis_async.request import ImageFields, Kind, Request
    from toapis_async.shared import Shared
    from toapis_async.task import TaskSnapshot


class ToAPIs(Lifetime):
    """The client. One belongs to one event loop, and may be opened in one task and closed in another.

    `api_key` and `base_url` default to TOAPIS_API_KEY and TOAPIS_BASE_URL, read now. Raises `ClientStateError` when
    there is no usable key or address.

    With a `journal` (a path), every submission is written down before it is sent, so that nothing is paid twice and no
    image is lost when the process dies: see `batch(run=…)` and `recovered()`. With `budget_credits`, nothing is sent
    that could bring this session's cost over so many credits (`BudgetExceeded`); `Settings(prices=…)` says what an
    image costs.

    With `shared` (`"host"`, a `redis://` URL or a `Shared`; by default what TOAPIS_SHARED says now), the processes of
    one account keep to its limits together; `"off"` turns that off. Raises `InvalidRequest` for any other word.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        settings: Settings | None = None,
        journal: str | PathLike[str] | Journal | None = None,
        budget_credits: float | Decimal | None = None,
        shared: str | Shared | Store | None = None,
    ) -> None:
        super().__init__()
        self._credentials = Credentials.resolve(api_key, base_url)
        self._settings = settings or Settings()
        self._journal = journal if journal is None or isinstance(journal, Journal) else Journal(journal)
        self._budget_credits = checked_budget(budget_credits)
        self._shared = checked_shared(shared)

    async def _opened(self) -> Engine:
        async with AsyncExitStack() as opened:
            if (store := await open_store(self._shared, self._credentials)) is not None:
                opened.push_async_callback(store.aclose)
            journal = recovery = None
            if self._journal is not None:
                journal = await JournalWriter.open(self._journal, self._credentials)
                opened.push_async_callback(journal.aclose)
                recovery = await Recovery.of(journal)
            engine = Engine(
                self._credentials,
                self._settings,
                journal=journal,
                recovery=recovery,
                budget_credits=self._budget_credits,
                store=store,
                ends_channel=store if isinstance(store, Channel) else None,
            )
            opened.pop_all()
            opened.push_async_callback(engine.aclose)
            await engine.ready()
            opened.pop_all()
            return engine

    # -------------------------------------------------------------------------------------- tasks

    async def generate(
        self,
        prompt_or_request: Request | Mapping[str, Any] | str,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[ImageFields],
    ) -> Generation:
        """Submit and wait for the images, or the video of a `VideoRequest`. `fields` are those of `ImageRequest`.

        Raises what `submit` and `TaskHandle.result` raise. `WaitTimeout` after `timeout_s` (seconds, all of it
        included) detaches: what was submitted still runs and is still paid for.
        """
        engine = self._open_engine()
        request = request_of(prompt_or_request, **fields)
        business_id = request.given_business_id or mint_business_id()
        if timeout_s is not None:
            return await _generate_within(timeout_s, engine, request, business_id)
        entry = await engine.submitter.submit(request, business_id)
        asked = asked_of(request)
        del prompt_or_request, fields, request  # 100,000 that wait must not keep theirs
        engine.unclaimed.claim(business_id)
        try:
            if not entry.ended:  # waited for here: a handle and its coroutine would be a fifth of what is kept
                waiter = entry.waiter_for_end()
                try:
                    await waiter
                finally:
                    entry.current.leave(waiter)
            return await _handle(engine, entry, asked).result()
        except asyncio.CancelledError:
            engine.unclaimed.leave(business_id)
            raise

    async def submit(self, request: Request | Mapping[str, Any] | str) -> TaskHandle:
        """Submit, and return once the service has taken the task. A mapping's member `kind` may say `"video"`.

        Raises `InvalidRequest`, the service's refusals (`ServiceError` and below), `TransportError` when it certainly
        was not sent, and `SubmitUncertain` when nobody knows. A caller that is cancelled gets `CancelledError`; a
        submission then under way is finished by the client and listed in `unclaimed()`.
        """
        engine = self._open_engine()
        request = request_of(request)
        business_id = request.given_business_id or mint_business_id()
        return _handle(engine, await engine.submitter.submit(request, business_id), asked_of(request))

    def attach(self, task_id: str, kind: Kind | None = None) -> TaskHandle:
        """Watch a task that was submitted elsewhere or earlier; its `client_business_id` serves as well, and
        `TaskHandle.token()` best: it holds the kind and the age, too.

        The first poll is at once, for an image unless `kind` says otherwise, and for a video once when no image has
        that id. Waiting raises `TaskNotFound` when the service does not know it.
        """
        engine = self._open_engine()
        if (token := decode_token(task_id) if isinstance(task_id, str) else None) is not None:  # pyright: ignore[reportUnnecessaryIsInstance]
            return _handle(engine, watch_again(engine.tasks, token))
        checked_id = check_task_id(task_id)
        endpoint, *others = endpoints_of(kind)
        known = engine.tasks.get(checked_id, (endpoint.kind, *(other.kind for other in others)))
        fallback = next(iter(others), None)
        return _handle(engine, known or engine.tasks.watch(endpoint, checked_id, start="unknown", fallback=fallback))

    async def find(self, client_business_id: str, kind: Kind | None = None) -> TaskHandle | None:
        """The task submitted with this id, watched from now on; None when the service knows none, neither as an image
        nor as a video (or, with a `kind`, as such).

        None is no proof right after a submission: the service does not say how soon a task can be found.
        """
        engine = self._open_engine()
        business_id = check_task_id(client_business_id, "client_business_id")
        try:
            snapshot, endpoint = await engine.retried(lambda: engine.queries.find(business_id, endpoints_of(kind)))
        except TaskNotFound:
            return None
        entry = engine.tasks.watch(
            endpoint,
            snapshot.task_id,
            start="new",
            query_id=business_id,
            client_business_id=snapshot.client_business_id,
            snapshot=snapshot,
        )
        return _handle(engine, entry)

    async def status(self, task_id: str, kind: Kind | None = None) -> TaskSnapshot:
        """One query, no watching; without a `kind` a second one, for a video, when no image has that id. Raises
        `TaskNotFound`, other `ServiceError`s and `TransportError`."""
        engine, checked_id = self._open_engine(), check_task_id(task_id)
        snapshot, _ = await engine.retried(lambda: engine.queries.status(checked_id, endpoints_of(kind)))
        return snapshot

    def unclaimed(self) -> tuple[str, ...]:
        """The `client_business_id`s of submissions whose caller went away (cancelled, or out of patience): `find` or
        `attach` them, which takes them off this list.

        The latest 10,000 are kept.
        """
        return self._used_engine().unclaimed.ids

    def recovered(self) -> tuple[TaskHandle, ...]:
        """Handles of the plain submissions (not those of a batch's run) that an earlier process left in this journal:
        unfinished ones, and those that finished within the life of their links but were neither saved through the
        client nor acknowledged. They are watched from the first call on, and the list stays the same.

        The newest 10,000 are listed, oldest first; `statistics().recoverable` counts them all. Awaiting one raises
        `TaskNotFound` when the service turns out never to have taken it.
        """
        engine = self._open_engine()
        if engine.recovery is None:
            return ()
        return tuple(_handle(engine, entry) for entry in engine.recovery.entries(engine.tasks))

    # -------------------------------------------------------------------------------------- the rest

    async def upload(self, source: Uploadable) -> Upload:
        """Send a picture (JPEG, PNG, WebP or GIF, at most 10,000,000 bytes) or a video (MP4, WebM or MOV, at most
        50,000,000) to be used as a reference [docs].

        `source` is a path, bytes or a file opened in binary mode. Raises `InvalidRequest` before sending.
        """
        return await self._open_engine().uploads.upload(source)

    async def balance(self, scope: Literal["key", "user"] = "key") -> Balance:
        """What is left on this key, or on the whole account (`"user"`)."""
        if scope not in {"key", "user"}:
            raise ValueError(f"scope={scope!r}: known are 'key' and 'user'")
        path = "/balance" if scope == "key" else "/user/balance"
        return decode_balance(await account.query(self._open_engine(), "balance", path))

    async def models(self, type: str = "image") -> tuple[Model, ...]:  # noqa: A002  (the service's own word)
        """The models the service offers, by type (`image`, `video`, …)."""
        return decode_models(await account.query(self._open_engine(), "models", "/models", {"type": type}))

    async def prices(self, model: str | None = None, type: Kind = "image") -> tuple[Price, ...]:  # noqa: A002
        """This key's prices in USD, discounts included: of one model, else of all of a type (`image`, `video`). They
        change, and are no quote [docs]. A row whose price can't be read is left out."""
        return await account.prices(self._open_engine(), model, type)

    def batch(
        self,
        source: Source,
        *,
        key: Callable[[Any], str] | str | None = None,
        save_to: SaveTo | None = None,
        max_in_flight: int | None = None,
        budget_credits: float | Decimal | None = None,
        run: str | None = None,
        max_images: int | None = None,
        retry_failed: bool = False,
        attempts: int = 1,
        kind: Kind = "image",
        progress: bool = False,
        embed: bool = False,
    ) -> Batch:
        """Many requests at once, each an item with its result or its error. See `Batch`.

        `kind` is what rows are that have no member `kind`. `key` names the rows: a function of the row, or the name of
        its column (default: its `key` column if any). With `save_to`, a folder or one for each kind
        (`{"image": …, "video": …}`), an item is done when its files are on disk; with `embed` they say how they were
        made (see `Generation.save`).

        `run` names this batch in the client's journal: the same run again, by any process, takes up what is there
        instead of paying for it again. Rows are known by their key, or by what they ask for; those that failed are
        given as they failed, or with `retry_failed` submitted anew (and paid for).

        A row whose task failed, though not for its content, is submitted anew, `attempts` times in all, but only after
        a failure that is refunded or has no bill; a pending bill is asked for first, for up to 15 minutes.

        `budget_credits` and `max_images` cap what the batch may come to, earlier passes of its run included. A row that
        could pass a cap waits for what still runs; when that leaves no room, its item has `BudgetExceeded`.

        `progress` shows a bar on stderr (a line every few seconds where that is no terminal); in a notebook, in the
        cell's output with the latest pictures.
        """
        options = BatchOptions(
            key=key,
            save_to=save_to,
            max_in_flight=max_in_flight,
            budget_credits=budget_credits,
            run=run,
            max_images=max_images,
            retry_failed=retry_failed,
            attempts=attempts,
            kind=kind,
            progress=progress,
            embed=embed,
        )
        return Batch(self._open_engine(), source, options)

    @property
    def webhooks(self) -> Webhooks:
        """Events pushed by the service. Raises `ClientStateError` without `Settings(webhook_secrets=…)`."""
        return Webhooks(self._settings.webhook_secrets, self._open_engine)

    @property
    def base_url(self) -> str:
        """The API's root, ending in /v1."""
        return self._credentials.base_url

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Give `listener` every event from now on, as `Settings(on_event=…)` does from the start. Raises `ValueError`
        when it is not callable."""
        self._settings = evolve(self._settings, on_event=(*self._settings.on_event, listener))
        if self._engine is not None:
            self._engine.emit.add(listener)

    def statistics(self) -> ClientStatistics:
        """A snapshot of the counters. May be called from any thread."""
        return self._used_engine().statistics()

    def learned(self) -> Learned:
        """How long each class of requests has been seen to take: give it to the next session's `Settings(prior=…)`."""
        return self._used_engine().learned()

    def __repr__(self) -> str:
        watching = f", {len(self._engine.tasks)} in flight" if self._engine else ""
        return f"<ToAPIs {self._credentials.base_url} {self._state.name.lower()}{watching}>"


async def _generate_within(timeout_s: float, engine: Engine, request: Request, business_id: str) -> Generation:
    handle: TaskHandle | None = None
    patience = patience_of(timeout_s)
    try:
        async with patience:
            handle = _handle(engine, await engine.submitter.submit(request, business_id), asked_of(request))
            return await handle.result()
    except TimeoutError:
        if not patience.expired():
            raise
        if handle is not None and handle.done:  # in the very tick of the time-out: what is known beats impatience
            return await handle.result()
        if handle is not None:
            engine.unclaimed.leave(business_id)
        raise wait_timeout(timeout_s, handle, business_id) from None
    except asyncio.CancelledError:
        if handle is not None:
            engine.unclaimed.leave(business_id)
        raise


def _handle(engine: Engine, entry: Entry, asked: Mapping[str, object] | None = None) -> TaskHandle:
    entry = entry.current
    engine.unclaimed.claim(entry.client_business_id or entry.task_id)
    loop = asyncio.get_running_loop()
    if engine.recovery is not None and entry.ended and not entry.has_snapshot and entry.error is None:
        return StoredHandle(entry, engine.saving, loop, engine.recovery.read)
    return TaskHandle(entry, engine.saving, loop, asked)
