"""Thumbnails: small, kept, and no picture is trusted."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.report.kit import draw, pictures_of, png_that_claims, row, words_of
from toapis_async.display import thumbs as thumbs_module
from toapis_async.display.thumbs import Unreadable, thumbnail
from toapis_async.report import pictures as pictures_module
from toapis_async.report import write_report
from toapis_async.report.pictures import Picture, Pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toapis_async.report import ReportRow


@pytest.mark.parametrize(
    ("size", "small"),
    [((1600, 900), (384, 216)), ((300, 1200), (96, 384)), ((384, 384), (384, 384)), ((40, 30), (40, 30))],
)
def test_the_longest_side_is_at_most_384(tmp_path: Path, size: tuple[int, int], small: tuple[int, int]) -> None:
    draw(tmp_path / "a.png", *size)
    made = thumbnail(tmp_path / "a.png", tmp_path / "thumbs" / "a.webp")
    assert (made.width, made.height, made.made) == (*size, True)
    with Image.open(tmp_path / "thumbs" / "a.webp") as image:
        assert (image.format, image.size) == ("WEBP", small)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.jpg"), ("L", "a.png"), ("P", "a.gif"), ("RGBA", "a.webp"), ("1", "a.png"), ("CMYK", "a.jpg"),
     ("LA", "a.png"), ("I;16", "a.png"), ("RGB", "a.avif")],
)  # fmt: skip
def test_every_kind_of_picture_gets_one(tmp_path: Path, mode: str, name: str) -> None:
    path = tmp_path / name
    Image.new(mode, (500, 400)).save(path)
    assert thumbnail(path, tmp_path / "small").made
    with Image.open(tmp_path / "small") as image:
        assert max(image.size) == 384


def test_what_is_transparent_stays_so(tmp_path: Path) -> None:
    Image.new("RGBA", (500, 500), (0, 0, 0, 0)).save(tmp_path / "a.png")
    thumbnail(tmp_path / "a.png", tmp_path / "small")
    with Image.open(tmp_path / "small") as image:
        assert image.mode == "RGBA"


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (400, 200)).save(tmp_path / "a.jpg", exif=turned)
    thumbnail(tmp_path / "a.jpg", tmp_path / "small")
    with Image.open(tmp_path / "small") as image:
        assert image.size == (192, 384)


def test_a_thumbnail_is_kept_until_its_picture_is_newer(tmp_path: Path) -> None:
    picture, small = tmp_path / "a.png", tmp_path / "small"
    draw(picture, 500)
    thumbnail(picture, small)
    small.write_bytes(b"mine")
    os.utime(small, (2_000, 2_000))
    os.utime(picture, (1_000, 1_000))
    assert thumbnail(picture, small).made
    assert small.read_bytes() == b"mine"
    os.utime(picture, (3_000, 3_000))
    thumbnail(picture, small)
    assert small.read_bytes() != b"mine"
    small.write_bytes(b"")  # a crash may leave such a one
    thumbnail(picture, small)
    assert small.stat().st_size > 0


def test_a_picture_that_broke_since_its_thumbnail_was_made_is_noticed(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 500)
    thumbnail(tmp_path / "a.png", tmp_path / "small")
    (tmp_path / "a.png").write_bytes(b"gone")
    os.utime(tmp_path / "a.png", (1_000, 1_000))
    with pytest.raises(Unreadable):
        thumbnail(tmp_path / "a.png", tmp_path / "small")


def test_pictures_of_one_name_in_two_folders_have_two_thumbnails(tmp_path: Path) -> None:
    files = (draw(tmp_path / "one" / "a.png", 500), draw(tmp_path / "two" / "a.png", 300))
    first, second = pictures_of(write_report(tmp_path, [row(files=files)], title="t"))
    assert (first["thumb"], second["thumb"]) == ("thumbs/one/a.png.webp", "thumbs/two/a.png.webp")
    assert (first["width"], second["width"]) == (500, 300)


# ------------------------------------------------------------------------------------------------- untrusted pictures


def broken(folder: Path) -> dict[str, bytes]:
    draw(folder / "whole.png", 300, 300)
    draw(folder / "whole.gif", 300, 300, "P")
    Image.effect_noise((300, 300), 90).save(folder / "whole.jpg")
    Image.new("RGB", (9, 9)).save(folder / "whole.tiff")
    png, jpg, gif, tiff = (folder.joinpath(f"whole.{kind}").read_bytes() for kind in ("png", "jpg", "gif", "tiff"))
    return {
        "empty": b"", "text": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "zeros": png[:60] + bytes(500),
        "tiff": tiff, "head": png[:40], "half a png": png[: len(png) // 2], "half a jpg": jpg[: len(jpg) // 2],
        "half a gif": gif[:40],
    }  # fmt: skip


def test_a_broken_picture_is_a_placeholder_and_the_others_are_shown(tmp_path: Path) -> None:
    contents = broken(tmp_path / "whole")
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    files = (*(f"{name}.png" for name in contents), "whole/whole.png")
    *bad, good = pictures_of(write_report(tmp_path, [row(files=(file,)) for file in files], title="t"))
    assert {(picture["name"], picture.get("problem")) for picture in bad} == {
        (f"{name}.png", "broken, or no picture") for name in contents
    }
    assert good["thumb"]
    assert os.listdir(tmp_path / "thumbs") == ["whole"]


@pytest.mark.parametrize("size", [(60_000, 60_000), (10_000, 10_000), (8_000, 8_000)])
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_not_opened(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbs_module, "scaled_down", lambda *_: pytest.fail("it was read"))
    (tmp_path / "bomb.png").write_bytes(png_that_claims(*size))
    (picture,) = pictures_of(write_report(tmp_path, [row(files=("bomb.png",))], title="t"))
    assert picture["problem"] == "more than 50 megapixels"
    assert picture["link"] == "bomb.png"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_not_opened_where_pillow_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbs_module, "scaled_down", lambda *_: pytest.fail("it was read"))
    (tmp_path / "bomb.png").write_bytes(png_that_claims(10_000, 10_000))
    with pytest.raises(Unreadable, match="more than 50 megapixels"):
        thumbnail(tmp_path / "bomb.png", tmp_path / "small")


# --------------------------------------------------------------------------------------------------- without thumbnails


def test_without_pillow_the_page_shows_the_pictures_themselves_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = draw(tmp_path / "images" / "a.png", 500)
    monkeypatch.delitem(sys.modules, "toapis_async.display.thumbs")
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.setitem(sys.modules, name, None)
    page = write_report(tmp_path, [row(files=(file, "images/gone.png"))], title="t")
    assert pictures_of(page) == [
        {"name": "a.png", "link": "images/a.png"},
        {"name": "gone.png", "problem": "missing"},
    ]
    assert "toapis-async[report]" in words_of(page)
    assert not (tmp_path / "thumbs").exists()


def test_with_pillow_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert "toapis-async[report]" not in words_of(write_report(tmp_path, [], title="t"))


@pytest.mark.parametrize("name", ["a.svg", "a.HEIC", "a.jxl", "a.bmp", "a.tiff"])
def test_a_picture_that_only_browsers_may_know_is_shown_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"whatever it is")
    assert Pictures(tmp_path).known(name) == Picture(name, name)


@pytest.mark.parametrize("name", ["a.mp4", "a.MOV", "a.webm"])
def test_a_video_is_a_link_and_has_no_thumbnail(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"whatever it is")
    assert Pictures(tmp_path).known(name) == Picture(name, name, is_video=True)


def test_where_thumbnails_cannot_be_written_the_page_shows_the_pictures_themselves(tmp_path: Path) -> None:
    file = draw(tmp_path / "images" / "a.png", 500)
    (tmp_path / "thumbs").write_text("in the way")
    (picture,) = pictures_of(write_report(tmp_path, [row(files=(file,))], title="t"))
    assert picture == {"name": "a.png", "link": file, "width": 500, "height": 30}


def test_rows_that_raise_end_the_page_with_the_pictures_that_were_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    begun, may_end = threading.Event(), threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            may_end.set()
            super().shutdown(wait)

    def made(_: Pictures, file: str) -> Picture:
        looked.append(file)
        begun.set()
        assert may_end.wait(60)
        return Picture(file)

    def rows() -> Iterator[ReportRow]:
        yield row(files=tuple(f"images/{number}.png" for number in range(50)))
        assert begun.wait(60)
        raise KeyError("nobody waits")

    monkeypatch.setattr(Pictures, "known", lambda *_: None)
    monkeypatch.setattr(Pictures, "made", made)
    monkeypatch.setattr(pictures_module, "ThreadPoolExecutor", Pool)
    with pytest.raises(KeyError):
        list(Pictures(tmp_path).of(rows()))
    assert len(looked) <= 4
