"""Images on the way down: whole or not at all, without the key, and with an end to every patience."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import os
import pickle
import stat
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import anyio.to_thread
import pytest
from attrs import evolve

from toapis_async import (
    ClientStateError,
    DownloadFailed,
    GeneratedImage,
    Generation,
    LinkExpired,
    SessionClosed,
    ToAPIs,
)
from toapis_async.engine import renewal
from toapis_async.engine.part import is_saved
from toapis_async.events import FileSaved
from toapis_async.sandbox import Fault

from .kit import JPEG, KEY, PNG, RawServer, Request, fast, hang_up, raw, reply, reset, served, stall, task, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from toapis_async.events import Event

pytestmark = pytest.mark.usefixtures("impatient")
LATER = datetime.now(UTC) + timedelta(hours=1)
PAST = datetime.now(UTC) - timedelta(seconds=1)
NOW = format_datetime(datetime.now(UTC), usegmt=True)
BIG = PNG[:-12] + b"\0" * 3_000_000 + PNG[-12:]
"""More than is kept in memory: it goes to disk before it is whole."""
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG[: len(BIG) // 2]
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + PNG
UNDECLARED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@contextlib.asynccontextmanager
async def fetching(
    *script: Any, silence_s: float | None = None, **settings: Any
) -> AsyncIterator[tuple[RawServer, ToAPIs]]:
    """A file host that follows a script, and a client."""
    async with (
        RawServer(*script, silence_s=silence_s) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast(**settings)) as client,
    ):
        yield server, client


async def generation(client: ToAPIs, *urls: str, expires_at: datetime | None = LATER, task_id: str = "t") -> Generation:
    """A finished generation with these links, that belongs to the client."""
    return Generation(
        task_id=task_id,
        client_business_id="mine",
        model=None,
        images=tuple(GeneratedImage(url, expires_at) for url in urls),
        saver=client._engine.saving if client._engine else None,
    )


def of_files(server: RawServer) -> list[Request]:
    return [request for request in server.requests if not request.target.startswith("/v1/")]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def failing(client: ToAPIs, url: str, folder: Path, expires_at: datetime | None = LATER) -> DownloadFailed:
    made = await generation(client, url, expires_at=expires_at)
    with pytest.raises(DownloadFailed) as caught:
        await made.save(folder)
    assert (caught.value.task_id, caught.value.client_business_id) == ("t", "mine")
    assert caught.value.url is not None
    assert left_in(folder) == []
    return caught.value


# ------------------------------------------------------------------------------------------- the good case


async def test_a_folder_is_the_one_of_the_call_wherever_the_process_goes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)

    async def leave(server: RawServer, request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(HALF)
        await until(lambda: left_in(here / "out"))
        os.chdir(there)  # monkeypatch puts it back
        writer.write(BIG[len(BIG) // 2 :])

    async with fetching(leave) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save("out")
    assert path == Path("out") / "t.png", "as the caller wrote it"
    assert (here / path).read_bytes() == BIG
    assert left_in(here / "out") == ["t.png"]
    assert left_in(there) == []


async def test_a_working_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    async with fetching(reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/a")
        with pytest.raises(DownloadFailed, match="can't save the image") as caught:
            await made.save("out")
        assert (caught.value.task_id, server.requests) == ("t", [])


async def test_a_format_is_known_however_small_the_first_pieces_are(tmp_path: Path) -> None:
    async def trickle(server: RawServer, request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PNG))
        for at in range(0, 20, 3):
            writer.write(PNG[at : at + 3])
            await asyncio.sleep(0.005)
        writer.write(PNG[21:])

    async with fetching(trickle, download_tries=1) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG


@pytest.mark.parametrize(("content", "extension"), [(PNG, ".png"), (JPEG, ".jpg")])
async def test_a_file_is_named_after_its_task_and_its_bytes(content: bytes, extension: str, tmp_path: Path) -> None:
    async with fetching(reply(200, content, Content_Type="text/plain")) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/x.gif")).save(tmp_path / "new" / "folder")
        assert path == tmp_path / "new" / "folder" / f"t{extension}"
        assert path.read_bytes() == content
        assert left_in(path.parent) == [path.name]


async def test_several_images_are_numbered_in_their_order(tmp_path: Path, events: list[Event]) -> None:
    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        content = {"/0": PNG, "/1": JPEG, "/2": PNG + b"3"}[request.target]
        await reply(200, content)(server, request, writer)

    async with fetching(act, on_event=events.append) as (server, client):
        made = await generation(client, *(f"{server.url}/{number}" for number in range(3)))
        paths = await made.save(str(tmp_path))
        assert [path.name for path in paths] == ["t-1.png", "t-2.jpg", "t-3.png"]
        assert paths[2].read_bytes() == PNG + b"3"
        assert client.statistics().saved_files == 3
        assert client.statistics().saved_bytes == len(PNG) * 2 + 1 + len(JPEG)
    saved = [event for event in events if isinstance(event, FileSaved)]
    assert {event.path for event in saved} == {str(path) for path in paths}


async def test_a_task_id_never_becomes_a_path(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/a", task_id="../../evil/id")
        (path,) = await made.save(tmp_path / "out")
        assert path.parent == tmp_path / "out"


async def test_saving_again_replaces_the_file_whole(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG + b"old"), reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/a")
        await made.save(tmp_path)
        (path,) = await made.save(tmp_path)
        assert path.read_bytes() == PNG
        assert left_in(tmp_path) == ["t.png"]


async def test_many_saves_of_one_image_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    async with served({"service_time_s": 0.01}) as (_, client):
        made = await client.generate("kite")
        paths = await asyncio.gather(*(made.save(tmp_path) for _ in range(6)))
        assert len({path for (path,) in paths}) == 1
        assert len(left_in(tmp_path)) == 1


@pytest.mark.parametrize("name", ["empty.png", "folder.png", "missing.png", "a\0.png", "n" * 300])
def test_what_is_no_file_with_something_in_it_is_not_saved(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "a.png").write_bytes(PNG)
    assert not is_saved(tmp_path / name)
    assert is_saved(tmp_path / "a.png")


async def test_a_large_file_goes_to_disk_in_pieces(tmp_path: Path) -> None:
    content = PNG + os.urandom(5_000_000) + PNG
    async with fetching(reply(200, content)) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == content


async def test_a_body_without_a_declared_length_is_whole_when_it_ends_as_its_format_ends(tmp_path: Path) -> None:
    async with fetching(hang_up(UNDECLARED + PNG)) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG


# ------------------------------------------------------------------------------------------- tried again


AGAIN = {
    "cut-short": hang_up(SHORT),
    "reset": reset(SHORT),
    "stalls": stall(SHORT),
    "no-answer": hang_up(),
    "undeclared-and-cut": hang_up(UNDECLARED + PNG[:-8]),
    "declared-as-cut": reply(200, PNG[:-8]),
    "webp-declared-as-cut": reply(200, b"RIFF\x40\0\0\0WEBPVP8 " + b"\0" * 20),
    "jpeg-unpacked-and-cut": reply(200, gzip.compress(JPEG[:-2]), Content_Encoding="gzip"),
    "html": reply(200, b"<html><title>Just a moment</title>", Content_Type="text/html"),
    "empty": reply(200, b""),
    "202": reply(202, b"not yet"),
    "204": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "404": reply(404, b"not yet"),
    "408": reply(408, b""),
    "425": reply(425, b""),
    "429": reply(429, b"", Retry_After="0"),
    "500": reply(500, b""),
    "503": reply(503, b"", Retry_After="0.01"),
    "broken-chunks": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdeX", close=True),
}


def silence_s(act: Any) -> float | None:
    """What only one who says nothing lets pass, however busy the machine is."""
    return 50 if act is AGAIN["stalls"] else None


@pytest.mark.parametrize("act", AGAIN.values(), ids=AGAIN.keys())
async def test_what_may_pass_is_tried_again(act: Any, tmp_path: Path, events: list[Event]) -> None:
    async with fetching(act, act, reply(200, PNG), silence_s=silence_s(act), on_event=events.append) as (
        server,
        client,
    ):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG
        assert left_in(tmp_path) == ["t.png"]
        assert len(server.requests) == 3
    assert next(event.attempts for event in events if isinstance(event, FileSaved)) in {2, 3}  # aiohttp resends a GET


@pytest.mark.parametrize("act", AGAIN.values(), ids=AGAIN.keys())
async def test_but_not_for_ever_and_nothing_is_left_behind(act: Any, tmp_path: Path) -> None:
    async with fetching(act, silence_s=silence_s(act), download_tries=3) as (server, client):
        error = await failing(client, f"{server.url}/a", tmp_path / "out")
        assert "tried 3 times" in str(error)
        assert type(error) is DownloadFailed
        assert len(of_files(server)) in {3, 6}  # aiohttp resends a GET that got no answer, once
        pickle.loads(pickle.dumps(error))  # noqa: S301


async def test_an_unreachable_host_is_tried_again_and_then_told(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG), download_tries=2) as (_, client):
        assert "tried 2 times" in str(await failing(client, "http://127.0.0.1:9/a", tmp_path / "out"))


async def test_a_download_s_total_time_out_is_its_own(tmp_path: Path) -> None:
    async with fetching(stall(SHORT), download_timeout_s=0.03, download_tries=1) as (server, client):
        assert "TimeoutError" in str(await failing(client, f"{server.url}/a", tmp_path / "out"))


async def test_files_that_stall_keep_nobody_from_the_api(tmp_path: Path) -> None:
    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        step = stall(HALF) if request.target.startswith("/file") else reply(200, task("t", "queued"))
        await step(server, request, writer)

    async with fetching(act, max_connections=1, download_concurrency=2) as (server, client):
        made = [await generation(client, f"{server.url}/file{number}") for number in range(3)]
        saving = [asyncio.create_task(each.save(tmp_path / "out")) for each in made]
        await until(lambda: len(left_in(tmp_path / "out")) == 2)
        assert (await client.status("t")).task_id == "t"
        assert await client.submit("kite")
        for each in saving:
            each.cancel()
        await asyncio.wait(saving)
        files = [request for request in server.requests if request.target.startswith("/file")]
        assert len(files) == 2
        assert KEY not in "".join(f"{request.headers}" for request in files)


async def test_closing_ends_the_connections_of_files_too(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG)) as (server, client):
        await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert client._engine is not None
        sessions = [client._engine.transport._files._public, client._engine.transport._files._unguarded]
        assert [session.closed for session in sessions if session] == [False, False]
        await client.aclose()
        assert [session.closed for session in sessions if session] == [True, True]


# ------------------------------------------------------------------------------------------- not tried again


@pytest.mark.parametrize(
    ("status", "expires_at", "kind"),
    [
        (410, PAST, LinkExpired),
        (404, PAST, LinkExpired),
        (403, PAST, LinkExpired),
        (410, LATER, DownloadFailed),
        (410, None, DownloadFailed),
        (403, LATER, DownloadFailed),
        (401, LATER, DownloadFailed),
        (400, PAST, DownloadFailed),
        (304, LATER, DownloadFailed),
    ],
)
async def test_a_refusal_is_final(
    status: int, expires_at: datetime | None, kind: type[DownloadFailed], tmp_path: Path
) -> None:
    async with fetching(reply(status, b"" if status == 304 else b"no", Date=NOW)) as (server, client):
        error = await failing(client, f"{server.url}/a", tmp_path / "out", expires_at)
        assert type(error) is kind
        assert len(of_files(server)) == 1


class Renewing(RawServer):
    """A service whose links live until the next: it gives link number `now`, and refuses all others."""

    def __init__(self, *, status: int = 403, files: int = 1) -> None:
        super().__init__(self.act)
        self.now, self.files, self.status = 0, files, status

    def links(self) -> list[str]:
        return [f"{self.url}/a{number}?signature={self.now}" for number in range(self.files)]

    async def act(self, server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target.startswith("/v1/"):
            body = task("t", "completed", result={"data": [{"url": link} for link in self.links()]})
            step = reply(200, body) if self.files else reply(404, b"{}")
        else:
            is_valid = request.target.endswith(f"={self.now}")
            step = reply(200, PNG) if is_valid else reply(self.status, b"no", Date=NOW)
        await step(server, request, writer)


@pytest.mark.parametrize("expires_at", [LATER, PAST, None])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_link_that_died_before_its_file_is_queried_anew_once_for_all_files(
    status: int, expires_at: datetime | None, tmp_path: Path
) -> None:
    service = Renewing(status=status, files=3)
    async with service, ToAPIs(KEY, base_url=service.url, settings=fast(download_tries=2)) as client:
        made = await generation(client, *service.links(), expires_at=expires_at)
        service.now = 1
        assert len(await made.save(tmp_path / "out")) == 3
        assert [request.target for request in service.requests].count("/v1/images/generations/t") == 1
        assert KEY not in "".join(f"{request.headers}" for request in of_files(service))


class OneFileALink(Renewing):
    """A service each of whose links dies when any file is fetched."""

    async def act(self, server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        await super().act(server, request, writer)
        self.now += request.target.endswith(f"={self.now}")


@pytest.mark.parametrize("expires_at", [LATER, None])
async def test_links_that_live_shorter_than_the_wait_for_a_turn_are_queried_in_the_turn(
    expires_at: datetime | None, tmp_path: Path
) -> None:
    service = OneFileALink(files=4)
    settings = fast(download_tries=1, download_concurrency=1)
    async with service, ToAPIs(KEY, base_url=service.url, settings=settings) as client:
        made = await generation(client, *service.links(), expires_at=expires_at)
        assert len(await made.save(tmp_path / "out")) == 4
        assert [request.target for request in service.requests].count("/v1/images/generations/t") == 3


class Unchanging(Renewing):
    """A service that gives the same links again, and refuses them."""

    def links(self) -> list[str]:
        return [f"{self.url}/a{number}?signature=gone" for number in range(self.files)]


async def test_a_link_that_the_service_gives_again_is_not_queried_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "SAME_FOR_S", 1e9)  # however slow the machine is
    service = Unchanging(files=4)
    async with service, ToAPIs(KEY, base_url=service.url, settings=fast(download_tries=1)) as client:
        made = await generation(client, *service.links(), expires_at=LATER)
        with pytest.raises(DownloadFailed) as failed:
            await made.save(tmp_path / "out")
        assert len(failed.value.missing) == 4
        assert len(of_files(service)) == 4
        assert [request.target for request in service.requests].count("/v1/images/generations/t") == 1


async def test_links_that_can_not_be_had_anew_leave_the_refusal_as_it_was(tmp_path: Path) -> None:
    service = Renewing()
    async with service, ToAPIs(KEY, base_url=service.url, settings=fast(download_tries=1)) as client:
        [link] = service.links()
        service.now, service.files = 1, 0
        assert type(await failing(client, link, tmp_path / "out", PAST)) is LinkExpired
        service.files = 2  # another number: which is which can't be told
        assert type(await failing(client, link, tmp_path / "out")) is DownloadFailed


@pytest.mark.parametrize("declared", [True, False])
async def test_a_file_over_the_cap_is_refused_declared_or_not(declared: bool, tmp_path: Path) -> None:
    content = PNG + b"\0" * 5_000 + PNG
    act = reply(200, content) if declared else hang_up(UNDECLARED + content)
    async with fetching(act, max_file_bytes=1_024) as (server, client):
        error = await failing(client, f"{server.url}/a", tmp_path / "out")
        assert "max_file_bytes=1024" in str(error)
        assert len(server.requests) == 1


@pytest.mark.parametrize("content_encoding", ["gzip", ""])
async def test_a_file_that_unpacks_over_the_cap_is_fetched_once(content_encoding: str, tmp_path: Path) -> None:
    bomb = gzip.compress(PNG + b"\0" * 5_000_000)
    async with fetching(reply(200, bomb, Content_Encoding=content_encoding), max_file_bytes=100_000) as (
        server,
        client,
    ):
        error = await failing(client, f"{server.url}/a", tmp_path / "out")
        assert "max_file_bytes=100000" in str(error)
        assert len(server.requests) == 1
        assert left_in(tmp_path / "out") == []


async def test_a_file_declared_over_the_cap_is_not_even_read(tmp_path: Path) -> None:
    huge = stall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + PNG)
    async with fetching(huge, max_file_bytes=10_000) as (server, client):
        assert "max_file_bytes" in str(await failing(client, f"{server.url}/a", tmp_path / "out"))
        assert len(server.requests) == 1


BAD_URLS = [
    "ftp://127.0.0.1/a",
    "file:///etc/passwd",
    "data:image/png;base64,A",
    "data:image/png",
    "data:text/html,<html>",
    "http://",
    "http://[::1",
    "no url at all",
    "http://127.0.0.1:99999/a",
    f"http://{'a' * 64}.example/a.png",
]


@pytest.mark.parametrize("url", BAD_URLS)
async def test_a_link_that_is_no_http_url_fails_the_download_and_nothing_else(url: str, tmp_path: Path) -> None:
    async with fetching(reply(200, PNG), download_tries=2) as (_, client):
        error = await failing(client, url, tmp_path / "out")
        assert "tried" not in str(error)  # it fails the same way every time


async def test_redirects_are_followed_a_few_times(tmp_path: Path) -> None:
    def to(target: str) -> Any:
        return reply(302, b"", Location=target)

    async with fetching(to("/b"), to("/c"), reply(200, PNG)) as (server, client):
        await (await generation(client, f"{server.url}/a")).save(tmp_path / "good")
        assert [request.target for request in server.requests] == ["/a", "/b", "/c"]
        assert all("authorization" not in request.headers for request in server.requests)
    async with fetching(to("/again"), download_tries=2) as (server, client):
        error = await failing(client, f"{server.url}/a", tmp_path / "out")
        assert "TooManyRedirects" in str(error)
        assert len(server.requests) <= 2 * 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "javascript:alert(1)", "http://[", ""])
async def test_a_redirect_leads_to_http_only(target: str, tmp_path: Path) -> None:
    async with fetching(reply(302, b"", Location=target), download_tries=2) as (server, client):
        error = await failing(client, f"{server.url}/a", tmp_path / "out")
        assert "tried" not in str(error)
        assert len(server.requests) == 1


async def test_a_completed_task_without_an_image_is_told_as_such(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG)) as (_, client):
        made = await generation(client)
        with pytest.raises(DownloadFailed, match=r"named no file$") as caught:
            await made.save(tmp_path)
        assert caught.value.task_id == "t"
        told = evolve(made, raw={"status": "completed", "fail_reason": "moderated away"})
        with pytest.raises(DownloadFailed, match="named no file: moderated away"):
            await told.save(tmp_path)


async def test_a_generation_without_a_client_says_how_to_get_its_files() -> None:
    with pytest.raises(ClientStateError, match="attach"):
        await Generation(task_id="t", client_business_id=None, model=None, images=()).save("out")


async def test_saving_after_the_client_was_closed_fails_at_once(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/a")
        await client.aclose()
        with pytest.raises(SessionClosed):
            await made.save(tmp_path / "out")
        assert server.requests == []
        assert left_in(tmp_path / "out") == []


async def test_closing_while_a_file_is_on_its_way_ends_the_save(tmp_path: Path) -> None:
    async with fetching(stall(HALF)) as (server, client):
        saving = asyncio.create_task((await generation(client, f"{server.url}/a")).save(tmp_path))
        await until(lambda: server.requests)
        await until(lambda: left_in(tmp_path))
        await client.aclose()
        with pytest.raises(SessionClosed):
            await saving
    assert left_in(tmp_path) == []


# ------------------------------------------------------------------------------------------- the disk


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    async with fetching(reply(200, PNG)) as (server, client):
        error = await failing(client, f"{server.url}/a", tmp_path)
        assert "No space left on device" in str(error)
        assert type(error) is DownloadFailed
        assert len(server.requests) == 1  # another try would not make room


@pytest.mark.parametrize("step", ["opened", "synced"])
async def test_a_folder_that_can_t_be_synced_keeps_the_saved_image(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows opens no folder; some FUSE systems do, and then refuse to sync it.
    real_open, real_sync = os.open, os.fsync

    def open_(path: Any, *args: Any, **named: Any) -> int:
        return full() if step == "opened" and Path(path) == tmp_path else real_open(path, *args, **named)

    def sync(file: int) -> None:
        return full() if stat.S_ISDIR(os.fstat(file).st_mode) else real_sync(file)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", sync)
    async with fetching(reply(200, PNG)) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG
        assert client.statistics().saved_files == 1


async def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/a")
        assert client._engine is not None
        with pytest.raises(DownloadFailed, match=r"null (byte|character)") as caught:
            await client._engine.downloads.save(made, tmp_path, "a\0b")
        assert caught.value.task_id == "t"
        assert (left_in(tmp_path), len(server.requests)) == ([], 1)


@pytest.mark.parametrize("first", [1, 2])
async def test_no_thread_to_be_had_is_told_and_leaves_nothing(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real = loop.run_in_executor
    steps = 0

    def run_in_executor(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps >= first:
            raise RuntimeError("can't start new thread")
        return real(*args)

    async with fetching(reply(200, BIG)) as (server, client):
        monkeypatch.setattr(loop, "run_in_executor", run_in_executor)
        error = await failing(client, f"{server.url}/a", tmp_path)
        assert "can't save the file: can't start new thread" in str(error)


class _FullFile:
    """A file on a full disk: it opens, and takes nothing."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def seek(self, _: int) -> None: ...

    def write(self, _: object) -> NoReturn:
        full()

    def close(self) -> None:
        self._file.close()
        full()


async def test_a_disk_that_fills_up_on_the_way_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def open_(path: Path, mode: str = "r", **named: Any) -> Any:
        file = real(path, mode, **named)
        return _FullFile(file) if path.name.endswith(".part") else file

    monkeypatch.setattr(Path, "open", open_)
    async with fetching(reply(200, PNG + b"\0" * 3_000_000)) as (server, client):
        assert "No space left" in str(await failing(client, f"{server.url}/a", tmp_path))


async def test_a_folder_that_can_t_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with fetching(reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/a")
        with pytest.raises(DownloadFailed, match="can't save the file"):
            await made.save(tmp_path / "file" / "folder")
        assert left_in(tmp_path) == ["file"]


async def test_nothing_but_whole_files_is_ever_visible_under_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = PNG + b"\0" * 3_000_000 + PNG
    seen: list[tuple[str, int]] = []
    for name in ("fsync", "replace", "open", "unlink"):
        monkeypatch.setattr(os, name, _watching(getattr(os, name), tmp_path, seen))
    half = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content[: len(content) // 2]
    async with fetching(hang_up(half), reply(200, content)) as (server, client):
        await (await generation(client, f"{server.url}/a")).save(tmp_path)
    assert seen
    assert all(size == len(content) for name, size in seen if not name.startswith("."))
    assert left_in(tmp_path) == ["t.png"]


def _watching(real: Any, folder: Path, seen: list[tuple[str, int]]) -> Any:
    def act(*args: Any, **named: Any) -> Any:
        for moment in ("before", "after"):
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    seen.append((path.name, path.stat().st_size))
            if moment == "before":
                outcome = real(*args, **named)
        return outcome

    return act


# ------------------------------------------------------------------------------------------- cancelled


@pytest.mark.parametrize("native", [True, False])
async def test_cancelled_while_a_file_is_on_its_way_leaves_nothing(native: bool, tmp_path: Path) -> None:
    async with fetching(stall(HALF)) as (server, client):
        made = await generation(client, f"{server.url}/a")
        patience = asyncio.timeout(None)
        saving = asyncio.create_task(_save(made, tmp_path, patience))
        await until(lambda: left_in(tmp_path))
        if native:
            saving.cancel()
        else:
            patience.reschedule(0)
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await saving
        assert left_in(tmp_path) == []


async def _save(made: Generation, folder: Path, patience: asyncio.Timeout) -> None:
    async with patience:
        await made.save(folder)


@pytest.mark.parametrize("step", ["mkdir", "open", "replace", "unlink"])
async def test_cancelled_while_the_disk_is_at_work_leaves_a_whole_file_or_none(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A thread can't be cancelled: it goes on, and whoever cleans up must not overtake it.
    at_work, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    real = getattr(Path, step)

    def slow(path: Path, *args: Any, **named: Any) -> Any:
        loop.call_soon_threadsafe(at_work.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(60)
        return real(path, *args, **named)

    monkeypatch.setattr(Path, step, slow)
    act = hang_up(HALF) if step == "unlink" else reply(200, PNG)
    async with fetching(act, download_tries=1) as (server, client):
        folder = tmp_path / "new"  # or it need not be made
        saving = asyncio.create_task((await generation(client, f"{server.url}/a")).save(folder))
        await at_work.wait()
        saving.cancel()
        await asyncio.sleep(0.005)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await saving
    monkeypatch.undo()
    left = left_in(folder)
    assert left in ([], ["t.png"])
    if left:
        assert (folder / "t.png").read_bytes() == PNG


# ------------------------------------------------------------------------------------------- the sandbox's files


async def test_files_of_the_sandbox_survive_its_faults(tmp_path: Path) -> None:
    async with served() as (sandbox, client):
        made = await client.generate("kite")
        for fault in (Fault.BREAKS_OFF, Fault.NOT_FOUND, Fault.DROPPED_RESET, Fault.HTML_502, Fault.REDIRECT):
            sandbox.faults.script("file", fault)
        (path,) = await made.save(tmp_path)
        assert path.read_bytes().startswith(b"\x89PNG")
        for request in sandbox.requests.of_kind("file"):
            assert "Authorization" not in request.headers
        assert sandbox.requests.count("file") >= 6
        assert sandbox.faults.pending("file") == 0


async def test_a_file_past_its_24_hours_is_an_expired_link(tmp_path: Path) -> None:
    async with served({"speed": 86_400 / 0.2, "service_time_s": 1_000}) as (sandbox, client):
        made = await client.generate("kite")
        expires_at = made.images[0].expires_at
        assert expires_at is not None
        await asyncio.sleep(0)
        sandbox.faults.clear()
        late = Generation(
            task_id=made.task_id,
            client_business_id=None,
            model=None,
            images=(GeneratedImage(made.images[0].url, PAST),),
            saver=client._engine.saving if client._engine else None,
        )
        await until(lambda: sandbox.ledger.by_task(made.task_id))
        sandbox.faults.script("file", Fault.NOT_FOUND)
        with pytest.raises(LinkExpired):
            await late.save(tmp_path)


@pytest.mark.parametrize(("size_bytes", "is_small"), [(100_000, True), (3 << 20, False)])
async def test_a_file_under_a_mebibyte_is_saved_in_one_step_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int, is_small: bool
) -> None:
    acts: list[str] = []

    async def counting(act: Any, *args: Any) -> Any:
        acts.append(act.__name__)
        return await anyio.to_thread.run_sync(act, *args)

    monkeypatch.setattr("toapis_async.engine.downloads.in_thread", counting)
    picture = PNG[:8] + b"\0" * size_bytes + PNG[-12:]
    async with fetching(reply(200, picture)) as (server, client):
        await (await generation(client, f"{server.url}/a.png")).save(tmp_path)
    assert acts[-1] == "_finish"
    assert (len(acts) == 1) is is_small
