"""The options that commands share, as one value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Final, cast, get_args

import click
from attrs import field, fields, frozen

from toapis_async.cli.output import Output
from toapis_async.settings import Settings, Tier, as_credits
from toapis_async.shared import OFF

Command = Callable[..., None]

DEFAULT_SPEED: Final = 20.0
SPEED: Final = click.FloatRange(0.01, 1_000)
_SECONDS: Final = click.FloatRange(min=0, min_open=True)


@frozen
class Options:
    """Where to send requests, how patiently, and how to speak. None: the library's own default."""

    base_url: str | None = None
    proxy: str | None = None
    tier: Tier | None = None
    shared: str | None = field(default=None, repr=False)  #: may hold a password
    max_in_flight: int | None = None
    first_poll_s: float | None = None
    min_poll_interval_s: float | None = None
    reconcile_window_s: float | None = None
    allow_private_links: bool | None = None
    sandbox: bool = False
    speed: float | None = None
    seed: int | None = None
    json: bool = False
    quiet: bool = False

    def output(self) -> Output:
        return Output(json=self.json, quiet=self.quiet)

    @property
    def time_factor(self) -> float:
        """What the service's seconds are here: shorter in the sandbox."""
        return 1 / (self.speed or DEFAULT_SPEED) if self.sandbox else 1.0

    def checked(self) -> Options:
        """Itself, or a usage error for options that contradict each other."""
        if self.sandbox and self.base_url:
            raise click.UsageError("--sandbox brings its own address: leave --base-url out")
        if self.sandbox and self.shared not in {None, OFF}:
            raise click.UsageError("--sandbox is this process's own: leave --shared out")
        if self.sandbox and self.proxy:
            raise click.UsageError("--sandbox runs on this machine, which no proxy reaches: leave --proxy out")
        for name in ("speed", "seed"):
            if getattr(self, name) is not None and not self.sandbox:
                raise click.UsageError(f"--{name} sets the sandbox: add --sandbox")
        return self


@frozen
class BatchOptions:
    """How a batch is to go about its rows."""

    overwrite: bool = False  #: begin anew
    retry_failed: bool = False
    attempts: int = 1  #: submissions of a row, in all
    same_account: bool = False
    embed: bool = False
    verbose: bool = False  #: tell the slowest rows, too
    again: str = ""  #: the command that sends what failed once more
    dry_run: bool = False
    page: bool = True
    dask: str | None = None  #: a scheduler's address, or "local"


@frozen
class Caps:
    """What a batch may come to, and what an image costs."""

    budget_credits: Decimal | None = None
    max_images: int | None = None
    prices: Mapping[str, Decimal] = field(factory=dict[str, Decimal])


def _credits(_: click.Context, __: click.Parameter, value: str | None) -> Decimal | None:
    amount = None if value is None else as_credits(value)
    if value is not None and amount is None:
        raise click.BadParameter(f"{value!r} is no amount of credits")
    return amount


def _prices(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Decimal]:
    prices: dict[str, Decimal] = {}
    for value in values:
        name, mark, amount = value.rpartition("=")
        parts, credits_ = name.split("/"), as_credits(amount)
        if credits_ is None or (mark and not (all(parts) and len(parts) <= 3)):
            example = "2.5 for all images, or gpt-image-2-vip/4k/high=12 for some"
            raise click.BadParameter(f"{value!r} is no [MODEL/RESOLUTION/QUALITY=]CREDITS, such as {example}")
        prices[name or "*"] = credits_
    return prices


BUDGET = click.option(
    "--budget-credits", metavar="CREDITS", callback=_credits, help="Send nothing that could cost more."
)
PRICE = click.option(
    "--price",
    "prices",
    multiple=True,
    callback=_prices,
    metavar="[CLASS=]CREDITS",
    help="What an image costs: of the class MODEL/RESOLUTION/QUALITY (MODEL/RESOLUTION, MODEL), or of all. Repeatable."
    "  [default: the service's price]",
)
KIND: Final = click.Choice(["image", "video"])
JSON = click.option("--json", is_flag=True, help="Machine-readable JSON lines on stdout.")
QUIET = click.option("--quiet", "-q", is_flag=True, help="Only errors on stderr.")
_NAMES: Final = frozenset(field.name for field in fields(Options))
_OPTIONS = (
    click.option(
        "--base-url", metavar="URL", help="The API's address.  [default: $TOAPIS_BASE_URL, https://toapis.com]"
    ),
    click.option("--proxy", metavar="URL", help="An http(s) proxy for everything.  [default: $HTTPS_PROXY, …]"),
    click.option(
        "--tier",
        type=click.Choice(get_args(Tier)),
        help=f"The account's rate limits.  [default: {fields(Settings).tier.default}]",
    ),
    click.option(
        "--shared",
        metavar="host|URL",
        help="Keep to the account's limits together with other processes: those of this machine (host), or all that "
        "use a Redis (redis://…).  [default: $TOAPIS_SHARED]",
    ),
    click.option(
        "--max-in-flight",
        type=click.IntRange(1, 1_000_000),
        help="Tasks the service works on for us at once.  [default: 2000]",
    ),
    click.option("--first-poll-s", type=_SECONDS, help="Wait before the first poll of a task.  [default: 5 s]"),
    click.option(
        "--min-poll-interval-s", type=_SECONDS, help="Least wait between two polls of a task.  [default: 5 s]"
    ),
    click.option(
        "--reconcile-window-s",
        type=_SECONDS,
        help="How long a submission whose answer was lost is looked up before it is sent again.  [default: 30 s]",
    ),
    click.option(
        "--allow-private-links",
        is_flag=True,
        default=None,
        help="Fetch files from this machine and local networks, too, though the API is elsewhere.",
    ),
    click.option(
        "--sandbox", is_flag=True, help="Try without an account: a stand-in of the service inside this process."
    ),
    click.option(
        "--speed",
        type=SPEED,
        help=f"How fast the sandbox's time passes; the waits above are divided by it.  [default: {DEFAULT_SPEED:g}]",
    ),
    click.option("--seed", type=int, help="Other service times in the sandbox.  [default: 0]"),
    JSON,
    QUIET,
)


ENGINE: Final = frozenset(
    {
        *("tier", "shared", "max_in_flight", "first_poll_s", "min_poll_interval_s", "reconcile_window_s"),
        *("allow_private_links", "speed", "seed"),
    }
)
"""What a single question to the service does not heed."""


def service_options(besides: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command the common options; it receives them as its first argument, an `Options`. Those `besides` make no
    difference to it: it takes them, as all commands do, and does not list them."""

    def with_options(command: Command) -> Command:
        @functools.wraps(command)
        def collected(**given: object) -> None:
            common = {field.name: given.pop(field.name) for field in fields(Options)}
            command(Options(**common).checked(), **given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

        for option in reversed(_OPTIONS):
            collected = option(collected)
        for parameter in cast("list[click.Option]", vars(collected)["__click_params__"]):
            parameter.hidden = parameter.name in besides if parameter.name in _NAMES else False
        return collected

    return with_options
