"""The files host: pictures, uploads, and when they are there."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import zlib
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from toapis_async.sandbox import Sandbox
from toapis_async.sandbox.catalogue import PIXELS, loose_pixel_size, pixel_size
from toapis_async.sandbox.pictures.drawing import draw, write
from toapis_async.sandbox.validation import understand_image as understand

from .kit import PNG_START, VIP, Caller, Clock, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from toapis_async.sandbox.jobs import ImageJob

DAY_S = 24 * 3600


def job(prompt: str = "a red kite", **fields: object) -> ImageJob:
    return understand({"model": VIP, "prompt": prompt, **fields})


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    image.load()
    return image


def small_png(width: int = 3, height: int = 2) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
async def drawing(clock: Clock) -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=clock, service_time_s=0) as sandbox:
        yield sandbox


async def urls(caller: Caller, task_id: str) -> list[str]:
    body = (await caller.query(task_id)).body
    return [item["url"] for item in body["result"]["data"]]


@pytest.mark.parametrize("resolution", ["1k", "2k", "4k"])
@pytest.mark.parametrize("size", list(PIXELS))
def test_pictures_have_the_published_pixel_sizes(size: str, resolution: str) -> None:
    published = PIXELS[size][("1k", "2k", "4k").index(resolution)]
    across, down = size.split(":")

    assert pixel_size(size, resolution) == published
    assert pixel_size(f"{down}:{across}", resolution) == published[::-1]


def test_a_custom_ratio_gets_the_area_of_the_square() -> None:
    found = pixel_size("7:5", "1k")

    assert found is not None
    assert found[0] * found[1] == pytest.approx(1024 * 1024, rel=0.03)
    assert found[0] / found[1] == pytest.approx(7 / 5, rel=0.03)


def test_loose_sizes_are_pixels_or_else_a_square() -> None:
    assert loose_pixel_size("640x480", "1k") == (640, 480)
    assert loose_pixel_size("9000*9", "1k") == (4096, 64)
    assert loose_pixel_size("auto", "2k") == (2048, 2048)


@pytest.mark.parametrize(("size", "resolution"), [("1:1", "1k"), ("9:16", "2k"), ("16:9", "4k"), ("7:5", "1k")])
def test_a_drawn_picture_is_a_whole_png_of_its_size(size: str, resolution: str) -> None:
    wanted = job(size=size, resolution=resolution)
    data = draw(wanted, 0, None)

    assert data.startswith(PNG_START)
    assert opened(data).size == (wanted.width, wanted.height)
    assert opened(data).format == "PNG"


@pytest.mark.parametrize("prompt", ["a city", "a lake", "alps", "hills", "half a pair: \ud800"])
@pytest.mark.parametrize("size", [(1001, 2111), (64, 64), (64, 4096), (4096, 64), (65, 77)])
def test_odd_sizes_are_drawn_to_the_pixel(size: tuple[int, int], prompt: str) -> None:
    wanted = understand({"model": "viduq3-fast", "prompt": prompt, "size": f"{size[0]}x{size[1]}"})

    assert opened(draw(wanted, 0, None)).size == size


def test_pictures_follow_from_the_work_alone() -> None:
    assert draw(job("a"), 0, None) == draw(job("a", client_business_id="other"), 0, None)


@pytest.mark.parametrize("prompt", ["a city", "a lake", "alps", "a meadow", "x1", "x2", "x3", "x4", "x5"])
def test_every_prompt_and_every_image_of_a_task_looks_different(prompt: str) -> None:
    pictures = {draw(job(prompt), index, None) for index in range(4)} | {draw(job(prompt + "!"), 0, None)}

    assert len(pictures) == 5


def lit(prompt: str) -> int:
    """How many pixels of writing a prompt leaves on black."""
    tones = Image.new("L", (1024, 1024))
    write(tones, prompt, "")
    return sum(tones.histogram()[200:])


@pytest.mark.parametrize(
    "prompt",
    ["short", "many words " * 30, "x" * 5_000, "両 " * 700, "crème brûlée", "две кошки", "🙂", "a\nb\tc", "中" * 90],
)
def test_any_prompt_is_written_within_the_picture(prompt: str) -> None:
    tones = Image.new("L", (1024, 640))
    write(tones, prompt, "note")
    box = tones.getbbox()

    assert box is not None
    assert box[0] >= 20
    assert box[2] <= 1024 - 20
    assert 640 / 2 < box[1] < box[3] < 640


def test_the_prompt_can_be_read_in_light_on_dark() -> None:
    picture = opened(draw(job("mmmmmmmm"), 0, None)).convert("L")
    foot = picture.crop((40, 900, 600, 1000)).histogram()

    assert sum(foot[:70]) > 0.6 * sum(foot)
    assert sum(foot[215:]) > 400
    assert lit("mmmmmmmm") > 400


def test_a_jpeg_is_drawn_for_the_model_that_offers_it() -> None:
    wanted = understand({"model": "gpt-image-2-official", "prompt": "x", "output_format": "jpeg"})

    assert opened(draw(wanted, 0, None)).format == "JPEG"


@pytest.mark.parametrize(
    "reference", [b"\x89PNG\r\n\x1a\nbroken", small_png()[:45], b"GIF89a", b""], ids=["noise", "cut", "stub", "empty"]
)
def test_a_reference_that_cannot_be_decoded_is_not_shown(reference: bytes) -> None:
    assert draw(job(), 0, reference) == draw(job(), 0, None)


def test_a_reference_larger_than_any_picture_is_not_shown() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    bomb = PNG_START + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    assert draw(job(), 0, bomb) == draw(job(), 0, None)


async def test_finished_pictures_are_served_without_any_key(drawing: Sandbox, session: aiohttp.ClientSession) -> None:
    caller = Caller(session, drawing)
    first, second = await urls(caller, await caller.task("two kites", n=2, size="3:2"))
    reply = await caller.file(first)

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "image/png"
    assert reply.headers["Content-Length"] == str(len(reply.raw))
    assert opened(reply.raw).size == (1536, 1024)
    assert (await caller.file(second)).raw != reply.raw
    assert (await caller.file(first)).raw == reply.raw


async def test_a_file_can_be_asked_for_its_head_alone(
    session: aiohttp.ClientSession, sandbox: Sandbox, clock: Clock
) -> None:
    caller = Caller(session, sandbox)
    task_id = await caller.task()
    clock.advance(10)
    (url,) = await urls(caller, task_id)
    reply = await caller.call("HEAD", url)

    assert (reply.status, reply.raw) == (200, b"")
    assert int(reply.headers["Content-Length"]) == len((await caller.file(url)).raw)


async def test_plain_pictures_have_the_right_size_and_differ(
    session: aiohttp.ClientSession, sandbox: Sandbox, clock: Clock
) -> None:
    caller = Caller(session, sandbox)
    task_id = await caller.task(n=2, size="9:16", resolution="4k")
    clock.advance(10)
    one, two = [(await caller.file(url)).raw for url in await urls(caller, task_id)]

    assert opened(one).size == (2160, 3840)
    assert one != two


async def test_a_picture_is_there_from_completion_until_its_links_expire(
    session: aiohttp.ClientSession, sandbox: Sandbox, clock: Clock
) -> None:
    caller = Caller(session, sandbox)
    task_id = await caller.task()
    url = f"{sandbox.files_url}/generated/{task_id}-0.png"
    seen = [(await caller.file(url)).status]
    clock.advance(10)
    seen.append((await caller.file(url)).status)
    clock.advance(DAY_S - 1)
    seen.append((await caller.file(url)).status)
    clock.advance(1)
    seen.append((await caller.file(url)).status)

    assert seen == [404, 200, 200, 404]
    assert (await caller.query(task_id)).body["status"] == "completed"


async def test_speed_brings_the_expiry_closer(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(clock=clock, service_time_s=0, speed=24, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        task_id = await caller.task()
        (url,) = await urls(caller, task_id)
        assert (await caller.query(task_id)).body["expires_at"] == clock.now + 3600
        clock.advance(3600)
        assert (await caller.file(url)).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/generated/task_img_nobody-0.png",
        "/generated/nodash",
        "/uploads/none.png",
        "/uploads/..%2F..%2Fpasswd.png",
        "/uploads/sandbox.sqlite3",
        "/uploads/noextension",
    ],
)
async def test_what_is_no_file_is_not_found(sandbox: Sandbox, caller: Caller, path: str) -> None:
    assert (await caller.call("GET", sandbox.files_url + path)).status == 404


async def test_a_picture_beyond_n_and_one_of_a_failed_task_are_not_found(
    sandbox: Sandbox, caller: Caller, clock: Clock
) -> None:
    good, bad = await caller.task(), await caller.task("[fail]")
    clock.advance(10)

    assert (await caller.file(f"{sandbox.files_url}/generated/{good}-1.png")).status == 404
    assert (await caller.file(f"{sandbox.files_url}/generated/{bad}-0.png")).status == 404


@pytest.mark.parametrize(
    ("data", "mime_type", "extension"),
    [
        (b"\xff\xd8\xff\xe0 jpeg", "image/jpeg", "jpg"),
        (PNG_START + b"png", "image/png", "png"),
        (b"GIF87a gif", "image/gif", "gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp", "webp"),
    ],
)
async def test_an_upload_is_stored_and_can_be_fetched_back(
    sandbox: Sandbox, caller: Caller, data: bytes, mime_type: str, extension: str
) -> None:
    reply = await caller.upload(data, filename="lies.txt")
    body = reply.body

    assert reply.status == 200
    assert body["success"] is True
    assert body["message"] == ""
    assert body["data"].keys() == {"id", "url", "mime_type", "size"}
    assert (body["data"]["mime_type"], body["data"]["size"]) == (mime_type, len(data))
    assert body["data"]["url"].startswith(f"{sandbox.files_url}/uploads/")
    assert body["data"]["url"].endswith(extension)
    fetched = await caller.file(body["data"]["url"])
    assert (fetched.status, fetched.raw, fetched.headers["Content-Type"]) == (200, data, mime_type)


async def test_equal_uploads_get_links_of_their_own(caller: Caller) -> None:
    first, second = [(await caller.upload(b"GIF89a")).body["data"]["url"] for _ in range(2)]

    assert first != second


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"RIFF\0\0\0\0WAVE", b"<svg/>"])
async def test_an_unsupported_type_is_refused(caller: Caller, data: bytes) -> None:
    reply = await caller.upload(data)

    assert reply.status == 400
    assert reply.body == {
        "success": False,
        "message": "Unsupported image type. Allowed: JPEG, PNG, WebP, GIF",
    }


async def test_ten_million_bytes_are_taken_and_one_more_is_not(caller: Caller) -> None:
    whole = PNG_START + bytes(10_000_000 - len(PNG_START))
    reply = await caller.upload(whole)
    assert reply.status == 200
    reply = await caller.upload(whole + b"\0")
    assert reply.status == 400
    assert reply.body["message"] == "Image too large. Maximum size is 10MB"


async def test_an_upload_without_a_file_is_refused(caller: Caller) -> None:
    for reply in (
        await caller.upload(b"GIF89a", field="image"),
        await caller.call("POST", "/v1/uploads/images", json={"file": "x"}),
        await caller.call("POST", "/v1/uploads/images", data=b"GIF89a"),
        await caller.call(
            "POST",
            "/v1/uploads/images",
            data=b"no multipart at all",
            headers={"Content-Type": "multipart/form-data"},
        ),
        await caller.call(
            "POST",
            "/v1/uploads/images",
            data=b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nGIF89a',
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        ),
    ):
        assert reply.status == 400
        assert reply.body["success"] is False


async def test_an_upload_used_as_reference_shows_in_the_picture(
    drawing: Sandbox, session: aiohttp.ClientSession
) -> None:
    caller = Caller(session, drawing)
    reference = (await caller.upload(small_png(60, 40))).body["data"]["url"]
    (mine,) = await urls(caller, await caller.task(reference_images=[reference]))
    (foreign,) = await urls(caller, await caller.task(reference_images=["https://example.com/a.png?x=/b"]))
    shown, plain = (await caller.file(mine)).raw, (await caller.file(foreign)).raw

    assert opened(shown).convert("RGB").getpixel((980, 50)) != opened(plain).convert("RGB").getpixel((980, 50))


async def test_the_cache_of_pictures_is_bounded(
    monkeypatch: pytest.MonkeyPatch, session: aiohttp.ClientSession, clock: Clock
) -> None:
    monkeypatch.setattr("toapis_async.sandbox.gallery._CACHE_BYTES", 1_000)
    async with Sandbox(clock=clock, service_time_s=0, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        for number in range(5):
            (url,) = await urls(caller, await caller.task(f"kite {number}"))
            assert (await caller.file(url)).status == 200
        gallery = sandbox._gallery
        assert 0 < gallery._cached_bytes <= 1_000
        assert gallery._cached_bytes == sum(map(len, gallery._cache.values()))


async def test_drawing_does_not_hold_up_the_loop(
    monkeypatch: pytest.MonkeyPatch, session: aiohttp.ClientSession, clock: Clock
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def held(*_: object) -> bytes:
        begun.set()
        assert go_on.wait(60)
        return PNG_START

    monkeypatch.setattr("toapis_async.sandbox.server.plain", held)
    async with Sandbox(clock=clock, service_time_s=0, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        (url,) = await urls(caller, await caller.task())
        getting = asyncio.create_task(caller.file(url))
        await until(begun.is_set)
        assert (await caller.balance())["success"]
        go_on.set()
        assert (await getting).raw == PNG_START
