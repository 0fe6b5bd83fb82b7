"""Small pictures of a batch's local references, kept beside the page so that it can show what was made from what."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from toapis_async.errors import InvalidRequest
from toapis_async.report.pictures import THUMBS
from toapis_async.request import LINK_FIELDS, LINK_LISTS, files_in, is_http_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FOLDER: Final = f"{THUMBS}/references"
_REFERENCES: Final = (*LINK_FIELDS, *LINK_LISTS)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def keep_references(folder: Path, files: Iterable[Path]) -> None:
    """Make a small picture of each local file that is one, named by its content, as a journal knows it. Blocks. What
    can't be made is left out, as all are without Pillow."""
    try:
        from toapis_async.display.thumbs import Unreadable, shrunk  # noqa: PLC0415  (needs Pillow)
    except ImportError:
        return
    from toapis_async.engine.uploads import read_local  # noqa: PLC0415  (loads aiohttp, which a page alone does without)

    for file in files:
        with contextlib.suppress(InvalidRequest, OSError, Unreadable):
            small = folder / _name_of(hashlib.sha256(read_local(file)).hexdigest())
            if small.exists():
                continue
            small.parent.mkdir(parents=True, exist_ok=True)
            part = small.with_name(f".{secrets.token_hex(8)}.part")
            try:
                part.write_bytes(shrunk(file))
                part.replace(small)
            finally:
                part.unlink(missing_ok=True)


def local_files_in(row: object) -> Iterator[Path]:
    """The local files that a row of prompts refers to."""
    if isinstance(row, dict):
        yield from (file for file in files_in(cast("Mapping[str, Any]", row)) if isinstance(file, Path))


def references_in(folder: Path, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """What a request of a journal was made from, in order: links, and the small pictures of local files that are
    there."""
    if fields.keys().isdisjoint(_REFERENCES):
        return ()
    found = (each for name in _REFERENCES for each in _references(fields.get(name)))
    return tuple(each for each in found if is_http_url(each) or (folder / each).is_file())


def _references(value: object) -> Iterator[str]:
    match value:
        case str() if is_http_url(value):
            yield value
        case {"content": str() as digest} if _DIGEST.fullmatch(digest):
            yield _name_of(digest)
        case dict():
            for member in ("url", "image_url", "video_url"):
                yield from _references(value.get(member))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        case list():
            for item in value:  # pyright: ignore[reportUnknownVariableType]
                yield from _references(item)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return


def _name_of(digest: str) -> str:
    return f"{FOLDER}/{digest}.webp"
