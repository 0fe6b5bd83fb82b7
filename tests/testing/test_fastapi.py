"""An app of another framework, in process, with a client of its own and the settings of production."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from toapis_async import ToAPIs

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
