"""Videos from the request to the file, both kinds side by side, tokens, and prices, over real sockets."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pytest

from toapis_async import (
    ImageRequest,
    InvalidRequest,
    Settings,
    TaskNotFound,
    ToAPIs,
    VideoRequest,
    WaitTimeout,
)
from toapis_async.protocol.token import PREFIX, decode_token
from toapis_async.sandbox import Sandbox

from ..engine.kit import KEY, FakeService, answer, fast, served, task

if TYPE_CHECKING:
    from pathlib import Path

BOAT: dict[str, Any] = {"model": "seedance-2", "prompt": "a paper boat in the rain", "duration": 5}
LINK = "https://files.toapis.com/a.png"


async def test_a_video_is_made_and_saved(tmp_path: Path) -> None:
    async with served({"pictures": True}) as (sandbox, client):
        generation = await client.generate(VideoRequest(**BOAT))
        (video,) = generation.videos
        assert generation.images == ()
        assert generation.files == (video,)
        assert generation.model == "seedance-2"
        (file,) = await generation.save(tmp_path)
        assert file.suffix == ".mp4"
        assert b"ftyp" in file.read_bytes()[:16]
        assert not sandbox.ledger.paid_twice()


async def test_local_files_of_a_video_are_uploaded_where_they_stand() -> None:
    picture = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
    request = VideoRequest(**BOAT, image_with_roles=[{"url": picture, "role": "first_frame"}])
    async with served() as (sandbox, client):
        await client.generate(request)
        (entry,) = sandbox.ledger.entries
        assert entry.kind == "video"
        (sent,) = cast("list[dict[str, str]]", entry.request["image_with_roles"])
        assert sent["role"] == "first_frame"
        assert entry.references == (sent["url"],)
        assert sent["url"].startswith("http")


async def test_either_kind_is_found_without_saying_which() -> None:
    async with served() as (_, client):
        image = await client.submit({"prompt": "a kite", "client_business_id": "the-kite"})
        video = await client.submit({"kind": "video", **BOAT, "client_business_id": "the-boat"})
        assert (image.kind, video.kind) == ("image", "video")
        await asyncio.gather(image, video)
        for name, kind in (("the-kite", "image"), ("the-boat", "video")):
            found = await client.find(name)
            assert found is not None
            assert found.kind == kind
            snapshot = await client.status(name)
            assert (len(snapshot.images), len(snapshot.videos)) == ((1, 0) if kind == "image" else (0, 1))
        assert await client.find("the-boat", "image") is None
        assert len((await client.attach(video.task_id)).videos) == 1
        assert len((await client.attach(video.task_id, "video")).videos) == 1
        with pytest.raises(TaskNotFound):
            await client.attach(video.task_id, "image")
        with pytest.raises(TaskNotFound):
            await client.attach("nobody's")


@pytest.mark.parametrize("ask", ["attach", "find", "status"])
async def test_another_kind_is_refused(ask: str) -> None:
    kind: Any = "sound"
    async with served() as (_, client):
        with pytest.raises(InvalidRequest, match="kind is 'image' or 'video', not 'sound'"):
            await getattr(client, ask)("an-id", kind)


async def test_a_token_goes_on_in_another_client_with_its_kind_and_its_age() -> None:
    async with served() as (sandbox, client):
        handle = await client.submit(VideoRequest(**BOAT, client_business_id="the-boat"))
        text = handle.token()
        token = decode_token(text)
        assert token is not None
        assert (token.kind, token.task_id, token.client_business_id) == ("video", handle.task_id, "the-boat")
        assert (token.request_class, token.age_factor) == ("seedance-2  5", 2)
        assert token.submitted_at == pytest.approx(time.time(), abs=30)
        async with ToAPIs(KEY, base_url=sandbox.base_url, settings=Settings(min_poll_interval_s=0.02)) as other:
            again = other.attach(text)
            assert (again.kind, again.task_id) == ("video", handle.task_id)
            assert len((await again).videos) == 1
            assert decode_token(again.token()) is not None


def test_a_damaged_token_is_refused_and_an_id_is_none() -> None:
    assert decode_token("task_1") is None
    for text in (PREFIX, PREFIX + "!!", PREFIX + "e30", PREFIX + "WzFd", PREFIX + "é", PREFIX + "A" * 9_999):
        with pytest.raises(InvalidRequest, match="cut or changed"):
            decode_token(text)


@pytest.mark.looptime
async def test_a_time_out_hands_out_the_token(service: FakeService) -> None:
    async with ToAPIs(KEY, settings=Settings()) as client:
        with pytest.raises(WaitTimeout) as caught:
            await client.generate("a kite", timeout_s=1)
        assert caught.value.token is not None
        token = decode_token(caught.value.token)
        assert token is not None
        assert token.task_id == caught.value.task_id


# ------------------------------------------------------------------------------------------------ others' words


@pytest.mark.looptime
async def test_another_gateways_end_is_believed_at_the_second_poll(service: FakeService) -> None:
    ended = task("task_1", "SUCCESS", result={"data": [{"url": LINK}]})
    service.on_query.extend(answer(200, ended) for _ in range(2))
    async with ToAPIs(KEY, settings=Settings()) as client:
        generation = await client.generate("a kite")
    assert [image.url for image in generation.images] == [LINK]
    assert len(service.queries("task_1")) == 2


@pytest.mark.looptime
async def test_a_claim_that_is_taken_back_is_none(service: FakeService) -> None:
    service.service_time_s = 60.0
    claim = task("task_1", "error", error={"code": "x", "message": "no"})
    service.on_query.extend([answer(200, claim), answer(200, task("task_1", "in_progress")), answer(200, claim)])
    async with ToAPIs(KEY, settings=Settings()) as client:
        generation = await client.generate("a kite")
    assert generation.images


# ------------------------------------------------------------------------------------------------ prices


async def test_prices_are_those_of_the_key() -> None:
    async with served() as (_, client):
        images, videos = await client.prices(), await client.prices(type="video")
        assert {price.type for price in images} == {"image"}
        assert {price.type for price in videos} == {"video"}
        of_one = await client.prices("gpt-image-2-vip")
        assert of_one
        assert {price.model for price in of_one} == {"gpt-image-2-vip"}
        assert all(isinstance(price.unit_price, Decimal) for price in of_one)


@pytest.mark.looptime
async def test_a_cursor_that_never_ends_is_not_followed_for_ever(service: FakeService) -> None:
    page = {"data": [], "has_more": True}
    service.on_query.extend(answer(200, {**page, "next_after": str(number)}) for number in range(110))
    async with ToAPIs(KEY, settings=Settings()) as client:
        assert await client.prices() == ()
    assert len(service.of("prices")) == 100


@pytest.mark.looptime
async def test_a_cursor_that_comes_again_ends_the_list(service: FakeService) -> None:
    page = {"data": [], "has_more": True}
    service.on_query.extend(answer(200, {**page, "next_after": cursor}) for cursor in ("a", "b", "b", "c"))
    async with ToAPIs(KEY, settings=Settings()) as client:
        assert await client.prices() == ()
    assert len(service.of("prices")) == 3


async def test_a_typo_in_a_closed_field_is_seen_by_type_checkers() -> None:
    async with served() as (_, client):
        with pytest.raises(InvalidRequest, match="quality='hihg'"):
            await client.generate("a kite", quality="hihg")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert (await client.generate(ImageRequest("a kite"), quality="high")).images


# ------------------------------------------------------------------------------------------------ batches


async def test_a_batch_has_rows_of_either_kind(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"kind": "video", **BOAT, "aspect_ratio": "16:9", "key": "boat"},
        {"prompt": "a kite", "key": "kite", "duration": None},
        VideoRequest(model="viduq3", image_urls=[LINK]),
        {"kind": "sound", "prompt": "a song"},
        {"kind": "image", "prompt": "a kite", "duration": 5},
    ]
    async with served({"pictures": True}) as (sandbox, client):
        items = await client.batch(rows, save_to=tmp_path).gather()
        assert [item.ok for item in items] == [True, True, True, False, False]
        assert [file.suffix for item in items for file in item.files] == [".mp4", ".png", ".mp4"]
        assert items[0].files[0].name == "boat.mp4"
        assert items[2].key.startswith("viduq3~")
        assert "kind is 'image' or 'video'" in str(items[3].error)
        assert "unknown field 'duration'" in str(items[4].error)
        (video,) = await client.batch([BOAT], kind="video").gather()
        assert video.ok
        assert sorted(entry.kind for entry in sandbox.ledger.entries) == ["image", "video", "video", "video"]


async def test_a_batch_has_a_folder_for_each_kind(tmp_path: Path) -> None:
    rows: list[Any] = [{"kind": "video", **BOAT, "key": "boat"}, {"prompt": "a kite", "key": "kite"}]
    async with served({"pictures": True}) as (_, client):
        items = await client.batch(rows, save_to={"image": tmp_path / "i", "video": tmp_path / "v"}).gather()
        assert [file.parent.name for item in items for file in item.files] == ["v", "i"]
        items = await client.batch(rows, save_to={"video": tmp_path / "v2"}).gather()
        assert [(item.ok, len(item.files)) for item in items] == [(True, 1), (True, 0)]
        with pytest.raises(InvalidRequest, match="save_to has a place for 'movie': kinds are 'image' and 'video'"):
            client.batch(rows, save_to={"movie": tmp_path})  # type: ignore[dict-item]


async def test_a_finished_video_is_written_down_and_given_again_until_it_is_saved(tmp_path: Path) -> None:
    async with Sandbox(service_time_s=0.02) as sandbox:
        for sent, to_give in ((1, 0), (0, 1), (0, 0)):
            async with ToAPIs(
                KEY, base_url=sandbox.base_url, journal=tmp_path / "journal.db", settings=fast()
            ) as client:
                handles = client.recovered()
                assert [(handle.kind, handle.done) for handle in handles] == [("video", True)] * to_give
                for handle in handles:
                    [file] = await (await handle).save(tmp_path)
                    assert file.suffix == ".mp4"
                if sent:
                    await client.generate(VideoRequest(**BOAT))
        assert len(sandbox.ledger.entries) == 1


async def test_a_run_takes_up_its_videos(tmp_path: Path) -> None:
    rows: list[Any] = [{"kind": "video", **BOAT, "key": "boat"}, {"prompt": "a kite", "key": "kite"}]
    async with Sandbox(service_time_s=0.02) as sandbox:
        for _ in range(2):
            async with ToAPIs(
                KEY, base_url=sandbox.base_url, journal=tmp_path / "journal.db", settings=fast()
            ) as client:
                items = await client.batch(rows, save_to=tmp_path / "out", run="films").gather()
                assert [item.ok for item in items] == [True, True]
                assert [file.suffix for item in items for file in item.files] == [".mp4", ".png"]
        assert len(sandbox.ledger.entries) == 2
