"""Redis itself: its words, its certificate, and what it tells at once."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from tests.redis_server import RedisServer
from toapis_async import ClientStateError
from toapis_async.engine.shared.port import StoreLost
from toapis_async.engine.shared.redis import RedisStore
from toapis_async.protocol.leasing import Ask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("patient")
IDENTITY = "0123456789abcdef"
ASK = Ask(member="a", burst=50.0, per_s=5.0)


async def test_a_429_is_told_at_once_to_those_who_listen(redis_server: RedisServer) -> None:
    async with (
        aclosing(RedisStore(redis_server.url, IDENTITY, 0.5)) as one,
        aclosing(RedisStore(redis_server.url, IDENTITY, 0.5)) as other,
    ):
        told = asyncio.Event()
        one.on_epoch = told.set
        async with aclosing(one.messages()) as messages:
            assert await anext(messages) is None
            listening = asyncio.ensure_future(anext(messages))
            grant = await other.lease("submit", ASK)
            assert not told.is_set()
            await other.lease("submit", evolve(ASK, epoch=grant.epoch, pause_s=1.0))
            await asyncio.wait_for(told.wait(), 60)
            listening.cancel()
            await asyncio.wait([listening])
        assert (await one.lease("submit", evolve(ASK, epoch=grant.epoch))).epoch == grant.epoch + 1


@pytest.mark.parametrize("scheme", ["redis", "REDIS", "valkey"])
async def test_every_scheme_reaches_it(redis_server: RedisServer, scheme: str) -> None:
    async with aclosing(await RedisStore.open(f"{scheme}://127.0.0.1:{redis_server.port}/3", IDENTITY, 0.5)) as store:
        assert (await store.lease("query", ASK)).members == 1


@pytest.mark.parametrize(
    ("name", "value"), [("level", "nan"), ("at_s", "-inf"), ("per_s", "0"), ("pace", "7"), ("epoch", "x"), ("m:z", "x")]
)
async def test_a_state_that_makes_no_sense_counts_as_forgotten(
    redis_server: RedisServer, name: str, value: str
) -> None:
    async with aclosing(await RedisStore.open(redis_server.url, IDENTITY, 0.5)) as store:
        first = await store.lease("submit", ASK)
        await store.connection.hset(store.key("submit"), name, value)
        ask = evolve(ASK, epoch=first.epoch)
        grant = await store.lease("submit", ask)
        assert grant.is_sound(ask)
        assert (grant.level == 0) is (name != "m:z")


async def test_what_is_no_bucket_is_a_lost_store_and_stays_as_it_is(redis_server: RedisServer) -> None:
    async with aclosing(await RedisStore.open(redis_server.url, IDENTITY, 0.5)) as store:
        await store.connection.set(store.key("submit"), "precious")
        with pytest.raises(StoreLost, match="WRONGTYPE"):
            await store.lease("submit", ASK)
        assert await store.connection.get(store.key("submit")) == b"precious"


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[str]:
    """The URL of what is no good Redis: it answers everything like this."""

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while received := await reader.read(65_536):
                writer.write(answer * received.count(b"*"))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_all, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"-MOVED 1234 127.0.0.1:7777\r\n", "one of a Redis Cluster"),
        (b"-ERR unknown command 'EVAL'\r\n", "no Sentinel"),
    ],
)
async def test_one_that_will_never_do_is_refused_in_words(answer: bytes, reason: str) -> None:
    async with answering(answer) as url:
        with pytest.raises(ClientStateError, match=reason):
            await RedisStore.open(url, IDENTITY, 0.5)


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b"$-1\r\n",
        b":5\r\n",
        b"\x00\xff\r\n",
        b"*0\r\n",
        b"*1\r\n*1\r\n:1\r\n",
        b"*9\r\n" + b"$3\r\ninf\r\n" * 9,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
async def test_what_answers_nonsense_is_a_lost_store_for_turns_and_for_ends(answer: bytes) -> None:
    async with answering(answer) as url, aclosing(await RedisStore.open(url, IDENTITY, 0.5)) as store:
        with pytest.raises(StoreLost):
            await store.lease("submit", ASK)
        with pytest.raises(StoreLost):
            async with aclosing(store.messages()) as messages, asyncio.timeout(60):
                await anext(messages)


async def test_only_a_certificate_that_is_trusted_will_do(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed here")
    key, made = tmp_path / "key.pem", tmp_path / "cert.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 -addext"
    command = [openssl, *options.split(), "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603, ASYNC221
    tls = ["--tls-cert-file", str(made), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    server = RedisServer(tmp_path, *tls, is_tls=True)
    server.start()
    try:
        for scheme in ("rediss", "valkeys"):
            url = f"{scheme}://127.0.0.1:{server.port}/0"
            with pytest.raises(ClientStateError, match="its certificate is not trusted"):
                await RedisStore.open(url, IDENTITY, 0.5)
            async with aclosing(await RedisStore.open(f"{url}?ssl_ca_certs={made}", IDENTITY, 0.5)) as store:
                assert (await store.lease("submit", ASK)).turns == 0
    finally:
        server.kill()
