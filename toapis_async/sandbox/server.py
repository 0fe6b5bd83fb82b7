"""`Sandbox`: the service on two loopback ports, with everything a test or a demo wants to see and to turn."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from toapis_async.sandbox import clips
from toapis_async.sandbox.answers import Links
from toapis_async.sandbox.api import Api, file_names, last_frame_names
from toapis_async.sandbox.clock import Clock
from toapis_async.sandbox.control import Control
from toapis_async.sandbox.faults import FaultPlan
from toapis_async.sandbox.gallery import Gallery
from toapis_async.sandbox.gate import Gate, KeyRing
from toapis_async.sandbox.jobs import RefusedError
from toapis_async.sandbox.ledger import Ledger
from toapis_async.sandbox.limits import TIERS, Limits, RateLimiter, ResetUnit, Tier
from toapis_async.sandbox.pictures import plain
from toapis_async.sandbox.service import DuplicateIds, Service, ServiceSettings, ServiceTime
from toapis_async.sandbox.store import FolderStore, MemoryStore, Store
from toapis_async.sandbox.tasks import Failure, Task
from toapis_async.sandbox.traffic import RequestLog
from toapis_async.sandbox.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from toapis_async.sandbox.answers import BillingMode
    from toapis_async.sandbox.jobs import Job

_SHUTDOWN_S = 0.05
"""What a handler gets to end by itself: slow answers have been let go by then, half-sent bodies not."""


class PillowMissingError(ImportError):
    """Raised by `Sandbox.start` when pictures are to be drawn and Pillow is not installed."""


class Sandbox:
    """A stand-in for the ToAPIs image and video service. `async with` it, or `await start()` and `await aclose()`.

    Every time that the service takes is in seconds at speed 1 and divided by `speed`: service times,
    `visible_after_s`, refill intervals, `Retry-After`, the 24 hours of a file, the duration of a slow answer.

    - `host`, `port`, `files_port`: where to listen; port 0 takes a free one (with `state_dir`, the one of
      last time if it is still free, so that links and origins stay).
    - `seed`: service times and faults by chance follow from it and from the requests, not from their order.
    - `tier`, `limits`: the buckets; `limits` overrides the tier. `reset_unit`: what `X-RateLimit-Reset`
      counts, which nobody has published.
    - `keys`: key -> user. `None` lets any non-empty bearer key in, all as one user.
    - `credits`: what every user starts with; `None` is an account without a limit.
    - `service_time_s`: seconds, or a function of the `Job`, instead of the model. Infinite: a task waits
      for `finish` or `fail`.
    - `visible_after_s`: how late a task can be found by its `client_business_id`.
    - `duplicate_ids`: what a second submission with a used `client_business_id` meets: `run_again` (accepted
      and charged again), `refuse` (400), `replay` (the first task's answer, not charged).
    - `billing`: when status answers and events carry it.
    - `settle_after_s`: how long after a task's end its bill stays `pending`, and a failed task's credits are not back.
    - `state_dir`: a folder that outlives the sandbox: tasks, uploads, and with them balances and ledger.
    - `pictures`: false serves plain one-coloured pictures of the right size and ready-made videos, and needs no Pillow.
      Videos of the asked size and duration, with the prompt in them, also need PyAV (`toapis-async[video]`).
    - `webhook_url`, `webhook_secret`: what the console holds for every key, see `webhooks`; a tuple of two secrets
      is a rotation.
    - `clock`: Unix seconds. A `Clock` can be put forward, and the sandbox's event loop follows it.
    - `log_size`: how many of the latest requests `requests.log` keeps.
    - `control`: serve the control API under `/_sandbox` and a page at `/`, for whoever reaches the API's port on this
      machine.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        files_port: int = 0,
        seed: int = 0,
        speed: float = 1.0,
        tier: Tier = "default",
        limits: Limits | None = None,
        reset_unit: ResetUnit = "unix",
        keys: Mapping[str, str] | None = None,
        credits: float | None = 100_000.0,  # noqa: A002  the service's own name
        service_time_s: ServiceTime = None,
        visible_after_s: float = 0.0,
        duplicate_ids: DuplicateIds = "run_again",
        billing: BillingMode = "refunds",
        settle_after_s: float = 0.0,
        state_dir: Path | None = None,
        pictures: bool = True,
        webhook_url: str | None = None,
        webhook_secret: str | tuple[str, ...] | None = None,
        clock: Callable[[], float] = time.time,
        log_size: int = 10_000,
        control: bool = False,
    ) -> None:
        if speed <= 0:
            raise ValueError("speed must be positive")
        if tier not in TIERS:
            raise ValueError(f"no tier {tier!r}; there are {', '.join(TIERS)}")
        settings = ServiceSettings(seed, speed, credits, service_time_s, visible_after_s, duplicate_ids, settle_after_s)
        self.faults: FaultPlan = FaultPlan(seed)
        """Which requests go wrong, and how."""
        self.requests: RequestLog = RequestLog(log_size)
        """Counters of all requests, and a log of the latest."""
        self._host = host
        self._wanted_ports = (port, files_port)
        self._ports: tuple[int, int] | None = None
        self._clock = clock
        self._service = Service(settings)
        self.ledger: Ledger = Ledger(self._service, clock)
        """What was really accepted and charged."""
        self._store: Store = MemoryStore() if state_dir is None else FolderStore(state_dir)
        self._closing = asyncio.Event()
        self._stack = AsyncExitStack()
        self._limiter = RateLimiter(limits or TIERS[tier], speed=speed, reset_unit=reset_unit)
        gate = Gate(self.faults, self.requests, self._limiter, KeyRing(keys), clock, speed, self._closing)
        self._pictures = pictures
        self._control = control
        self.webhooks: Webhooks = Webhooks(
            clock, speed, self.faults, links=self._links, billing=billing, log_size=log_size
        )
        """Events sent to a receiver when tasks end, and how it answered."""
        self.webhooks.configure(webhook_url, webhook_secret)
        self._api = Api(gate, self._service, self._store, billing, self._links, lambda: self.files_url, self.webhooks)
        painter, filmer = (
            (_drawn, partial(clips.film, stopped=self._closing.is_set)) if pictures else (plain, clips.ready_made)
        )
        self._gallery = Gallery(gate, self._service, self._store, painter, filmer)

    @property
    def base_url(self) -> str:
        """The API's origin, as in `http://127.0.0.1:8080`; the routes are under `/v1`."""
        return f"http://{self._public_host}:{self._open_ports()[0]}"

    @property
    def files_url(self) -> str:
        """The origin of pictures and uploads."""
        return f"http://{self._public_host}:{self._open_ports()[1]}"

    async def start(self) -> None:
        """Listen on both ports. A sandbox is started once."""
        if self._ports is not None or self._closing.is_set():
            raise RuntimeError("a sandbox is started once; make another one")
        if self._pictures and importlib.util.find_spec("PIL") is None:
            raise PillowMissingError(
                "the sandbox draws its pictures with Pillow: pip install 'toapis-async[sandbox]', "
                "or do without with Sandbox(pictures=False)"
            )
        async with AsyncExitStack() as stack:
            if isinstance(self._clock, Clock):
                loop = asyncio.get_running_loop()
                self._clock.follow(loop)
                stack.callback(self._clock.forget, loop)
            stack.push_async_callback(self._store.aclose)
            kept = await self._store.open()
            for task in kept.tasks:
                self._service.remember(task)
            stack.push_async_callback(self._gallery.aclose)
            self.webhooks.start()
            stack.push_async_callback(self.webhooks.aclose)
            api_port, files_port = self._wanted_ports
            others = Control(self).routes() if self._control else ()
            self._ports = (
                await self._listen(stack, self._api.application(others), api_port, kept.ports[0]),
                await self._listen(stack, self._gallery.application(), files_port, kept.ports[1]),
            )
            await self._store.save_ports(self._ports)
            self._watch_again(kept.tasks)
            self._stack = stack.pop_all()

    async def aclose(self) -> None:
        """Close both ports, within a fraction of a second whatever the clients do. Closing twice is fine."""
        self._closing.set()
        await self._stack.aclose()

    async def __aenter__(self) -> Sandbox:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def finish(self, task_id: str) -> None:
        """Complete a task now. Raises `KeyError` for an unknown task, `ValueError` for one that has ended."""
        self._end(task_id, None)

    def fail(self, task_id: str, code: str = Failure().code, message: str = Failure().message) -> None:
        """Fail a task now and refund it. Raises like `finish`."""
        self._end(task_id, Failure(code, message))

    def now(self) -> float:
        """The time by its clock."""
        return self._clock()

    def advance(self, seconds: float) -> None:
        """Put its clock forward. Raises `ValueError` if that is no `Clock`, or for going back."""
        if not isinstance(self._clock, Clock):
            raise ValueError("this sandbox was made without a clock that can be put forward")  # noqa: TRY004
        self._clock.advance(seconds)

    def reset(self) -> None:
        """Forget tasks, books, faults, requests and events, and fill the buckets; uploads and the receiver stay.

        Raises `ValueError` with a `state_dir`, which is there to be kept.
        """
        if not isinstance(self._store, MemoryStore):
            raise ValueError("a sandbox with a state_dir is not reset: start one on an empty folder")  # noqa: TRY004
        for part in (self._service, self.faults, self.requests, self._limiter, self.webhooks):
            part.reset()

    def __repr__(self) -> str:
        where = "not listening" if self._ports is None or self._closing.is_set() else self.base_url
        return f"<Sandbox {where}: {len(self.ledger)} accepted, {self.requests.total} requests>"

    @property
    def _public_host(self) -> str:
        return f"[{self._host}]" if ":" in self._host else self._host

    def _open_ports(self) -> tuple[int, int]:
        if self._ports is None:
            raise RuntimeError("the sandbox is not started: async with it, or await start()")
        return self._ports

    def _end(self, task_id: str, failure: Failure | None) -> None:
        task: Task | None = self._service.tasks.get(task_id)
        if task is None:
            raise KeyError(task_id)
        self._service.end(task, self._clock(), failure)
        self.webhooks.ended(task)
        self._store.note_task(task)

    def _links(self, task: Task) -> Links:
        origin = f"{self.files_url}/generated"
        return Links(
            [f"{origin}/{name}" for name in file_names(task)], [f"{origin}/{name}" for name in last_frame_names(task)]
        )

    def _watch_again(self, tasks: tuple[Task, ...]) -> None:
        """Events of tasks that an earlier run left unfinished."""
        now = self._clock()
        for task in tasks:
            with suppress(RefusedError):  # the receiver has changed since
                receiver = self.webhooks.receiver_of(task.job.callback_url)
                if receiver is not None and now < task.notified_at:
                    self.webhooks.watch(task, receiver)

    async def _listen(self, stack: AsyncExitStack, app: web.Application, port: int, last: int) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if port == 0 and last != 0:
            try:
                return await self._bound(runner, last)
            except OSError:
                # Somebody else has last time's port: any other will do.
                pass
        return await self._bound(runner, port)

    async def _bound(self, runner: web.AppRunner, port: int) -> int:
        await web.TCPSite(runner, self._host, port).start()
        address: tuple[str, int] = runner.addresses[0]
        return address[1]


def _drawn(job: Job, index: int, reference: bytes | None) -> bytes:
    # Imported by the first picture, in its thread: most tests never download one, and Pillow takes its time.
    from toapis_async.sandbox.pictures.drawing import draw  # noqa: PLC0415

    return draw(job, index, reference)
