"""File hosts as they are: odd links, odd answers, and links that lead where they must not."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from attrs import evolve
from PIL import Image

from toapis_async import DownloadFailed, GeneratedVideo, LinkExpired, ToAPIs
from toapis_async.protocol.links import is_local
from toapis_async.protocol.retry import backoff_s

from .kit import JPEG, KEY, PNG, RawServer, Request, fast, hang_up, raw, reply
from .test_downloads import BIG, HALF, failing, fetching, generation, left_in
from .test_uploads import GIF, MOV, WEBM

MP4 = b"\0\0\0\x14ftypisom\0\0\2\0isom\0\0\0\x0cmoov1234\0\0\0\x0cmdat5678"
pytestmark = pytest.mark.usefixtures("impatient")

NOW = datetime.now(UTC)
PATH = "/files/lamp%20%28v2%29%27s.png?Expires=1999999999&Signature=q1w2%2FeR%3D%3D&ct=image%2Fpng"


def dated(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


# ------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize(
    ("link", "asked_for"),
    [
        (PATH, PATH),
        ("/a b.png", "/a%20b.png"),
        ("/风.png?名=1", "/%E9%A3%8E.png?%E5%90%8D=1"),
        ("/a%2fb/../c?x='(1)'", "/a%2fb/../c?x='(1)'"),
    ],
)
@pytest.mark.parametrize("redirected", [False, True])
async def test_a_link_goes_out_in_its_own_spelling(link: str, asked_for: str, redirected: bool, tmp_path: Path) -> None:
    script = [reply(302, b"", Location=link.encode().decode("latin-1"))] if redirected and link.isascii() else []
    async with fetching(*script, reply(200, PNG)) as (server, client):
        url = f"{server.url}/first" if script else f"{server.url}{link}"
        await (await generation(client, url)).save(tmp_path)
        assert server.requests[-1].target == asked_for


async def test_a_link_without_a_host_is_fetched_from_the_api_s(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG)) as (server, client):
        await (await generation(client, "/__files/a%27.png")).save(tmp_path)
        (request,) = server.requests
        assert request.target == "/__files/a%27.png"
        assert "authorization" not in request.headers


async def test_a_cookie_that_a_redirect_sets_is_shown_to_its_hosts_alone(tmp_path: Path) -> None:
    async with RawServer(reply(200, PNG)) as other:
        elsewhere = f"http://localhost:{other.authority.partition(':')[2]}/c"
        script = [
            reply(302, b"", Location="/b", Set_Cookie="pass=a%2Fb=; Path=/"),
            reply(307, b"", Location=elsewhere),
        ]
        async with fetching(*script) as (server, client):
            await (await generation(client, f"{server.url}/a")).save(tmp_path)
            assert [request.headers.get("cookie") for request in server.requests] == [None, "pass=a%2Fb="]
            assert "cookie" not in other.requests[0].headers
    assert left_in(tmp_path) == ["t.png"]


# ------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("count", [1, 300])
async def test_long_headers_are_read(count: int, tmp_path: Path) -> None:
    named = {f"X_Policy_{number}": "x" * (65_000 // count) for number in range(count)}
    async with fetching(reply(200, PNG, **named), download_tries=1) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (PNG, "gzip"),
        (PNG, "br"),
        (PNG, "x-unheard-of"),
        (gzip.compress(PNG, mtime=0), "gzip"),
        (gzip.compress(PNG, mtime=0), "br"),
        (gzip.compress(PNG, mtime=0), ""),
        (zlib.compress(PNG), "deflate"),
    ],
)
async def test_a_wrong_label_of_an_encoding_loses_nothing(content: bytes, encoding: str, tmp_path: Path) -> None:
    headers = {"Content_Encoding": encoding} if encoding else {}
    async with fetching(reply(200, content, **headers), download_tries=1) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG
        assert left_in(tmp_path) == ["t.png"]


@pytest.mark.parametrize("content", [BIG, gzip.compress(gzip.compress(PNG, mtime=0), mtime=0), b"\x1f\x8b" + PNG])
async def test_what_can_t_be_unpacked_or_grows_too_large_is_told(content: bytes, tmp_path: Path) -> None:
    packed = gzip.compress(content, mtime=0) if content.startswith(b"\x89PNG") else content
    async with fetching(reply(200, packed), download_tries=2, max_file_bytes=2_000_000) as (server, client):
        await failing(client, f"{server.url}/a", tmp_path)


@pytest.mark.parametrize(
    ("content", "label", "name"),
    [
        (PNG + b"Exif" * 100, "image/png", "t.png"),
        (b"\0\0\1\0" + b"\1" * 50, "image/x-icon", "t.ico"),
        (b"\1\2\3", "image/x-new-kind", "t.bin"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text/xml", "t.svg"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "application/octet-stream", "t.heic"),
    ],
)
async def test_a_picture_that_came_is_kept_whatever_it_is(
    content: bytes, label: str, name: str, tmp_path: Path
) -> None:
    if name == "t.png":
        file = BytesIO()
        Image.new("RGB", (31, 17)).save(file, "PNG")
        content = file.getvalue() + b"Exif" * 100
    async with fetching(reply(200, content, Content_Type=label), download_tries=1) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a.xyz")).save(tmp_path)
        assert (path.name, path.read_bytes()) == (name, content)


@pytest.mark.parametrize("content", [b"<html>blocked</html>", b'{"error": 1}', b""])
async def test_a_page_that_is_called_a_picture_is_none(content: bytes, tmp_path: Path) -> None:
    async with fetching(reply(200, content, Content_Type="image/png"), download_tries=2) as (server, client):
        assert "no picture" in str(await failing(client, f"{server.url}/a", tmp_path))


async def test_an_unknown_picture_of_unknown_length_is_not_believed(tmp_path: Path) -> None:
    act = hang_up(b"HTTP/1.1 200 OK\r\nContent-Type: image/x-icon\r\nConnection: close\r\n\r\n\0\0\1\0")
    async with fetching(act, download_tries=2) as (server, client):
        await failing(client, f"{server.url}/a", tmp_path)


@pytest.mark.parametrize("span", ["", f"bytes 0-{len(PNG) - 1}/{len(PNG)}", f"bytes 0-{len(PNG) - 1}/*"])
async def test_a_206_that_nobody_asked_for_may_hold_the_whole_file(span: str, tmp_path: Path) -> None:
    headers = {"Content_Range": span} if span else {}
    async with fetching(reply(206, PNG, **headers), download_tries=1) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG


async def test_data_in_the_answer_is_saved_as_a_file(tmp_path: Path) -> None:
    link = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    async with fetching(reply(200, PNG), max_file_bytes=2_000) as (server, client):
        first, second = await (await generation(client, link, f"{server.url}/a")).save(tmp_path)
        assert (first.read_bytes(), second.read_bytes()) == (PNG, PNG)
        assert len(server.requests) == 1
        large = f"data:;base64,{base64.b64encode(PNG + b'x' * 2_000).decode()}"
        error = await failing(client, large, tmp_path / "out")
        assert "max_file_bytes=2000" in str(error)
        assert len(error.url or "") < 60


async def test_a_batch_keeps_no_data_of_files_that_it_has_saved(tmp_path: Path) -> None:
    content = PNG + b"\0" * 1_000 + PNG
    encoded = base64.b64encode(content).decode()
    done = {
        "id": "t",
        "status": "completed",
        "result": {"data": [{"b64_json": encoded}, {"url": f"data:;base64,{encoded}"}]},
    }
    async with fetching(reply(200, {"id": "t", "status": "queued"}), reply(200, done)) as (_, client):
        [item] = await client.batch(["kite"], save_to=tmp_path).gather()
        assert [path.read_bytes() for path in item.files] == [content, content]
        assert item.generation is not None
        assert [image.url for image in item.generation.images] == ["data:,", "data:,"]
        assert encoded not in str(item.generation.raw)
        [unsaved] = await client.batch(["kite"]).gather()
        assert unsaved.generation is not None
        assert encoded in unsaved.generation.images[0].url
        assert len(repr(unsaved.generation.images[0])) < 150


@pytest.mark.parametrize(("content", "name"), [(MP4, "t.mp4"), (MOV, "t.mov"), (WEBM, "t.webm"), (GIF, "t.gif")])
async def test_videos_are_saved_by_their_bytes_under_a_cap_of_their_own(
    content: bytes, name: str, tmp_path: Path
) -> None:
    settings = {"max_file_bytes": 1_024, "max_video_bytes": 3_000, "download_tries": 1}
    async with fetching(reply(200, content + b"\0" * 2_000), **settings) as (server, client):
        made = evolve(
            await generation(client),
            videos=(GeneratedVideo(f"{server.url}/v.bin", last_frame_url=f"{server.url}/f.png"),),
        )
        (path,) = await made.save(tmp_path)
        assert path.name == name
        assert len(server.requests) == 1
        server.script[0] = reply(200, content + b"\0" * 4_000)
        with pytest.raises(DownloadFailed, match="max_video_bytes=3000"):
            await made.save(tmp_path)


# ------------------------------------------------------------------------------------------- going on


def ranged(content: bytes, tag: str = '"v1"') -> Any:
    """A host that breaks off its first answer half way, and knows ranges."""

    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        wanted = request.headers.get("range")
        if len(server.requests) == 1:
            half = HALF.replace(b"\r\n\r\n", f"\r\nETag: {tag}\r\n\r\n".encode(), 1)
            await hang_up(half)(server, request, writer)
        elif wanted and request.headers.get("if-range", '"v1"') == '"v1"':
            at = int(wanted.removeprefix("bytes=").removesuffix("-"))
            headers = {"Content_Range": f"bytes {at}-{len(content) - 1}/{len(content)}", "ETag": '"v1"'}
            await reply(206, content[at:], **headers)(server, request, writer)
        else:
            await reply(200, content)(server, request, writer)

    return act


async def test_a_download_that_breaks_off_goes_on_from_there(tmp_path: Path) -> None:
    async with fetching(ranged(BIG)) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == BIG
        first, second = server.requests
        assert "range" not in first.headers
        at = int(second.headers["range"].removeprefix("bytes=").removesuffix("-"))
        assert 0 < at <= len(BIG) // 2
        assert second.headers["if-range"] == '"v1"'
        assert left_in(tmp_path) == ["t.png"]


@pytest.mark.parametrize(("content", "tag"), [(BIG, '"v0"'), (BIG[:-13] + b"longer" + BIG[-12:], 'W/"v1"')])
async def test_but_begins_anew_when_the_file_is_another(content: bytes, tag: str, tmp_path: Path) -> None:
    async with fetching(ranged(content, tag)) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == content


@pytest.mark.parametrize(("more", "tag"), [(1, '"v1"'), (0, '"v2"')])
async def test_the_rest_of_another_file_is_not_put_behind_this_one(more: int, tag: str, tmp_path: Path) -> None:
    """Some hosts read no `If-Range`."""

    async def other(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        at = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {at}-{total - 1}/{total}"
        await reply(206, b"x" * (total - at), Content_Range=span, ETag=tag)(server, request, writer)

    whole = JPEG[:4] + bytes(3_000_000) + JPEG[-2:]  # of a JPEG that came in full, the bytes don't tell
    total = len(whole) + more
    head = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: %d\r\n\r\n' % len(whole)
    async with fetching(hang_up(head + whole[:2_000_000]), other, reply(200, whole)) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == whole
        assert ["range" in request.headers for request in server.requests] == [False, True, False]


async def test_a_shorter_file_leaves_nothing_of_the_longer_one_that_broke_off(tmp_path: Path) -> None:
    async with fetching(hang_up(HALF), reply(200, PNG)) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG


async def test_a_part_that_nobody_asked_for_is_followed_by_the_rest(tmp_path: Path) -> None:
    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        at = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        chunk = PNG[at : at + 30]
        span = f"bytes {at}-{at + len(chunk) - 1}/{len(PNG)}"
        await reply(206, chunk, Content_Range=span)(server, request, writer)

    async with fetching(act) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == PNG
        assert len(server.requests) == 3


async def test_a_range_that_is_refused_is_given_up(tmp_path: Path) -> None:
    async with fetching(hang_up(HALF), reply(416, b""), reply(200, BIG)) as (server, client):
        (path,) = await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert path.read_bytes() == BIG
        assert "range" not in server.requests[-1].headers


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize(
    ("dates", "ahead_h"),
    [(True, 0), (True, 25), (True, -25), (False, 0), (False, 25)],
    ids=["", "clock-ahead", "clock-behind", "no-date", "no-date-clock-ahead"],
)
async def test_a_fresh_link_that_is_refused_is_asked_again(
    status: int, dates: bool, ahead_h: int, tmp_path: Path
) -> None:
    """Also when the clock here is a day off: the host's `Date` counts, and times of a link that contradict the clock
    here don't."""
    host_s_now = NOW - timedelta(hours=ahead_h)
    headers = {"Date": dated(host_s_now)} if dates else {}
    act = reply(status, b"", **headers)
    async with fetching(act, act, reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/a", expires_at=host_s_now + timedelta(hours=24, seconds=-5))
        (path,) = await made.save(tmp_path)
        assert path.read_bytes() == PNG


async def test_and_that_takes_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def at_once(failures: int, **how: Any) -> float:
        waits.append(backoff_s(failures, **how))
        return 0.0

    monkeypatch.setattr("toapis_async.engine.downloads.backoff_s", at_once)
    async with fetching(reply(403, b"", Date=dated(NOW))) as (server, client):
        error = await failing(client, f"{server.url}/a", tmp_path, NOW + timedelta(hours=24))
        assert "tried 8 times" in str(error)
        assert type(error) is DownloadFailed
    assert (len(waits), sum(waits)) == (7, 61.5)


@pytest.mark.parametrize(
    ("over_h", "known_h", "expired"),
    [(2, 0, True), (-2, 30, False), (None, 25, True), (None, 23, False), (None, None, False)],
    ids=["over", "clock-ahead", "long-known", "known", "unknown"],
)
async def test_a_link_is_lost_when_its_life_is_over_by_the_host_s_clock_or_the_time_that_passed_here(
    over_h: int | None, known_h: int | None, expired: bool, tmp_path: Path
) -> None:
    headers = {} if over_h is None else {"Date": dated(NOW + timedelta(hours=over_h))}
    async with fetching(reply(404, b"", **headers), download_tries=1) as (server, client):
        made = await generation(client, f"{server.url}/a", expires_at=NOW)
        assert client._engine is not None
        known_since = None if known_h is None else NOW.timestamp() - known_h * 3600
        with pytest.raises(DownloadFailed) as caught:
            await client._engine.downloads.save(made, tmp_path, known_since=known_since)
        assert (type(caught.value) is LinkExpired) is expired


# ------------------------------------------------------------------------------------------- local networks


def resolving(monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
    """Names as a test's resolver knows them, also where aiodns or uvloop look them up in their own ways."""
    for module in ("aiohttp", "aiohttp.connector"):
        monkeypatch.setattr(f"{module}.DefaultResolver", aiohttp.ThreadedResolver)

    async def getaddrinfo(host: str, port: int, **named: Any) -> Any:
        known = addresses.get(host.removesuffix(".example"), host)
        return [found for each in known.split() for found in socket.getaddrinfo(each, port, **named)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


def public(client: ToAPIs) -> None:
    """As if the API were somewhere in the internet."""
    assert client._engine is not None
    client._engine.transport._files._guarded = True
    client._engine.transport._files._base = client._engine.transport._files._base.with_host("api.example")


async def refused(client: ToAPIs, url: str, folder: Path) -> str:
    public(client)
    error = await failing(client, url, folder / "out")
    assert type(error) is DownloadFailed
    return str(error)


@pytest.mark.parametrize("host", ["127.0.0.2", "[::ffff:10.0.0.1]", "localhost", "127.0.0.2.", "inside.example"])
@pytest.mark.parametrize("redirected", [False, True])
async def test_no_link_leads_into_the_machine_s_networks(
    host: str, redirected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test's own server stands for one in the internet.
    monkeypatch.setattr("toapis_async.engine.filehosts.is_local", lambda name: name != "127.0.0.1" and is_local(name))
    resolving(monkeypatch, api="93.184.216.34", inside="127.0.0.2")
    async with fetching(reply(200, PNG)) as (server, client):
        url = f"http://{host}:{server.authority.partition(':')[2]}/secret"
        if redirected:
            server.script.appendleft(reply(302, b"", Location=url))
            url = f"{server.url}/a"
        assert "allow_private_links=True" in await refused(client, url, tmp_path)
        assert [request.target for request in server.requests] == (["/a"] if redirected else [])


async def test_a_name_with_a_public_address_too_is_reached_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, api="93.184.216.34", both="10.0.0.1 127.0.0.1")
    monkeypatch.setattr("toapis_async.engine.filehosts.is_local", lambda host: host.startswith("10."))
    async with fetching(reply(200, PNG), connect_timeout_s=5) as (server, client):
        public(client)
        url = f"http://both.example:{server.authority.partition(':')[2]}/a"
        await (await generation(client, url)).save(tmp_path)
    assert left_in(tmp_path) == ["t.png"]


@pytest.mark.parametrize("allowed", ["setting", "local-api", "api-name"])
async def test_but_they_may_when_that_is_wanted_or_the_api_is_there(
    allowed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, api="127.0.0.1" if allowed == "api-name" else "93.184.216.34", inside="127.0.0.1")
    async with RawServer(reply(200, PNG)) as server:
        base_url = {"setting": "https://api.example", "local-api": server.url, "api-name": "https://api.example"}[
            allowed
        ]
        settings = fast(allow_private_links=allowed == "setting", download_tries=1)
        async with ToAPIs(KEY, base_url=base_url, settings=settings) as client:
            port = server.authority.partition(":")[2]
            for number, host in enumerate(("127.0.0.1", "inside.example")):
                made = await generation(client, f"http://{host}:{port}/a", task_id=f"t{number}")
                await made.save(tmp_path)
    assert left_in(tmp_path) == ["t0.png", "t1.png"]


async def test_through_a_proxy_only_addresses_are_judged(tmp_path: Path) -> None:
    async with RawServer(reply(200, PNG)) as proxy:
        settings = fast(proxy=proxy.url, download_tries=1)
        async with ToAPIs(KEY, base_url="https://api.example", settings=settings) as client:
            await (await generation(client, "http://files.example/a%27.png")).save(tmp_path)
            assert proxy.requests[-1].target == "http://files.example/a%27.png"
            for host in ("10.0.0.1", "0x7f.1", "2130706433", "[fd00::1]", "localhost"):
                error = await failing(client, f"http://{host}/a", tmp_path / "out")
                assert "allow_private_links" in str(error)
            assert len(proxy.requests) == 1


# ------------------------------------------------------------------------------------------- several files


async def test_what_arrived_stays_and_the_error_names_the_rest(tmp_path: Path) -> None:
    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        step = reply(404, b"", Date=dated(NOW)) if request.target == "/1" else reply(200, PNG)
        await step(server, request, writer)

    async with fetching(act, download_tries=2) as (server, client):
        made = await generation(client, *(f"{server.url}/{number}" for number in (1, 2, 3)))
        with pytest.raises(DownloadFailed, match=r"file 1 of 3: .*404") as caught:
            await made.save(tmp_path)
        error = caught.value
        assert [path.name for path in error.files] == left_in(tmp_path) == ["t-2.png", "t-3.png"]
        assert (error.missing, error.url, error.task_id) == ((1,), f"{server.url}/1", "t")
        assert type(error) is DownloadFailed

        server.script[0] = reply(200, PNG)
        server.requests.clear()
        assert client._engine is not None
        have = [path.name for path in error.files]
        files = await client._engine.downloads.save(made, tmp_path, have=have)
        assert [path.name for path in files] == ["t-1.png", "t-2.png", "t-3.png"]
        assert [request.target for request in server.requests] == ["/1"]


async def test_names_that_are_had_count_only_while_their_files_are_there(tmp_path: Path) -> None:
    async with fetching(reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/1", f"{server.url}/2")
        (tmp_path / "t-1.jpg").write_bytes(b"kept")
        (tmp_path / "evil").mkdir()
        assert client._engine is not None
        have = ["t-1.jpg", "t-2.png", "../t-2.png", "t-2.a/b"]
        files = await client._engine.downloads.save(made, tmp_path, have=have)
        assert [path.name for path in files] == ["t-1.jpg", "t-2.png"]
        assert len(server.requests) == 1


async def test_only_when_all_the_missing_are_expired_is_the_error_an_expired_link(tmp_path: Path) -> None:
    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        step = reply({"/1": 404, "/2": 410, "/3": 401}[request.target], b"", Date=dated(NOW))
        await step(server, request, writer)

    past = NOW - timedelta(seconds=5)
    async with fetching(act) as (server, client):
        made = await generation(client, f"{server.url}/1", f"{server.url}/2", expires_at=past)
        with pytest.raises(LinkExpired, match=r"file 1 of 2: .*404.*; 2 of 2: .*410") as caught:
            await made.save(tmp_path)
        assert caught.value.missing == (1, 2)
        made = await generation(client, f"{server.url}/1", f"{server.url}/3", expires_at=past)
        with pytest.raises(DownloadFailed) as mixed:
            await made.save(tmp_path)
        assert type(mixed.value) is DownloadFailed


async def test_several_files_are_fetched_side_by_side(tmp_path: Path) -> None:
    waiting: list[asyncio.StreamWriter] = []

    async def act(server: RawServer, request: Request, writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)
        if len(waiting) == 4:
            for each in waiting:
                await reply(200, PNG)(server, request, each)

    async with fetching(act, download_concurrency=4) as (server, client):
        made = await generation(client, *(f"{server.url}/{number}" for number in range(4)))
        assert len(await made.save(tmp_path)) == 4


# ------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "error", [OSError(36, "File name too long"), OSError(22, "Invalid argument"), UnicodeEncodeError]
)
async def test_a_name_that_the_file_system_can_t_hold_gets_another(
    error: OSError | type[UnicodeEncodeError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if not target.name.isascii():
            raise UnicodeEncodeError("ascii", target.name, 0, 1, "no") if isinstance(error, type) else error
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    async with fetching(reply(200, PNG)) as (server, client):
        made = await generation(client, f"{server.url}/1", f"{server.url}/2")
        assert client._engine is not None
        save = client._engine.downloads.save
        files = await save(made, tmp_path, "हिन्दी")
        assert [path.read_bytes() for path in files] == [PNG, PNG]
        assert all(path.name.startswith("image~") for path in files)
        assert left_in(tmp_path) == sorted(path.name for path in files)
        assert await save(made, tmp_path, "हिन्दी", have=left_in(tmp_path)) == files
        assert len(server.requests) == 2


async def test_a_small_file_takes_one_step_of_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[object] = []
    loop = asyncio.get_running_loop()
    real = loop.run_in_executor

    def run_in_executor(*args: Any) -> Any:
        steps.append(args)
        return real(*args)

    monkeypatch.setattr(loop, "run_in_executor", run_in_executor)
    async with fetching(reply(200, PNG)) as (server, client):
        await (await generation(client, f"{server.url}/a")).save(tmp_path)
        assert len(steps) == 1


async def test_broken_redirects_are_told(tmp_path: Path) -> None:
    async with fetching(raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")) as (server, client):
        assert "HTTP 302" in str(await failing(client, f"{server.url}/a", tmp_path))
