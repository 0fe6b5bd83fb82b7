"""The three ways a request can end, over real sockets: not sent, answered, or perhaps accepted."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.ports import unused_port
from toapis_async import (
    InvalidRequest,
    JournalError,
    ServiceError,
    SessionClosed,
    SubmitUncertain,
    ToAPIs,
    TransportError,
    UnreadableAnswer,
)
from toapis_async.engine import transport as transport_module
from toapis_async.engine.emitter import Emitter
from toapis_async.engine.transport import Trace, Transport
from toapis_async.settings import Credentials

from .kit import GENERATIONS, KEY, RawServer, fast, hang_up, raw, reply, reset, served, stall, task, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from toapis_async.events import Event

HALF = b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": "task_1", '


@asynccontextmanager
async def transport(url: str, events: list[Event] | None = None, **settings: Any) -> AsyncIterator[Transport]:
    """The bare transport, opened."""
    emit = Emitter(() if events is None else (events.append,))
    opened = Transport(Credentials.resolve(KEY, url), fast(**settings), emit)
    opened.open()
    try:
        yield opened
    finally:
        await opened.aclose()


async def failing_post(transport: Transport) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await transport.post("submit", "/images/generations", json={"prompt": "kite"})
    assert caught.value.__context__ is None
    return caught.value


# ------------------------------------------------------------------------------------------- not sent


async def test_what_is_refused_right_before_it_goes_out_is_not_sent_though_its_connection_is_there() -> None:
    connected = asyncio.Event()

    async def refuse() -> None:
        connected.set()
        raise JournalError("taken over")

    async with RawServer(reply(200, b"{}")) as server, transport(server.url) as opened:
        with pytest.raises(JournalError, match="taken over"):
            await opened.post("submit", "/x", json={}, before_send=refuse)
        assert connected.is_set()
        assert server.requests == []
        assert opened.sent == 0
        await opened.post("submit", "/x", json={})
        assert len(server.requests) == 1


async def test_a_refused_connection_is_not_sent() -> None:
    async with transport(f"http://127.0.0.1:{unused_port()}") as opened:
        error = await failing_post(opened)
        assert (error.may_have_been_accepted, error.sent, opened.sent) == (False, 0, 0)


async def test_an_unresolvable_name_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    async with transport("https://nowhere.invalid") as opened:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
        error = await failing_post(opened)
        assert (error.may_have_been_accepted, error.sent) == (False, 0)
        assert "nowhere.invalid" in str(error)


async def test_a_name_that_no_resolver_can_take_is_a_transport_error() -> None:
    # A label of 64 letters makes the resolver raise UnicodeError, which is no OSError.
    async with transport(f"https://{'a' * 64}.example") as opened:
        assert not (await failing_post(opened)).may_have_been_accepted


async def test_a_failed_tls_handshake_is_not_sent_and_hints_at_a_proxy() -> None:
    def speak_plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 this is no TLS\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    async with server, transport(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as opened:
        error = await failing_post(opened)
        assert (error.may_have_been_accepted, error.sent) == (False, 0)
        assert "TLS failed" in "".join(error.__notes__)


async def test_the_total_time_out_while_queued_for_a_connection_is_not_sent() -> None:
    async with (
        RawServer(stall()) as server,
        transport(server.url, max_connections=1, request_timeout_s=0.03) as opened,
        asyncio.TaskGroup() as group,
    ):
        # One with a longer time-out holds the only connection.
        holding = group.create_task(_hold(opened, f"{server.url}/file.png"))
        await until(lambda: server.requests)
        error = await failing_post(opened)
        assert (error.may_have_been_accepted, error.sent) == (False, 0)
        assert [request.method for request in server.requests] == ["GET"]
        holding.cancel()


async def _hold(opened: Transport, url: str) -> None:
    assert opened._api is not None
    transport_module._trace.set(Trace())
    async with opened._api.get(url, timeout=aiohttp.ClientTimeout(total=30)):
        raise AssertionError("unreachable: the server never answers")


async def test_the_total_time_out_while_the_intent_is_committed_is_not_sent() -> None:
    async def commit() -> None:
        await asyncio.Event().wait()

    async with RawServer(reply()) as server, transport(server.url, request_timeout_s=0.3) as opened:
        with pytest.raises(TransportError) as caught:
            await opened.post("submit", "/x", json={}, before_send=commit)
        assert (caught.value.may_have_been_accepted, caught.value.sent) == (False, 0)
        assert server.requests == []


async def test_a_closed_transport_sends_nothing() -> None:
    async with RawServer(reply()) as server, transport(server.url) as opened:
        await opened.aclose()
        with pytest.raises(Exception, match="closed"):
            await opened.post("submit", "/x", json={})
        assert server.requests == []


# ------------------------------------------------------------------------------------------- perhaps accepted


@pytest.mark.parametrize(
    "act",
    [
        hang_up(),
        reset(),
        stall(),
        hang_up(b"HTTP/1.1 200 OK\r\nContent-"),
        hang_up(HALF),
        reset(HALF),
        stall(HALF),
        raw(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"id"\r\nnonsense\r\n', close=True),
        raw(b"no HTTP at all\r\n\r\n", close=True),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", close=True),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nabcd", close=True),
    ],
    ids=[
        "closes",
        "resets",
        "stalls",
        "closes-in-the-headers",
        "closes-in-the-body",
        "resets-in-the-body",
        "stalls-in-the-body",
        "broken-chunks",
        "no-http",
        "endless-header",
        "odd-length",
    ],
)
async def test_an_answer_lost_after_the_body_went_out_may_mean_acceptance(act: Any) -> None:
    async with RawServer(act) as server:
        async with transport(server.url, read_timeout_s=0.1) as opened:
            error = await failing_post(opened)
            assert (error.may_have_been_accepted, error.sent) == (True, 1)
        async with ToAPIs(KEY, base_url=server.url, settings=fast(read_timeout_s=0.1, submit_retry_s=9)) as client:
            with pytest.raises(SubmitUncertain) as caught:
                await client.submit({"prompt": "kite", "client_business_id": "mine"})
            assert caught.value.client_business_id == "mine"
            assert isinstance(caught.value.__cause__, TransportError)
        assert [request.method for request in server.requests].count("POST") == 2  # one each


async def test_the_total_time_out_after_the_body_went_out_may_mean_acceptance() -> None:
    async with RawServer(stall(), silence_s=70) as server, transport(server.url, read_timeout_s=600) as opened:
        assert (await failing_post(opened)).may_have_been_accepted


async def test_a_lost_answer_to_a_question_is_harmless() -> None:
    async with RawServer(hang_up(HALF)) as server, transport(server.url) as opened:
        with pytest.raises(TransportError) as caught:
            await opened.get("query", "/x")
        assert not caught.value.may_have_been_accepted
        assert caught.value.sent == 1


@pytest.mark.parametrize("act", [stall(), stall(HALF), raw(HALF[:20])], ids=["nothing", "half", "head"])
async def test_a_query_that_hears_nothing_is_a_transport_error(act: Any) -> None:
    async with RawServer(act) as server, transport(server.url, read_timeout_s=0.1) as opened:
        with pytest.raises(TransportError, match="TimeoutError") as caught:
            await opened.get("query", "/x")
        assert (caught.value.sent, caught.value.may_have_been_accepted) == (1, False)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)


async def test_a_query_that_never_ends_or_never_gets_a_connection_is_ended_by_its_whole_time() -> None:
    async with (
        RawServer(stall(HALF)) as server,
        transport(server.url, max_connections=1, request_timeout_s=0.5) as opened,
    ):
        asking = [asyncio.create_task(opened.get("query", "/x")) for _ in range(2)]
        await until(lambda: all(each.done() for each in asking))
        errors = [error for each in asking if isinstance(error := each.exception(), TransportError)]
        assert [error.sent for error in errors] in ([1, 0], [1, 1])  # the second may have got its connection


# ------------------------------------------------------------------------------------------- answered


async def test_a_gateway_s_page_of_300_kb_becomes_its_title() -> None:
    page = b"<html><head><title>524: A timeout occurred</title></head>" + b"<p>padding</p>" * 22_000
    async with RawServer(reply(524, page)) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
        with pytest.raises(ServiceError) as caught:
            await client.status("task_1")
        assert caught.value.message == "524: A timeout occurred"
        with pytest.raises(SubmitUncertain) as uncertain:
            await client.submit("kite")
        assert len(str(uncertain.value)) < 400


async def test_an_error_page_beyond_the_cap_still_gives_its_title() -> None:
    page = b"<html><title>502 Bad Gateway</title>" + b"x" * 100_000
    async with (
        RawServer(reply(502, page)) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast(max_answer_bytes=2_048)) as client,
    ):
        with pytest.raises(ServiceError, match="502 Bad Gateway"):
            await client.status("task_1")


async def test_an_error_whose_body_breaks_off_is_still_that_status() -> None:
    refused = b"HTTP/1.1 401 No\r\nContent-Length: 500\r\n\r\n{"
    async with RawServer(hang_up(refused)) as server, transport(server.url) as opened:
        assert (await opened.post("submit", "/x", json={})).status == 401


async def test_a_good_answer_beyond_the_cap_is_unreadable_and_a_submission_uncertain() -> None:
    long = json.dumps(task(padding="x" * 5_000)).encode()
    async with (
        RawServer(reply(200, long)) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast(max_answer_bytes=1_024, max_file_bytes=1_024)) as client,
    ):
        with pytest.raises(UnreadableAnswer, match="longer than 2389 bytes"):
            await client.status("task_1")
        with pytest.raises(SubmitUncertain):
            await client.submit("kite")


async def test_a_redirect_of_the_api_is_an_error_and_its_target_is_never_asked() -> None:
    async with RawServer(reply(200, task())) as elsewhere:
        redirect = reply(307, {}, Location=f"{elsewhere.url}/v1/images/generations")
        async with RawServer(redirect) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
            for ask in (client.status("task_1"), client.submit("kite"), client.balance()):
                with pytest.raises(ServiceError) as caught:
                    await ask
                assert caught.value.status == 307
            assert len(server.requests) == 3
        assert elsewhere.requests == []


async def test_headers_of_the_answer_are_told_in_any_case_and_cookies_forgotten() -> None:
    act = reply(429, {}, Retry_After="7", X_RateLimit_Remaining="0", Set_Cookie="a=b", X_Other="1")
    async with RawServer(act) as server, transport(server.url) as opened:
        answer = await opened.get("query", "/x")
        assert [answer.headers[name] for name in ("retry-after", "x-ratelimit-remaining")] == ["7", "0"]
        await opened.get("query", "/x")
        assert "cookie" not in server.requests[1].headers


# ------------------------------------------------------------------------------------------- counting


async def test_a_get_that_aiohttp_resends_on_a_stale_connection_is_counted(events: list[Event]) -> None:
    async with (
        RawServer(reply(200, {}), hang_up(), reply(200, {})) as server,
        transport(server.url, events) as opened,
    ):
        assert (await opened.get("query", "/a")).sent == 1
        assert (await opened.get("query", "/b")).sent == 2
        assert opened.sent == 3
        assert [request.target for request in server.requests] == ["/v1/a", "/v1/b", "/v1/b"]
        assert [getattr(event, "sent", None) for event in events] == [1, 2]


async def test_a_resent_look_costs_two_tokens_of_the_query_bucket() -> None:
    async with (
        RawServer(reply(200, task()), hang_up(), reply(200, task())) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast()) as client,
    ):
        before = client.statistics().query
        await client.status("task_1")
        await client.status("task_1")
        after = client.statistics()
        assert after.requests == 3
        assert (before.unanswered, after.query.unanswered) == (0, 0)


async def test_a_post_on_a_stale_connection_is_never_resent() -> None:
    async with RawServer(reply(200, {}), hang_up(), reply(200, task())) as server, transport(server.url) as opened:
        await opened.get("query", "/a")
        error = await failing_post(opened)
        assert error.may_have_been_accepted
        assert len(server.requests) == 2


# ------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/v1"])
@pytest.mark.parametrize("prefix", ["", "/gateway/toapis"])
async def test_base_url_may_have_a_path_and_any_ending(prefix: str, suffix: str) -> None:
    async with RawServer(reply(200, task())) as server:
        async with ToAPIs(KEY, base_url=f"{server.url}{prefix}{suffix}", settings=fast()) as client:
            await client.submit("kite")
        assert server.requests[0].target == prefix + GENERATIONS


@pytest.mark.parametrize(
    ("task_id", "segment"),
    [
        ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("50%41", "50%2541"),
        ("../../balance", "..%2F..%2Fbalance"),
        ("图像-ü", "%E5%9B%BE%E5%83%8F-%C3%BC"),
        ("a b+c&d;e", "a%20b%2Bc%26d%3Be"),
    ],
)
async def test_an_id_is_one_segment_of_the_url_whatever_is_in_it(task_id: str, segment: str) -> None:
    async with RawServer(reply(200, task())) as server:
        async with ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
            await client.status(task_id)
            await client.find(task_id)
        assert {request.target for request in server.requests[:2]} == {f"{GENERATIONS}/{segment}"}


@pytest.mark.parametrize("task_id", ["", " ", ".", "..", "a\nb", "a\x00", "x" * 513, "\ud800", 5, None])
async def test_an_id_that_is_no_segment_is_refused_unsent(task_id: Any) -> None:
    async with RawServer(reply(200, task())) as server:
        async with ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
            for ask in (client.status, client.find):
                with pytest.raises(InvalidRequest):
                    await ask(task_id)
            with pytest.raises(InvalidRequest):
                client.attach(task_id)
        assert server.requests == []


async def test_an_id_of_the_service_that_is_no_unicode_names_no_task() -> None:
    broken = b'{"id": "task_\\ud800", "status": "queued"}'
    async with (
        RawServer(reply(200, broken), reply(404, {})) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast()) as client,
    ):
        with pytest.raises(SubmitUncertain):
            await client.submit("kite")


async def test_requests_go_through_the_proxy_and_its_password_is_in_no_error() -> None:
    async with RawServer(reply(200, task()), reset()) as proxy:
        address = f"http://user:hunter2@{proxy.authority}"
        async with ToAPIs(KEY, base_url="http://127.0.0.1:9", settings=fast(proxy=address)) as client:
            await client.status("task_1")
            assert proxy.requests[0].target == f"http://127.0.0.1:9{GENERATIONS}/task_1"
            with pytest.raises(TransportError) as caught:
                await client.status("task_1")
            assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(fast(proxy=address))


# ------------------------------------------------------------------------------------------- waits


async def test_retry_after_may_be_an_http_date() -> None:
    late = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3_600))
    async with (
        RawServer(reply(429, {}, Retry_After=late)) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast(max_retry_after_s=100)) as client,
    ):
        with pytest.raises(ServiceError) as caught:
            await client.status("task_1")
        assert getattr(caught.value, "retry_after_s", None) == 100
        assert client.statistics().query.paused_for_s > 90


async def test_the_sandbox_and_the_client_agree_end_to_end() -> None:
    async with served() as (sandbox, client):
        generation = await client.generate("kite", n=2)
        assert len(generation.images) == 2
        assert sandbox.ledger.by_client_business_id(generation.client_business_id or "")[0].n == 2
        assert sandbox.requests.rate_limited == 0


# ------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("begun", [b"", HALF, HALF.replace(b"200 OK", b"500 Oops")], ids=["headers", "body", "error"])
async def test_a_question_under_way_at_closing_ends_at_once(begun: bytes) -> None:
    async with RawServer(stall(begun)) as server:
        client = await ToAPIs(
            KEY, base_url=server.url, settings=fast(request_timeout_s=100, read_timeout_s=100)
        ).start()
        asking = [asyncio.create_task(ask) for ask in (client.status("t"), client.find("t"), client.balance())]
        await until(lambda: len(server.requests) == 3)
        await asyncio.sleep(0.005)
        await client.aclose()
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
        # A refusal whose body broke off is still one; the others are failures of the network or of the state.
        assert all(isinstance(outcome, TransportError | SessionClosed | ServiceError) for outcome in outcomes)


async def test_a_question_that_queues_for_a_connection_at_closing_is_not_cancelled_but_refused() -> None:
    async with RawServer(stall()) as server:
        settings = fast(max_connections=1, request_timeout_s=100, read_timeout_s=100)
        client = await ToAPIs(KEY, base_url=server.url, settings=settings).start()
        asking = [asyncio.create_task(client.balance()) for _ in range(4)]
        await until(lambda: server.requests)
        await client.aclose()
        async with asyncio.timeout(60):
            await asyncio.wait(asking)
        for doing in asking:
            assert not doing.cancelled()
            assert isinstance(doing.exception(), TransportError | SessionClosed)
        assert len(server.requests) == 1
