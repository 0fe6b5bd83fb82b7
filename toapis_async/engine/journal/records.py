"""A submission as the journal knows it, and the statements that write and read it. Everything here blocks."""

from __future__ import annotations

import enum
import json
from itertools import islice
from typing import TYPE_CHECKING, Final

from attrs import evolve, field, frozen

from toapis_async.protocol.lenient import as_object, json_of
from toapis_async.protocol.results import body_without_data

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from toapis_async.protocol.endpoints import Kind
    from toapis_async.task import Billing


class State(enum.StrEnum):
    """How far a submission got, as far as the journal knows."""

    INTENT = "intent"  #: about to be sent, perhaps sent: only the service can tell
    WITHDRAWN = "withdrawn"  #: certainly not accepted, and not for a fault of its own: may be sent at any time
    REFUSED = "refused"  #: certainly not accepted; the same request would be refused again
    ACCEPTED = "accepted"  #: the service works on it
    COMPLETED = "completed"
    FAILED = "failed"


@frozen
class Intent:
    """What is known of a submission before it is sent."""

    client_business_id: str
    digest: str  #: of the fields that were given, and the contents of files among them
    request: str  #: the same as JSON, for people
    run: str | None = None  #: the batch's run; None: a plain submission
    place: int | None = None  #: the row's place in its source
    key: str | None = None  #: the row's own key; rows without one are told apart by digest and occurrence
    occurrence: int = 1
    stem: str | None = None  #: what its files are named after
    kind: Kind = "image"


@frozen
class End:
    """How a submission came to an end, or that it was never taken."""

    state: State
    task_id: str | None = None
    answer: str | None = None  #: the final answer's body, or the refusal, as JSON
    images: int | None = None  #: how many files the answer names
    completed_at: float | None = None  #: when the task finished, in Unix seconds by the service's clock


@frozen
class Record:
    """A submission as the journal knows it."""

    intent: Intent
    state: State
    task_id: str | None
    query_id: str | None  #: the id by which the task is known to be found
    answer: str | None  #: the final answer's body, or the refusal, as JSON; None also where it was not read
    intended_at: float  #: Unix seconds, by this machine's clock; like the next two
    accepted_at: float | None
    ended_at: float | None
    number: int  #: grows from one intent to the next
    images: int | None = None  #: how many files the final answer names; None: not known
    lost_at: float | None = None  #: when its links were found dead before any of its files was saved
    acknowledged_at: float | None = None
    files: Mapping[int, str] = field(factory=dict[int, str])  #: names of saved files, by the place of their image
    saved_at: float | None = None  #: when the last of them was on disk
    earlier: int = 0  #: how many tasks the same row had before this one; told only where a row was asked for

    @property
    def is_saved(self) -> bool:
        """Whether all its files are known to be on disk."""
        return len(self.files) >= (self.images or 1)


def _select(answer: str = "answer") -> str:
    return (
        "SELECT client_business_id, digest, request, run, place, key, occurrence, stem, kind, state, task_id, asked_id,"  # noqa: S608  (a constant)
        f" {answer}, intended_at, accepted_at, ended_at, id, images, lost_at, acknowledged_at FROM submission"
    )


SELECT: Final = _select()
SAVED: Final = (
    "(SELECT count(*) FROM file WHERE file.client_business_id = submission.client_business_id)"
    " >= coalesce(nullif(images, 0), 1)"
)
LATEST_S: Final = 253_402_300_799  #: the end of the year 9999, the last that `datetime` knows
MOST_RECOVERED: Final = 10_000
"""Plain submissions that `recovered()` lists; the newest."""
_PAGE_ROWS: Final = 500
_LARGE_BYTES: Final = 50_000  #: an answer that is longer may hold files
_INTENT_COLUMNS: Final = 9


class SentAlready(Exception):
    """Another process came first: this id's intent is in the journal already, or more than that."""


def put_intent(db: sqlite3.Connection, intent: Intent, now_s: float, owner: str | None = None) -> None:
    """A submission is about to be sent by `owner`; one that certainly was not accepted before may be. Raises
    `SentAlready`: whether it was sent is asked and the intent written in this one statement."""
    written = db.execute(
        "INSERT INTO submission (client_business_id, digest, request, run, place, key, occurrence, stem, kind, state,"
        " intended_at, owner, is_submitting) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'intent', ?, ?, 1)"
        " ON CONFLICT (client_business_id) DO UPDATE SET"
        " digest = excluded.digest, request = excluded.request, run = excluded.run, place = excluded.place,"
        " key = excluded.key, occurrence = excluded.occurrence, kind = excluded.kind,"
        " stem = excluded.stem, state = 'intent', answer = NULL, ended_at = NULL, completed_at = NULL,"
        " lost_at = NULL, acknowledged_at = NULL, intended_at = excluded.intended_at,"
        " owner = excluded.owner, is_submitting = 1"
        " WHERE state IN ('withdrawn', 'refused')",
        (
            intent.client_business_id,
            intent.digest,
            intent.request,
            intent.run,
            intent.place,
            intent.key,
            intent.occurrence,
            intent.stem,
            intent.kind,
            now_s,
            owner,
        ),
    )
    if not written.rowcount:
        raise SentAlready(f"{intent.client_business_id} was sent already")


def submitter_of(db: sqlite3.Connection, client_business_id: str) -> str | None:
    """The process that was last known to be submitting it, and has not said that it left it; it may be gone."""
    found = db.execute(
        "SELECT owner FROM submission WHERE client_business_id = ? AND state = 'intent' AND is_submitting",
        (client_business_id,),
    ).fetchone()
    return None if found is None else found[0]


def hold_intent(db: sqlite3.Connection, client_business_id: str, owner: str | None) -> bool:
    """An intent is `owner`'s to look up from now on; False when it is no intent any more."""
    held = db.execute(
        "UPDATE submission SET owner = iif(state = 'intent', ?, owner), is_submitting = (state = 'intent')"
        " WHERE client_business_id = ? RETURNING state",
        (owner, client_business_id),
    ).fetchone()
    return held is None or held[0] == State.INTENT


def leave_intent(db: sqlite3.Connection, client_business_id: str, owner: str | None) -> None:
    """Nobody knows whether it was accepted, and `owner` does no more about it."""
    db.execute(
        "UPDATE submission SET is_submitting = 0 WHERE client_business_id = ? AND owner IS ?",
        (client_business_id, owner),
    )


def disown_all(db: sqlite3.Connection) -> None:
    """No process that used the journal lives any more."""
    db.execute("UPDATE submission SET owner = NULL, is_submitting = 0 WHERE owner IS NOT NULL OR is_submitting")
    db.execute("DELETE FROM run")


def run_owner(db: sqlite3.Connection, name: str) -> str | None:
    """The process in which a run was begun and not ended; it may be gone."""
    found: tuple[str] | None = db.execute("SELECT owner FROM run WHERE name = ?", (name,)).fetchone()
    return None if found is None else found[0]


def put_run(db: sqlite3.Connection, name: str, owner: str) -> None:
    """A run is going on in this process."""
    db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, owner))


def end_run(db: sqlite3.Connection, name: str, owner: str) -> None:
    """The run may go on in any process."""
    db.execute("DELETE FROM run WHERE name = ? AND owner = ?", (name, owner))


def put_accepted(db: sqlite3.Connection, client_business_id: str, task_id: str, query_id: str, now_s: float) -> None:
    """The service has taken it."""
    db.execute(
        "UPDATE submission SET state = 'accepted', task_id = ?, asked_id = ?, accepted_at = ?"
        " WHERE client_business_id = ?",
        (task_id, query_id, now_s, client_business_id),
    )


def put_end(db: sqlite3.Connection, client_business_id: str, end: End, now_s: float, owner: str | None = None) -> None:
    """It came to an end, or was never taken. Only an intent can be that, and only `owner` knows so of its own: of
    another's it may just not be to be found yet."""
    never_taken = end.state in {State.WITHDRAWN, State.REFUSED}
    db.execute(
        "UPDATE submission SET state = ?, task_id = ?, answer = ?, images = ?, completed_at = ?, ended_at = ?"
        " WHERE client_business_id = ? AND (NOT ? OR (state = 'intent' AND owner IS ?))",
        (
            end.state.value,
            end.task_id,
            end.answer,
            end.images,
            end.completed_at,
            now_s,
            client_business_id,
            never_taken,
            owner,
        ),
    )


def put_bill(db: sqlite3.Connection, client_business_id: str, billing: Billing) -> None:
    """A newer bill of a task that ended replaces the older one in its answer."""
    found = db.execute(
        "SELECT answer FROM submission WHERE client_business_id = ? AND state IN ('completed', 'failed')",
        (client_business_id,),
    ).fetchone()
    if found is not None:
        amounts = {"credits": billing.credits, "cost_usd": billing.cost_usd}
        known = {name: f"{amount:f}" for name, amount in amounts.items() if amount is not None}
        answer = json.dumps({**json.loads(found[0] or "{}"), "billing": {"status": billing.status, **known}})
        db.execute("UPDATE submission SET answer = ? WHERE client_business_id = ?", (answer, client_business_id))


def put_files(db: sqlite3.Connection, client_business_id: str, names: Sequence[str | None], now_s: float) -> None:
    """These of its images are on disk, by their places."""
    db.executemany(
        "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)",
        [(client_business_id, place, name, now_s) for place, name in enumerate(names) if name is not None],
    )
    # A plain submission whose files were saved through the client is in good hands.
    db.execute(
        "UPDATE submission SET acknowledged_at = ?"  # noqa: S608  (a constant)
        f" WHERE client_business_id = ? AND run IS NULL AND {SAVED}",
        (now_s, client_business_id),
    )
    _drop_data(db, client_business_id)


def _drop_data(db: sqlite3.Connection, client_business_id: str) -> None:
    """Files that came inside the answer itself (base64) are not kept twice."""
    large = (
        f"SELECT answer FROM submission WHERE client_business_id = ? AND length(answer) > {_LARGE_BYTES} AND {SAVED}"  # noqa: S608
    )
    found: tuple[str] | None = db.execute(large, (client_business_id,)).fetchone()
    body = as_object(json_of(found[0].encode())) if found is not None else None
    if body is not None:
        answer = json.dumps(body_without_data(body))
        db.execute("UPDATE submission SET answer = ? WHERE client_business_id = ?", (answer, client_business_id))


def put_lost(db: sqlite3.Connection, client_business_id: str, now_s: float) -> None:
    """Its links are dead, and none of its files was saved."""
    db.execute("UPDATE submission SET lost_at = ? WHERE client_business_id = ?", (now_s, client_business_id))


def put_fact(db: sqlite3.Connection, name: str, value: str) -> str:
    """What the journal holds under this name: `value`, unless there was something already."""
    db.execute("INSERT OR IGNORE INTO fact VALUES (?, ?)", (name, value))
    found: tuple[str] = db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return found[0]


def put_acknowledged(db: sqlite3.Connection, client_business_id: str, now_s: float) -> None:
    """Its result is in good hands."""
    db.execute("UPDATE submission SET acknowledged_at = ? WHERE client_business_id = ?", (now_s, client_business_id))


def record_of_row(db: sqlite3.Connection, run: str, key: str | None, digest: str, occurrence: int) -> Record | None:
    """The latest record of a batch's row, wherever the row stands now."""
    where = "run = ? AND key IS NULL AND digest = ? AND occurrence = ?" if key is None else "run = ? AND key = ?"
    values = (run, digest, occurrence) if key is None else (run, key)
    record = _one(db, where, values)
    if record is None:
        return None
    counted: tuple[int] = db.execute(
        f"SELECT count(*) FROM submission WHERE {where} AND digest = ? AND id < ? AND state IN ('completed', 'failed')",  # noqa: S608  (constants)
        (*values, digest, record.number),
    ).fetchone()
    return evolve(record, earlier=counted[0])


def record_of_id(db: sqlite3.Connection, client_business_id: str) -> Record | None:
    """The record of a submission's own id."""
    return _one(db, "client_business_id = ?", (client_business_id,))


_RECOVERABLE: Final = (
    "WHERE id IN (SELECT id FROM submission WHERE state IN ('intent', 'accepted') AND run IS NULL"
    " UNION ALL SELECT id FROM submission WHERE run IS NULL AND state = 'completed' AND acknowledged_at IS NULL"
    " AND lost_at IS NULL AND max(ended_at, coalesce(completed_at, 0)) > ?)"
)
"""Out of date is what is so by this machine's clock and by the service's: the one may have been wrong by days when it
was written down, and to list one too many is better than to hide one."""


def recoverable(db: sqlite3.Connection, since_s: float) -> tuple[tuple[Record, ...], int]:
    """The plain submissions that the service may still work on, and those that finished after `since_s` (Unix seconds)
    and whose result nobody has: the newest `MOST_RECOVERED`, oldest first and without their answers; and how many there
    are in all."""
    number: int = db.execute(f"SELECT count(*) FROM submission {_RECOVERABLE}", (since_s,)).fetchone()[0]  # noqa: S608
    newest = f"{_select('NULL')} {_RECOVERABLE} ORDER BY id DESC LIMIT {MOST_RECOVERED}"
    rows = db.execute(newest, (since_s,)).fetchall()
    return tuple(records_of(db, reversed(rows))), number


def take_over(
    db: sqlite3.Connection, since_s: float, owner: str, is_alive: Callable[[str], bool]
) -> tuple[tuple[Record, ...], int]:
    """The same of those that no living process has: from now on they are `owner`'s."""
    owners: list[tuple[str | None]] = db.execute(
        f"SELECT DISTINCT owner FROM submission {_RECOVERABLE}",  # noqa: S608
        (since_s,),
    ).fetchall()
    gone = json.dumps([name or "" for (name,) in owners if name is None or (name != owner and not is_alive(name))])
    theirs = f"{_RECOVERABLE} AND coalesce(owner, '') IN (SELECT value FROM json_each(?))"  # noqa: S608
    newest = f"{_select('NULL')} {theirs} ORDER BY id DESC LIMIT {MOST_RECOVERED}"
    rows = db.execute(newest, (since_s, gone)).fetchall()
    taken = db.execute(
        f"UPDATE submission SET owner = ?, is_submitting = 0 {theirs}",  # noqa: S608
        (owner, since_s, gone),
    )
    return tuple(records_of(db, reversed(rows))), taken.rowcount


CHARGED: Final = "state IN ('intent', 'accepted', 'completed', 'failed')"


def paid(db: sqlite3.Connection, run: str | None, after: int, *, unsaved: bool) -> tuple[Record, ...]:
    """The next rows of a run (None: everything) that the service has charged or may have (also for a failure), in the
    order they were sent; with `unsaved`, those that may have images which are not on disk. A page of them, after this
    number."""
    only = f"state IN ('intent', 'accepted', 'completed') AND NOT {SAVED}" if unsaved else CHARGED
    of_run, values = ("run = ? AND", (run, after)) if run is not None else ("", (after,))
    page = f"{SELECT} WHERE {of_run} id > ? AND {only} ORDER BY id LIMIT {_PAGE_ROWS}"
    return tuple(records_of(db, db.execute(page, values).fetchall()))


def latest(db: sqlite3.Connection, most: int) -> tuple[Record, ...]:
    """The submissions that were begun last, plain ones and rows of runs alike: the newest first."""
    return tuple(records_of(db, db.execute(f"{SELECT} ORDER BY id DESC LIMIT ?", (most,)).fetchall()))


def record_of_any_id(db: sqlite3.Connection, some_id: str) -> Record | None:
    """The record of a submission by its own id, or by its task's."""
    return record_of_id(db, some_id) or _one(db, "task_id = ?", (some_id,))


def latest_of_prefix(db: sqlite3.Connection, prefix: str) -> Record | None:
    """The newest submission whose own id begins so (ASCII)."""
    return _one(db, "client_business_id >= ? AND client_business_id < ?", (prefix, f"{prefix}\x7f"))


def _one(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> Record | None:
    row = db.execute(f"{SELECT} WHERE {where} ORDER BY id DESC LIMIT 1", values).fetchone()
    return None if row is None else record_of(db, row)


def record_of(db: sqlite3.Connection, row: tuple[object, ...]) -> Record:
    """A record from its columns, with its files."""
    return next(records_of(db, [row]))


def records_of(db: sqlite3.Connection, rows: Iterable[tuple[object, ...]]) -> Iterator[Record]:
    """Records from their columns, with their files: those of a page of them are looked up at once."""
    rest = iter(rows)
    while page := list(islice(rest, _PAGE_ROWS)):
        marks = ",".join("?" * len(page))
        files: dict[object, list[tuple[int, str, float]]] = {}
        for business_id, *file in db.execute(
            f"SELECT client_business_id, place, name, saved_at FROM file WHERE client_business_id IN ({marks})"  # noqa: S608
            " ORDER BY place",
            [row[0] for row in page],
        ):
            files.setdefault(business_id, []).append((file[0], file[1], file[2]))
        for row in page:
            yield _record(row, files.get(row[0], ()))


def _record(row: tuple[object, ...], files: Sequence[tuple[int, str, float]]) -> Record:
    intent = Intent(*row[:_INTENT_COLUMNS])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    state, *rest = row[_INTENT_COLUMNS:]
    names = {place: name for place, name, _ in files}
    saved_at = max((saved_at for *_, saved_at in files), default=None)
    return Record(intent, State(state), *rest, names, saved_at)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportArgumentType]
