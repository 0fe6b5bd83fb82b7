"""Every watched task, under all the ids it goes by: the only place where a watch begins and where it ends.

The poller, the webhooks, the submissions and other processes report here; the first outcome wins. An entry is dropped
at its outcome, so a client that lives for months does not grow; the handles that are still held keep theirs.

An event may come before the answer to its task's submission: it is kept until that answer begins the watch. All of this
happens in single steps of the loop, so a report is handled whole or not at all.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Final

from toapis_async.engine.early_events import EarlyEvents
from toapis_async.engine.entry import Entry
from toapis_async.errors import SessionClosed, TaskOverdue
from toapis_async.events import TaskPolled, TaskWatched
from toapis_async.models import WebhookOutcome
from toapis_async.protocol.lifecycle import failure_of, may_become
from toapis_async.protocol.wire import Unfinished
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from toapis_async.engine.agenda import Agenda, Start
    from toapis_async.engine.emitter import Emitter
    from toapis_async.engine.shared.port import OtherProcesses
    from toapis_async.errors import TaskNotFound, ToAPIsError
    from toapis_async.protocol.end_message import EndMessage
    from toapis_async.protocol.endpoints import Endpoint, Kind
    from toapis_async.protocol.polling.forecast import Forecast
    from toapis_async.protocol.webhook import WebhookEvent
    from toapis_async.protocol.wire import Seen
    from toapis_async.settings import Settings
    from toapis_async.task import TaskSnapshot

MOST_WITHOUT_FILES: Final = 6
"""Reports that a task is completed which name no file, before that is taken for its end."""
PACKED_FROM: Final = 5_000
"""Watched tasks from which on answers are kept packed: a third of their memory, for a seventh of the CPU of a poll."""


class Tasks:
    """Watched tasks by kind and id. `on_end` is called at every end, before anyone who waits is woken."""

    def __init__(
        self,
        agenda: Agenda,
        settings: Settings,
        emit: Emitter,
        on_end: Callable[[Entry], None] = lambda _: None,
        others: OtherProcesses | None = None,
    ) -> None:
        self._agenda = agenda
        self._settings = settings
        self._emit = emit
        self._on_end = on_end
        self._others = others
        self._loop = asyncio.get_running_loop()
        self._by_id: dict[Kind, dict[str, Entry]] = {"image": {}, "video": {}}
        self._missing_since_s: dict[Entry, float] = {}  # here, since few ever are
        self.early: EarlyEvents = EarlyEvents()
        self._closed = False
        self._watched = 0
        self.are_refused: bool = False
        self.completed: int = 0
        self.failed: int = 0

    def __len__(self) -> int:
        return self._watched

    def __iter__(self) -> Iterator[Entry]:
        pairs = [pair for entries in self._by_id.values() for pair in entries.items()]
        return (entry for name, entry in pairs if name == entry.task_id)

    def get(self, name: str, kinds: Iterable[Kind] = ("image", "video")) -> Entry | None:
        """The watched task with this id of either sort."""
        return next((entry for kind in kinds if (entry := self._by_id[kind].get(name))), None)

    def forecast_of(self, kind: Kind, request_class: str | None = None) -> Forecast:
        """What is known of how long such requests take; without a class, of tasks whose request nobody knows."""
        return self._agenda.forecast_of(kind, request_class)

    # -------------------------------------------------------------------------------------- a watch begins

    def watch(
        self,
        endpoint: Endpoint,
        task_id: str,
        *,
        start: Start,
        query_id: str | None = None,
        client_business_id: str | None = None,
        request_class: str | None = None,
        since_s: float | None = None,
        was_seen: bool = False,
        snapshot: Seen | None = None,
        body: bytes | None = None,
        fallback: Endpoint | None = None,
        on_end: Callable[[Entry], None] | None = None,
    ) -> Entry:
        """The entry of a task from now on watched; one that is watched already is shared.

        `start` says what is known of its state, `snapshot` (read from `body`) is that state, `since_s` the loop time of
        its submission (now, if left out). `was_seen`: an earlier session knew it, so that one 404 does not end the
        watch. `fallback` is queried once when `endpoint` knows no such task. `on_end` is called once: at the end of the
        watch, or at once when the task is watched already with an `on_end` of its own.

        Race: an answer that was on the loop already when the client closed comes here afterwards. Nobody polls its task
        any more, so its watch ends at once.
        """
        entry = self._watched_as(endpoint.kind, task_id, client_business_id)
        if entry is not None:
            self._learn_ids(entry, task_id, query_id, client_business_id)
            _call_at_end(entry, on_end)
            if snapshot is not None:
                self.saw(entry, snapshot, body)
            return entry.current
        entry = Entry(
            task_id=task_id,
            query_id=query_id or task_id,
            client_business_id=client_business_id,
            endpoint=endpoint,
            since_s=self._loop.time() if since_s is None else since_s,
            forecast=self.forecast_of(endpoint.kind, request_class),
            request_class=request_class,
            status=TaskStatus.QUEUED if was_seen else None,
            fallback=fallback,
            on_end=on_end,
        )
        self._watched += 1
        self._index(entry)
        self._emit(TaskWatched, task_id, client_business_id, endpoint.kind)
        if snapshot is not None:
            self.saw(entry, snapshot, body)
        self._claim_early_event(entry)
        if self._closed:
            self._close(entry)
        if not (start == "unknown" and self._others is not None and not entry.ended and self._others.ask(entry)):
            self.begin_polls(entry, start)
        return entry

    def begin_polls(self, entry: Entry, start: Start) -> None:
        """From now on the task is polled, unless its watch has ended."""
        if not entry.ended:
            self._agenda.add(entry, start)

    def _claim_early_event(self, entry: Entry) -> None:
        early = self.early.of_task(entry.task_id, entry.endpoint.kind)
        if early is not None and not entry.ended:
            self.saw(entry, early, is_shared=True)  # it was handed on when it came
            self._agenda.event_came(entry.endpoint.kind)

    def _watched_as(self, kind: Kind, task_id: str, client_business_id: str | None) -> Entry | None:
        """The watched task with this id; or with this client_business_id, when its own id is not known yet."""
        entry = self._by_id[kind].get(task_id)
        if entry is None and client_business_id is not None:
            named = self._by_id[kind].get(client_business_id)
            entry = named if named is not None and named.task_id == client_business_id else None
        return entry

    def _learn_ids(
        self, entry: Entry, task_id: str, query_id: str | None = None, client_business_id: str | None = None
    ) -> None:
        """Another report names a watched task, perhaps by ids that were not known before."""
        business_id = entry.client_business_id or client_business_id
        if entry.task_id != task_id and entry.task_id in {business_id, client_business_id}:
            entry.task_id, entry.query_id = task_id, query_id or entry.query_id
        entry.client_business_id = business_id
        named = self._by_id[entry.endpoint.kind].get(business_id or "")
        if named is not None and named is not entry and named.task_id == business_id and not named.has_snapshot:
            self._merge(named, entry)
        self._index(entry)

    def _merge(self, entry: Entry, successor: Entry) -> None:
        """Two watches turned out to be of one task: one goes on, for everyone who waits for either."""
        self._watched -= 1
        self._unindex(entry)
        self.found(entry)
        entry.hand_over(successor)
        on_end, entry.on_end = entry.on_end, None
        _call_at_end(successor, on_end)

    def _index(self, entry: Entry) -> None:
        """Every id leads to it. Of two tasks under one client_business_id the first keeps that name."""
        entries = self._by_id[entry.endpoint.kind]
        for name in (entry.task_id, entry.query_id, entry.client_business_id):
            if name is not None:
                entries.setdefault(name, entry)

    def _unindex(self, entry: Entry) -> None:
        entries = self._by_id[entry.endpoint.kind]
        for name in (entry.task_id, entry.query_id, entry.client_business_id):
            if name is not None and entries.get(name) is entry:
                del entries[name]

    # -------------------------------------------------------------------------------------- reports

    def saw(
        self, entry: Entry, seen: Seen, body: bytes | None = None, *, by_event: bool = False, is_shared: bool = False
    ) -> None:
        """A poll (whose answer was `body`), or an event, showed the task, here or (`is_shared`) to another process. A
        final state ends it; what is older than known is ignored."""
        self.found(entry)
        if entry.ended or not may_become(entry.status, seen.status):
            return
        final = None if isinstance(seen, Unfinished) or not seen.status.is_final else seen
        if final is not None and final.status is TaskStatus.COMPLETED and not final.files:
            entry.without_files += 1
            if entry.without_files < MOST_WITHOUT_FILES:  # they may come a moment later
                return
        self._learn_own_id(entry, seen)
        if entry.same_as is not None:
            self.saw(entry.same_as, seen, body, by_event=by_event, is_shared=is_shared)
            return
        before = (entry.status, entry.progress) if entry.has_snapshot else None
        entry.update(seen, body, packed=self._watched >= PACKED_FROM)
        changed = before != (seen.status, seen.progress)
        self._emit(TaskPolled, entry.task_id, entry.client_business_id, seen.status, seen.progress, changed)
        if final is not None:
            if by_event or entry.polls:
                took_s = None if by_event else _service_s(final)
                self._agenda.finished(entry, took_s, by_event=by_event)
            assert entry.snapshot is not None
            self._end(entry, failure_of(entry.snapshot))
            if self._others is not None and not is_shared:
                self._others.tell(entry, by_event=by_event)
        elif changed:
            entry.notify()

    def _learn_own_id(self, entry: Entry, snapshot: Seen) -> None:
        """A task that is watched by its client_business_id gets its own id once the service has named it. (An answer's
        id need not be the one that was asked for [docs], so that no other task is renamed.)"""
        if entry.task_id == snapshot.task_id:
            if entry.client_business_id is None and snapshot.client_business_id is not None:
                self._learn_ids(entry, entry.task_id, client_business_id=snapshot.client_business_id)
        elif not entry.has_own_id or entry.task_id == snapshot.client_business_id:
            entry.client_business_id = entry.task_id
            known = self._by_id[entry.endpoint.kind].get(snapshot.task_id)
            if known is None:
                self._learn_ids(entry, snapshot.task_id)
            else:
                known.client_business_id = known.client_business_id or entry.client_business_id
                self._merge(entry, known)
                self._index(known)

    def missing(self, entry: Entry, error: TaskNotFound) -> bool:
        """The service says it knows no such task. One attached without a kind is queried as the other kind, too: True
        says that this is to be done now. One that was never seen ends at once; one that was may be on a replica that
        lags, so its watch ends only when it stays away for `vanish_grace_s`."""
        now_s = self._loop.time()
        since_s = self._missing_since_s.setdefault(entry, now_s)
        if entry.fallback is not None and entry.status is None:
            self._take_for(entry, entry.fallback)
            return entry.same_as is None
        if entry.status is None or now_s - since_s >= self._settings.vanish_grace_s:
            self._end(entry, error)
        elif entry.client_business_id is not None:  # gateways have named a resource where the task's id stands
            entry.query_id = entry.client_business_id if entry.query_id == entry.task_id else entry.task_id
        return False

    def _take_for(self, entry: Entry, endpoint: Endpoint) -> None:
        """A task whose kind nobody told is one of this kind."""
        self._unindex(entry)
        entry.endpoint, entry.fallback = endpoint, None
        entry.forecast = self.forecast_of(endpoint.kind)
        known = self._by_id[endpoint.kind].get(entry.task_id)
        if known is not None:
            self._merge(entry, known)
        else:
            self._index(entry)

    def found(self, entry: Entry) -> None:
        """The service knows the task (again)."""
        self._missing_since_s.pop(entry, None)

    def give_up(self, entry: Entry, error: ToAPIsError) -> None:
        """End a watch that leads to nothing: of a result that nobody can read, or a query that is refused. That is no
        outcome; the task can be attached again."""
        self._end(entry, error)

    def give_up_all(self, error: ToAPIsError) -> None:
        """The same for every watch, each with an error of its own: the service answers this key no more."""
        self.are_refused = True
        for entry in tuple(self):
            self._end(entry, copy.copy(error))

    def is_too_old(self, entry: Entry) -> bool:
        """Whether its time is over; `overdue` then ends the watch."""
        return self._loop.time() - entry.since_s >= self._most_age_s(entry)

    def overdue(self, entry: Entry) -> None:
        """End the watch of a task that is unfinished at its greatest age."""
        age_s = self._most_age_s(entry)
        text = f"task {entry.task_id} is unfinished after {age_s:g} s; it may still finish: attach it later"
        self._end(entry, TaskOverdue(text, task_id=entry.task_id))

    def _most_age_s(self, entry: Entry) -> float:
        return self._settings.max_task_age_s * entry.endpoint.age_factor

    def close(self) -> None:
        """End every watch with `SessionClosed`."""
        self._closed = True
        for entry in tuple(self):
            self._close(entry)

    def _close(self, entry: Entry) -> None:
        error = SessionClosed(
            f"the client was closed while task {entry.task_id} was running; it still runs: attach it again",
            task_ids=(entry.task_id,),
            client_business_ids=(entry.client_business_id,) if entry.client_business_id else (),
        )
        self._end(entry, error)

    def _end(self, entry: Entry, error: ToAPIsError | None) -> None:
        """The one place where a watch ends: first outcome wins, everyone who waits is woken."""
        if entry.ended:
            return
        entry.ended = True
        if error is not None:  # a poll's names the id that was asked for
            error.task_id = entry.task_id
            error.client_business_id = entry.client_business_id or error.client_business_id
        entry.error = error
        self._watched -= 1
        self._unindex(entry)
        self.found(entry)
        status = entry.status if entry.status and entry.status.is_final else None
        self.completed += status is TaskStatus.COMPLETED
        self.failed += status is TaskStatus.FAILED
        if status is not None:
            self.early.ended(entry.task_id)
        self._on_end(entry)
        on_end, entry.on_end = entry.on_end, None
        if on_end is not None:
            on_end(entry)
        entry.notify()
        self._emit(entry.end_event)

    # -------------------------------------------------------------------------------------- events

    def receive(self, event: WebhookEvent) -> WebhookOutcome:
        """Do what a verified event asks for.

        Its id is remembered only once it was handled, so that one whose delivery failed may come again; that of a
        stranger's event never is, so that the application can pass on a repetition as it did the first.
        """
        if event.is_test:
            return WebhookOutcome.TEST_EVENT
        if self.early.was_handled(event.event_id):
            return WebhookOutcome.DUPLICATE
        if (end := event.end) is None:
            return WebhookOutcome.IGNORED
        outcome = self._match(end)
        if outcome is not WebhookOutcome.UNKNOWN_TASK:
            self.early.handled(event.event_id)
        return outcome

    def learn(self, end: EndMessage) -> None:
        """Another process tells the end of a task, perhaps of one of ours. Raises `UnreadableAnswer`."""
        self._match(end, is_shared=True)

    def _match(self, end: EndMessage, *, is_shared: bool = False) -> WebhookOutcome:
        kind = end.kind
        found = [
            entry for each in self._by_id if (entry := self._watched_as(each, end.task_id, end.client_business_id))
        ]
        of_kind = [entry for entry in found if kind is None or entry.endpoint.kind == kind]
        of_any = [entry for entry in found if entry.fallback is not None and entry.status is None]
        if (entry := next(iter(of_kind or of_any), None)) is not None:
            snapshot = end.snapshot()
            if entry.fallback is not None and entry.fallback.kind == kind:
                self._take_for(entry, entry.fallback)
            if snapshot is not None:
                self.saw(entry.current, snapshot, by_event=end.by_event, is_shared=is_shared)
            else:
                self._agenda.hurry(entry.current)
            return WebhookOutcome.RESOLVED
        if self.early.have_ended(end.names):
            if end.by_event:  # a poll was quicker
                self._agenda.event_came(kind or "image")
            return WebhookOutcome.DUPLICATE
        return WebhookOutcome.EARLY if self.early.keep(end) else WebhookOutcome.UNKNOWN_TASK


def _call_at_end(entry: Entry, on_end: Callable[[Entry], None] | None) -> None:
    """Call `on_end` at the end of the watch; at once when that has an `on_end` already."""
    if on_end is not None and entry.on_end is None and not entry.ended:
        entry.on_end = on_end
    elif on_end is not None:
        on_end(entry)


def _service_s(snapshot: TaskSnapshot) -> float | None:
    """How long the service says it worked: both times are its own, so our clock does not matter."""
    if snapshot.created_at is None or snapshot.completed_at is None:
        return None
    return (snapshot.completed_at - snapshot.created_at).total_seconds()
