"""Writes docs/cli.md from the commands: `python docs/tools/command_line.py`. tests/test_docs.py holds it to them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toapis_async.cli import main
from toapis_async.cli.groups import COMMANDS, groups_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[1] / "cli.md"
_TOP = """# The command line

<!-- written by docs/tools/command_line.py -->

All that `toapis` takes, as `toapis --help` and `toapis COMMAND --help` tell it. Results go to stdout, everything for
people to stderr. [Thousands of prompts](bulk.md) tells how to prepare a sheet; `toapis completion bash` (zsh, fish)
completes commands, options, models, sizes and qualities.
"""


def page() -> str:
    """The page as it should be."""
    parts = [_TOP, *_prose(main)]
    for group, names in COMMANDS.items():
        parts.append(f"## {group}\n")
        for name in names:
            parts += _command(name, main.commands[name])
    return "\n".join(parts)


def _command(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"toapis {name}")
    yield f"### toapis {name}\n"
    usage = " ".join([*command.collect_usage_pieces(context)])
    yield f"```text\ntoapis {name} {usage}\n```\n"
    yield from _prose(command)
    for group, records in groups_of(command, context).items():
        rows = [
            f"| `{_cell(taken)}` | {_cell(told).replace('[', '&#91;')} |"
            for taken, told in records
            if "--help" not in taken
        ]
        if rows:
            yield "\n".join([f"| {group.lower()} | |", "| --- | --- |", *rows, ""])


def _prose(command: click.Command) -> Iterator[str]:
    """The paragraphs of a command's help; those after `\\b` are code."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        text = paragraph.removeprefix("\b\n")
        yield f"```text\n{inspect.cleandoc(text)}\n```\n" if text != paragraph else f"{_text(paragraph)}\n"


def _text(paragraph: str) -> str:
    return re.sub(r"\s+", " ", paragraph).replace("<", "&lt;")


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
