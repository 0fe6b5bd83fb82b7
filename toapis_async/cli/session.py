"""An open client for one command, with the sandbox inside when asked for, and a memory of what must not be lost."""

from __future__ import annotations

import errno
import shlex
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from attrs import evolve

from toapis_async.cli.notices import Notices
from toapis_async.cli.options import DEFAULT_SPEED
from toapis_async.cli.output import SOME_FAILED, CliError
from toapis_async.client import ToAPIs
from toapis_async.events import SubmitLost, TaskAccepted, TaskEnded
from toapis_async.protocol.wording import count
from toapis_async.settings import TIERS, Credentials, Journal, RateLimits, Settings
from toapis_async.shared import OFF
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
    from decimal import Decimal
    from pathlib import Path

    from toapis_async.batch.item import RunningRow
    from toapis_async.cli.options import Options
    from toapis_async.cli.output import Output
    from toapis_async.events import Event
    from toapis_async.sandbox import Sandbox
    from toapis_async.sandbox import Tier as SandboxTier

SANDBOX_KEY = "sk-sandbox"
SANDBOX_FOLDER = ".sandbox"
_KNOBS = (
    "proxy",
    "tier",
    "max_in_flight",
    "first_poll_s",
    "min_poll_interval_s",
    "reconcile_window_s",
    "allow_private_links",
)


class Pending:
    """Tasks that are paid for and whose images are not on disk yet; kept from the library's events."""

    def __init__(self) -> None:
        self._accepted: dict[str, str | None] = {}
        self._doubtful: dict[str, None] = {}

    def note(self, event: Event) -> None:
        if isinstance(event, TaskAccepted):
            self._accepted[event.task_id] = event.client_business_id
        elif isinstance(event, TaskEnded) and event.status is TaskStatus.FAILED:
            self._accepted.pop(event.task_id, None)
        elif isinstance(event, SubmitLost):
            self._doubtful[event.client_business_id] = None

    def settled(self, task_id: str | None, client_business_id: str | None = None) -> None:
        """The command has printed this one."""
        self._accepted.pop(task_id or "", None)
        self._doubtful.pop(client_business_id or "", None)

    def sent(self, rows: Iterable[RunningRow]) -> list[RunningRow]:
        """Those of a batch's unfinished rows that went out, with the task ids that came while the client closed."""
        late = {business_id: task_id for task_id, business_id in self._accepted.items()}
        known = [evolve(row, task_id=row.task_id or late.get(row.client_business_id or "")) for row in rows]
        return [row for row in known if row.task_id or row.client_business_id in self._doubtful]

    def __bool__(self) -> bool:
        return bool(self._accepted or self._doubtful)

    def warn(self, out: Output, command: Callable[[Iterable[str]], str]) -> None:
        """Print the ids of all that is left, with the command that fetches the files of some ids."""
        for task_id, business_id in self._accepted.items():
            out.warn(f"  {task_id}  {business_id or ''}".rstrip())
        if self._accepted:
            tasks = count(len(self._accepted), "task")
            out.warn(f"{tasks} (above) still running or not fetched yet, and paid for; to fetch:")
            out.warn(f"  {command(self._accepted)}")
        for business_id in self._doubtful:
            out.warn(f"  {business_id}")
        if self._doubtful:
            out.warn(f"{count(len(self._doubtful), 'submission')} (above) perhaps accepted, nobody knows; to fetch:")
            out.warn(f"  {command(self._doubtful)}")


class Session:
    """An open client for one command. Making it raises for a missing key (`ClientStateError`) or a wrong setting
    (`CliError`)."""

    def __init__(self, options: Options, out: Output, prices: Mapping[str, Decimal] | None = None) -> None:
        self._settings = evolve(settings_of(options, self._on_event), prices=prices or {})
        if not options.sandbox:
            Credentials.resolve(None, options.base_url)
        self.options = options
        self.out = out
        self.pending: Pending = Pending()
        self.watch: Callable[[Event], None] | None = None
        self.notices: Notices = Notices(out, self._settings.submit_retry_s)
        self._client: ToAPIs | None = None

    @property
    def client(self) -> ToAPIs:
        assert self._client is not None
        return self._client

    @asynccontextmanager
    async def opened(
        self, state_dir: Path | None = None, journal: Journal | None = None, make: Callable[..., ToAPIs] | None = None
    ) -> AsyncGenerator[Session]:
        """Open, and close whatever happens. `make` makes the client, by default `ToAPIs`."""
        async with AsyncExitStack() as stack:
            key = base_url = None
            if self.options.sandbox:
                sandbox = await _started(self.out, self.options, state_dir)
                stack.push_async_callback(sandbox.aclose)
                key, base_url = SANDBOX_KEY, sandbox.base_url
            client = (make or ToAPIs)(
                key,
                base_url=base_url or self.options.base_url,
                settings=self._settings,
                journal=journal,
                shared=OFF if self.options.sandbox else self.options.shared,
            )
            self._client = client
            async with client:
                yield self

    @property
    def sandbox_name(self) -> str | None:
        """What a view calls the sandbox; None for the service."""
        speed = self.options.speed or DEFAULT_SPEED
        return f"sandbox at {speed:g}\N{MULTIPLICATION SIGN}" if self.options.sandbox else None

    def fetch_command(self, ids: Iterable[str], folder: Path) -> str:
        """The command that waits for tasks and saves their files into `folder`."""
        command = ["toapis", "fetch", *ids]
        if str(folder) != ".":
            command += ["--out", str(folder)]
        if self.options.sandbox:
            command.append("--sandbox")
        for name in ("base_url", "proxy"):
            if (value := getattr(self.options, name)) is not None:
                command += [f"--{name.replace('_', '-')}", value]
        return shlex.join(command)

    def _on_event(self, event: Event) -> None:
        self.pending.note(event)
        self.notices.on_event(event)
        if self.watch is not None:
            self.watch(event)


def settings_of(options: Options, on_event: Callable[[Event], None] | None = None) -> Settings:
    """The library's settings. For the sandbox, waits are divided and rates multiplied by its speed, as its own are."""
    given: dict[str, Any] = {}
    if options.sandbox:
        speed, limits, defaults = options.speed or DEFAULT_SPEED, TIERS[_sandbox_tier(options)], Settings()
        given = {
            "first_poll_s": defaults.first_poll_s / speed,
            "min_poll_interval_s": defaults.min_poll_interval_s / speed,
            "reconcile_window_s": defaults.reconcile_window_s / speed,
            "limits": RateLimits(
                submit_per_s=limits.submit_per_s * speed,
                submit_burst=limits.submit_burst,
                query_per_s=limits.query_per_s * speed,
                query_burst=limits.query_burst,
            ),
        }
    given |= {name: value for name in _KNOBS if (value := getattr(options, name)) is not None}
    try:
        return Settings(on_event=on_event, **given)
    except ValueError as error:
        raise CliError(str(error)) from None


def _sandbox_tier(options: Options) -> SandboxTier:
    return "default" if options.tier is None or options.tier == "auto" else options.tier


def draws_pictures(out: Output) -> bool:
    """Whether the sandbox can draw its pictures; prints what is missing if it can't."""
    if find_spec("PIL") is not None:
        return True
    out.note("the sandbox's pictures are plain without Pillow: pip install 'toapis-async[sandbox]' has them drawn")
    return False


async def _started(out: Output, options: Options, state_dir: Path | None) -> Sandbox:
    from toapis_async.sandbox import Sandbox  # noqa: PLC0415  (only those who ask for it wait for aiohttp.web)

    sandbox = Sandbox(
        speed=options.speed or DEFAULT_SPEED,
        seed=options.seed or 0,
        tier=_sandbox_tier(options),
        state_dir=state_dir,
        pictures=draws_pictures(out),
    )
    await start(sandbox)
    return sandbox


async def start(sandbox: Sandbox) -> None:
    """Start a sandbox, or raise a `CliError` that says in one line why it can't."""
    from toapis_async.sandbox import StateDirError  # noqa: PLC0415

    try:
        await sandbox.start()
    except StateDirError as error:
        raise CliError(str(error)) from None
    except OSError as error:
        hint = "; take others with --port and --files-port (0: any free)" if error.errno == errno.EADDRINUSE else ""
        raise CliError(f"the sandbox can't start: {error.strerror or error}{hint}", SOME_FAILED) from None
