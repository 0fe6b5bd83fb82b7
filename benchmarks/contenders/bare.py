"""The floor: aiohttp sending requests and reading their JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from benchmarks.contenders.kit import Order

HEADERS = {"Authorization": "Bearer sk-bench", "Accept": "application/json"}
BODY = {"model": "gpt-image-2-vip", "prompt": "a lighthouse"}
PATH = "/v1/images/generations"
POLLS = 3


def session_of(order: Order) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=order.concurrency), headers=HEADERS)


async def post(session: aiohttp.ClientSession, url: str) -> str:
    """The id of a new task."""
    async with session.post(f"{url}{PATH}", json=BODY) as response:
        task: dict[str, str] = await response.json()
        return task["id"]


async def get(session: aiohttp.ClientSession, url: str, task_id: str) -> None:
    async with session.get(f"{url}{PATH}/{task_id}") as response:
        await response.json()


async def life(session: aiohttp.ClientSession, url: str) -> str:
    """The requests of a life: a POST and three GETs. Returns the task's id."""
    task_id = await post(session, url)
    for _ in range(POLLS):
        await get(session, url, task_id)
    return task_id
