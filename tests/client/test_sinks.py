"""Batches whose files go to an object store, or to a sink of the caller's own: a real S3 server on loopback."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import from_url

from toapis_async import BatchItem, DownloadFailed, InvalidRequest, Settings, StoredFile, ToAPIs
from toapis_async.engine.objectstore import ObjectStore
from toapis_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SPEED = 50.0
QUICK = Settings(first_poll_s=5 / SPEED, min_poll_interval_s=5 / SPEED, tier="svip", download_tries=1)
ROWS: list[dict[str, Any]] = [{"key": "kite", "prompt": "a kite"}, {"key": "böat one", "prompt": "a boat", "n": 2}]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(speed=SPEED, tier="svip") as sandbox:
        yield sandbox


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket's URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    direct.open(urllib.request.Request(f"http://{host}:{port}/pictures", method="PUT"), timeout=60).close()
    yield "s3://pictures"
    server.stop()


async def gathered(sandbox: Sandbox, folder: Path, save_to: Any, rows: Any = None, **options: Any) -> list[BatchItem]:
    """One pass of a run."""
    async with ToAPIs("sk-any", base_url=sandbox.base_url, settings=QUICK, journal=folder / "journal") as client:
        return await client.batch(
            ROWS if rows is None else rows, key="key", run="spring", save_to=save_to, **options
        ).gather()


# ------------------------------------------------------------------------------------------------ S3


async def test_files_go_to_the_bucket_whole_and_their_urls_are_told(
    sandbox: Sandbox, bucket: str, tmp_path: Path
) -> None:
    items = await gathered(sandbox, tmp_path, f"{bucket}/spring")
    urls = [str(file) for item in items for file in item.files]
    assert [url.rpartition("/")[0] for url in urls] == ["s3://pictures/spring"] * 3
    assert items[0].files[0].name == "kite.png"
    store = ObjectStore(f"{bucket}/spring")
    assert all([await store.size_bytes(Path(url).name) for url in urls])
    assert pickle.loads(pickle.dumps(items[0].files)) == items[0].files  # noqa: S301
    assert isinstance(items[0].files[0], StoredFile)
    assert not items[0].files[0].is_file()


async def test_a_resumed_run_sees_what_is_there_and_fetches_what_is_not(
    sandbox: Sandbox, bucket: str, tmp_path: Path
) -> None:
    first = await gathered(sandbox, tmp_path, bucket)
    fetched = sandbox.requests.count("file")
    again = await gathered(sandbox, tmp_path, bucket)
    assert [item.files for item in again] == [item.files for item in first]
    assert sandbox.requests.count("file") == fetched == 3
    await obstore.delete_async(from_url(bucket), "kite.png")
    await gathered(sandbox, tmp_path, bucket)
    assert sandbox.requests.count("file") == fetched + 1
    assert await ObjectStore(bucket).size_bytes("kite.png")
    assert len(sandbox.ledger.entries) == 2


async def test_a_bucket_that_cant_be_written_to_is_told_before_anything_is_sent(
    sandbox: Sandbox, bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=r"can't write to s3://nowhere.*nothing was sent"):
        await gathered(sandbox, tmp_path, "s3://nowhere/spring")
    assert sandbox.requests.count("submit") == 0


@pytest.mark.parametrize("save_to", ["ftp://host/x", Path("s3://pictures/spring"), "s3:/pictures", 7])
async def test_what_is_no_place_for_files_is_refused(sandbox: Sandbox, tmp_path: Path, save_to: Any) -> None:
    with pytest.raises(InvalidRequest, match="the URL of an object store"):
        await gathered(sandbox, tmp_path, save_to)


def test_without_obstore_the_error_says_which_extra_is_missing() -> None:
    code = (
        "import sys; sys.modules['obstore'] = sys.modules['obstore.store'] = None\n"
        "from toapis_async.batch.options import BatchOptions\n"
        "BatchOptions(save_to='s3://pictures')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    assert "pip install 'toapis-async[objectstore]'" in ran.stderr.splitlines()[-1]


# ------------------------------------------------------------------------------------------------ sinks


class Shelf:
    """A sink in memory, whose trouble can be chosen."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.copies: list[Path] = []
        self.refused: set[str] = set()
        self.cut = False

    async def put(self, name: str, file: Path) -> None:
        self.copies.append(file)
        if name in self.refused:
            raise PermissionError(f"no room for {name}")
        content = file.read_bytes()  # noqa: ASYNC240  (small)
        self.files[name] = content[:-1] if self.cut else content

    async def size_bytes(self, name: str) -> int | None:
        return len(self.files[name]) if name in self.files else None

    def url(self, name: str) -> str:
        return f"https://shelf.example/{name}?version=//1"


async def test_a_sink_is_given_checked_copies_that_are_removed(sandbox: Sandbox, tmp_path: Path) -> None:
    shelf = Shelf()
    items = await gathered(sandbox, tmp_path, shelf)
    assert all(item.ok for item in items)
    assert str(items[0].files[0]) == "https://shelf.example/kite.png?version=//1"
    assert sorted(shelf.files) == sorted(copy.name for copy in shelf.copies)
    assert all(content.startswith(b"\x89PNG") for content in shelf.files.values())
    assert not any(copy.exists() or copy.parent.exists() for copy in shelf.copies)


async def test_what_a_sink_raises_makes_the_item_not_ok_and_the_next_pass_stores_it(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    shelf = Shelf()
    shelf.refused = {"kite.png"}
    [kite, boat] = await gathered(sandbox, tmp_path, shelf)
    assert isinstance(kite.error, DownloadFailed)
    assert "no room for kite.png" in str(kite.error)
    assert boat.ok
    shelf.refused.clear()
    [kite, boat] = await gathered(sandbox, tmp_path, shelf)
    assert kite.ok
    assert len(sandbox.ledger.entries) == 2


async def test_of_several_files_those_that_were_stored_are_told(sandbox: Sandbox, tmp_path: Path) -> None:
    shelf = Shelf()
    rows = [{"key": "boat", "prompt": "a boat", "n": 2}]
    shelf.refused = {"boat-2.png"}
    [boat] = await gathered(sandbox, tmp_path, shelf, rows)
    assert isinstance(boat.error, DownloadFailed)
    assert [str(file) for file in boat.files] == ["https://shelf.example/boat-1.png?version=//1"]
    assert boat.error.missing == (2,)


async def test_a_file_that_is_not_there_whole_is_not_taken_for_stored(sandbox: Sandbox, tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.cut = True
    [kite, _] = await gathered(sandbox, tmp_path, shelf)
    assert isinstance(kite.error, DownloadFailed)
    assert "bytes are there" in str(kite.error)
    shelf.cut = False
    assert all(item.ok for item in await gathered(sandbox, tmp_path, shelf))


async def test_each_kind_may_have_a_place_of_its_own(sandbox: Sandbox, tmp_path: Path) -> None:
    shelf = Shelf()
    rows = [
        {"key": "kite", "prompt": "a kite"},
        {"key": "sea", "prompt": "sea", "kind": "video", "model": "sora-2"},
    ]
    kite, sea = await gathered(sandbox, tmp_path, {"image": shelf, "video": tmp_path / "videos"}, rows)
    assert (kite.ok, sea.ok) == (True, True), json.dumps([str(kite.error), str(sea.error)])
    assert list(shelf.files) == ["kite.png"]
    assert sea.files[0].is_file()
