"""Results as HTML: a stranger's text stays text, and nothing is loaded but http(s) links and small files."""

from __future__ import annotations

import builtins
import copy
import pickle
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.engine.kit import KEY, served
from toapis_async import GeneratedImage, GeneratedVideo, Generation, TaskFailed
from toapis_async.display import embedding
from toapis_async.display.html import MOST_PICTURES, Media, Tile, gallery, is_web_link, tile
from toapis_async.display.notebook import html_of
from toapis_async.display.progress import Progress
from toapis_async.sandbox import Fault

if TYPE_CHECKING:
    from pathlib import Path

EVIL = """"><script>alert(1)</script><img src=x onerror=alert(1)> ' </div>"""
ALLOWED = {"div", "a", "img", "video", "progress"}


class Seen(HTMLParser):
    """Elements and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str, name: str) -> list[str | None]:
        return [attributes.get(name) for each, attributes in self.elements if each == tag]


def seen(html: str) -> Seen:
    """A page that is safe to show, whatever is in it."""
    found = Seen(html)
    assert {tag for tag, _ in found.elements} <= ALLOWED
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            link = attributes.get(name)
            assert link is None or link.startswith(("http://", "https://", "data:image/", "data:video/")), link
    return found


def image(url: str = "https://files.example/a.png") -> GeneratedImage:
    return GeneratedImage(url)


def a_picture(path: Path, side: int = 1_000) -> Path:
    Image.effect_noise((side, side), 90).convert("RGB").save(path)
    return path


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "file:///etc/passwd",
        "//files.example/a.png",
        "/generated/a.png",
        "https://",
        "https://[",
        "https://files.example/a b.png",
        "https://files.example/\n.png",
        "",
    ],
)
def test_what_is_no_web_link_is_not_loaded(url: str) -> None:
    assert not is_web_link(url)
    found = seen(gallery([tile([image(url), GeneratedVideo(url)], [])]))
    assert found.attributes("img", "src") == found.attributes("video", "src") == []


def test_a_strangers_text_stays_text() -> None:
    url = f"https://files.example/{EVIL.replace(' ', '')}"
    found = seen(gallery([tile([image(url)], [], caption=EVIL, problem=EVIL)]))
    assert found.attributes("img", "src") == [url]
    assert found.attributes("img", "alt") == [EVIL]
    assert found.text.count(EVIL) == 2
    generation = Generation(EVIL, EVIL, EVIL, (image(),))
    assert "script" in seen(generation._repr_html_()).text
    assert "script" in seen(html_of(Progress(1, 2, (EVIL,), (Tile(EVIL, problem=EVIL),)))).text


def test_a_long_prompt_is_cut() -> None:
    assert len(gallery([Tile("kite " * 10_000)])) < 1_000


def test_a_picture_inside_the_answer_is_shown_up_to_a_size() -> None:
    data = "data:image/png;base64,iVBORw0KGgo="
    assert seen(gallery([tile([image(data)], [])])).attributes("img", "src") == [data]
    large = data + "A" * embedding.MAX_BYTES
    assert seen(gallery([tile([image(large)], [])])).attributes("img", "src") == []


def test_many_pictures_are_counted_and_not_all_shown() -> None:
    tiles = [tile([image()] * 4, [], caption=str(number)) for number in range(25)]
    found = seen(gallery(tiles))
    assert len(found.attributes("img", "src")) == MOST_PICTURES
    assert f"and {100 - MOST_PICTURES} more" in found.text
    assert gallery([]) == ""


def test_a_saved_picture_is_a_small_one_from_the_disk(tmp_path: Path) -> None:
    path = a_picture(tmp_path / "kite.png")
    assert path.stat().st_size > 500_000
    (source,) = seen(gallery([tile([image()], [path])])).attributes("img", "src")
    assert source is not None
    assert source.startswith("data:image/webp;base64,")
    assert len(source) < path.stat().st_size / 4


def test_without_pillow_a_saved_picture_is_the_file_itself_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr(embedding, "find_spec", nothing)
    path = a_picture(tmp_path / "kite.png", side=40)
    media = Media("https://files.example/a.png", path)
    assert media.source is not None
    assert media.source.startswith("data:image/png;base64,")
    monkeypatch.setattr(embedding, "MAX_BYTES", 10)
    assert Media("https://files.example/a.png", path).source == "https://files.example/a.png"


@pytest.mark.parametrize("content", [None, b"", b"<html>", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_gone_or_broken_is_shown_by_its_link_or_its_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "<kite>.png"
    if content is not None:
        path.write_bytes(content)
    found = seen(gallery([tile([image()], [path])]))
    assert found.attributes("img", "src") == ["https://files.example/a.png"]
    assert "<kite>.png" in seen(gallery([tile([image("data:")], [path])])).text


def test_a_video_plays_from_the_disk_if_it_is_small_and_else_by_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kite.mp4"
    path.write_bytes(b"\0" * 2_000)
    videos = [GeneratedVideo("https://files.example/a.mp4")]
    found = seen(gallery([tile(videos, [path])]))
    assert [(source or "")[:22] for source in found.attributes("video", "src")] == ["data:video/mp4;base64,"]
    assert found.attributes("video", "controls") == [None]  # there, without a value
    monkeypatch.setattr(embedding, "MAX_BYTES", 1_000)
    assert seen(gallery([tile(videos, [path])])).attributes("video", "src") == ["https://files.example/a.mp4"]


def test_a_picture_is_read_once_however_often_it_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def counted(path: Path) -> bytes:
        reads.append(path)
        return b"webp"

    monkeypatch.setattr(embedding, "_small", counted)
    drawn = tile([image()], [a_picture(tmp_path / "kite.png", side=40)])
    assert gallery([drawn]) == gallery([drawn])
    assert len(reads) == 1


def test_progress_has_a_bar() -> None:
    assert seen(html_of(Progress(3, 12, ("3/12 done",)))).attributes("progress", "max") == ["12"]
    assert seen(html_of(Progress(3, None, ("3 done",)))).attributes("progress", "value") == [None]
    assert seen(html_of(Progress(0, 0, ()))).attributes("progress", "max") == ["1"]


async def test_what_the_library_returns_shows_itself_and_never_the_key(tmp_path: Path) -> None:
    async with served() as (sandbox, client):
        generation = await client.generate("kite", n=2)
        by_link = seen(generation._repr_html_()).attributes("img", "src")
        assert by_link == [each.url for each in generation.images]
        await generation.save(tmp_path)
        saved = seen(generation._repr_html_()).attributes("img", "src")
        assert [(source or "")[:11] for source in saved] == ["data:image/"] * 2

        handle = await client.submit("kite")
        assert handle.task_id in seen(handle._repr_html_()).text
        assert len(seen(handle._repr_html_()).attributes("progress", "max")) == 1
        await handle
        assert len(seen(handle._repr_html_()).attributes("img", "src")) == 1
        sandbox.faults.script("submit", Fault.TASK_FAILS)
        failing = await client.submit(EVIL)
        with pytest.raises(TaskFailed) as caught:
            await failing
        assert caught.value.message in seen(failing._repr_html_()).text

        batch = client.batch(["kite 1", "kite 2"], save_to=tmp_path / "batch")
        (first, _) = await batch.gather()
        assert "2/2 done" in seen(batch._repr_html_()).text
        (source,) = seen(first.generation._repr_html_()).attributes("img", "src")
        assert (source or "").startswith("data:image/")
        for shown in (generation, handle, failing, batch):
            assert KEY not in shown._repr_html_()


async def test_a_copy_of_a_generation_shows_the_same_files(tmp_path: Path) -> None:
    async with served() as (_, client):
        generation = await client.generate("kite")
        await generation.save(tmp_path)
    for same in (copy.copy(generation), copy.deepcopy(generation), pickle.loads(pickle.dumps(generation))):  # noqa: S301
        assert same == generation
        assert same._repr_html_() == generation._repr_html_()


def test_nothing_is_imported_for_what_nobody_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    real = builtins.__import__

    def noted(name: str, *args: Any, **named: Any) -> Any:
        imported.append(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", noted)
    Generation("t", None, None, (image(),))._repr_html_()
    assert not {"IPython", "rich"} & {name.partition(".")[0] for name in imported}
