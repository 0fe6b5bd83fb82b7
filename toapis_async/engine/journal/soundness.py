"""Whether a journal holds what was written into it: pages, schema, and values of their kind. A journal that does not is
refused as a whole, in one place, so that its readers need not expect anything in its columns."""

# ruff: noqa: S608  (the statement is made of constants)

from __future__ import annotations

import sqlite3
from typing import Final

from toapis_async.engine.journal.records import LATEST_S


def _is_not(kind: str, *columns: str) -> str:
    return " OR ".join(f"typeof({column}) <> '{kind}'" for column in columns)


def _is_given_and_not(kind: str, *columns: str) -> str:
    return " OR ".join(f"typeof({column}) NOT IN ('null', '{kind}')" for column in columns)


def _is_no_time(*columns: str) -> str:
    return " OR ".join(f"{column} NOT BETWEEN 0 AND {LATEST_S}" for column in columns)


_JSON: Final = "replace(replace(answer, 'NaN', '0'), 'Infinity', '0')"  #: an answer may hold them, as Python reads JSON
_UNSOUND: Final = (
    "SELECT 'submission ' || id FROM submission WHERE "
    + " OR ".join(
        (
            _is_not("text", "client_business_id", "digest", "request"),
            _is_not("integer", "occurrence"),
            _is_not("real", "intended_at"),
            _is_given_and_not("text", "run", "key", "stem", "task_id", "asked_id", "answer", "owner"),
            _is_not("integer", "is_submitting"),
            _is_given_and_not("integer", "place", "images"),
            _is_given_and_not("real", "accepted_at", "ended_at", "lost_at", "acknowledged_at", "completed_at"),
            _is_no_time("intended_at", "accepted_at", "ended_at", "lost_at", "acknowledged_at", "completed_at"),
            "kind NOT IN ('image', 'video')",
            "state NOT IN ('intent', 'withdrawn', 'refused', 'accepted', 'completed', 'failed')",
            "(state = 'accepted' AND task_id IS NULL)",
            "NOT json_valid(request) OR request NOT LIKE '{%'",
            f"(answer IS NOT NULL AND (NOT json_valid({_JSON}) OR answer NOT LIKE '{{%'))",
            "(state = 'refused' AND coalesce(json_type(answer, '$.status'), 'integer') <> 'integer')",
        )
    )
    + " UNION ALL SELECT 'the files of ' || client_business_id FROM file WHERE "
    + " OR ".join(
        (
            _is_not("text", "client_business_id", "name"),
            _is_not("integer", "place"),
            _is_not("real", "saved_at"),
            _is_no_time("saved_at"),
        )
    )
    + " UNION ALL SELECT 'fact ' || name FROM fact WHERE "
    + _is_not("text", "name", "value")
    + " UNION ALL SELECT 'run ' || name FROM run WHERE "
    + _is_not("text", "name", "owner")
    + " LIMIT 1"
)


def check_pages(db: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` for a file that is damaged by sqlite's own measure."""
    damage: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)


def check_values(db: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` when a column holds what nobody wrote there, or a table or column is missing."""
    unsound: tuple[str] | None = db.execute(_UNSOUND).fetchone()
    if unsound is not None:
        raise sqlite3.DatabaseError(f"{unsound[0]} holds what can't be there")
    for table in ("submission", "file"):
        for _ in db.execute(f"SELECT * FROM {table}"):
            pass  # raises for text that is no UTF-8
