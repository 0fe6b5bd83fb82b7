"""Fixtures of the sandbox's tests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from toapis_async.sandbox import Sandbox

from .kit import SECRET, Caller, Clock, Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# pytest-asyncio asks for the current loop before its first test, which on 3.11 makes one that nobody closes.
asyncio.set_event_loop(None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    """A sandbox whose time stands still and whose tasks take ten seconds."""
    async with Sandbox(clock=clock, service_time_s=10, pictures=False) as sandbox:
        yield sandbox


@pytest.fixture
def caller(session: aiohttp.ClientSession, sandbox: Sandbox) -> Caller:
    return Caller(session, sandbox)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def pushing(sandbox: Sandbox, receiver: Receiver) -> Sandbox:
    sandbox.webhooks.configure(receiver.url, SECRET)
    return sandbox
