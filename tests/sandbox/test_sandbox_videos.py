"""Videos: submissions, refusals, status, results, uploads, remix and extend."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from toapis_async.sandbox import Fault, Sandbox, clips
from toapis_async.sandbox.video_catalogue import VIDEO_MODELS
from toapis_async.sandbox.video_validation import frame_size, understand_video

from .kit import PNG_START, SEEDANCE, Caller, Clock, until

if TYPE_CHECKING:
    import aiohttp

CHROMIUM = "/usr/bin/chromium"
URL = "https://a.example/b.png"
FIRST = {"url": URL, "role": "first_frame"}
MP4, MOV, WEBM = (
    b"\0\0\0\x18ftypisom" + bytes(40),
    b"\0\0\0\x14ftypqt  " + bytes(40),
    b"\x1a\x45\xdf\xa3" + b"\x42\x82\x84webm",
)


async def test_a_video_goes_the_way_of_an_image_under_its_own_path(
    sandbox: Sandbox, caller: Caller, clock: Clock
) -> None:
    reply = await caller.submit_video(
        duration=5, resolution="720p", aspect_ratio="16:9", image_with_roles=[FIRST], client_business_id="boat-1"
    )
    task_id = reply.body["id"]
    assert reply.body == {
        "id": task_id,
        "object": "generation.task",
        "model": SEEDANCE,
        "status": "queued",
        "progress": 0,
        "created_at": 1703884800,
    }
    clock.advance(10)
    body = (await caller.query_video("boat-1")).body
    url = f"{sandbox.files_url}/generated/{task_id}-0.mp4"
    assert body == {
        **reply.body,
        "client_business_id": "boat-1",
        "status": "completed",
        "progress": 100,
        "completed_at": 1703884810,
        "expires_at": 1703884810 + 86_400,
        "result": {
            "type": "video",
            "data": [{"url": f"{sandbox.files_url}/generated/{task_id}-0.mp4", "format": "mp4"}],
        },
    }
    [entry] = sandbox.ledger
    assert (entry.kind, entry.references, entry.credits) == ("video", (URL,), 100)
    file = await caller.file(url)
    assert file.headers["Content-Type"] == "video/mp4"
    assert file.raw[4:8] == b"ftyp"


async def test_images_and_videos_are_not_found_on_each_others_path(caller: Caller) -> None:
    video = await caller.video(client_business_id="both")
    image = await caller.task(client_business_id="both")

    assert (await caller.query(video)).status == 404
    assert (await caller.query_video(image)).status == 404
    assert (await caller.query("both")).body["id"] == image
    assert (await caller.query_video("both")).body["id"] == video


@pytest.mark.parametrize("model", list(VIDEO_MODELS))
async def test_every_model_takes_the_defaults_of_its_page(caller: Caller, sandbox: Sandbox, model: str) -> None:
    needed = VIDEO_MODELS[model].needs
    fields: dict[str, Any] = {needed[0]: URL if needed[0] == "image" else [URL]} if needed else {}
    reply = await caller.submit_video(model=model, **fields)

    assert reply.status == 200, reply.raw
    [entry] = sandbox.ledger
    assert entry.credits > 0
    assert len(entry.references) == len(fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"duration": "5"}, "duration"),
        ({"duration": 5.0}, "duration"),
        ({"duration": 16}, "duration"),
        ({"duration": 3}, "duration"),
        ({"model": "seedance-2-mini", "duration": 0}, "duration"),
        ({"resolution": "8k"}, "resolution"),
        ({"model": "seedance-2-fast", "resolution": "1080p"}, "resolution"),
        ({"aspect_ratio": "2:1"}, "aspect_ratio"),
        ({"prompt": None}, "prompt"),
        ({"image_urls": [URL], "image_with_roles": [FIRST]}, "image_urls"),
        ({"image_with_roles": [FIRST, FIRST]}, "image_with_roles"),
        ({"image_with_roles": [FIRST, {"url": URL, "role": "reference_image"}]}, "image_with_roles"),
        ({"image_with_roles": [{"url": URL}]}, "image_with_roles.role"),
        ({"image_with_roles": [{"role": "first_frame"}]}, "image_with_roles"),
        ({"image_with_roles": [URL]}, "image_with_roles"),
        ({"image_with_roles": [{"url": URL, "role": "reference_image"}] * 10}, "image_with_roles"),
        ({"audio_with_roles": [{"url": URL, "role": "reference_audio"}]}, "audio_with_roles"),
        ({"image_urls": ["data:image/png;base64,AAAA"]}, "image_urls"),
        ({"tools": [{"type": "web_search"}], "image_urls": [URL]}, "tools"),
        ({"generate_audio": "yes"}, "generate_audio"),
        ({"metadata": []}, "metadata"),
        ({"model": "sora-2-vvip", "duration": 5}, "duration"),
        ({"model": "sora-2-vvip", "metadata": {"n": 5}}, "metadata.n"),
        ({"model": "veo3.1-fast", "duration": 4}, "duration"),
        ({"model": "veo3.1-fast", "metadata": {"resolution": "2k"}}, "metadata.resolution"),
        ({"model": "Veo3.1-fast-official", "size": "1:1"}, "size"),
        ({"model": "kling-v2-6", "audio": True}, "audio"),
        ({"model": "kling-v2-6", "mode": "fast"}, "mode"),
        ({"model": "MiniMax-Hailuo-02", "duration": 10, "resolution": "1080P"}, "duration"),
        ({"model": "MiniMax-Hailuo-2.3", "resolution": "512P"}, "resolution"),
        ({"model": "MiniMax-Hailuo-2.3-Fast"}, "image_urls"),
        ({"model": "MiniMax-Hailuo-02", "prompt": "x" * 2_001}, "prompt"),
        ({"model": "wan2.6", "image_urls": [URL], "metadata": {"reference_urls": [URL]}}, "image_urls"),
        ({"model": "wan2.6-flash"}, "image_urls"),
        ({"model": "grok-video-1.5"}, "image"),
        ({"model": "grok-imagine-1.0-video", "quality": "1080p"}, "quality"),
        ({"model": "gemini-omni-flash", "image_urls": [URL], "video_list": [{"video_url": URL}]}, "image_urls"),
        ({"model": "happyhorse-1.1", "action": "dance"}, "action"),
    ],
)
async def test_what_a_models_page_does_not_take_is_refused(
    sandbox: Sandbox, caller: Caller, fields: dict[str, object], param: str
) -> None:
    reply = await caller.submit_video(**fields)

    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_request", param)
    assert len(sandbox.ledger) == 0


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({"duration": -1}, 0),
        ({"aspect_ratio": "adaptive", "duration": 0}, 0),
        ({"prompt": None, "image_with_roles": [{"url": "asset://a1", "role": "reference_image"}] * 9}, 9),
        ({"reference_images": [URL]}, 0),
        ({"audio_with_roles": [{"url": URL, "role": "reference_audio"}], "image_with_roles": [FIRST]}, 2),
        ({"model": "kling-v3-omni", "metadata": {"image_list": [{"image_url": URL, "type": "first_frame"}]}}, 1),
        ({"model": "kling-v2-6", "mode": "pro", "audio": True, "reference_images": [URL]}, 1),
        ({"model": "wan3.0-video", "ratio": "adaptive", "video_list": [{"video_url": URL}]}, 1),
        ({"model": "grok-video-1.0", "image": URL, "reference_images": [URL] * 8}, 9),
        ({"model": "seedance-2", "tools": [{"type": "web_search"}]}, 0),
    ],
)
async def test_what_a_models_page_takes_is_taken(
    sandbox: Sandbox, caller: Caller, fields: dict[str, object], read: int
) -> None:
    reply = await caller.submit_video(**fields)

    assert reply.status == 200, reply.raw
    [entry] = sandbox.ledger
    assert len(entry.references) == read


async def test_an_image_model_is_no_video_model(caller: Caller) -> None:
    assert (await caller.submit_video(model="gpt-image-2-vip")).error["code"] == "model_not_found"
    assert (await caller.submit(model=SEEDANCE)).error["code"] == "model_not_found"


async def test_a_finished_video_is_remixed_and_extended(caller: Caller, clock: Clock) -> None:
    early = await caller.submit_video("/v1/videos/task_vid_nobody/remix", model="sora-2")
    assert (early.status, early.error["code"]) == (404, "task_not_found")
    source = await caller.video(model="sora-2-official")
    assert (await caller.submit_video(f"/v1/videos/{source}/remix", model="sora-2")).status == 404  # still running
    clock.advance(10)
    official = await caller.submit_video(f"/v1/videos/{source}/remix", model="sora-2-official", duration=8)
    assert official.body["object"] == "video"
    assert (official.body["remixed_from_video_id"], official.body["seconds"]) == (source, "8")
    assert official.body["size"] == "720x1280"
    extended = await caller.submit_video(f"/v1/videos/{source}/extend", model="grok-video-1.0")
    assert extended.status == 200
    assert (await caller.query_video(extended.body["id"])).status == 200
    assert (await caller.submit_video(f"/v1/videos/{source}/extend", model="sora-2")).error["param"] == "model"


async def test_a_last_frame_comes_as_a_picture_of_its_own(caller: Caller, clock: Clock) -> None:
    task_id = await caller.video(return_last_frame=True)
    clock.advance(10)
    [item] = (await caller.query_video(task_id)).body["result"]["data"]

    assert (await caller.file(item["last_frame_url"])).raw.startswith(PNG_START)
    assert (await caller.file(item["url"])).raw[4:8] == b"ftyp"


async def test_a_video_can_be_answered_as_seen_live(caller: Caller, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.faults.script("submit", (Fault.STATUS_EMPTY, Fault.TASK_ID_BESIDE_ID, Fault.CREATED_201))
    reply = await caller.submit_video()
    assert reply.status == 201
    assert (reply.body["status"], reply.body["object"]) == ("", "video")
    assert reply.body["id"] != reply.body["task_id"]
    assert (await caller.query_video(reply.body["id"])).status == 404
    clock.advance(10)
    assert (await caller.query_video(reply.body["task_id"])).body["status"] == "completed"


async def test_speed_compresses_minutes(session: aiohttp.ClientSession, clock: Clock) -> None:
    async with Sandbox(clock=clock, speed=60, pictures=False) as sandbox:
        caller = Caller(session, sandbox)
        task_id = await caller.video()
        clock.advance(1)
        assert (await caller.query_video(task_id)).body["status"] == "in_progress"
        clock.advance(9)
        assert (await caller.query_video(task_id)).body["status"] == "completed"


async def test_an_event_of_a_video_says_so(session: aiohttp.ClientSession, clock: Clock) -> None:
    hook = "http://127.0.0.1:9/toapis"
    async with Sandbox(clock=clock, service_time_s=10, pictures=False, webhook_url=hook, webhook_secret="s") as sandbox:
        caller = Caller(session, sandbox)
        await caller.video()
        sandbox.finish(next(iter(sandbox.ledger)).task_id)
        await until(lambda: sandbox.webhooks.log)
        assert sandbox.webhooks.log[0].type == "generation.completed"


@pytest.mark.parametrize(
    ("data", "mime_type", "extension"),
    [(MP4, "video/mp4", "mp4"), (MOV, "video/quicktime", "mov"), (WEBM, "video/webm", "webm")],
)
async def test_a_video_is_uploaded(caller: Caller, data: bytes, mime_type: str, extension: str) -> None:
    body = (await caller.upload(data, path="/v1/uploads/videos")).body
    assert (body["success"], body["data"]["mime_type"], body["data"]["size"]) == (True, mime_type, len(data))
    assert body["data"]["url"].endswith(extension)
    fetched = await caller.file(body["data"]["url"])
    assert (fetched.raw, fetched.headers["Content-Type"]) == (data, mime_type)


async def test_what_is_no_video_or_too_large_is_refused(caller: Caller) -> None:
    for data in (PNG_START, b"", b"\0\0\0\x18ftypheic" + bytes(40), b"\x1a\x45\xdf\xa3matroska"):
        refused = await caller.upload(data, path="/v1/uploads/videos")
        assert refused.status == 400
        assert refused.body["message"] == "Unsupported or invalid video file. Allowed: MP4, WebM, MOV"
    assert (await caller.upload(MP4)).body["message"].startswith("Unsupported image type")
    refused = await caller.upload(MP4 + bytes(50_000_001 - len(MP4)), path="/v1/uploads/videos")
    assert (refused.status, refused.body["message"]) == (400, "Video too large. Maximum size is 50MB")


# ------------------------------------------------------------------------------------------------ the files


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-", 206, slice(0, None)),
        ("bytes=10-19", 206, slice(10, 20)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=10-999999999", 206, slice(10, None)),
        ("bytes=999999999-", 416, None),
        ("lines=1-2", 200, slice(None)),
        ("bytes=x", 200, slice(None)),
    ],
)
async def test_a_part_of_a_file_can_be_fetched(
    caller: Caller, clock: Clock, wanted: str, status: int, part: slice | None
) -> None:
    task_id = await caller.video()
    clock.advance(10)
    url = (await caller.query_video(task_id)).body["result"]["data"][0]["url"]
    whole = await caller.file(url)
    assert whole.headers["Accept-Ranges"] == "bytes"
    reply = await caller.file(url, Range=wanted)

    assert reply.status == status
    assert reply.raw == (b"" if part is None else whole.raw[part])
    if status == 206:
        start, _, end = reply.headers["Content-Range"].removeprefix("bytes ").partition("/")[0].partition("-")
        assert whole.raw[int(start) : int(end) + 1] == reply.raw
    changed = await caller.file(url, Range="bytes=5-", **{"If-Range": '"another"'})
    assert (changed.status, changed.raw) == (200, whole.raw)
    same = await caller.file(url, Range="bytes=5-", **{"If-Range": whole.headers["ETag"]})
    assert (same.status, same.raw) == (206, whole.raw[5:])


@pytest.mark.parametrize("ratio", clips.READY_MADE)
def test_a_ready_made_clip_has_the_nearest_ratio_and_bytes_of_its_own(ratio: str) -> None:
    fields = {"model": "wan3.0-video", "ratio": ratio}
    one, two = (clips.ready_made(understand_video({**fields, "prompt": prompt}), 0, None) for prompt in ("a", "b"))
    shipped = (Path(clips.__file__).parent / "assets" / "clips" / f"{ratio.replace(':', 'x')}.mp4").read_bytes()

    assert one != two
    assert one.startswith(shipped)
    assert len(shipped) < 10_000


def test_ready_made_gifs_and_movs_are_what_they_are_called() -> None:
    gif = understand_video({"model": "veo3.1-fast", "prompt": "x", "metadata": {"enable_gif": True}})
    mov = understand_video({"model": "seedance-2-5", "prompt": "x", "output_format": "mov"})
    with Image.open(io.BytesIO(clips.ready_made(gif, 0, None))) as opened:
        assert (opened.format, getattr(opened, "n_frames", 1)) == ("GIF", 4)
    assert clips.ready_made(mov, 0, None)[4:12] == b"ftypqt  "


@pytest.mark.parametrize(
    ("fields", "frames"), [({"duration": 4}, 32), ({"duration": 4, "aspect_ratio": "9:16", "resolution": "480p"}, 32)]
)
def test_a_filmed_clip_has_the_size_and_duration_that_were_asked_for(fields: dict[str, object], frames: int) -> None:
    av = pytest.importorskip("av", reason="needs the extra [video]")
    job = understand_video({"model": SEEDANCE, "prompt": "a paper boat", **fields})
    with av.open(io.BytesIO(clips.film(job, 0, None))) as container:
        track = container.streams.video[0]
        assert (track.width, track.height, track.frames) == (job.width, job.height, frames)
        assert container.duration == 4_000_000


def test_filming_stops_between_two_frames_when_the_sandbox_closes() -> None:
    pytest.importorskip("av", reason="needs the extra [video]")
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(clips.StoppedError):
        clips.film(understand_video({"model": SEEDANCE, "prompt": "a"}), 0, None, stopped)
    assert len(asked) == 3


async def test_an_image_and_a_video_under_one_id_are_no_double_payment(sandbox: Sandbox, caller: Caller) -> None:
    await caller.video(client_business_id="both")
    await caller.task(client_business_id="both")
    assert sandbox.ledger.paid_twice() == ()
    await caller.video(client_business_id="both")
    assert sandbox.ledger.paid_twice() == ("both",)


def test_sizes_are_even_and_keep_the_ratio() -> None:
    assert frame_size("16:9", 720) == (1280, 720)
    assert frame_size("9:16", 1080) == (1080, 1920)
    assert frame_size("21:9", 480) == (1120, 480)
    assert frame_size("adaptive", 480) == (854, 480)


@pytest.mark.skipif(not shutil.which(CHROMIUM), reason=f"needs Debian's chromium at {CHROMIUM}")
async def test_a_browser_plays_the_ready_made_clips(session: aiohttp.ClientSession) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    plays = """url => new Promise(done => {
        const video = document.createElement("video");
        Object.assign(video, {muted: true, playbackRate: 8, src: url});
        video.onended = () => done([video.videoWidth > video.videoHeight, video.duration]);
        video.onerror = () => done([video.error.message, 0]);
        document.body.append(video);
        video.play();
    })"""
    async with Sandbox(service_time_s=0, pictures=False) as sandbox, playwright.async_playwright() as driver:
        caller = Caller(session, sandbox)
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        await page.goto(f"{sandbox.files_url}/nothing")
        for ratio, wide in (("16:9", True), ("9:16", False)):
            task_id = await caller.video(aspect_ratio=ratio)
            url = (await caller.query_video(task_id)).body["result"]["data"][0]["url"]
            assert await page.evaluate(plays, url) == [wide, 2]
        await browser.close()
