"""The commands and their options. Heavy imports happen inside the commands only."""

# ruff: noqa: PLC0415  (a body's imports take 0.3 s: `toapis --help` must not wait for aiohttp and rich)

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toapis_async import __version__
from toapis_async.cli.groups import MODELS, QUALITIES_, RESOLUTIONS_, SIZES, Commands, folders
from toapis_async.cli.options import BUDGET, JSON, KIND, PRICE, QUIET, BatchOptions, Caps, Options, service_options
from toapis_async.cli.output import Output, reported, run

if TYPE_CHECKING:
    from decimal import Decimal

    from toapis_async.cli.formats import Format
    from toapis_async.request import Kind


def _members(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any] | None:
    """`KEY=JSON` options as one object; None when there are none."""
    members: dict[str, Any] = {}
    for value in values:
        name, mark, text = value.partition("=")
        try:
            members[name] = json.loads(text)
        except (ValueError, RecursionError):
            name = ""
        if not (name and mark):
            raise click.BadParameter(f"{value!r} is no KEY=JSON, such as seed=7 or mode='\"pro\"' (a text in quotes)")
    return members or None


def _names(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for value in values for part in value.split(",") if (name := part.strip()))


_NAMES: Any = {"multiple": True, "metavar": "NAME,…", "callback": _names}
_MEMBERS: Any = {"multiple": True, "metavar": "KEY=JSON", "callback": _members}
_FOLDER = click.Path(file_okay=False, path_type=Path)
_EMBED = click.option(
    "--embed",
    is_flag=True,
    help="Write prompt, model, settings, task id and time into the files, or beside those that can't hold them.",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="toapis")
def main() -> None:
    """Images and videos from the ToAPIs service, one or many thousands.

    The key is read from TOAPIS_API_KEY. To try without an account, add --sandbox:

    \b
      toapis generate "a red kite over the sea" --sandbox
      toapis batch docs/examples/prompts.jsonl --out out --sandbox

    Exit codes: 0 all done, 1 something failed, 2 misuse, 130 interrupted.
    """


@main.command(short_help="Make images, or a video, from one prompt.")
@click.argument("words", metavar="[PROMPT]", nargs=-1)
@click.option("--kind", type=KIND, help="What to make.  [default: what --model makes, else image]")
@click.option("--model", shell_complete=MODELS, help="Any model of the service.  [default for images: gpt-image-2-vip]")
@click.option(
    "--size", metavar="W:H", shell_complete=SIZES, help="Aspect ratio of images, such as 16:9.  [service default: 1:1]"
)
@click.option(
    "--resolution",
    shell_complete=RESOLUTIONS_,
    help="1k, 2k or 4k; of videos 480p, 720p, …  [service default: 1k, or the model's]",
)
@click.option("--quality", shell_complete=QUALITIES_, help="low, medium or high.  [service default: medium]")
@click.option("-n", "--n", type=int, help="Number of images, each charged.  [service default: 1]")
@click.option("--duration", type=int, metavar="SECONDS", help="Of a video.  [service default: the model's]")
@click.option("--aspect-ratio", metavar="W:H", shell_complete=SIZES, help="Of a video.  [service default: the model's]")
@click.option(
    "--reference",
    "references",
    multiple=True,
    metavar="PATH_OR_URL",
    help="An image to work from, in order; a local file is uploaded. Repeatable.",
)
@click.option("--mask", metavar="PATH_OR_URL", help="Which part of the reference to change (mask_url).")
@click.option("--background", help="transparent, where the model honours it.")
@click.option("--metadata", **_MEMBERS, help="A field that the model reads in metadata. Repeatable.")
@click.option("--extra", **_MEMBERS, help="Any other field, sent unchecked over the rest. Repeatable.")
@click.option("--callback-url", metavar="URL", help="Where the service posts its event.")
@click.option("--client-business-id", metavar="ID", help="Your own id for the task.  [default: made for you]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="Folder for the files, or a file such as kite.png; the bytes decide its extension.",
)
@_EMBED
@click.option("--open", "opens", is_flag=True, help="Show what was made in the program that is for it.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop waiting after so many seconds; the task still runs and is still paid for.",
)
@service_options(besides={"tier", "shared", "max_in_flight"})
def generate(
    options: Options,
    *,
    words: tuple[str, ...],
    kind: Kind | None,
    references: tuple[str, ...],
    out: Path,
    embed: bool,
    opens: bool,
    timeout_s: float | None,
    **fields: Any,
) -> None:
    """Make images, or a video, from PROMPT (- for stdin), and print their paths. Some video models need no PROMPT.

    \b
      toapis generate "a red kite over the sea" --size 16:9 --resolution 2k --quality high
      toapis generate "the same kite at dusk" --reference kite.png -n 2 --out kites
      toapis generate "a paper boat in the rain" --kind video --model kling-v3 --duration 5
      toapis generate "a lighthouse" --model veo3.1-fast --metadata resolution='"1080p"'

    In a folder the files are named after the prompt, and none is replaced. A command that is cut short prints the one
    that fetches what it paid for; one that is killed leaves NAME.journal in the folder, for `toapis fetch --unsaved`.

    With --sandbox its state is kept in .sandbox of the folder, and `toapis status --sandbox ID` there knows the task.
    """
    with reported(output := options.output()):
        from toapis_async.cli.generate import generate as body
        from toapis_async.cli.generate import request_from
        from toapis_async.cli.prompts import prompt_from_stdin

        if len(words) > 1:
            quoted = shlex.quote(" ".join(words))
            raise click.UsageError(f"the prompt is one argument, so put it into quotes: toapis generate {quoted}")
        fields["prompt"] = words[0] if words else None
        if fields["prompt"] == "-":
            if sys.stdin.isatty():
                output.note("reading the prompt; end with Ctrl-D")
            fields["prompt"] = prompt_from_stdin()
        request = request_from(kind, references, **fields)
        run(output, body(options, output, request, out, timeout_s, embed=embed, opens=opens))


@main.command(short_help="Make images or videos from every row of a file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True))
@click.option("--out", type=_FOLDER, required=True, help="Folder for images/, videos/ and results.jsonl.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "txt", "csv", "xlsx", "parquet"]),
    help="What FILE holds.  [default: by its name, else by how it begins]",
)
@click.option(
    "--prompt-template",
    metavar="TEXT",
    help='Makes prompts of columns: "a {colour} {noun}".',
)
@click.option("--ignore-columns", **_NAMES, help="Leave these columns out, such as notes of your own. Repeatable.")
@click.option("--keep-columns", **_NAMES, help="Keep these columns in results.jsonl, beside each row. Repeatable.")
@click.option("--retry-failed", is_flag=True, help="Send rows that failed again, under new ids; they cost again.")
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Submit a row whose task failed anew, N times in all; only after a failure that cost nothing.",
)
@click.option("--overwrite", is_flag=True, help="Begin anew over an earlier run's results, and pay for all again.")
@click.option("--same-account", is_flag=True, help="The key was changed since the run began; it is the same account's.")
@BUDGET
@click.option("--max-images", type=click.IntRange(min=1), help="Ask for no more images and videos in all.")
@PRICE
@_EMBED
@click.option(
    "--dask",
    metavar="local|ADDRESS",
    help="Run on a Dask cluster: processes of this machine, or the scheduler at tcp://…, with OUT on a shared disk.",
)
@click.option("--verbose", "-v", is_flag=True, help="Tell the slowest rows at the end, too.")
@click.option("--dry-run", is_flag=True, help="Tell what would be sent, its cost and its time; send nothing.")
@click.option(
    "--no-report", "page", is_flag=True, flag_value=False, default=True, help="Make no index.html at the end."
)
@service_options()
def batch(
    options: Options,
    *,
    file: str,
    out: Path,
    format_: Format | None,
    prompt_template: str | None,
    ignore_columns: tuple[str, ...],
    keep_columns: tuple[str, ...],
    budget_credits: Decimal | None,
    max_images: int | None,
    prices: dict[str, Decimal],
    **how: Any,
) -> None:
    """Make images, or videos, from every row of FILE (- for stdin).

    \b
      .jsonl  rows of request fields, or prompts in quotes:
              {"key": "kite", "prompt": "a red kite", "size": "16:9", "n": 2}
              {"kind": "video", "model": "kling-v3", "prompt": "a red kite", "duration": 5}
      .csv    the same fields as columns, with a header; commas, semicolons or tabs between them
      .xlsx   the same, of the first sheet; .parquet, too
      .txt    one prompt a line

    Under other names and from stdin, the beginning decides: JSON (an object or a text), or two and more columns, prompt
    among them; else each line is a prompt. What begins with [ is refused unless --format is given: a JSON array must
    become lines first (jq -c '.[]' FILE).

    References (reference_images: a list, in a cell with ; or | between them) are http(s) URLs or files beside FILE.
    Empty cells are left to the service. The optional `key` names what is made. All rows are checked before any is sent.

    \b
      toapis batch docs/examples/prompts.jsonl --out out --sandbox
      toapis batch docs/examples/videos.jsonl --out v --sandbox
      toapis batch prompts.csv --out out --dry-run --price 2 --price gpt-image-2-vip/4k=9
      toapis batch prompts.csv --out out --budget-credits 500 --price 2 --price gpt-image-2-vip/4k=9
      toapis batch shop.xlsx --out out --prompt-template "a {colour} {noun}" --keep-columns sku
      cut -f2 table.tsv | toapis batch - --out out --format txt

    Writes OUT/images/KEY.png (KEY-1.png … for several), OUT/videos/KEY.mp4, OUT/index.html to look at, and
    OUT/results.jsonl: a row a request with index, key, ok, task_id, client_business_id, files, error and billing, in
    the order of FILE once the run has ended.

    A run that was cut short, however, is taken up by the same command: OUT/journal.sqlite knows what was sent and paid
    for. Rows may be added to FILE meanwhile. Ctrl-C stops a run, twice leaves at once; nothing is lost either way.
    `toapis status OUT` tells how the run stands.

    A budget goes by the prices you state, else by the service's own, both corrected by what it bills. What has neither
    is refused. Earlier passes of a run count in its budget; rows that do not fit are not sent.
    """
    with reported(output := options.output()):
        from toapis_async.batch.template import PromptTemplate
        from toapis_async.cli.batch import batch as body
        from toapis_async.cli.columns import Columns
        from toapis_async.cli.prompts import opened

        template = None if prompt_template is None else PromptTemplate.of(prompt_template)
        columns = Columns(ignore_columns, keep_columns, template)

        if file == "-" and sys.stdin.isatty():
            output.note("reading prompts, one a line; end with Ctrl-D")
        with opened(file, format_, columns) as prompts:
            caps = Caps(budget_credits, max_images, prices)
            how["again"] = _again()
            run(output, body(options, output, prompts, out, how=BatchOptions(**how), caps=caps))


def _again() -> str:
    """The command that was given, to send what failed once more: not to begin anew."""
    given: tuple[str, ...] = click.get_current_context().find_root().obj or ()
    kept = [word for word in given if word not in {"--overwrite", "--retry-failed", "--dry-run"}]
    return shlex.join(["toapis", *kept, "--retry-failed"])


@main.command(short_help="Make the page of a batch.")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@PRICE
@JSON
@QUIET
def report(*, folder: Path, prices: dict[str, Decimal], json: bool, quiet: bool) -> None:
    """Make DIR/index.html of the batch in DIR, also while it runs, and print its path: a gallery with prompts, costs,
    times and reasons, which opens without a server. `toapis batch` makes it at its end.

    \b
      toapis report out
    """
    with reported(output := Output(json=json, quiet=quiet)):
        from toapis_async.cli.page import report as body

        run(output, body(output, folder, prices))


@main.command(short_help="Wait for tasks and save their files.")
@click.argument("task_ids", metavar="TASK_ID...", nargs=-1)
@click.option("--kind", type=KIND, help="What the tasks make.  [default: both are asked for]")
@click.option("--out", type=_FOLDER, default=".", show_default=True, help="Folder for the files.")
@_EMBED
@click.option(
    "--unsaved",
    metavar="JOURNAL",
    type=click.Path(exists=True, path_type=Path),
    help="Instead of TASK_IDs: what this journal knows as submitted and nobody saved; in a folder that processes "
    "share, what those that are gone left.",
)
@service_options(besides={"max_in_flight", "reconcile_window_s", "seed"})
def fetch(
    options: Options, *, task_ids: tuple[str, ...], kind: Kind | None, out: Path, embed: bool, unsaved: Path | None
) -> None:
    """Wait for tasks, by their id, client_business_id or token (of handle.token()), save their images and videos and
    print the paths.

    The same command goes on where it was interrupted. Links live for a day.

    \b
      toapis fetch task_img_01M81QQSK8FQ1T1PAH1R988R65 --out kites
      toapis fetch --unsaved journal.sqlite --out kites
    """
    with reported(output := options.output()):
        from toapis_async.cli import account

        if bool(task_ids) == (unsaved is not None):
            raise click.UsageError("name tasks, or a journal with --unsaved")
        body = (
            account.fetch(options, output, task_ids, out, kind, embed=embed)
            if unsaved is None
            else account.fetch_unsaved(options, output, unsaved, out, embed=embed)
        )
        run(output, body)


@main.command(short_help="Tell how tasks, or a batch, stand.")
@click.argument("task_ids", metavar="TASK_ID... | DIR", nargs=-1, required=True, shell_complete=folders)
@click.option("--kind", type=KIND, help="What the tasks make.  [default: both are asked for]")
@click.option("--watch", is_flag=True, help="Tell of each change until all tasks have ended.")
@service_options(besides={"max_in_flight", "reconcile_window_s", "seed", "allow_private_links"})
def status(options: Options, task_ids: tuple[str, ...], kind: Kind | None, watch: bool) -> None:
    """Tell how tasks stand, by their id, client_business_id or token, with links to the images and videos that are
    done; or how the batch in the folder DIR stands, also while it runs (asks nothing of the service, needs no key).

    \b
      toapis status task_img_01M81QQSK8FQ1T1PAH1R988R65
      toapis status task_img_01M81QQSK8FQ1T1PAH1R988R65 --watch
      toapis status out

    With --sandbox the one of this folder is asked (see `toapis generate --help`).
    """
    with reported(output := options.output()):
        folder = Path(task_ids[0])
        if len(task_ids) == 1 and os.path.isdir(folder):  # an id may be too long for a path: isdir says no
            from toapis_async.cli.run_status import status as body

            if watch:
                raise click.UsageError("--watch is for tasks: a batch shows itself while it runs")
            raise click.exceptions.Exit(body(output, folder))

        from toapis_async.cli import account

        run(output, account.status(options, output, task_ids, kind, watch=watch))
