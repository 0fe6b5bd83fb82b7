"""What a tool answers: text, small pictures, and the names of the files. Prompts, and words of the service, are data:
they stand in quotes, on one line, escaped and cut."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from attrs import evolve, field, frozen

from toapis_async.agents.folder import SCHEME
from toapis_async.agents.preview import Preview, preview
from toapis_async.errors import (
    BudgetExceeded,
    ContentRefused,
    DownloadFailed,
    InvalidRequest,
    LinkExpired,
    RateLimited,
    SubmitUncertain,
    TaskFailed,
    TaskOverdue,
    ToAPIsError,
    TransportError,
)
from toapis_async.protocol.filetype import HEAD_BYTES, sniff
from toapis_async.protocol.lenient import shorten
from toapis_async.protocol.wording import amount
from toapis_async.scrub import scrub

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal
    from pathlib import Path

    from toapis_async.agents.folder import Folder
    from toapis_async.protocol.budget import Budget
    from toapis_async.task import Billing

MOST_QUOTED: Final = 300
MOST_PREVIEWS: Final = 4
MOST_RESOURCE_BYTES: Final = 64_000_000
"""The largest file that is given as a resource."""
_TERMS: Final = (
    (r"client\.find\('([^']+)'\)", r"wait with the token \1"),
    (r"Settings\(prices=\{[^}]*\}\) or --price \S+", "--price, an option of this server's operator"),
    (r"for a local file pass Path\(…\) or bytes, and it is uploaded for you", "give a link, or a file of the folder"),
)
"""Messages of the library, which name Python, in the words of the tools."""


@frozen
class File:
    """A file that is there, as a resource."""

    name: str
    mime_type: str
    size_bytes: int

    @property
    def uri(self) -> str:
        return SCHEME + quote(self.name)


@frozen
class Answer:
    """A tool's result."""

    lines: tuple[str, ...]
    previews: tuple[Preview, ...] = ()
    files: tuple[File, ...] = field(default=())
    is_error: bool = False

    @property
    def text(self) -> str:
        """All of it, without any key."""
        return scrub("\n".join(self.lines))

    def with_lines(self, *lines: str, first: bool = False) -> Answer:
        """The same with more lines."""
        return evolve(self, lines=(*lines, *self.lines) if first else (*self.lines, *lines))


def quoted(text: object, most: int = MOST_QUOTED) -> str:
    """A text of somebody else's as a JSON string on one line: nothing in it can be taken for the answer's own words."""
    cut = shorten(str(text), most)
    return json.dumps(cut, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")


def failed(error: ToAPIsError, *advice: str) -> Answer:
    """An error as an answer: what went wrong, whose words those are, and what to do."""
    text = str(error)
    for python, words in _TERMS:
        text = re.sub(python, words, text)
    what = next((words for kind, words in _WORDS if isinstance(error, kind)), "it did not work")
    lines = [f"error: {what}", f"reason: {quoted(text, 1_000)}", *advice]
    return Answer(tuple(lines), is_error=True)


_WORDS: Final = (
    (InvalidRequest, "the request can't be right; nothing was sent and nothing is paid"),
    (BudgetExceeded, "the budget of this server does not allow it, and no tool can raise it; nothing was sent"),
    (ContentRefused, "the service refused the content; nothing is paid"),
    (TaskFailed, "the task failed; the cost is told below where the service has billed it"),
    (LinkExpired, "the files are gone from the service (links live 24 hours)"),
    (DownloadFailed, "it is made and paid for, but a file could not be fetched; wait with its token tries again"),
    (SubmitUncertain, "nobody knows yet whether the service took it; do not make it anew: wait with its token"),
    (TaskOverdue, "the task is overdue; wait with its token watches it again"),
    (RateLimited, "the service is asked too often; nothing was sent, try again later"),
    (TransportError, "the service can't be reached"),
)


def described(folder: Folder, paths: Sequence[Path]) -> tuple[list[str], tuple[File, ...], tuple[Preview, ...]]:
    """Lines about files that were saved, the files themselves, and previews of the first. Blocks."""
    lines: list[str] = []
    files: list[File] = []
    for path in paths:
        try:
            head, size_bytes = folder.begin(path.name, HEAD_BYTES)
        except InvalidRequest as error:
            lines.append(f"file: {path} ({quoted(error)})")
            continue
        kind = sniff(head)
        files.append(File(path.name, kind.mime_type if kind else "application/octet-stream", size_bytes))
        lines.append(f"file: {path} ({files[-1].mime_type}, {size_bytes:,} bytes)")
    previews = (_preview_of(folder, file) for file in files[:MOST_PREVIEWS])
    return lines, tuple(files), tuple(each for each in previews if each is not None)


def _preview_of(folder: Folder, file: File) -> Preview | None:
    if not file.mime_type.startswith("image/"):
        return None
    try:
        return preview(folder.read(file.name, MOST_RESOURCE_BYTES))
    except InvalidRequest:  # it was taken away, or is larger than that
        return None


def cost(billing: Billing | None, expected: Decimal | None = None) -> str:
    """What a task cost, as far as the service has said; else what is expected."""
    if billing is None:
        by_price = "" if expected is None else f"{amount(expected)} credits by the price; "
        return f"cost: {by_price}not billed by the service"
    known = "" if billing.credits is None else f"{amount(billing.credits)} credits, "
    return f"cost: {known}{shorten(billing.status, 40)}"


def budget(held: Budget) -> Iterable[str]:
    """How much of the server's caps is taken; nothing where there are none."""
    if held.most_credits is not None:
        yield f"budget: {amount(held.spent + held.reserved)} of {amount(held.most_credits)} credits spent or reserved"
    if held.most_images is not None:
        yield f"budget: {held.images + held.reserved_images:,} of {held.most_images:,} images made or on their way"
