"""OpenTelemetry: traces and metrics of a client, from its events. Needs `pip install 'toapis-async[otel]'`.

Only OpenTelemetry's API is used: without an SDK all of this does nothing. Names follow the GenAI semantic
conventions (which are under development) where those fit, and begin with `toapis.` elsewhere.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakSet

from attrs import define, field

from toapis_async.errors import ClientStateError
from toapis_async.events import (
    FileFailed,
    FileSaved,
    RequestDone,
    SubmitFailed,
    SubmitInDoubt,
    SubmitLost,
    SubmitQueued,
    SubmitRetried,
    SubmitSent,
    TaskAccepted,
    TaskEnded,
    TaskWatched,
)
from toapis_async.task import TaskStatus

try:
    from opentelemetry.metrics import MeterProvider, Observation, get_meter_provider
    from opentelemetry.trace import SpanKind, Status, StatusCode, get_tracer_provider, set_span_in_context
except ImportError as _error:
    raise ImportError("toapis_async.telemetry needs OpenTelemetry: pip install 'toapis-async[otel]'") from _error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from toapis_async.client import ToAPIs
    from toapis_async.engine.core import ClientStatistics
    from toapis_async.events import Event
    from toapis_async.task import Usage


__all__ = ["instrument"]

SCOPE: Final = "toapis_async"
OPERATION: Final = "generate_content"
WAIT: Final = "toapis.wait"
_PHASES: Final = {
    SubmitQueued: WAIT,
    SubmitRetried: WAIT,
    SubmitSent: "toapis.send",
    SubmitInDoubt: "toapis.look_up",
}
MOST_OPEN: Final = 50_000
"""Generations whose span is kept open; more, and the oldest is ended as unfinished."""
MOST_ENDED: Final = 10_000
"""Ended generations whose files' spans still become children of theirs."""
_DURATIONS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 300, 600, 1800, 3600)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


def instrument(
    client: ToAPIs, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Trace and measure a client from now on, by the providers given or else the global ones. Call it once, best before
    the client is opened.

    A span a generation, with the caller's span as its parent and a child for each time it waits for a turn, is sent, is
    looked up, or a file of it is saved. The key is in none, and no prompt unless `Settings(events_with_prompts=True)`.
    Raises `ClientStateError` when the client is instrumented already.
    """
    if client in _instrumented:
        raise ClientStateError("this client is instrumented already")
    tracers, meters = tracer_provider or get_tracer_provider(), meter_provider or get_meter_provider()
    own_version = version("toapis-async")
    meter = meters.get_meter(SCOPE, own_version)
    if meters not in _gauges:
        _gauges[meters] = _Gauges(meter)
    _gauges[meters].add(client)
    _instrumented.add(client)
    client.add_listener(_Listener(tracers.get_tracer(SCOPE, own_version), meter, _server(client)))


def _server(client: ToAPIs) -> dict[str, str | int]:
    parts = urlsplit(client.base_url)
    return {
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }


@define(eq=False)
class _Generation:
    """One that has not ended yet. Its spans' times are those of the events, counted from the clock at its begin."""

    span: Span
    context: Context  #: in which its span is the current one
    begun_s: float
    begun_ns: int
    request: dict[str, str | int]  #: what its measurements are told apart by
    is_submitted: bool  #: by this client, that is: not attached
    phase: Span | None = None
    phase_name: str = ""
    phase_since_s: float = 0.0
    posts: int = 0
    ids: list[str] = field(factory=list[str])

    def ns(self, at_s: float) -> int:
        """An event's time as spans have it: Unix nanoseconds."""
        return self.begun_ns + round((at_s - self.begun_s) * 1e9)

    def leave_phase(self, at_s: float) -> None:
        """End the child span of what it was doing."""
        if self.phase is not None:
            self.phase.end(self.ns(at_s))
        self.phase, self.phase_name = None, ""


class _Listener:
    """Turns a client's events into spans and measurements."""

    def __init__(self, tracer: Tracer, meter: Meter, server: dict[str, str | int]) -> None:
        self._tracer = tracer
        self._common: dict[str, str | int] = {
            "gen_ai.operation.name": OPERATION,
            "gen_ai.provider.name": "toapis",
            **server,
        }
        self._server = server
        self._by_id: dict[str, _Generation] = {}  # by each id; the oldest first
        self._ended: dict[str, Context] = {}
        durations, tokens = {"explicit_bucket_boundaries_advisory": _DURATIONS_S}, _TOKENS
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "From the call until the end of its task was seen", **durations
        )
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens that a task took, of models billed by token",
            explicit_bucket_boundaries_advisory=tokens,
        )
        self._waited = meter.create_histogram(
            "toapis.client.wait.duration", "s", "A submission's wait for its turn", **durations
        )
        self._service = meter.create_histogram(
            "toapis.client.service.duration",
            "s",
            "From a task's creation to its completion, by the service",
            **durations,
        )
        self._lag = meter.create_histogram(
            "toapis.client.lag", "s", "From a task's completion, by the service, until it was seen", **durations
        )
        self._throttled = meter.create_counter("toapis.client.throttled", "{response}", "Answers of 429")
        self._saved = meter.create_counter("toapis.client.saved", "By", "Files that are whole and on disk")

    def __call__(self, event: Event) -> None:
        match event:
            case SubmitQueued():
                self._queued(event)
            case SubmitSent() | SubmitRetried() | SubmitInDoubt():
                self._enter(self._submitted(event), event)
            case SubmitFailed() | SubmitLost():
                self._submission_ended(event)
            case TaskAccepted():
                self._accepted(event)
            case TaskWatched():
                self._watched(event)
            case TaskEnded():
                self._task_ended(event)
            case FileSaved() | FileFailed():
                self._file_ended(event)
            case RequestDone(status=429):
                self._throttled.add(1, {**self._server, "toapis.request.kind": event.kind})
            case _:
                pass

    # -------------------------------------------------------------------------------------- a generation

    def _begin(self, at_s: float, *ids: str | None, is_submitted: bool) -> _Generation:
        """Its span, as a child of the span that is current in this task."""
        begun_ns = time.time_ns()
        span = self._tracer.start_span(OPERATION, kind=SpanKind.CLIENT, attributes=self._common, start_time=begun_ns)
        context, request = set_span_in_context(span), {**self._common}
        generation = _Generation(span, context, at_s, begun_ns, request, is_submitted=is_submitted)
        for each in ids:
            self._name(generation, each)
        while len(self._by_id) > 2 * MOST_OPEN:  # each has two ids
            self._end(next(iter(self._by_id.values())), at_s, error="unfinished")
        return generation

    def _name(self, generation: _Generation, another_id: str | None) -> None:
        if another_id is not None:
            generation.ids.append(another_id)
            self._by_id[another_id] = generation

    def _submitted(self, event: SubmitQueued | SubmitSent | SubmitRetried | SubmitInDoubt) -> _Generation:
        """The generation of a submission; a new one, also when that is in doubt already: by an earlier process."""
        generation = self._by_id.get(event.client_business_id)
        if generation is None:
            generation = self._begin(event.at_s, event.client_business_id, is_submitted=True)
            generation.span.set_attribute("toapis.client_business_id", event.client_business_id)
        return generation

    def _queued(self, event: SubmitQueued) -> None:
        generation = self._submitted(event)
        if generation.phase is None:
            self._enter(generation, event)
        span = generation.span
        span.set_attribute("gen_ai.output.type", event.kind)
        if event.images != 1:
            span.set_attribute("gen_ai.request.choice.count", event.images)
        if event.model is not None:
            generation.request["gen_ai.request.model"] = event.model
            span.set_attribute("gen_ai.request.model", event.model)
            span.update_name(f"{OPERATION} {event.model}")
        if event.prompt is not None:
            parts = [{"type": "text", "content": event.prompt}]
            span.set_attribute("gen_ai.input.messages", json.dumps([{"role": "user", "parts": parts}]))

    def _enter(self, generation: _Generation, event: SubmitQueued | SubmitSent | SubmitRetried | SubmitInDoubt) -> None:
        """A child span for what it does from now on."""
        if isinstance(event, SubmitSent):
            generation.posts = event.attempt
            if generation.phase_name == WAIT:
                self._waited.record(event.at_s - generation.phase_since_s, generation.request)
        generation.leave_phase(event.at_s)
        generation.phase_name, generation.phase_since_s = _PHASES[type(event)], event.at_s
        start_ns = generation.ns(event.at_s)
        generation.phase = self._tracer.start_span(generation.phase_name, generation.context, start_time=start_ns)

    def _submission_ended(self, event: SubmitFailed | SubmitLost) -> None:
        generation = self._by_id.get(event.client_business_id)
        if generation is None:
            return
        if isinstance(event, SubmitFailed):
            self._end(generation, event.at_s, error=event.reason, code=event.code)
        else:
            self._end(generation, event.at_s, error="SubmitUncertain")

    def _accepted(self, event: TaskAccepted) -> None:
        generation = self._by_id.get(event.client_business_id or event.task_id)
        if generation is not None:
            generation.leave_phase(event.at_s)
            self._name(generation, event.task_id)

    def _watched(self, event: TaskWatched) -> None:
        if event.task_id in self._by_id or event.client_business_id in self._by_id:
            return
        generation = self._begin(event.at_s, event.task_id, event.client_business_id, is_submitted=False)
        generation.span.set_attribute("gen_ai.output.type", event.kind)
        generation.span.set_attribute("toapis.attached", value=True)

    def _task_ended(self, event: TaskEnded) -> None:
        generation = self._by_id.get(event.task_id) or self._by_id.get(event.client_business_id or "")
        if generation is None:
            return
        generation.span.set_attribute("gen_ai.response.id", event.task_id)
        generation.span.set_attribute("toapis.polls", event.polls)
        if generation.is_submitted and event.completed_at is not None:
            self._measure(generation, event.created_at, event.completed_at)
        if event.usage is not None:
            self._note_usage(generation, event.usage)
        self._ended[event.task_id] = generation.context
        if len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        failed = "TaskFailed" if event.status is TaskStatus.FAILED else None
        self._end(generation, event.at_s, error=event.reason or failed, code=event.code)

    def _measure(self, generation: _Generation, created_at: datetime | None, completed_at: datetime) -> None:
        """The service's times. Its clock and ours are those of two machines: less than nothing is nothing."""
        self._lag.record(max(time.time() - completed_at.timestamp(), 0.0), generation.request)
        if created_at is not None:
            self._service.record(max((completed_at - created_at).total_seconds(), 0.0), generation.request)

    def _note_usage(self, generation: _Generation, usage: Usage) -> None:
        for which, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens is not None:
                generation.span.set_attribute(f"gen_ai.usage.{which}_tokens", tokens)
                self._usage.record(tokens, {**generation.request, "gen_ai.token.type": which})

    def _end(self, generation: _Generation, at_s: float, *, error: str | None, code: str | None = None) -> None:
        """End its span. The service's words are left out, since they may quote the prompt; its code is not."""
        for each in generation.ids:
            self._by_id.pop(each, None)
        generation.leave_phase(at_s)
        span, request = generation.span, generation.request
        span.set_attribute("toapis.posts", generation.posts)
        if error is not None:
            request["error.type"] = error
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR, code[:100] if code else error))
        if generation.is_submitted:
            self._duration.record(at_s - generation.begun_s, request)
        span.end(generation.ns(at_s))

    # -------------------------------------------------------------------------------------- its files

    def _file_ended(self, event: FileSaved | FileFailed) -> None:
        now_ns = time.time_ns()
        span = self._tracer.start_span(
            "toapis.save",
            self._context_of(event),
            attributes={"gen_ai.response.id": event.task_id, "toapis.attempts": event.attempts},
            start_time=now_ns - round(event.duration_s * 1e9),
        )
        if isinstance(event, FileSaved):
            span.set_attribute("toapis.file.size", event.size_bytes)
            self._saved.add(event.size_bytes, self._server)
        else:
            span.set_attribute("error.type", event.reason)
            span.set_status(Status(StatusCode.ERROR, event.reason))
        span.end(now_ns)

    def _context_of(self, event: FileSaved | FileFailed) -> Context | None:
        """The context of a file's generation; None, which stands for the current one, when that is not known."""
        generation = self._by_id.get(event.task_id)
        return self._ended.get(event.task_id) if generation is None else generation.context


class _Gauges:
    """What is read from the clients' statistics whenever metrics are collected. One for each meter provider: of two
    instruments of one name only the first would be asked."""

    def __init__(self, meter: Meter) -> None:
        self._clients: WeakSet[ToAPIs] = WeakSet()
        self._lock = Lock()
        meter.create_observable_up_down_counter(
            "toapis.client.in_flight",
            [lambda _: self._sum(lambda statistics: statistics.in_flight)],
            "{task}",
            "Tasks being watched",
        )
        meter.create_observable_up_down_counter(
            "toapis.client.waiting",
            [lambda _: self._sum(lambda statistics: statistics.waiting)],
            "{submission}",
            "Submissions that wait for a permit or a token",
        )
        meter.create_observable_up_down_counter(
            "toapis.client.alone",
            [lambda _: self._sum(lambda statistics: statistics.shared is not None and statistics.shared.is_alone)],
            "{client}",
            "Clients that share limits and have lost what they share them through",
        )
        meter.create_observable_gauge(
            "toapis.client.tokens", [self._tokens], "{request}", "Requests that the service's bucket has room for now"
        )

    def add(self, client: ToAPIs) -> None:
        with self._lock:
            self._clients.add(client)

    def _statistics(self) -> Iterable[tuple[dict[str, str | int], ClientStatistics]]:
        with self._lock:  # metrics are collected in a thread of their own
            clients = tuple(self._clients)
        for client in clients:
            try:
                yield _server(client), client.statistics()
            except ClientStateError:  # not opened yet
                continue

    def _sum(self, value: Callable[[ClientStatistics], int]) -> list[Observation]:
        sums: dict[tuple[tuple[str, str | int], ...], int] = {}
        for server, statistics in self._statistics():
            key = tuple(server.items())
            sums[key] = sums.get(key, 0) + value(statistics)
        return [Observation(count, dict(key)) for key, count in sums.items()]

    def _tokens(self, _: CallbackOptions) -> list[Observation]:
        """By category; of several clients of one server, the fewest."""
        fewest: dict[tuple[tuple[str, str | int], ...], float] = {}
        for server, statistics in self._statistics():
            for category, bucket in (("submit", statistics.submit), ("query", statistics.query)):
                key = (*server.items(), ("toapis.category", category))
                fewest[key] = min(max(bucket.level, 0.0), fewest.get(key, bucket.capacity))
        return [Observation(level, dict(key)) for key, level in fewest.items()]


_gauges: WeakKeyDictionary[MeterProvider, _Gauges] = WeakKeyDictionary()
_instrumented: WeakSet[ToAPIs] = WeakSet()
