"""`index.html`: written row by row beside the old one, then put in its place."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from base64 import b64encode
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from toapis_async.report.charts import histograms, time_line
from toapis_async.report.figures import amount, took
from toapis_async.report.pictures import Pictures
from toapis_async.report.rows import ROW_STATUSES
from toapis_async.report.summary import RunTotals, finite

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from pathlib import Path

    from toapis_async.report.pictures import Picture
    from toapis_async.report.rows import ReportRow

NAME: Final = "index.html"
PAGE_ROWS: Final = 2_000
"""As many rows as the page shows at once."""
MOST_PROMPT_CHARACTERS: Final = 4_000
"""A prompt may have 32,000; the page of 100,000 rows has to fit into a browser."""
_MARK: Final = b'<meta name="generator" content="toapis-async">'
_COPIED_BYTES: Final = 1 << 20
_MARK_WITHIN_BYTES: Final = 1_024
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_NOT_INERT: Final = re.compile("[<>&\u2028\u2029]")


def write_report(folder: Path, rows: Iterable[ReportRow], *, title: str) -> Path:
    """Write `folder/index.html` for a batch that has ended or still runs, and return its path.

    Blocks: call it in a worker thread. `rows` may be a generator of any length; memory holds a few numbers a row, not
    the rows. Thumbnails are made in `folder/thumbs`, and kept for the next time; without Pillow there are none, and the
    page says so. A file that is no picture, or not there, is shown as such. The page is replaced in one step.

    Raises `OSError`: the folder can't be written, or (`FileExistsError`) holds an index.html that is not ours.
    """
    page = folder / NAME
    _refuse_another(page)
    pictures = Pictures(folder)
    totals = RunTotals()
    with tempfile.TemporaryFile("w+b", dir=folder) as lines:
        for row, found, references in pictures.of(rows):
            lines.write(
                (("," if totals.rows else "") + _line(row, found, references) + "\n").encode(errors="backslashreplace")
            )
            totals.add(row)
        lines.seek(0)
        facts = _facts(totals) | {"title": title, "have_thumbnails": pictures.have_thumbnails}
        before, after = _around_rows(facts)
        with _replacing(page) as file:
            file.write(before)
            shutil.copyfileobj(lines, file, _COPIED_BYTES)  # nothing in them that HTML would read: see `_line`
            file.write(after)
    return page


def _around_rows(facts: dict[str, Any]) -> tuple[bytes, bytes]:
    """The page before and after its rows: they are many, and pass through no template."""
    here = secrets.token_hex(16)
    text = _environment().get_template("page.html").render(facts, rows=here)
    before, _, after = text.partition(here)
    return before.encode(errors="backslashreplace"), after.encode(errors="backslashreplace")


def _facts(totals: RunTotals) -> dict[str, Any]:
    """What the template shows of the run as a whole."""
    now = datetime.now(UTC)
    return {
        "as_of": now,
        "statuses": {state: totals.statuses[state] for state in ROW_STATUSES},
        "total": totals.rows,
        "figures": totals.figures(),
        "reasons": totals.reasons(),
        "time_line": time_line(totals, now.timestamp()),
        "histograms": histograms(totals),
        "page_rows": PAGE_ROWS,
        **{name: _inline(f"page.{name}") for name in ("css", "js")},
    }


def _inline(name: str) -> dict[str, str]:
    """A file of ours as it stands in the page, and the hash by which the page's policy lets it pass."""
    text = files("toapis_async.report").joinpath("assets", name).read_text("utf-8")
    return {"text": Markup(text), "hash": f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"}  # noqa: S704


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("toapis_async.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _line(row: ReportRow, pictures: list[Picture], references: list[Picture]) -> str:
    """A row as JSON that can stand inside `<script>`: nothing in it looks like a tag or ends a line."""
    text = _ENCODER.encode(_record(row, pictures, references))
    return _NOT_INERT.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _record(row: ReportRow, pictures: list[Picture], references: list[Picture]) -> dict[str, Any]:
    cost, service_s = finite(row.credits), finite(row.service_s)
    return _known(
        {
            "index": row.index,
            "key": row.key,
            "state": row.status,
            "prompt": row.prompt[:MOST_PROMPT_CHARACTERS],
            "cut": max(len(row.prompt) - MOST_PROMPT_CHARACTERS, 0),
            "model": row.model,
            "size": row.size,
            "resolution": row.resolution,
            "quality": row.quality,
            "duration": row.duration,
            "kind": None if row.kind == "image" else row.kind,
            "n": row.n,
            "credits": None if cost is None else amount(cost),
            "took": None if service_s is None else took(service_s),
            "seconds": service_s,
            "submitted": _unix_ms(row.submitted_at),
            "completed": _unix_ms(row.completed_at),
            "saved": _unix_ms(row.saved_at),
            "task": row.task_id,
            "business": row.client_business_id,
            "error": row.error
            and _known({"type": row.error.type, "code": row.error.code, "message": row.error.message}),
            "pictures": [_known(_picture(picture)) for picture in pictures],
            "references": [_known(_reference(reference)) for reference in references] or None,
        }
    )


def _picture(picture: Picture) -> dict[str, Any]:
    return {
        "name": picture.name,
        "link": picture.link,
        "thumb": picture.thumb,
        "width": picture.width,
        "height": picture.height,
        "problem": picture.problem,
        "video": picture.is_video,
    }


def _reference(reference: Picture) -> dict[str, Any]:
    return {"name": reference.name, "link": reference.link, "thumb": reference.thumb, "problem": reference.problem}


def _known(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what is not known, to keep 100,000 of them small."""
    return {name: value for name, value in record.items() if value is not None}


def _unix_ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _refuse_another(page: Path) -> None:
    try:
        with page.open("rb") as file:
            ours = _MARK in file.read(_MARK_WITHIN_BYTES)
    except FileNotFoundError:
        return
    if not ours:
        raise FileExistsError(
            errno.EEXIST,
            "is not a page that toapis-async made, and is left alone: move it, or take another folder",
            str(page),
        )


@contextmanager
def _replacing(path: Path) -> Generator[IO[bytes]]:
    """A file that takes the place of `path` at the end, when all went well."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
