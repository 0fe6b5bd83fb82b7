"""`ToAPIs(shared=…)`: what it takes, what it refuses, and what it keeps to itself."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async import ClientStateError, InvalidRequest, Settings, Shared, ToAPIs
from toapis_async.events import Event, SharingLost

from .kit import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.kit import FakeService
    from tests.redis_server import RedisServer

SECRET = "hunter2-hunter2"


def client(**given: object) -> ToAPIs:
    return ToAPIs("sk-one", base_url="http://127.0.0.1:1", **given)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    "word",
    [
        "hosts",
        "redis",
        "redis://",
        "http://x",
        f"memcached://u:{SECRET}@x",
        "redis:// x\n",
        f"user:{SECRET}@x",
        " host",
    ],
)
def test_a_word_that_is_not_known_is_refused_without_its_password(word: str) -> None:
    with pytest.raises(InvalidRequest, match="shared: known are host") as refusal:
        client(shared=word)
    assert refusal.value.field == "shared"
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "word", ["host", "redis://x", "REDIS://x:1/2", "rediss://:pw@x", "valkey://x/0", "valkeys://x"]
)
def test_these_words_are_known(word: str) -> None:
    client(shared=word)
    client(shared=Shared(word, name="team-a", lease_s=1))


@pytest.mark.parametrize("given", [5, True, b"host"])
def test_what_is_no_text_is_refused(given: object) -> None:
    with pytest.raises(InvalidRequest, match="shared must be text or a Shared, not"):
        client(shared=given)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"name": ""}, "a name is 1 to 100"),
        ({"name": "a b"}, "a name is"),
        ({"lease_s": 0}, "lease_s is 0.05 to 10 seconds"),
        ({"lease_s": float("nan")}, "lease_s must be a number"),
        ({"lease_s": True}, "lease_s must be a number"),
    ],
)
def test_details_that_make_no_sense_are_refused(more: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        Shared("host", **more)  # type: ignore[arg-type]


def test_a_url_is_never_shown() -> None:
    shared = Shared(f"redis://user:{SECRET}@x", name="team")
    assert SECRET not in repr(shared)
    assert SECRET not in repr(client(shared=shared))
    assert pickle.loads(pickle.dumps(shared)) == shared  # noqa: S301


async def test_the_environment_says_it_when_a_client_is_made(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = client()
    monkeypatch.setenv("TOAPIS_SHARED", "host")
    told, off = client(), client(shared="off")
    monkeypatch.setenv("TOAPIS_SHARED", " ")
    blank = client()
    for each, kind in ((quiet, None), (told, "host"), (off, None), (blank, None)):
        async with each:
            shared = each.statistics().shared
            assert (shared and shared.kind) == kind
    monkeypatch.setenv("TOAPIS_SHARED", "nonsense")
    with pytest.raises(InvalidRequest):
        client()


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toapis_async.shared.find_spec", lambda _: None)
    client(shared="host")
    with pytest.raises(ClientStateError, match=r"pip install 'toapis-async\[redis\]'"):
        client(shared="redis://127.0.0.1:1")


# ------------------------------------------------------------------------------------------------ lifetimes


async def test_clients_of_one_key_count_each_other(service: FakeService) -> None:
    async with client(shared="host"), client(shared="host") as other:
        while (shared := other.statistics().shared) is None or shared.leases < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (shared.kind, shared.processes, shared.alone_s, shared.epoch) == ("host", 2, 0.0, 1)


async def test_a_store_of_ones_own_is_used_and_closed(service: FakeService) -> None:
    store = MemoryStore()
    async with client(shared=store) as one:
        await one.submit("a red kite")
        assert one.statistics().shared is not None
        assert one.statistics().submit.granted == 1
    assert store.closed == 1


async def test_a_client_cannot_be_pickled_or_copied(service: FakeService) -> None:
    async with client() as one:
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(ClientStateError, match="make one client in each process"):
                way(one)


async def test_a_client_that_was_forked_is_refused(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client(shared="host") as one:
        pid = os.getpid()
        monkeypatch.setattr("toapis_async.engine.core.os.getpid", lambda: pid + 1)
        for call in (one.submit("a kite"), one.generate("a kite"), one.balance(), one.aclose()):
            with pytest.raises(ClientStateError, match="make one client in each process"):
                await call
        with pytest.raises(ClientStateError, match="make one client in each process"):
            one.attach("task_1")
        monkeypatch.undo()


async def test_a_store_that_is_not_there_stops_nothing(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    caplog.set_level(logging.DEBUG)
    url = f"redis://user:{SECRET}@127.0.0.1:1/0"
    async with client(shared=url, settings=Settings(on_event=events.append)) as one:
        await one.submit("a red kite")
        (lost,) = [event for event in events if isinstance(event, SharingLost)]
        assert lost.reason == "Redis can't be reached (ConnectionError)"
        assert lost.share == 1.0
    assert SECRET not in caplog.text
    assert SECRET not in repr(events)


# ------------------------------------------------------------------------------------------------ Redis


def dumped(redis: Any, key: bytes) -> bytes:
    dump: bytes = redis.dump(key)
    return dump


async def test_keys_tell_nothing_of_the_account(service: FakeService, redis_server: RedisServer) -> None:
    from redis import Redis  # noqa: PLC0415

    async with client(shared=Shared(redis_server.url, name="team-blue")) as one:
        await one.submit("a secret prompt")
        with Redis.from_url(redis_server.url) as redis:
            keys: Any = []
            while len(keys) < 2:
                await asyncio.sleep(0.01)
                keys = redis.keys("*")
            dump = b"".join(dumped(redis, key) for key in keys)
    assert {key.partition(b"}:")[2] for key in keys} == {b"submit", b"query"}
    assert len({key.partition(b"}:")[0] for key in keys}) == 1
    for private in (b"sk-one", b"secret prompt", b"team-blue", b"127.0.0.1"):
        assert private not in dump + b"".join(keys)


@pytest.mark.usefixtures("patient")
async def test_a_password_that_is_wrong_is_refused_at_the_start(redis_server: RedisServer) -> None:
    from redis import Redis  # noqa: PLC0415

    with Redis.from_url(redis_server.url) as redis:
        redis.config_set("requirepass", SECRET)
    for password in ("", ":wrong-wrong@"):
        one = client(shared=f"redis://{password}127.0.0.1:{redis_server.port}/0")
        with pytest.raises(ClientStateError, match="shared: Redis refuses to be used: ") as refusal:
            await one.start()
        assert "wrong-wrong" not in str(refusal.value)
    async with client(shared=f"redis://:{SECRET}@127.0.0.1:{redis_server.port}/0") as one:
        assert one.statistics().shared is not None


@pytest.mark.usefixtures("patient")
async def test_a_redis_that_runs_no_scripts_is_refused_at_the_start(redis_server: RedisServer) -> None:
    from redis import Redis  # noqa: PLC0415

    with Redis.from_url(redis_server.url) as redis:
        redis.execute_command("ACL", "SETUSER", "weak", "on", "nopass", "~*", "+@all", "-eval", "-evalsha")
    one = client(shared=f"redis://weak:x@127.0.0.1:{redis_server.port}/0")
    with pytest.raises(ClientStateError, match="it must run Lua scripts that read its TIME"):
        await one.start()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0?nonsense=1", f"redis://:{SECRET}@127.0.0.1:port/0"])
async def test_a_url_that_redis_py_cannot_use_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ClientStateError, match="shared: ") as refusal:
        await client(shared=url).start()
    assert SECRET not in str(refusal.value)


async def test_a_redis_that_is_loading_is_waited_for_alone(redis_server: RedisServer, service: FakeService) -> None:
    redis_server.stop()
    try:
        async with client(shared=redis_server.url) as one:
            await one.submit("a red kite")
            assert one.statistics().shared is not None
    finally:
        redis_server.go_on()


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    client(shared="host")
    assert list(tmp_path.iterdir()) == []  # nothing before it is opened
