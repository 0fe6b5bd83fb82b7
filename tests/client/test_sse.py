"""Progress as server-sent events, read by a browser's EventSource."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import async_playwright

from tests.engine.kit import served
from tests.report.test_browser import CHROMIUM, FLAGS
from toapis_async.sse import HEADERS, server_sent_events

if TYPE_CHECKING:
    from toapis_async import TaskHandle, ToAPIs

PAGE = """<!doctype html><title>…</title><script>
const seen = [], source = new EventSource("/progress/" + location.hash.slice(1));
source.onmessage = event => seen.push(JSON.parse(event.data));
source.addEventListener("done", event => {
    seen.push(JSON.parse(event.data)); source.close(); document.title = "done";
});
</script>"""


def records(sent: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(event.partition(b"data: ")[2]) for event in sent if b"data: " in event]


async def listened(handle: TaskHandle, **options: Any) -> list[bytes]:
    return [event async for event in server_sent_events(handle, **options)]


async def test_each_state_is_a_message_and_the_last_says_that_it_is() -> None:
    async with served({"service_time_s": 0.5}) as (_, client):
        handle = await client.submit("a kite")
        sent = await listened(handle)
        again = await listened(handle)
    told = records(sent)
    assert len(told) > 1
    assert [event.startswith(b"event: done\n") for event in sent] == [False] * (len(sent) - 1) + [True]
    assert told[-1]["status"] == "completed"
    assert told[-1]["urls"][0].startswith("http://")
    assert all(event.endswith(b"\n\n") and event.count(b"\n") <= 3 for event in sent)
    assert records(again) == told[-1:]


async def test_a_failure_is_the_last_state_and_not_an_error_of_the_stream() -> None:
    async with served() as (_, client):
        [*_, last] = records(await listened(await client.submit("a kite [fail]")))
    assert last["status"] == "failed"
    assert last["error"]["code"] == "generation_failed"


async def test_the_end_of_the_watch_is_told() -> None:
    async with served() as (_, client):
        [last] = records(await listened(client.attach("nobody")))
        waiting = asyncio.create_task(listened(await client.submit("a kite [slow]")))
        await asyncio.sleep(0)
        await client.aclose()
        closed = records(await waiting)
    assert last == {
        "task_id": "nobody", "status": None, "progress": None, "urls": [],
        "error": {"code": "TaskNotFound", "message": last["error"]["message"]},
    }  # fmt: skip
    assert closed[-1]["error"] is None or closed[-1]["error"]["code"] == "SessionClosed"


async def test_silence_is_filled_and_a_reader_who_leaves_disturbs_nobody() -> None:
    async with served({"service_time_s": 0.3}) as (_, client):
        handle = await client.submit("a kite")
        leaving = asyncio.create_task(listened(handle))
        events = server_sent_events(handle, keep_alive_s=0.01)
        first = [await anext(events) for _ in range(4)]
        assert b": still there\n\n" in first
        await events.aclose()  # type: ignore[attr-defined]
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert (await handle).images
        assert handle._entry._for_change is None


def app_of(client: ToAPIs) -> web.Application:
    async def progress(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        async for event in server_sent_events(client.attach(request.match_info["task_id"])):
            await response.write(event)
        return response

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/progress/{task_id}", progress)])
    return app


@pytest.mark.skipif(not shutil.which(CHROMIUM), reason=f"needs Debian's chromium at {CHROMIUM}")
async def test_a_browser_follows_a_task_to_its_end() -> None:
    async with (
        served({"service_time_s": 1.0}) as (_, client),
        TestServer(app_of(client)) as server,
        async_playwright() as playwright,
    ):
        handle = await client.submit("a kite")
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        page = await browser.new_page()
        await page.goto(f"{server.make_url('/')}#{handle.task_id}")
        await page.wait_for_function("document.title === 'done'")
        seen = await page.evaluate("seen")
        await browser.close()
    assert seen[-1]["status"] == "completed"
    assert seen[-1]["task_id"] == handle.task_id
    assert seen[-1]["urls"]
