"""The commands about the account, and the sandbox; their bodies and heavy imports are inside."""

# ruff: noqa: PLC0415  (a body's imports take 0.3 s: `toapis --help` must not wait for aiohttp and rich)

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from toapis_async.cli.commands import main
from toapis_async.cli.groups import MODELS, one_of
from toapis_async.cli.options import ENGINE, JSON, QUIET, SPEED, Options, service_options
from toapis_async.cli.output import Output, reported, run
from toapis_async.settings import TIERS

if TYPE_CHECKING:
    from toapis_async.sandbox import Tier

_FOLDER = click.Path(file_okay=False, path_type=Path)


@main.command()
@click.option("--user", is_flag=True, help="The whole account instead of this key.")
@service_options(besides=ENGINE)
def balance(options: Options, user: bool) -> None:
    """Tell how many credits are left and used.

    \b
      toapis balance --user
    """
    with reported(output := options.output()):
        from toapis_async.cli import account

        scope: Literal["key", "user"] = "user" if user else "key"
        run(output, account.balance(options, output, scope))


@main.command(short_help="Upload pictures or videos and print their URLs.")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@service_options(besides=ENGINE)
def upload(options: Options, files: tuple[Path, ...]) -> None:
    """Upload pictures (JPEG, PNG, WebP or GIF, at most 10 MB each) or videos (MP4, WebM or MOV, at most 50 MB), and
    print their URLs.

    \b
      toapis upload kite.png dragon.webp
    """
    with reported(output := options.output()):
        from toapis_async.cli import account

        run(output, account.upload(options, output, files))


@main.command(short_help="List the models, or tell what one takes.")
@click.argument("name", required=False, shell_complete=MODELS)
@click.option(
    "--type",
    "kind",
    default="image",
    show_default=True,
    shell_complete=one_of(lambda _: ("image", "video", "text", "audio", "all")),
    help="image, video, … of the list.",
)
@service_options(besides=ENGINE)
def models(options: Options, name: str | None, kind: str) -> None:
    """List the models that the service offers this key, or tell what the model NAME takes: its fields, their values and
    defaults by its page, and whether this key may use it.

    \b
      toapis models --type video
      toapis models gpt-image-2-vip
    """
    with reported(output := options.output()):
        from toapis_async.cli import models as body

        run(output, body.model(options, output, name) if name else body.models(options, output, kind))


@main.command()
@click.argument("model", required=False, shell_complete=MODELS)
@click.option("--type", "kind", type=click.Choice(["image", "video"]), default="image", show_default=True)
@service_options(besides=ENGINE)
def prices(options: Options, model: str | None, kind: Literal["image", "video"]) -> None:
    """List this key's prices in USD, of all models or of MODEL. They change, and are no quote.

    \b
      toapis prices gpt-image-2
      toapis prices --type video
    """
    with reported(output := options.output()):
        from toapis_async.cli import models as body

        run(output, body.prices(options, output, model, kind))


def _loopback(_: click.Context, __: click.Parameter, host: str) -> str:
    try:
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise click.BadParameter(f"{host} is no loopback address: the sandbox is for this machine only")


@main.command(short_help="Run a stand-in of the service on this machine.")
@click.option("--host", default="127.0.0.1", show_default=True, callback=_loopback, help="Loopback only.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8765, show_default=True, help="0: any free.")
@click.option("--files-port", type=click.IntRange(0, 65_535), default=8766, show_default=True, help="0: any free.")
@click.option("--speed", type=SPEED, default=1.0, show_default=True, help="How fast its time passes.")
@click.option(
    "--tier",
    type=click.Choice(tuple(TIERS)),
    default="default",
    show_default=True,
    help="The rate limits of its account.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Other service times and faults.")
@click.option(
    "--credits",
    "credits_",
    type=click.FloatRange(min=0),
    default=100_000,
    show_default=True,
    help="What the account starts with.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="[KIND:]NAME=PROBABILITY",
    help="Let something go wrong now and then: lost_answer=0.05, query:html_502=0.1, task_fails=0.02 … Repeatable.",
)
@click.option("--state-dir", type=_FOLDER, help="Keep tasks and uploads here.  [default: in memory]")
@click.option(
    "--webhook-url",
    metavar="URL",
    help="Send an event here when a task ends (https, or loopback), signed with $TOAPIS_WEBHOOK_SECRET.",
)
@JSON
@QUIET
def sandbox(
    *,
    json: bool,
    quiet: bool,
    speed: float,
    tier: Tier,
    credits_: float,
    faults: tuple[str, ...],
    webhook_url: str | None,
    **settings: Any,
) -> None:
    """Run a stand-in of the service on this machine until Ctrl-C (which ends it with exit code 0).

    \b
      toapis sandbox --speed 20
      toapis sandbox --port 0 --files-port 0 --json --fault lost_answer=0.05

    Its address in a browser shows its tasks, charges and faults; docs/testing.md tells how to script it from any
    language.
    """
    with reported(output := Output(json=json, quiet=quiet)):
        from toapis_async.cli.sandbox import add_fault, add_receiver, serve
        from toapis_async.cli.session import draws_pictures
        from toapis_async.sandbox import Clock, Sandbox

        settings["pictures"] = draws_pictures(output)
        service = Sandbox(speed=speed, tier=tier, credits=credits_, clock=Clock(), control=True, **settings)
        for fault in faults:
            add_fault(service.faults, fault)
        if webhook_url is not None:
            add_receiver(service, webhook_url)
        run(output, serve(output, service, Options(sandbox=True, speed=speed, tier=tier)))


@main.command(short_help="Print the completion of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete toapis's commands and options; load it in the shell's start-up file.

    \b
      toapis completion bash >> ~/.bashrc
      toapis completion zsh >> ~/.zshrc
      toapis completion fish > ~/.config/fish/completions/toapis.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "toapis", "_TOAPIS_COMPLETE").source())
