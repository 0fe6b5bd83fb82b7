"""Ids of a run's rows that anybody can work out again, on any machine and at any time."""

from __future__ import annotations

import hashlib
import json


def row_name(run: str, key: str | None, digest: str, occurrence: int) -> str:
    """What a row of a run is known by, as 40 hex digits: its key, or else which of the equal rows it is; and what it
    asks for, so that a changed prompt under an old key is another row."""
    return _hash([run, key, digest, occurrence])


def row_id(run: str, key: str | None, digest: str, occurrence: int, generation: int) -> str:
    """A row's client_business_id. `generation` counts its tasks from 1: a task that failed keeps its id for good."""
    return f"tb-{_hash([run, key, digest, occurrence, generation])}"


def _hash(parts: list[object]) -> str:
    text = json.dumps(parts)  # as JSON, so that no two lists of parts read alike
    return hashlib.sha256(text.encode()).hexdigest()[:40]
