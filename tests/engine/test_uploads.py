"""Reference images on the way up: what may be one, in which order they arrive, and how a failure is told."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from toapis_async import (
    AuthenticationFailed,
    InvalidRequest,
    RateLimited,
    ServiceError,
    SessionClosed,
    ToAPIs,
    TransportError,
    UnreadableAnswer,
)
from toapis_async.sandbox import Fault

from .kit import JPEG, KEY, PNG, RawServer, fast, hang_up, reply, served, stall, task, turns, until

if TYPE_CHECKING:
    from collections.abc import Callable

WEBP = b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 24
GIF = b"GIF89a" + b"\0" * 20 + b";"
MP4 = b"\0\0\0\x14ftypisom\0\0\2\0isom" + b"\0\0\0\x08mdat"
MOV = b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + b"\0" * 20
WEBM = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm" + b"\0" * 20
AVIF = b"\0\0\0\x20ftypavif" + b"\0" * 20


async def test_order_is_kept_between_urls_and_local_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.jpg").write_bytes(JPEG + b"another")
    async with served() as (sandbox, client):
        references = [
            "https://one.example/1.png",
            tmp_path / "a.png",
            JPEG,
            "https://two.example/2.png",
            tmp_path / "b.jpg",
            GIF,
        ]
        await client.submit({"prompt": "kite", "reference_images": references})
        (entry,) = sandbox.ledger
        sent: Any = entry.request["reference_images"]
        assert (sent[0], sent[3]) == (references[0], references[3])
        assert [url.rpartition(".")[2] for url in sent] == ["png", "png", "jpg", "png", "jpg", "gif"]
        assert len(set(sent)) == 6
        assert sandbox.requests.count("upload") == 4


@pytest.mark.parametrize(
    ("content", "mime_type"),
    [(PNG, "image/png"), (JPEG, "image/jpeg"), (WEBP, "image/webp"), (GIF, "image/gif")],
)
async def test_a_picture_is_known_by_its_bytes_and_sent_under_a_name_of_ours(
    tmp_path: Path, content: bytes, mime_type: str
) -> None:
    secret = tmp_path / "my bank account.txt"
    secret.write_bytes(content)
    async with served() as (sandbox, client):
        uploaded = await client.upload(secret)
        assert (uploaded.mime_type, uploaded.size_bytes) == (mime_type, len(content))
        assert uploaded.url.startswith(sandbox.files_url)
    act = reply(200, {"success": True, "data": {"id": "u", "url": "https://x/y"}})
    async with RawServer(act) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
        await client.upload(secret)
        (request,) = server.requests
        assert b"bank" not in request.body
        assert content in request.body
        assert f"Content-Type: {mime_type}".encode() in request.body
        assert b'name="purpose"\r\n\r\ngeneration' in request.body


@pytest.mark.parametrize(
    ("content", "mime_type", "extension"),
    [
        (MP4, "video/mp4", ".mp4"),
        (WEBM, "video/webm", ".webm"),
        (MOV, "video/quicktime", ".mov"),
        (MP4 + b"\0" * 12_000_000, "video/mp4", ".mp4"),
    ],
)
async def test_a_video_goes_to_the_upload_of_videos(
    tmp_path: Path, content: bytes, mime_type: str, extension: str
) -> None:
    (tmp_path / "mine").write_bytes(content)
    act = reply(200, {"success": True, "data": {"id": "u", "url": "https://x/y"}})
    async with RawServer(act) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
        assert (await client.upload(tmp_path / "mine")).url == "https://x/y"
        (request,) = server.requests
        assert request.target == "/v1/uploads/videos"
        assert f'filename="video{extension}"'.encode() in request.body
        assert f"Content-Type: {mime_type}".encode() in request.body
        assert content in request.body


async def test_a_video_is_no_reference_of_an_image() -> None:
    async with served() as (sandbox, client):
        with pytest.raises(InvalidRequest, match="is a video; a request for images takes"):
            await client.submit({"prompt": "kite", "reference_images": [MP4]})
        assert (sandbox.requests.count("submit"), sandbox.requests.count("upload")) == (0, 0)


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time, as pipes and sockets do."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, size: int = -1) -> bytes:
        block, self._left = self._left[: min(size, 7)], self._left[7:]
        return block


async def test_a_stream_is_read_to_its_end() -> None:
    async with served() as (_, client):
        assert (await client.upload(Trickle(PNG))).size_bytes == len(PNG)  # type: ignore[arg-type]


def opened(path: Path) -> Any:
    return path.open("rb")


WAYS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "text": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "file": opened,
    "memory-file": lambda path: io.BytesIO(path.read_bytes()),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_a_picture_may_come_as(way: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    source = way(tmp_path / "a.png")
    async with served() as (_, client):
        assert (await client.upload(source)).size_bytes == len(PNG)
    if hasattr(source, "close"):
        source.close()


async def test_an_upload_of_megabytes_warns_of_nothing() -> None:
    # aiohttp warns (ResourceWarning) about raw bytes over 1 MiB.
    async with served() as (_, client):
        assert (await client.upload(PNG + b"\0" * 3_000_000)).size_bytes == len(PNG) + 3_000_000


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def unreadable(folder: Path) -> Path:
    path = folder / "loop.png"
    path.symlink_to(path)
    return path


def large(folder: Path) -> Path:
    path = folder / "large.png"
    with path.open("wb") as file:
        file.write(PNG)
        file.truncate(10_000_001)
    return path


def text_file(folder: Path) -> Any:
    (folder / "a.txt").write_text("text")
    return (folder / "a.txt").open()


def picture_as_text(folder: Path) -> Any:
    (folder / "a.png").write_bytes(PNG)
    return (folder / "a.png").open(encoding="utf-8")


def wrapped_text_file(folder: Path) -> Any:
    file = tempfile.NamedTemporaryFile("w+", dir=folder)  # noqa: SIM115  (closed by the test)
    file.write("a text")
    file.seek(0)
    return file


IMPOSSIBLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda folder: folder / "none.png", "No such file"),
    "directory": (lambda folder: folder, "not a regular file"),
    "fifo": (fifo, "not a regular file"),
    "device": (lambda _: Path("/dev/zero"), "not a regular file"),
    "link-to-itself": (unreadable, "can't read"),
    "name-with-nul": (lambda _: Path("a\0b.png"), "can't read"),
    "too-large": (large, "larger than 10,000,000 bytes"),
    "too-large-bytes": (lambda _: PNG + b"\0" * 10_000_000, "larger than 10,000,000 bytes"),
    "no-image": (lambda _: b"hello, this is no image at all", "not a JPEG, PNG, WebP or GIF"),
    "empty": (lambda _: b"", "not a JPEG, PNG, WebP or GIF"),
    "avif": (lambda _: AVIF, "not a JPEG, PNG, WebP or GIF"),
    "too-large-video": (lambda _: MP4 + b"\0" * 50_000_000, "larger than 50,000,000 bytes"),
    "text-file": (text_file, "binary mode"),
    "picture-as-text": (picture_as_text, "binary mode"),
    "wrapped-text-file": (wrapped_text_file, "binary mode"),
    "text-in-memory": (lambda _: io.StringIO("x"), "binary mode"),
    "no-file": (lambda _: 5, "binary mode"),
    "link": (lambda _: "https://one.example/1.png", "is a link already"),
}


@pytest.mark.parametrize(("make", "words"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
async def test_what_can_t_be_a_reference_is_refused_unsent(
    make: Callable[[Path], Any], words: str, tmp_path: Path
) -> None:
    source = make(tmp_path)
    async with served() as (sandbox, client):
        with pytest.raises(InvalidRequest, match=words) as caught:
            await client.upload(source)
        assert caught.value.field == "reference_images"
        if isinstance(source, Path | bytes):
            with pytest.raises(InvalidRequest, match=words):
                await client.submit({"prompt": "kite", "reference_images": [PNG, source]})
            assert sandbox.requests.count("submit") == 0
        assert sandbox.requests.count("upload") <= 1  # the good one beside it
    if hasattr(source, "close"):
        source.close()


async def test_a_file_of_the_very_limit_is_taken() -> None:
    async with served() as (_, client):
        assert (await client.upload(PNG + b"\0" * (10_000_000 - len(PNG)))).size_bytes == 10_000_000


REFUSED = {
    "400": reply(400, {"success": False, "message": "Unsupported image type"}),
    "200": reply(200, {"success": False, "message": "Unsupported image type"}),
    "200-error": reply(200, {"success": False, "error": {"code": "bad", "message": "Unsupported image type"}}),
    "413-html": reply(413, b"<html><title>Unsupported image type</title>"),
}


@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED.keys())
async def test_a_refused_upload_is_told_in_the_service_s_words_and_nothing_is_submitted(act: Any) -> None:
    async with RawServer(act) as server, ToAPIs(KEY, base_url=server.url, settings=fast(max_in_flight=1)) as client:
        with pytest.raises(ServiceError, match="Unsupported image type"):
            await client.upload(PNG)
        with pytest.raises(ServiceError, match="Unsupported image type"):  # the reason, not a group of reasons
            await client.submit({"prompt": "kite", "reference_images": [PNG, JPEG]})
        assert {request.target for request in server.requests} == {"/v1/uploads/images"}


@pytest.mark.parametrize(
    "data", [{}, {"id": "u"}, {"url": ""}, {"url": 5}, [], None], ids=["empty", "id", "blank", "number", "list", "null"]
)
async def test_an_upload_without_a_link_is_unreadable(data: object) -> None:
    async with (
        RawServer(reply(200, {"success": True, "data": data})) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast()) as client,
    ):
        with pytest.raises(UnreadableAnswer, match=r"\$\.data\.url"):
            await client.upload(PNG)


async def test_a_lost_answer_to_an_upload_is_a_transport_error_and_no_submission() -> None:
    async with RawServer(hang_up()) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
        with pytest.raises(TransportError):
            await client.submit({"prompt": "kite", "reference_images": [PNG]})
        assert len(server.requests) == 1
        assert client.unclaimed() == ()


async def test_the_sandbox_s_success_false_is_understood() -> None:
    async with served() as (sandbox, client):
        sandbox.faults.script("upload", Fault.SUCCESS_FALSE)
        with pytest.raises(ServiceError, match="temporarily unavailable"):
            await client.upload(PNG)
        assert (await client.upload(PNG)).url


# ------------------------------------------------------------------------------------------- tried again

TAKEN = reply(200, {"success": True, "data": {"id": "u", "url": "https://x/y"}})
PASSING = {
    "hung-up": hang_up(),
    "cut-short": hang_up(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
    "silence": stall(),
    "429": reply(429, {"error": {"code": "rate_limited", "message": "slower"}}),
    "500": reply(500, {"error": {"message": "oh"}}),
    "503-html": reply(503, b"<html><title>busy</title>"),
}
WAYS_AGAIN = {name: way for name, way in WAYS.items() if name != "bytearray"}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Back-offs take no time; how many failures in a row each was for."""
    failures: list[int] = []

    def at_once(count: int, **_: object) -> float:
        failures.append(count)
        return 0.0

    monkeypatch.setattr("toapis_async.engine.uploads.backoff_s", at_once)
    return failures


@pytest.mark.parametrize("act", PASSING.values(), ids=PASSING.keys())
async def test_an_upload_is_sent_again_when_that_may_help(act: Any, waits: list[int], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    settings, silence_s = fast(submit_retry_s=600), 50 if act is PASSING["silence"] else None
    async with (
        RawServer(act, act, TAKEN, silence_s=silence_s) as server,
        ToAPIs(KEY, base_url=server.url, settings=settings) as client,
    ):
        assert (await client.upload(tmp_path / "a.png")).url == "https://x/y"
        assert len(server.requests) == 3
        assert all(PNG in request.body for request in server.requests)
        assert waits == [1, 2]


@pytest.mark.parametrize("way", WAYS_AGAIN.values(), ids=WAYS_AGAIN.keys())
async def test_an_upload_is_sent_again_whole_however_it_came(
    way: Callable[[Path], Any], waits: list[int], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    source = way(tmp_path / "a.png")
    settings = fast(submit_retry_s=60)
    async with (
        RawServer(hang_up(), TAKEN) as server,
        ToAPIs(KEY, base_url=server.url, settings=settings) as client,
    ):
        await client.upload(source)
        assert [PNG in request.body for request in server.requests] == [True, True]
    if hasattr(source, "close"):
        source.close()


async def test_a_submission_survives_an_upload_that_has_to_be_sent_again(waits: list[int]) -> None:
    async with served(submit_retry_s=60) as (sandbox, client):
        for fault in (Fault.DROPPED_RESET, Fault.HTML_502):
            sandbox.faults.script("upload", fault)
        await client.submit({"prompt": "kite", "reference_images": [PNG]})
        assert (sandbox.requests.count("upload"), sandbox.requests.count("submit")) == (3, 1)


async def test_an_upload_is_not_sent_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    backoffs_s = iter((0.0, 0.0, 60.0))
    monkeypatch.setattr("toapis_async.engine.uploads.backoff_s", lambda *_, **__: next(backoffs_s))
    settings = fast(submit_retry_s=59)
    async with RawServer(hang_up()) as server, ToAPIs(KEY, base_url=server.url, settings=settings) as client:
        with pytest.raises(TransportError) as caught:
            await client.submit({"prompt": "kite", "reference_images": [PNG]})
        assert not caught.value.may_have_been_accepted  # no task comes of an upload
        assert len(server.requests) == 3
        assert "tried 3 times within submit_retry_s=59" in caught.value.__notes__
        assert client.unclaimed() == ()


@pytest.mark.parametrize(("status", "asked"), [(429, "7"), (503, "7"), (429, "999999")])
async def test_an_upload_waits_as_long_as_the_service_asks_if_there_is_time(
    status: int, asked: str, waits: list[int]
) -> None:
    busy = reply(status, {"error": {"message": "busy"}}, Retry_After=asked)
    async with RawServer(busy, TAKEN) as server:
        async with ToAPIs(KEY, base_url=server.url, settings=fast(submit_retry_s=6)) as client:
            with pytest.raises(ServiceError, match="busy") as caught:
                await client.upload(PNG)
            assert len(server.requests) == 1
            if isinstance(caught.value, RateLimited):
                assert caught.value.retry_after_s == min(float(asked), 300)
        server.script.appendleft(busy)
        settings = fast(submit_retry_s=6, max_retry_after_s=0.1)
        async with ToAPIs(KEY, base_url=server.url, settings=settings) as client:
            started_s = asyncio.get_running_loop().time()
            await client.upload(PNG)
            assert asyncio.get_running_loop().time() - started_s >= 0.1
            assert len(server.requests) == 3


@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED.keys())
async def test_a_refused_upload_is_not_sent_again(act: Any) -> None:
    async with RawServer(act) as server, ToAPIs(KEY, base_url=server.url, settings=fast(submit_retry_s=60)) as client:
        with pytest.raises(ServiceError, match="Unsupported"):
            await client.upload(PNG)
        assert len(server.requests) == 1


async def test_closing_ends_the_wait_of_an_upload_for_its_next_turn() -> None:
    busy = reply(429, {"error": {"message": "busy"}}, Retry_After="200")
    async with (
        RawServer(busy) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast(submit_retry_s=300)) as client,
    ):
        sending = [asyncio.create_task(client.upload(PNG)) for _ in range(6)]  # more than there are turns
        await until(lambda: len(server.requests) == 6)
        await turns()
        await client.aclose()
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*sending, return_exceptions=True)
        assert all(isinstance(outcome, SessionClosed | TransportError | ServiceError) for outcome in outcomes)
        assert len(server.requests) == 6


# ------------------------------------------------------------------------------------------- cancelled


@pytest.mark.parametrize("native", [True, False], ids=["cancel", "timeout"])
async def test_a_caller_cancelled_after_one_upload_failed_gets_the_cancellation(native: bool) -> None:
    """While the others end, the failure is known and not yet told: a cancellation in that moment must not be lost."""
    begun, ending, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def upload(source: bytes, _: object) -> Any:
        if source != PNG:
            await begun.wait()
            raise InvalidRequest("no image")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            with anyio.CancelScope(shield=True):
                await go_on.wait()

    async with served() as (sandbox, client):
        assert client._engine is not None
        client._engine.uploads._upload = upload  # type: ignore[method-assign, assignment]
        patience = asyncio.timeout(None)
        sending = asyncio.create_task(_submit(client, [PNG, b"bad"], patience))
        await ending.wait()
        if native:
            sending.cancel()
        else:
            patience.reschedule(0)
        await turns()
        assert not sending.done()  # it leaves no upload behind
        go_on.set()
        with pytest.raises(asyncio.CancelledError if native else TimeoutError):
            await sending
        assert sandbox.requests.count("submit") == 0


async def _submit(client: ToAPIs, references: list[bytes], patience: asyncio.Timeout) -> None:
    async with patience:
        await client.submit({"prompt": "kite", "reference_images": references})


async def test_a_caller_cancelled_while_uploads_are_under_way_leaves_none_behind() -> None:
    async with RawServer(stall()) as server, ToAPIs(KEY, base_url=server.url, settings=fast()) as client:
        sending = asyncio.create_task(client.submit({"prompt": "kite", "reference_images": [PNG, JPEG]}))
        await until(lambda: len(server.requests) == 2)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not [each for each in asyncio.all_tasks() if "Uploads._link_of" in repr(each.get_coro())]


async def test_many_uploads_go_a_few_at_a_time_and_all_arrive() -> None:
    async with served() as (sandbox, client):
        references = [PNG + bytes([number]) for number in range(12)]
        await client.submit({"prompt": "kite", "reference_images": references})
        assert sandbox.requests.count("upload") == 12
        sent: Any = next(iter(sandbox.ledger)).request["reference_images"]
        assert len(set(sent)) == 12


async def test_one_picture_of_many_requests_is_uploaded_once_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(PNG)
    (tmp_path / "copy.png").write_bytes(PNG)
    async with served() as (sandbox, client):
        files = [tmp_path / "logo.png", tmp_path / "copy.png", PNG]
        rows = [{"prompt": f"kite {n}", "reference_images": [files[n % 3], JPEG]} for n in range(10)]
        items = await client.batch(rows).gather()
        assert all(item.ok for item in items)
        await client.submit({"prompt": "kite", "reference_images": [PNG, PNG]})
        assert sandbox.requests.count("upload") == 2
        sent: Any = [entry.request["reference_images"] for entry in sandbox.ledger]
        assert len({(logo, jpeg) for logo, jpeg in sent[:10]}) == 1
        assert sent[10] == [sent[0][0]] * 2
        (tmp_path / "logo.png").write_bytes(PNG + b"changed")
        await client.submit({"prompt": "kite", "reference_images": [tmp_path / "logo.png"]})
        await client.upload(PNG)  # who asks for an upload gets one
        assert sandbox.requests.count("upload") == 4


async def test_a_link_serves_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as (sandbox, client):
        for reused_s, uploads in ((3_600.0, 1), (3_600.0, 1), (0.0, 2), (0.0, 3)):
            monkeypatch.setattr("toapis_async.engine.uploads.REUSED_S", reused_s)
            await client.submit({"prompt": "kite", "reference_images": [PNG]})
            assert sandbox.requests.count("upload") == uploads


@pytest.fixture
def hashed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents are hashed in the order of their requests, not as threads come to it."""

    async def at_once(act: Callable[..., Any], *args: Any) -> Any:
        return act(*args)

    monkeypatch.setattr("toapis_async.engine.uploads.in_thread", at_once)


@pytest.mark.usefixtures("hashed_at_once")
async def test_requests_that_wait_for_one_upload_share_its_failure_and_later_ones_try_anew() -> None:
    async with served() as (sandbox, client):
        sandbox.faults.script("upload", Fault.UNAUTHORIZED)
        request = {"prompt": "kite", "reference_images": [PNG]}
        ended = await asyncio.gather(*(client.submit(request) for _ in range(5)), return_exceptions=True)
        assert [type(error) for error in ended] == [AuthenticationFailed] * 5
        assert len({id(error) for error in ended}) == 5
        assert sandbox.requests.count("upload") == 1
        await client.submit(request)
        assert sandbox.requests.count("upload") == 2


@pytest.mark.usefixtures("hashed_at_once", "waits")
async def test_who_leaves_an_upload_leaves_it_to_the_next() -> None:
    async with (
        RawServer(stall(), TAKEN, reply(200, task())) as server,
        ToAPIs(KEY, base_url=server.url, settings=fast()) as client,
    ):
        first, second = (
            asyncio.create_task(client.submit({"prompt": "kite", "reference_images": [PNG]})) for _ in range(2)
        )
        await until(lambda: len(server.requests) == 1)
        first.cancel()
        await second
        assert first.cancelled()
