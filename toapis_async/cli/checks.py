"""What is refused before anything is sent: rows that can't be right, and a budget that nobody can keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toapis_async.cli.output import CliError
from toapis_async.protocol.budget import Prices
from toapis_async.protocol.wording import count

if TYPE_CHECKING:
    from toapis_async.cli.options import Caps
    from toapis_async.cli.output import Output
    from toapis_async.cli.prompts import Checked, PromptFile

MOST_CLASSES_SHOWN: Final = 5


async def checked(out: Output, prompts: PromptFile, caps: Caps) -> Checked:
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
    if caps.budget_credits is not None:
        _refuse_unpriced(found, caps)
    return found


def _refuse_unpriced(found: Checked, caps: Caps) -> None:
    prices = Prices(caps.prices)
    unpriced = [(str(kind), rows) for kind, rows in found.classes.items() if prices.of(kind) is None]
    if not unpriced:
        return
    rows = sum(rows for _, rows in unpriced)
    words = " ".join(f"--price {name}=CREDITS" for name, _ in unpriced[:MOST_CLASSES_SHOWN])
    more = " …" if len(unpriced) > MOST_CLASSES_SHOWN else ""
    raise CliError(
        f"a budget needs the price of an image, and {count(rows, 'row')} {'has' if rows == 1 else 'have'} none: "
        f"add {words}{more} (or --price CREDITS for all); nothing was sent"
    )
