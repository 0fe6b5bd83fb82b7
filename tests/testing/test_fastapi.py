"""An app of another framework, in process, with a client of its own and the settings of production."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import ASGITransport, AsyncClient

from toapis_async import Settings, ToAPIs
from toapis_async.receivers import asgi_app

from ..client.events import SECRET, event, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from toapis_async.testing import ThreadedSandbox


def made() -> FastAPI:
    clients: list[ToAPIs] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ToAPIs() as client:
            clients.append(client)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/kites/{number}")
    async def kite(number: int) -> str:
        return (await clients[0].generate(f"kite {number}", timeout_s=600)).task_id

    return app


@pytest.mark.toapis_sandbox(service_time_s=60)
async def test_twenty_users_at_once_wait_a_minute_in_no_time(toapis_sandbox: ThreadedSandbox) -> None:
    app = made()
    with toapis_sandbox.virtual_time():
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app), base_url="http://app") as users,
        ):
            answers = await asyncio.gather(*(users.post(f"/kites/{number}") for number in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json() for answer in answers}) == len(toapis_sandbox.ledger) == 20
    assert 60 <= toapis_sandbox.elapsed_s < 90
    assert toapis_sandbox.requests.rate_limited == 0


received = FastAPI()
received.mount("/toapis", asgi_app(lambda: received.state.client.webhooks))


@pytest.mark.parametrize("turn", [1, 2], ids=["a test", "the next test"])
async def test_a_receiver_is_mounted_before_its_client_is_made_and_serves_each_one_in_turn(
    toapis_sandbox: ThreadedSandbox, turn: int
) -> None:
    settings = Settings(webhook_secrets=SECRET, first_poll_s=60, min_poll_interval_s=60)
    body, headers = signed(event("task_of_nobody", event_id=f"evt_{turn}"))
    async with AsyncClient(transport=ASGITransport(received), base_url="http://app") as service:
        assert (await service.post("/toapis/", content=body, headers=headers)).status_code == 503
        async with ToAPIs(settings=settings) as received.state.client:
            handle = await received.state.client.submit("kite")
            assert (await service.post("/toapis/", content=body, headers=headers)).text == "unknown_task"
            told, signatures = signed(event(handle.task_id))
            answer = await service.post("/toapis/", content=told, headers=signatures)
            assert (answer.status_code, answer.text) == (200, "resolved")
            assert (await handle).task_id == handle.task_id
        assert (await service.post("/toapis/", content=body, headers=headers)).status_code == 503
    assert toapis_sandbox.requests.count("query") == 0


@pytest.mark.toapis_sandbox(service_time_s=60)
def test_the_sync_test_client_waits_a_minute_in_no_time(toapis_no_waits: ThreadedSandbox) -> None:
    for turn in (1, 2):
        with TestClient(made()) as http:
            assert http.post("/kites/1").status_code == 200
            assert http.post("/kites/2").status_code == 200
        assert len(toapis_no_waits.ledger) == 2 * turn
    assert toapis_no_waits.elapsed_s >= 240


def test_without_the_fixture_time_is_real_again(toapis_sandbox: ThreadedSandbox) -> None:
    with TestClient(made()):
        before_s = toapis_sandbox.elapsed_s
    assert before_s < 5
