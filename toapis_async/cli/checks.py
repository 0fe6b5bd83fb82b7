"""What is refused before anything is sent: rows that can't be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toapis_async.cli.output import CliError
from toapis_async.protocol.wording import count

if TYPE_CHECKING:
    from toapis_async.cli.output import Output
    from toapis_async.cli.prompts import Checked, PromptFile


async def checked(out: Output, prompts: PromptFile) -> Checked:
    """What a file holds; raises `CliError` when there is nothing in it that may be sent."""
    found = await prompts.check()
    for line in found.problems:
        out.error(f"line {line.number}: {line.problem}")
    if found.bad > len(found.problems):
        out.error(f"… and {found.bad - len(found.problems):,} more")
    if found.bad:
        raise CliError(f"{found.bad:,} of {count(found.rows, 'row')} can't be right; nothing was sent")
    if not found.rows:
        raise CliError("there is no prompt in the input")
    return found
