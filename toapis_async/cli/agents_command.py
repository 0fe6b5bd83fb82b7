"""The command `mcp`; its body and heavy imports are inside."""

# ruff: noqa: PLC0415  (a body's imports take 0.3 s: `toapis --help` must not wait for aiohttp and rich)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toapis_async.cli.commands import main
from toapis_async.cli.options import BUDGET, PRICE, Caps, Options, service_options
from toapis_async.cli.output import reported, run

if TYPE_CHECKING:
    from decimal import Decimal


@main.command(short_help="Serve agents (MCP).")
@click.option(
    "--out",
    "into",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The only folder that is read and written.",
)
@BUDGET
@click.option("--max-images", type=click.IntRange(min=1), help="Ask for no more images and videos in all.")
@PRICE
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What was bought is written down here.  [default: journal.sqlite in --out]",
)
@click.option("--http", is_flag=True, help="Serve HTTP on loopback, with a token, instead of stdio.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Of --http; 0: any free.  [default: 8767]", metavar="PORT")
@service_options()
def mcp(
    options: Options,
    *,
    into: Path,
    budget_credits: Decimal | None,
    max_images: int | None,
    prices: dict[str, Decimal],
    journal: Path | None,
    http: bool,
    port: int | None,
) -> None:
    """Serve agents by the Model Context Protocol, over stdio: an agent's host starts this command. Tools make pictures
    and videos in --out, wait for them, and look up what was bought.

    \b
      toapis mcp --out pictures --budget-credits 500
      toapis mcp --out pictures --sandbox

    A call that is cut off and made again is paid once, also after a restart. The budget counts everything that the
    journal knows, and no tool can raise it. Logs go to stderr. With --http the token is read from TOAPIS_MCP_TOKEN, or
    made and printed on stderr.
    """
    with reported(output := options.output()):
        if port is not None and not http:
            raise click.UsageError("--port is of --http: add --http")
        from toapis_async.cli.agents import serve

        caps = Caps(budget_credits, max_images, prices)
        port = (8767 if port is None else port) if http else None
        run(output, serve(options, output, into, journal, caps, port=port))
