"""The key is sent to the API, and is told to nobody."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import ToAPIs, ToAPIsError
from toapis_async.engine.connections import _proxy_options

from .kit import GENERATIONS, KEY, PNG, RawServer, fast, hang_up, raw, reply, stall, task

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.events import Event

ECHO = f"you sent {KEY}, we keep {KEY}".encode()
ECHOING = {
    "error-json": reply(400, {"error": {"code": KEY, "message": f"bad key {KEY}", "param": KEY}}),
    "error-text": reply(500, ECHO),
    "error-title": reply(502, b"<html><title>" + ECHO + b"</title>"),
    "good-but-unreadable": reply(200, ECHO),
    "place": reply(200, {"status": "completed", "result": {"data": [{"url": {KEY: 1}}]}}),
    "truncated": reply(200, b'{"id": "' + ECHO),
    "escaped": reply(500, b'{"error": "you sent ' + KEY.replace("-", "\\u002d").encode() + b'", broken'),
    "utf-16": reply(500, f"<html><title>{KEY}</title>".encode("utf-16")),
    "utf-32-json": reply(400, json.dumps({"error": {"message": KEY}}).encode("utf-32")),
    "zero-width": reply(400, {"error": {"message": f"{KEY[:20]}\u200b{KEY[20:]}"}}),
    "html-entity": reply(502, f"<title>bad {KEY.replace('-', '&#45;')}</title>".encode()),
    "base64": reply(400, {"error": {"message": base64.b64encode(KEY.encode()).decode()}}),
    "status-line": raw(b"HTTP/1.1 abc " + ECHO + b"\r\n\r\n", close=True),
    "reason": raw(b"HTTP/1.1 418 " + ECHO + b"\r\nContent-Length: 0\r\n\r\n"),
    "header": raw(b"HTTP/1.1 200 OK\r\nX\x00" + ECHO + b": 1\r\n\r\n", close=True),
    "redirect": reply(302, {}, Location=f"http://127.0.0.1:9/?{KEY}"),
    "retry-after": reply(429, {}, Retry_After=KEY),
    "hang-up": hang_up(),
    "stall": stall(),
}


def told(error: BaseException) -> str:
    """Everything an error can tell: words, attributes, notes, chain, frames, and what survives a process."""
    parts = [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
    parts += [repr(vars(part)) for part in chain(error)]
    parts += [str(vars(pickle.loads(pickle.dumps(error)))), repr(copy.copy(error))]  # noqa: S301
    return "\n".join(parts)


def shows_key(text: str) -> bool:
    """Whether the key can be read in a text, over whatever stands between its letters."""
    letters = "".join(c for c in text if c.isalnum())
    return KEY.removeprefix("sk-")[:40] in letters or base64.b64encode(KEY.encode()).decode()[:40] in text


def chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize("act", ECHOING.values(), ids=ECHOING.keys())
async def test_the_key_is_in_no_error_event_or_log_record_even_when_the_server_echoes_it(
    act: Any, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with RawServer(act) as server:
        settings = fast(on_event=events.append, read_timeout_s=0.02)
        async with ToAPIs(KEY, base_url=server.url, settings=settings) as client:
            asks = (
                client.status("task_1"),
                client.submit("kite"),
                client.balance(),
                client.models(),
                client.upload(PNG),
            )
            for ask in asks:
                with pytest.raises(ToAPIsError) as caught:
                    await ask
                assert not shows_key(told(caught.value))
                assert not any(type(part).__module__.startswith("aiohttp") for part in chain(caught.value))
            assert KEY not in f"{client!r} {client} {settings!r} {client.statistics()!r}"
    assert server.requests
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)
    assert events
    assert not shows_key(repr(events))
    assert not shows_key(caplog.text)


async def test_links_ids_and_the_raw_answer_stay_as_they_came_also_where_they_bear_the_key() -> None:
    link = f"https://files.example/{KEY}.png"
    body = task(KEY, "completed", client_business_id=f"b-{KEY}", extra=KEY, result={"data": [{"url": link}]})
    async with RawServer(reply(200, body)) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
        snapshot = await client.status("t")
        assert (snapshot.task_id, snapshot.client_business_id) == (KEY, f"b-{KEY}")
        assert [image.url for image in snapshot.images] == [link]
        assert snapshot.raw == body
        assert (await (await client.submit("kite"))).images[0].url == link


async def test_the_key_is_in_no_traceback_frame_s_shown_locals_of_asyncio_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asyncio.get_running_loop().set_debug(True)
    caplog.set_level(logging.DEBUG)
    async with RawServer(hang_up()) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
        with pytest.raises(ToAPIsError):
            await client.submit("kite")
    assert KEY not in caplog.text


async def test_no_download_bears_the_key_also_from_the_api_s_own_host(tmp_path: Path) -> None:
    async with RawServer(reply(200)) as server:
        done = task("t", "completed", result={"data": [{"url": f"{server.url}/__files/a.png"}]})
        server.script.clear()
        server.script.extend([reply(200, done), reply(302, {}, Location="/__files/b.png"), reply(200, PNG)])
        async with ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
            generation = await client.generate("kite")
            (path,) = await generation.save(tmp_path)
        assert path.read_bytes() == PNG
        api, *files = server.requests
        assert api.target == GENERATIONS
        assert [request.target for request in files] == ["/__files/a.png", "/__files/b.png"]
        for request in files:
            assert "authorization" not in request.headers
            assert KEY not in repr(request)


async def test_prompts_are_in_events_and_logs_only_when_asked_for(
    events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for asked in (False, True):
        async with RawServer(reply(200, task("t", "completed"))) as server:
            settings = fast(on_event=events.append, events_with_prompts=asked)
            async with ToAPIs(KEY, base_url=server.url, settings=settings) as client:
                await client.generate("a very private kite")
        assert ("a very private kite" in repr(events)) is asked
        assert ("a very private kite" in caplog.text) is asked


def test_a_proxy_s_password_is_apart_from_its_address_also_without_a_name() -> None:
    assert "secret" not in str(_proxy_options("http://:secret@127.0.0.1:1")["proxy"])
