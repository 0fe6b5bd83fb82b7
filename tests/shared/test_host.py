"""The locked file: who may read it, and what it is worth when it is not as it was left."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from pathlib import Path

import pytest

from toapis_async import ClientStateError, Shared
from toapis_async.engine.shared.host import HostStore
from toapis_async.engine.shared.port import StoreLost
from toapis_async.protocol.leasing import Ask

from .test_leases import Process

ASK = Ask(member="a", burst=50.0, per_s=5.0)
IDENTITY = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / f"toapis-{os.geteuid()}"


def opened() -> HostStore:
    return HostStore.open(IDENTITY, 0.5)


def bucket_file(folder: Path) -> Path:
    """The file of the submissions' bucket."""
    (file,) = folder.glob("*-submit.json")
    return file


async def taken(store: HostStore, want: int = 10, epoch: int = 0) -> int:
    """The tokens that were there before so many were taken."""
    grant = await store.lease("submit", Ask(member="a", burst=50.0, per_s=1e-3, want=want, epoch=epoch))
    return round(grant.level)


async def test_two_of_one_identity_share_and_others_do_not(folder: Path) -> None:
    one, other, stranger = opened(), opened(), HostStore.open("f" * 16, 0.5)
    assert [await taken(store) for store in (one, other, one, stranger)] == [50, 40, 30, 50]
    names = [
        f"limits-{identity}-{category}.json" for identity in (IDENTITY, "f" * 16) for category in ("query", "submit")
    ]
    assert sorted(os.listdir(folder)) == names


async def test_only_the_user_may_read_it(folder: Path) -> None:
    os.umask(old := os.umask(0))
    try:
        await taken(opened())
    finally:
        os.umask(old)
    file = bucket_file(folder)
    assert [os.stat(path).st_mode & 0o777 for path in (folder, file)] == [0o700, 0o600]


def test_where_there_is_no_runtime_folder_of_the_users_own_it_is_in_tmp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(Path, "mkdir", lambda path, mode: made.append(f"{path} {mode:o}"))
    for elsewhere in ("", "relative", str(tmp_path / "missing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", elsewhere)
        with contextlib.suppress(ClientStateError):
            opened()
    assert set(made) == {f"/tmp/toapis-{os.geteuid()} 700"}  # noqa: S108


@pytest.mark.parametrize("trap", ["link to a folder", "link to nowhere", "file", "open to others"])
def test_a_folder_that_may_be_anothers_is_refused(folder: Path, tmp_path: Path, trap: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if trap == "link to a folder":
        folder.symlink_to(tmp_path / "elsewhere")
    elif trap == "link to nowhere":
        folder.symlink_to(tmp_path / "nowhere")
    elif trap == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o755)
    with pytest.raises(ClientStateError, match=r"toapis-\d+ must be a folder that only this user may enter"):
        opened()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("trap", ["link", "pipe", "open to others"])
async def test_a_file_that_may_be_anothers_is_refused_and_not_touched(folder: Path, tmp_path: Path, trap: str) -> None:
    store = opened()
    file = bucket_file(folder)
    file.unlink()
    target = tmp_path / "target"
    target.write_text("precious")
    if trap == "link":
        file.symlink_to(target)
    elif trap == "pipe":
        os.mkfifo(file, 0o600)
    else:
        file.touch()
        file.chmod(0o644)
    with pytest.raises(StoreLost):
        await store.lease("submit", ASK)
    with pytest.raises(ClientStateError):
        opened()
    assert target.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(ClientStateError, match=r"can't use .*: No space left on device"):
        opened()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"{}",
        b"[1]",
        b'{"version": 1, "boot": null}',
        b"[" * 100_000,
        b"x" * (2 << 20),
        b'{"version": 2}',
    ],
)
async def test_a_file_that_cannot_be_read_counts_as_forgotten(folder: Path, content: bytes) -> None:
    store = opened()
    assert await taken(store) == 50
    file = bucket_file(folder)
    file.write_bytes(content)
    assert await taken(store, epoch=1) == 0
    file.write_bytes(content)
    assert await taken(store, epoch=0) == 50
    assert json.loads(file.read_bytes())["version"] == 1


@pytest.mark.parametrize(
    ("name", "value"), [("level", 1e999), ("per_s", 0), ("pace", 7), ("members", []), ("boot", "x")]
)
async def test_a_state_that_makes_no_sense_counts_as_forgotten(folder: Path, name: str, value: object) -> None:
    store = opened()
    assert await taken(store) == 50
    file = bucket_file(folder)
    content = json.loads(file.read_bytes())
    content[name] = value
    file.write_text(json.dumps(content))
    assert await taken(store, epoch=1) == 0


async def test_a_file_that_was_removed_is_made_anew(folder: Path) -> None:
    store = opened()
    await taken(store)
    file = bucket_file(folder)
    file.unlink()
    assert await taken(store, epoch=1) == 0
    assert file.exists()


@pytest.mark.usefixtures("patient")
async def test_a_lock_that_is_held_is_waited_for_without_blocking(folder: Path) -> None:
    store = opened()
    path = bucket_file(folder)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = asyncio.create_task(taken(store))
        await asyncio.sleep(0.01)  # the loop goes on
        assert not waiting.done()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert await waiting == 50


@pytest.mark.looptime
async def test_a_lock_that_is_never_released_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toapis_async.engine.shared.host.time.monotonic", asyncio.get_running_loop().time)
    store = opened()
    path = bucket_file(folder)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreLost, match="another process holds the lock") as lost:
            await store.lease("submit", ASK)
        assert lost.value.unchanged
        waiting = asyncio.create_task(taken(store))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert await taken(store) == 50  # neither left a lock behind


@pytest.mark.looptime
async def test_others_go_on_within_a_second_beside_a_holder_that_was_stopped_and_come_back_when_it_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("toapis_async.engine.shared.host.time.monotonic", loop.time)
    others = [Process(opened()) for _ in range(2)]
    await asyncio.gather(*(process.send(10) for process in others))
    with bucket_file(folder).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as one that is stopped between taking the lock and releasing it
        since_s = loop.time()
        await asyncio.gather(*(process.send(3) for process in others))
        for process in others:
            assert process.sent_at_s[-3] <= since_s + 1.0
            assert process.leases.is_lost
    await asyncio.sleep(2.0)
    assert not any(process.leases.is_lost for process in others)
    for process in others:
        await process.leases.aclose()


async def test_a_full_disk_loses_the_store_and_not_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    store = opened()
    with monkeypatch.context() as broken:
        broken.setattr("toapis_async.engine.shared.host.os.pwrite", full)
        with pytest.raises(StoreLost, match="No space left on device"):
            await store.lease("submit", ASK)
    assert await taken(store) == 50


def test_who_shares_is_decided_by_key_and_address_or_by_name() -> None:
    from toapis_async.settings import Credentials  # noqa: PLC0415

    one = Credentials.resolve("sk-one", "https://a.example")
    keys = {
        Shared("host").identity(one),
        Shared("redis://x:1").identity(one),
        Shared("host").identity(Credentials.resolve("sk-two", "https://a.example")),
        Shared("host").identity(Credentials.resolve("sk-one", "https://b.example")),
        Shared("host", name="team").identity(one),
        Shared("host", name="team").identity(Credentials.resolve("sk-two", "https://a.example")),
    }
    assert len(keys) == 4
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
