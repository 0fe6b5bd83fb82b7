"""Usage errors of click, printed as every other error: one line that begins with `error:`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from toapis_async.cli.output import Output, open_closed_streams

if TYPE_CHECKING:
    from collections.abc import Generator


class Commands(click.Group):
    """A group that prints its usage errors, and those of its commands, in one line, and bears closed streams."""

    def main(self, *args: Any, **settings: Any) -> Any:
        open_closed_streams()
        return super().main(*args, **settings)

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        with _one_line_errors():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line_errors():
            return super().invoke(ctx)


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
