"""What a saved file says of how it was made: in the file itself, or in JSON beside it."""

from __future__ import annotations

import json
import os
import secrets
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, cast

from toapis_async.protocol.metadata import DESCRIBED_SUFFIXES, described
from toapis_async.request import LINK_FIELDS, LINK_LISTS, body_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from toapis_async.models import Generation
    from toapis_async.request import Request

_PRIVATE: Final = frozenset({"callback_url", "client_business_id", *LINK_FIELDS, *LINK_LISTS})
"""Fields that tell of the caller, not of the picture: ids, addresses, the names of local files."""
_ELSEWHERE: Final = frozenset({"prompt", "model", "kind"})
_MOST_TEXT: Final = 200  #: characters of a setting; a longer one is data


def asked_of(request: Request) -> dict[str, Any]:
    """What was asked for, as a file says it: small, since it is kept while a task runs."""
    return asked_in(request.given())


def asked_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same of `Request.given()`, or of what a journal keeps of it."""
    fields = body_of(given)
    asked = {"prompt": fields.get("prompt"), "model": fields.get("model"), "settings": _settings(fields)}
    return {name: value for name, value in asked.items() if value}


def facts_of(generation: Generation, asked: Mapping[str, object] | None) -> dict[str, Any]:
    """Prompt, model, settings, task id and times; without `asked`, as far as the service tells them."""
    asked = asked or {}
    facts = {
        **asked,
        "model": generation.model or asked.get("model"),
        "task_id": generation.task_id,
        "created_at": _time(generation.created_at),
        "completed_at": _time(generation.completed_at),
        "software": f"toapis-async {version('toapis-async')}",
    }
    return {name: value for name, value in facts.items() if value is not None}


def _settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was set besides prompt and model: numbers, truths and words, also within `metadata`."""
    settings: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _PRIVATE or name in _ELSEWHERE:
            continue
        if name == "metadata" and isinstance(value, dict):
            inner = _settings(cast("Mapping[str, Any]", value))
            settings |= {"metadata": inner} if inner else {}
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _MOST_TEXT):
            settings[name] = value
    return settings


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def describe(path: Path, facts: Mapping[str, Any]) -> Path | None:
    """Write the facts into the file, or into `NAME.json` beside it when it can't hold them or is signed; returns that
    file's path then. Each is replaced in one step. Blocks; raises `OSError`."""
    content = described(path.read_bytes(), facts) if path.suffix in DESCRIBED_SUFFIXES else None
    if content is None:
        text = json.dumps(facts, ensure_ascii=False, indent=2) + "\n"
        sidecar = path.with_name(f"{path.name}.json")
        _replace(sidecar, text.encode("utf-8", "backslashreplace"))
        return sidecar
    _replace(path, content)
    return None


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
