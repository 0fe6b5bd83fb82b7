"""What of a run lives on a Dask cluster: the desk on the scheduler, and on each worker one engine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import evolve, field, frozen
from distributed import get_worker
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin
from distributed.protocol import pickle as dask_pickle
from distributed.worker_state_machine import SecedeEvent

from toapis_async.engine import account
from toapis_async.engine.core import Engine
from toapis_async.engine.desk.line import Line
from toapis_async.engine.desk.remote import RemoteJournal
from toapis_async.engine.desk.server import Desk, Opening
from toapis_async.engine.shared.port import StoreLost
from toapis_async.errors import ToAPIsError
from toapis_async.log import logger
from toapis_async.parts import items_of, row_names
from toapis_async.protocol.naming import digest, slug
from toapis_async.settings import Credentials, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from distributed import Scheduler, Worker

    from toapis_async.batch.item import BatchItem
    from toapis_async.engine.desk.line import Call
    from toapis_async.parts import Part, PartOptions
    from toapis_async.protocol.leasing import Ask, Grant
    from toapis_async.protocol.pricing import ServicePrices
    from toapis_async.protocol.tiers import Category

DESK: Final = "toapis-desk"
_SECONDS: Final = 1e-3
_dask_pickle: Any = dask_pickle  # also of what is defined in a script


def crew_name(session: str) -> str:
    """The worker plugin of one pass."""
    return f"toapis-{session}"


# ---------------------------------------------------------------------------------------------- the scheduler


class DeskPlugin(SchedulerPlugin):
    """The desk, beside the scheduler. One serves all runs of a cluster."""

    name = DESK
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Take calls."""
        self._desk = Desk()
        self._scheduler = scheduler
        self._cleaning: set[asyncio.Task[None]] = set()
        its: Any = scheduler
        its.handlers["toapis_desk"] = self.serve

    async def serve(self, what: str, packed: bytes) -> bytes:
        """Do what a worker or a driver asks for: a method's name and its pickled arguments; its pickled result or
        error. (Whoever reaches a Dask scheduler can run code on it by other means.)"""
        acts: dict[str, Callable[..., Awaitable[object]]] = {
            "salt": self._salt,
            "begin": self._begin,
            "end": self._desk.end,
            "stop": self._stop,
            "counts": self._counts,
            "workers": self._workers,
            "paid_page": self._desk.paid_page,
            "exchange": self._desk.exchange,
            "lease": self._lease,
        }
        result: object
        try:
            result = await acts[what](*pickle.loads(packed))  # noqa: S301
        except (ToAPIsError, KeyError) as error:
            result = error
        return pickle.dumps(result)

    async def _salt(self, run: str, of_account: str, journal: str | None) -> tuple[str, Path]:
        path = Path(journal) if journal is not None else default_journal(run, of_account)
        return await self._desk.salt(path), path

    async def _begin(self, opening: Opening) -> str | None:
        return await self._desk.begin(opening)

    async def _stop(self, session: str) -> None:
        self._desk.stop(session)

    async def _counts(self, session: str) -> dict[str, int]:
        return self._desk.counts(session)

    async def _workers(self) -> int:
        return len(self._scheduler.workers)

    async def _lease(self, of_account: str, category: Category, ask: Ask) -> Grant:
        return self._desk.lease(of_account, category, ask)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A driver has gone. What its engines have sent is still written down; then they are closed."""
        for session in self._desk.driver_left(client):
            cleaning = asyncio.ensure_future(self._clean(session))
            self._cleaning.add(cleaning)
            cleaning.add_done_callback(self._cleaning.discard)

    async def _clean(self, session: str) -> None:
        with suppress(Exception):  # the scheduler is closing, or a worker is gone
            await self._scheduler.unregister_worker_plugin(None, name=crew_name(session))
        try:
            await self._desk.end(session)
        except Exception:  # nobody awaits this task
            logger.exception("the journal of a run whose driver has gone was not closed well")

    async def close(self) -> None:
        """Close the journals."""
        await self._desk.aclose()


def default_journal(run: str, of_account: str) -> Path:
    """Where a run's journal stands on the scheduler's machine: in its user's folder for what programs keep, which is
    not swept as Dask's scratch folder is. A file for each run, since a journal has one user at a time."""
    state = os.environ.get("XDG_STATE_HOME")
    folder = (Path(state) if state else Path.home() / ".local" / "state") / "toapis-async"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{slug(run)}~{digest(f'{run} {of_account}')}.journal"


# ---------------------------------------------------------------------------------------------- a worker


@frozen(kw_only=True, eq=False)
class Recipe:
    """What an engine on a worker is made of. Never part of a task, so that no task shows it."""

    session: str
    options: PartOptions
    settings: Settings
    api_key: str | None = field(repr=False)
    base_url: str | None

    def credentials(self) -> Credentials:
        """The key that was given, or that of this process's environment."""
        return Credentials.resolve(self.api_key, self.base_url)


def account_name(credentials: Credentials) -> str:
    """What stands for a key and its address where nobody may know the key."""
    text = f"toapis-async desk {credentials.base_url} {credentials.api_key}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _DeskOnScheduler:
    """The desk as a worker reaches it: its journal, and its store of turns."""

    kind = "desk"
    lease_s = 0.5

    def __init__(self, worker: Worker, session: str, of_account: str) -> None:
        self._worker = worker
        self._session = session
        self._account = of_account

    async def exchange(self, line: str, number: int, calls: Sequence[Call]) -> Sequence[object]:
        args = (self._session, line, number, calls)
        return cast("Sequence[object]", await ask_desk(self._worker.scheduler, "exchange", *args))

    async def lease(self, category: Category, ask: Ask) -> Grant:
        try:
            grant = await ask_desk(self._worker.scheduler, "lease", self._account, category, ask)
        except OSError as error:
            raise StoreLost(str(error)) from error
        return cast("Grant", grant)

    async def aclose(self) -> None:
        """Nothing of its own is open."""


async def ask_desk(scheduler: Any, what: str, *args: object) -> object:
    """What the desk answers, through a connection to its scheduler. Raises the error that it answers with, and
    `OSError` when there is no connection."""
    packed = await scheduler.toapis_desk(what=what, packed=pickle.dumps(args))
    result: object = pickle.loads(packed)  # noqa: S301
    if isinstance(result, BaseException):
        raise result
    return result


class Crew(WorkerPlugin):
    """One engine of one pass in a worker's process and on its loop: made by the first part, closed with the worker or
    at the end of the pass."""

    def __init__(self, recipe: Recipe) -> None:
        self.name: str = crew_name(recipe.session)
        self.recipe = recipe
        self._engine: Engine | None = None
        self._journal: RemoteJournal | None = None

    def setup(self, worker: Worker) -> None:
        """Remember the worker."""
        self._worker = worker

    async def teardown(self, worker: Worker) -> None:
        """Close the engine. What the service works on is taken up by whoever does the part again."""
        engine, self._engine = self._engine, None
        if engine is not None and self._journal is not None:
            self._journal.hurry()
            await engine.aclose()

    async def prices(self) -> ServicePrices:
        """The service's prices for this key."""
        engine, _ = self._opened()
        return await account.service_prices(engine)

    async def work(self, part: Part) -> list[BatchItem]:
        """Do a part."""
        engine, journal = self._opened()
        run, window_s = self.recipe.options.run, self.recipe.settings.reconcile_window_s
        names = row_names(run, part)
        is_complete = await journal.claim(names)
        try:
            memory = _Memory(journal, window_s, is_complete=is_complete)
            items = await items_of(engine, part, self.recipe.options, memory)
        finally:
            journal.release(names)
        return [evolve(item, request=None) for item in items]  # the driver has it

    def _opened(self) -> tuple[Engine, RemoteJournal]:
        if self._engine is None or self._journal is None:
            recipe = self.recipe
            credentials = recipe.credentials()
            desk = _DeskOnScheduler(self._worker, recipe.session, account_name(credentials))
            self._journal = RemoteJournal(Line(desk), recipe.settings.reconcile_window_s)
            self._engine = Engine(credentials, recipe.settings, journal=self._journal, store=desk)
            self._engine.spending.load_prices = partial(account.service_prices, self._engine)
        return self._engine, self._journal


class _Memory:
    """What the desk knows of how far its journal can be believed."""

    def __init__(self, journal: RemoteJournal, window_s: float, *, is_complete: bool) -> None:
        self.is_complete = is_complete
        self._journal = journal
        self._window_s = window_s

    async def looked_up(self, *, was_found: bool) -> bool:
        return await self._journal.looked_up(was_found=was_found, window_s=self._window_s)


def packed(part: Part) -> bytes:
    """A part as it goes through the cluster. The driver and the scheduler each keep their last thousand messages (the
    `low-level-log-length` of Dask): as objects, those took most of a driver's memory."""
    return zlib.compress(_dask_pickle.dumps(part), 1)


async def do_part(part: bytes, session: str, key: str) -> list[BatchItem]:
    """The task that Dask runs, on the worker's own loop. It gives its place among the worker's threads back at once: it
    mostly waits, and hundreds of its kind fit beside what the cluster does else."""
    worker = get_worker()
    worker.handle_stimulus(SecedeEvent(key=key, compute_duration=_SECONDS, stimulus_id=f"toapis-{key}"))
    return await cast("Crew", worker.plugins[crew_name(session)]).work(unpacked(part))


def unpacked(part: bytes) -> Part:
    """What `packed` packed."""
    return cast("Part", pickle.loads(zlib.decompress(part)))  # noqa: S301


async def who_am_i(session: str) -> tuple[str, str]:
    """The account and the address that a worker works for. Raises `ClientStateError` where there is no key."""
    crew = cast("Crew", get_worker().plugins[crew_name(session)])
    credentials = crew.recipe.credentials()
    return account_name(credentials), credentials.base_url


async def bound_as(session: str, salt: str) -> str:
    """What a journal with this salt keeps of the worker's key."""
    crew = cast("Crew", get_worker().plugins[crew_name(session)])
    return crew.recipe.credentials().account(salt)


async def service_prices(session: str) -> ServicePrices:
    """What the service charges the workers' key."""
    return await cast("Crew", get_worker().plugins[crew_name(session)]).prices()
