"""Traces and metrics of a client, by OpenTelemetry's SDK in memory, as a user of the public interface sees them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.client.events import SECRET, deliver, event
from tests.engine.journal_kit import ADDRESS, leave
from tests.engine.kit import KEY, FakeService, Hold, fast, lost, refusal, until
from tests.shared.kit import MemoryStore
from toapis_async import (
    ClientStateError,
    LinkExpired,
    Settings,
    SubmitUncertain,
    TaskFailed,
    ToAPIs,
)
from toapis_async import telemetry as telemetry_module
from toapis_async.engine.journal.records import State
from toapis_async.sandbox import Fault, Limits, Sandbox
from toapis_async.telemetry import instrument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

PROMPT = "a very secret kite"
GENERATION = "generate_content gpt-image-2-vip"


class Telemetry:
    """Providers of an application, and what they were given."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracers.get_tracer("the application")
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def instrument(self, client: ToAPIs) -> ToAPIs:
        instrument(client, tracer_provider=self.tracers, meter_provider=self.meters)
        return client

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def children(self, parent: ReadableSpan) -> list[str]:
        """Their names, in the order of their begins."""
        children = [span for span in self.spans if span.parent is not None and span.parent == parent.get_span_context()]
        return [span.name for span in sorted(children, key=lambda span: span.start_time or 0)]

    def metrics(self) -> dict[str, list[Any]]:
        """The data points by the metric's name."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@asynccontextmanager
async def observed(
    telemetry: Telemetry, sandbox_options: dict[str, Any] | None = None, *, journal: Path | None = None, **settings: Any
) -> AsyncIterator[tuple[Sandbox, ToAPIs]]:
    """A sandbox, and an open instrumented client."""
    options = {"pictures": False, "service_time_s": 0.02, "limits": Limits(1e5, 1e5, 1e5, 1e5)}
    async with Sandbox(**{**options, **(sandbox_options or {})}) as sandbox:
        client = ToAPIs(KEY, base_url=sandbox.base_url, settings=fast(**settings), journal=journal)
        async with telemetry.instrument(client):
            yield sandbox, client


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def everything(telemetry: Telemetry) -> str:
    return "".join(span.to_json() for span in telemetry.spans) + str(telemetry.metrics())


# ------------------------------------------------------------------------------------------------ spans


async def test_a_generation_is_a_span_of_its_caller_with_a_child_for_each_thing_it_waits_for(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    async with observed(telemetry) as (sandbox, client):
        with telemetry.tracer.start_as_current_span("request of a browser") as outer:
            generation = await client.generate(PROMPT, n=2)
        files = await generation.save(tmp_path)
    span = telemetry.only(GENERATION)
    assert span.parent == outer.get_span_context()
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert telemetry.children(span) == ["toapis.wait", "toapis.send", "toapis.save", "toapis.save"]
    found = attributes(span)
    assert found.pop("toapis.polls") >= 1
    assert found == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "toapis",
        "gen_ai.request.model": "gpt-image-2-vip",
        "gen_ai.output.type": "image",
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.id": generation.task_id,
        "server.address": "127.0.0.1",
        "server.port": int(sandbox.base_url.rpartition(":")[2].partition("/")[0]),
        "toapis.client_business_id": generation.client_business_id,
        "toapis.posts": 1,
    }
    sizes = {attributes(each)["toapis.file.size"] for each in telemetry.named("toapis.save")}
    assert sizes == {path.stat().st_size for path in files}


async def test_neither_key_nor_prompt_is_in_anything_unless_the_prompt_is_asked_for(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    async with observed(telemetry) as (sandbox, client):
        sandbox.faults.script("submit", None, Fault.MODEL_FORBIDDEN)
        files = await (await client.generate(PROMPT)).save(tmp_path / "a very secret folder")
        with pytest.raises(Exception, match="model"):
            await client.generate(PROMPT)
    assert len(files) == 1
    assert "secret" not in everything(telemetry).lower()
    asked = Telemetry()
    async with observed(asked, events_with_prompts=True) as (_, client):
        await client.generate(PROMPT)
    assert PROMPT in attributes(asked.only(GENERATION))["gen_ai.input.messages"]
    assert "SECRET" not in everything(asked)


async def test_the_rows_of_a_batch_are_children_of_the_span_in_which_it_was_begun(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    async with observed(telemetry) as (_, client):
        with telemetry.tracer.start_as_current_span("nightly batch") as outer:
            batch = client.batch([f"kite {number}" for number in range(30)], save_to=tmp_path)
            async for item in batch:
                assert item.ok
    rows = telemetry.named(GENERATION)
    assert len(rows) == 30
    assert all(span.parent == outer.get_span_context() for span in rows)
    assert {tuple(telemetry.children(span)) for span in rows} == {("toapis.wait", "toapis.send", "toapis.save")}


async def test_the_client_s_own_tasks_give_nobody_their_parent(telemetry: Telemetry) -> None:
    with telemetry.tracer.start_as_current_span("start of the application"):
        async with observed(telemetry) as (_, client):
            handles = []
            for number in range(2):
                with telemetry.tracer.start_as_current_span(f"request {number}"):
                    handles.append(await client.submit(PROMPT))
            for handle in handles:
                await handle
    parents = [telemetry.only(f"request {number}").get_span_context() for number in range(2)]
    assert [
        span.parent for span in sorted(telemetry.named(GENERATION), key=lambda span: span.start_time or 0)
    ] == parents


@pytest.mark.looptime
async def test_spans_last_as_long_as_what_they_stand_for(service: FakeService, telemetry: Telemetry) -> None:
    service.latency_s = 2.0
    service.on_submit.extend([refusal(429, "rate_limit_exceeded", retry_after="7"), lost()])
    settings = Settings(poll_jitter=0, reconcile_window_s=30)
    async with telemetry.instrument(ToAPIs(KEY, base_url=ADDRESS, settings=settings)) as client:
        await client.generate(PROMPT)
    span = telemetry.only(GENERATION)
    assert telemetry.children(span) == [
        *("toapis.wait", "toapis.send"),  # 429
        *("toapis.wait", "toapis.send"),  # its answer is lost, and it was not taken
        *("toapis.look_up", "toapis.send"),
    ]
    waits = [seconds(each) for each in telemetry.named("toapis.wait")]
    assert waits[0] == 0
    assert waits[1] >= 7.0
    assert [seconds(each) for each in telemetry.named("toapis.send")] == pytest.approx([2.0] * 3)
    assert seconds(telemetry.only("toapis.look_up")) >= 30
    assert attributes(span)["toapis.posts"] == 3
    assert seconds(span) >= 30 + 7 + 3 * 2 + service.service_time_s


async def test_a_lost_answer_whose_task_is_found_is_sent_once_and_looked_up(telemetry: Telemetry) -> None:
    async with observed(telemetry) as (sandbox, client):
        sandbox.faults.script("submit", Fault.LOST_ANSWER)
        await client.generate(PROMPT)
    assert telemetry.children(telemetry.only(GENERATION)) == ["toapis.wait", "toapis.send", "toapis.look_up"]


async def test_every_kind_of_failure_ends_its_span_and_says_which(telemetry: Telemetry) -> None:
    async with observed(telemetry) as (sandbox, client):
        sandbox.faults.script(
            "submit", Fault.TASK_FAILS, Fault.MODEL_FORBIDDEN, Fault.DROPPED, Fault.LIMITER_DOWN, Fault.UNAUTHORIZED
        )
        with pytest.raises(TaskFailed):
            await client.generate(PROMPT)
        for _ in range(4):
            with pytest.raises(Exception, match=r"."):
                await client.generate(PROMPT)
    spans = telemetry.named(GENERATION)
    types = [attributes(span)["error.type"] for span in spans]
    assert types == ["TaskFailed", "ServiceError", "SubmitUncertain", "ServiceError", "AuthenticationFailed"]
    assert {span.status.status_code for span in spans} == {StatusCode.ERROR}
    assert spans[0].status.description == "generation_failed"


@pytest.mark.looptime
async def test_a_caller_that_leaves_ends_its_span_when_nothing_was_sent_and_else_with_the_task(
    service: FakeService, telemetry: Telemetry
) -> None:
    hold = Hold()
    service.on_submit.append(hold)
    settings = Settings(poll_jitter=0, max_in_flight=1)
    async with telemetry.instrument(ToAPIs(KEY, base_url=ADDRESS, settings=settings)) as client:
        sent, waiting = (asyncio.create_task(client.generate(name)) for name in ("sent", "waiting"))
        await hold.reached.wait()
        await until(lambda: client.statistics().waiting == 1)
        for caller in (waiting, sent):
            caller.cancel()
        await asyncio.wait([waiting, sent])
        hold.answer(service.accept({"prompt": "sent"}))
        await until(client.unclaimed)
        await client.attach(client.unclaimed()[0])
    left, finished = telemetry.named(GENERATION)
    assert attributes(left)["error.type"] == "CancelledError"
    assert telemetry.children(left) == ["toapis.wait"]
    assert "error.type" not in attributes(finished)
    assert telemetry.children(finished) == ["toapis.wait", "toapis.send"]


@pytest.mark.looptime
async def test_what_a_closing_client_leaves_behind_has_ended_spans(service: FakeService, telemetry: Telemetry) -> None:
    service.on_submit.append(Hold())
    settings = Settings(close_grace_s=1)
    async with telemetry.instrument(ToAPIs(KEY, base_url=ADDRESS, settings=settings)) as client:
        sending = asyncio.create_task(client.submit("sending"))
        await until(lambda: service.seen)
        await client.submit("running")
    with pytest.raises(SubmitUncertain):
        await sending
    types = {attributes(span)["error.type"] for span in telemetry.named(GENERATION)}
    assert types == {"SubmitUncertain", "SessionClosed"}


async def test_an_event_of_the_service_ends_the_span_of_the_caller_and_not_of_its_own_request(
    telemetry: Telemetry,
) -> None:
    settings: dict[str, Any] = {"webhook_secrets": SECRET, "first_poll_s": 60, "min_poll_interval_s": 60}
    async with observed(telemetry, {"service_time_s": 60}, **settings) as (_, client):
        with telemetry.tracer.start_as_current_span("request of a browser") as outer:
            handle = await client.submit(PROMPT)
        with telemetry.tracer.start_as_current_span("POST /webhook"):
            await deliver(client, event(handle.task_id, handle.client_business_id))
        await handle
    span = telemetry.only(GENERATION)
    assert span.parent == outer.get_span_context()
    assert attributes(span)["toapis.polls"] == 0


async def test_a_task_that_is_attached_is_a_span_of_whoever_attached_it(telemetry: Telemetry) -> None:
    async with observed(telemetry) as (sandbox, client):
        async with ToAPIs(KEY, base_url=sandbox.base_url, settings=fast()) as other:
            ids = [(await other.submit({"prompt": PROMPT, "client_business_id": name})).task_id for name in ("a", "b")]
        with telemetry.tracer.start_as_current_span("request of a browser") as outer:
            handles = [client.attach(ids[0]), await client.find("b"), client.attach(ids[0])]
        for handle in handles:
            assert handle is not None
            await handle
        await until(lambda: client.statistics().in_flight == 0)
    spans = telemetry.named("generate_content")
    assert {attributes(span)["gen_ai.response.id"] for span in spans} == set(ids)
    assert len(spans) == 2
    assert all(span.parent == outer.get_span_context() for span in spans)
    assert {attributes(span)["toapis.attached"] for span in spans} == {True}


@pytest.mark.looptime
async def test_what_an_earlier_process_left_is_traced_when_it_is_taken_up(
    service: FakeService, telemetry: Telemetry, tmp_path: Path
) -> None:
    mine, path = {"prompt": PROMPT, "client_business_id": "mine"}, tmp_path / "journal.db"
    leave(path, "running", PROMPT, State.ACCEPTED, task_id="task_1")
    leave(path, "mine", mine, State.INTENT)
    service.accept({"prompt": PROMPT, "client_business_id": "running"})
    service.accept(mine)
    async with telemetry.instrument(ToAPIs(KEY, base_url=ADDRESS, journal=path)) as client:
        assert (await client.generate(PROMPT, client_business_id="mine")).task_id == "task_2"
        for handle in client.recovered():
            await handle
    taken_up = telemetry.only(GENERATION)
    assert telemetry.children(taken_up) == ["toapis.look_up"]
    assert attributes(taken_up)["toapis.posts"] == 0
    recovered = telemetry.named("generate_content")
    assert "task_1" in [attributes(span)["gen_ai.response.id"] for span in recovered]


async def test_a_file_that_can_not_be_had_is_a_failed_span(telemetry: Telemetry, tmp_path: Path) -> None:
    async with observed(telemetry) as (sandbox, client):
        sandbox.faults.script("submit", Fault.FILES_EXPIRE)
        generation = await client.generate(PROMPT)
        with pytest.raises(LinkExpired):
            await generation.save(tmp_path)
    saving = telemetry.only("toapis.save")
    assert attributes(saving)["error.type"] == "LinkExpired"
    assert telemetry.children(telemetry.only(GENERATION))[-1] == "toapis.save"


async def test_a_file_of_a_task_nobody_traced_is_a_span_of_whoever_saves_it(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    async with Sandbox(pictures=False, service_time_s=0.02) as sandbox:
        client = ToAPIs(KEY, base_url=sandbox.base_url, settings=fast())
        async with client:
            generation = await client.generate(PROMPT)
            telemetry.instrument(client)
            with telemetry.tracer.start_as_current_span("saving") as outer:
                await generation.save(tmp_path)
    assert telemetry.only("toapis.save").parent == outer.get_span_context()


# ------------------------------------------------------------------------------------------------ metrics


async def test_what_is_measured(telemetry: Telemetry, tmp_path: Path) -> None:
    async with observed(telemetry, submit_retry_s=60) as (sandbox, client):
        sandbox.faults.script("submit", Fault.RATE_LIMITED.lasting(0.01), Fault.TASK_FAILS)
        with pytest.raises(TaskFailed):
            await client.generate(PROMPT)
        (path,) = await (await client.generate(PROMPT)).save(tmp_path)
        metrics = telemetry.metrics()
    durations = {point.attributes.get("error.type"): point for point in metrics["gen_ai.client.operation.duration"]}
    assert {error: point.count for error, point in durations.items()} == {None: 1, "TaskFailed": 1}
    assert durations[None].attributes["gen_ai.request.model"] == "gpt-image-2-vip"
    (throttled,) = metrics["toapis.client.throttled"]
    assert (throttled.value, throttled.attributes["toapis.request.kind"]) == (1, "submit")
    assert [point.value for point in metrics["toapis.client.saved"]] == [path.stat().st_size]
    assert sum(point.count for point in metrics["toapis.client.wait.duration"]) == 3
    for name in ("toapis.client.service.duration", "toapis.client.lag"):
        assert sum(point.count for point in metrics[name]) >= 1
        assert all(point.min >= 0 for point in metrics[name])
    (limits,) = {point.attributes["server.port"] for point in metrics["toapis.client.tokens"]}
    assert str(limits) in sandbox.base_url


@pytest.mark.looptime
async def test_the_gauges_add_up_over_clients_and_end_with_them(service: FakeService, telemetry: Telemetry) -> None:
    settings = Settings(poll_jitter=0, max_in_flight=1, tier="default")
    clients = [telemetry.instrument(ToAPIs(KEY, base_url=ADDRESS, settings=settings)) for _ in range(2)]
    assert telemetry.metrics() == {}  # none is open
    async with clients[0], clients[1]:
        waiting = [asyncio.create_task(client.generate(PROMPT)) for client in clients for _ in range(3)]
        await until(lambda: all(client.statistics().waiting == 2 for client in clients))
        await until(lambda: all(client.statistics().in_flight == 1 for client in clients))
        metrics = telemetry.metrics()
        assert [point.value for point in metrics["toapis.client.in_flight"]] == [2]
        assert [point.value for point in metrics["toapis.client.waiting"]] == [4]
        tokens = {point.attributes["toapis.category"]: point.value for point in metrics["toapis.client.tokens"]}
        assert tokens["submit"] == pytest.approx(49, abs=0.5)
        await asyncio.gather(*waiting)
        assert [point.value for point in telemetry.metrics()["toapis.client.in_flight"]] == [0]


@pytest.mark.looptime
async def test_a_client_that_lost_what_it_shares_limits_through_is_counted(
    service: FakeService, telemetry: Telemetry
) -> None:
    store = MemoryStore()
    async with telemetry.instrument(ToAPIs(KEY, base_url=ADDRESS, shared=store)):
        counts = [telemetry.metrics()["toapis.client.alone"][0].value]
        for trouble in ("refused", None):
            store.trouble = trouble
            await asyncio.sleep(5)
            counts.append(telemetry.metrics()["toapis.client.alone"][0].value)
    assert counts == [0, 1, 0]


async def test_tokens_of_models_that_are_billed_by_token_are_counted(telemetry: Telemetry) -> None:
    settings: dict[str, Any] = {"webhook_secrets": SECRET, "first_poll_s": 60, "min_poll_interval_s": 60}
    async with observed(telemetry, {"service_time_s": 60}, **settings) as (_, client):
        handle = await client.submit(PROMPT)
        usage = {"input_tokens": 12, "output_tokens": 1290, "total_tokens": 1302}
        await deliver(client, event(handle.task_id, handle.client_business_id, usage=usage))
        generation = await handle
    assert generation.usage is not None
    points = telemetry.metrics()["gen_ai.client.token.usage"]
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in points} == {"input": 12, "output": 1290}
    assert attributes(telemetry.only(GENERATION))["gen_ai.usage.output_tokens"] == 1290


# ------------------------------------------------------------------------------------------------ its manners


@pytest.mark.looptime
async def test_spans_that_never_end_are_bounded(
    service: FakeService, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry_module, "MOST_OPEN", 5)
    monkeypatch.setattr(telemetry_module, "MOST_ENDED", 5)
    service.service_time_s = 60
    async with telemetry.instrument(ToAPIs(KEY, base_url=ADDRESS, settings=Settings(poll_jitter=0))) as client:
        handles = [await client.submit(PROMPT) for _ in range(12)]
        evicted = telemetry.named(GENERATION)
        assert {attributes(span)["error.type"] for span in evicted} == {"unfinished"}
        assert 6 <= len(evicted) <= 8
        for handle in handles:
            await handle
    assert len(telemetry.named(GENERATION)) == 12  # each once


async def test_a_client_is_instrumented_once(telemetry: Telemetry) -> None:
    client = telemetry.instrument(ToAPIs(KEY))
    with pytest.raises(ClientStateError, match="instrumented already"):
        telemetry.instrument(client)


async def test_an_exporter_that_fails_does_no_harm(telemetry: Telemetry, tmp_path: Path) -> None:
    class Broken(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise RuntimeError("no collector")

    class BrokenProcessor(SimpleSpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise RuntimeError("no memory")

    telemetry.tracers.add_span_processor(SimpleSpanProcessor(Broken()))
    telemetry.tracers.add_span_processor(BrokenProcessor(Broken()))
    async with observed(telemetry) as (_, client):
        assert await (await client.generate(PROMPT)).save(tmp_path)
        assert (client.statistics().in_flight, client.statistics().waiting) == (0, 0)


async def test_without_an_sdk_it_does_nothing() -> None:
    async with Sandbox(pictures=False, service_time_s=0.02) as sandbox:
        client = ToAPIs(KEY, base_url=sandbox.base_url, settings=fast())
        instrument(client)
        async with client:
            await client.generate(PROMPT)


def test_without_opentelemetry_the_extra_is_named() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import toapis_async.telemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert "pip install 'toapis-async[otel]'" in done.stderr.splitlines()[-1]
