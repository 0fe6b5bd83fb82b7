"""The shape of the command line: help in groups, errors in one line, and what a shell may complete."""

# ruff: noqa: PLC0415  (the catalogue takes 0.1 s to load: only a shell that completes waits for it)

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from toapis_async.cli.output import Output, open_closed_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

COMMANDS: Final = {
    "Make": ("generate", "batch"),
    "Look after": ("fetch", "status", "report"),
    "Account": ("models", "prices", "balance", "upload"),
    "Around it": ("sandbox", "mcp", "completion"),
}
OPTIONS: Final = {
    "What to make": (
        *("kind", "model", "size", "resolution", "quality", "n", "duration", "aspect_ratio", "references", "mask"),
        *("background", "metadata", "extra", "callback_url", "client_business_id"),
    ),
    "The rows": (
        "format_",
        "prompt_template",
        "ignore_columns",
        "keep_columns",
        "retry_failed",
        "attempts",
        "overwrite",
    ),
    "Files": ("out", "into", "embed", "opens", "unsaved", "page", "journal"),
    "Money": ("budget_credits", "max_images", "prices", "dry_run"),
    "The service": ("base_url", "proxy", "allow_private_links", "same_account", "dask"),
    "Pace and patience": (
        *("tier", "shared", "max_in_flight", "first_poll_s", "min_poll_interval_s", "reconcile_window_s", "timeout_s"),
        *("watch",),
    ),
    "Without an account": ("sandbox", "speed", "seed"),
    "Output": ("json", "quiet", "verbose", "help"),
}
"""The options by the names of their parameters; what is in no group stands first, under the command's own."""
OWN: Final = "Options"


def groups_of(command: click.Command, context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """The options of a command as its help lists them: by group, each with what it takes and what it does."""
    group_of = {name: group for group, names in OPTIONS.items() for name in names}
    if "host" in {parameter.name for parameter in command.params}:  # `sandbox` is about nothing else
        group_of = dict.fromkeys(group_of, OWN) | dict.fromkeys(OPTIONS["Output"], "Output")
    found: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            found.setdefault(
                "Output" if "--help" in parameter.opts else group_of.get(parameter.name or "", OWN), []
            ).append(record)
    return {group: found[group] for group in (OWN, *OPTIONS) if group in found}


class GroupedCommand(click.Command):
    """A command whose help has its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group, records in groups_of(self, ctx).items():
            with formatter.section(group):
                formatter.write_dl(records)


class Commands(click.Group):
    """A group that prints its usage errors, and those of its commands, in one line, and bears closed streams."""

    command_class: type[click.Command] | None = GroupedCommand

    def main(self, *args: Any, **settings: Any) -> Any:
        open_closed_streams()
        return super().main(*args, **settings)

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **settings: Any) -> click.Context:
        given = tuple(args)  # click takes them out of the list
        with _one_line_errors():
            context = super().make_context(info_name, args, *more, **settings)
        context.obj = given
        return context

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line_errors():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        named = {name for names in COMMANDS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in named)
        for group, names in {**COMMANDS, "More": others}.items():
            commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
            if commands:
                with formatter.section(group):
                    formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in commands])


@contextmanager
def _one_line_errors() -> Generator[None]:
    try:
        yield
    except click.UsageError as error:
        if type(error).show is not click.UsageError.show:  # no error: the help of `toapis` without arguments
            raise
        message = error.format_message().rstrip(".")
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        Output(json=False, quiet=False).error(f"{message[:1].lower()}{message[1:]}{hint}")
        raise click.exceptions.Exit(error.exit_code) from None


# ------------------------------------------------------------------------------------------------ completion


def one_of(words: Callable[[click.Context], Iterable[str]]) -> Any:
    """What a shell offers for an option: those of some words that go on as the user began."""

    def complete(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words(context) if word.lower().startswith(begun.lower())]

    return complete


def folders(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Folders, which the shell itself knows."""
    return [CompletionItem(begun, type="dir")]


def _models(context: click.Context) -> Iterable[str]:
    from toapis_async.request import IMAGE_MODELS, VIDEO_MODELS

    stated = context.get_parameter_source("kind") is ParameterSource.COMMANDLINE
    kind = context.params.get("kind") if stated else None
    return [*(IMAGE_MODELS if kind != "video" else ()), *(VIDEO_MODELS if kind != "image" else ())]


def _sizes(_: click.Context) -> Iterable[str]:
    from toapis_async.request import RATIOS

    return RATIOS


def _resolutions(_: click.Context) -> Iterable[str]:
    from toapis_async.request import RESOLUTIONS

    return *RESOLUTIONS, "480p", "720p", "1080p"


def _qualities(_: click.Context) -> Iterable[str]:
    from toapis_async.request import QUALITIES

    return QUALITIES


MODELS, SIZES, RESOLUTIONS_, QUALITIES_ = map(one_of, (_models, _sizes, _resolutions, _qualities))
