"""The page in a real browser, from disk."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.report.kit import HOSTILE, draw, row, timed
from toapis_async.report import RowError, write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PLAYED = """video => new Promise(done => {
    video.ontimeupdate = () => video.currentTime && done(video.currentTime);
    video.play();
})"""
RUN_OF = {"done": 8, "failed": 2, "running": 1, "waiting": 1}

pytestmark = pytest.mark.skipif(not shutil.which(CHROMIUM), reason=f"needs Debian's chromium at {CHROMIUM}")


class Visit:
    """A page that is open in the browser, and what went on behind it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def keys_shown(self) -> list[str]:
        return self.page.locator(".card .key").all_inner_texts()

    def looked_at(self) -> str:
        return self.page.locator("#viewer-key").inner_text() if self.page.locator("#viewer").is_visible() else ""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens a page; at the end nothing was said on the console, and nothing asked of any network."""
    visits: list[Visit] = []

    def opened(path: Path, **context: Any) -> Visit:
        visits.append(Visit(browser.new_page(**({"viewport": {"width": 1200, "height": 800}} | context))))
        visits[-1].page.set_default_timeout(60_000)
        visits[-1].page.goto(path.as_uri())
        return visits[-1]

    yield opened
    for one in visits:
        said = one.said
        elsewhere = [url for url in one.requests if not url.startswith("file:")]
        one.page.close()
        assert (said, elsewhere) == ([], [])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The page of a dozen rows of every kind."""
    images = tmp_path / "images"
    pair = tuple(draw(images / name, 600, 400) for name in ("a #1%20.png", "凧 'x' \"y\".png"))
    rows = [
        timed(0, 0, 20, files=pair, prompt="two kites", size="16:9", quality="high"),
        *(
            timed(i, i, 10 + i, files=(draw(images / f"{i}.png", 300, 500),), prompt=HOSTILE[i - 1])
            for i in range(1, 5)
        ),
        timed(5, 5, 10, files=("images/gone.png",), prompt="a red kite"),
        *(timed(i, i, 10, files=(draw(images / f"{i}.png"),), prompt=f"凧 {i}", n=i - 5) for i in (6, 7)),
        timed(8, 8, 9, status="failed", error=RowError("TaskFailed", "generation_failed", "no image <b>today</b>")),
        timed(9, 9, 9, status="failed", files=pair[:1], error=RowError("DownloadFailed", "", "503")),
        timed(10, 10, None, status="running", prompt="a red lantern"),
        row(11, status="waiting", prompt="later"),
    ]
    return write_report(tmp_path, rows, title=f"Kites {HOSTILE[1]}")


def test_it_shows_every_row_and_nothing_hostile_runs(run: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(run)
    page = seen.page
    assert page.title() == f"Kites {HOSTILE[1]}"
    assert page.locator("h1").inner_text() == f"Kites {HOSTILE[1]}"
    assert seen.keys_shown() == [f"row-{i}" for i in range(12)]
    prompts = page.locator(".prompt").all_text_contents()
    assert prompts[1:5] == list(HOSTILE)
    for image in page.locator(".card img").all():
        image.scroll_into_view_if_needed()
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") in {384, 230, 40}
        assert "/thumbs/" in image.evaluate("image => image.src")
    assert page.locator(".card img").count() == 2 + 4 + 2 + 1
    expect(page.locator(".card").nth(5)).to_contain_text("gone.png: missing")
    expect(page.locator(".card").nth(7)).to_contain_text("1 of 2 images came")
    expect(page.locator(".card").nth(6)).not_to_contain_text("images came")
    expect(page.locator(".card").nth(8)).to_contain_text("no image <b>today</b> (generation_failed)")
    expect(page.locator(".card").nth(9)).to_contain_text("503")
    expect(page.locator(".card").nth(10)).to_contain_text("Running")
    expect(page.locator(".card").nth(0)).to_contain_text("16:9 · high")
    assert page.locator(".card img").first.get_attribute("alt") == "two kites (1 of 2)"
    assert page.evaluate("window.pwned") is None
    assert len(seen.requests) >= 8


def test_filter_and_search_narrow_the_rows(run: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(run)
    for state, number in RUN_OF.items():
        seen.page.get_by_role("radio", name=f"{state.capitalize()} {number}").check()
        assert len(seen.keys_shown()) == number
    seen.page.get_by_role("radio", name="All 12").check()
    search = seen.page.get_by_role("searchbox")
    status = seen.page.locator("#shown")
    for words, keys in {
        "RED": ["row-5", "row-10"], "kite two": ["row-0"], "generation_failed": ["row-8"], "<script>window": ["row-1"],
        "凧": ["row-0", "row-6", "row-7"],  # one of them by the name of a file
    }.items():  # fmt: skip
        search.fill(words)
        expect(seen.page.locator(".card .key")).to_have_text(keys)
        assert status.inner_text() == f"{len(keys)} of 12"
    search.fill("red")
    expect(status).to_have_text("2 of 12")
    seen.page.get_by_role("radio", name="Running").check()
    assert seen.keys_shown() == ["row-10"]
    search.fill("nowhere")
    expect(seen.page.get_by_text("No row is like that.")).to_be_visible()
    search.fill("")
    expect(status).to_have_text("1 of 12")


def test_the_viewer_is_led_by_keys(run: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(run)
    page = seen.page
    page.locator(".shot").first.focus()
    page.keyboard.press("Enter")
    assert seen.looked_at() == "row-0"
    shown = page.locator("#stage img")
    expect(shown).to_have_js_property("naturalWidth", 600)
    expect(page.locator("#place")).to_have_text("1 of 12, picture 1 of 2")
    assert page.locator("#open").evaluate("link => link.href").endswith("/images/a%20%231%2520.png")
    steps = (("ArrowLeft", "row-0"), ("ArrowRight", "row-0"), ("ArrowRight", "row-1"), ("End", "row-11"))
    for key, expected in (*steps, ("ArrowRight", "row-11"), ("ArrowLeft", "row-10"), ("Home", "row-0")):
        page.keyboard.press(key)
        assert seen.looked_at() == expected
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#place")).to_have_text("1 of 12, picture 2 of 2")
    page.get_by_role("button", name="Next").click()
    assert page.locator("#viewer-prompt").inner_text() == HOSTILE[0]
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator('[data-at="1.0"]')).to_be_focused()


def test_keys_work_on_at_the_last_row_and_the_viewer_tells_why_a_row_failed(
    run: Path, visit: Callable[..., Visit]
) -> None:
    seen = visit(run)
    page = seen.page
    page.get_by_role("radio", name="Failed").check()
    page.get_by_role("button", name="Failed no image").click()
    expect(page.locator("#viewer-error")).to_have_text("TaskFailed: no image <b>today</b> (generation_failed)")
    page.get_by_role("button", name="Next").click()  # to the last one, whose button then leads nowhere
    expect(page.locator("#viewer-error")).to_have_text("DownloadFailed: 503")
    page.keyboard.press("Enter")
    assert seen.looked_at() == "row-9"
    page.keyboard.press("ArrowLeft")
    assert seen.looked_at() == "row-8"
    page.get_by_role("button", name="Close").click()
    expect(page.locator('[data-at="0.0"]')).to_be_focused()


def test_a_picture_that_went_away_later_is_a_placeholder(run: Path, visit: Callable[..., Visit]) -> None:
    shutil.rmtree(run.parent / "thumbs")
    seen = visit(run)
    expect(seen.page.locator(".card").first).to_contain_text("not to be shown")
    assert all("ERR_FILE_NOT_FOUND" in said for said in seen.said)
    seen.said.clear()


def test_a_video_shows_its_first_frame_and_plays_in_the_viewer(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    (tmp_path / "videos").mkdir()
    clip = files("toapis_async.sandbox").joinpath("assets", "clips", "16x9.mp4").read_bytes()
    (tmp_path / "videos" / "a #1.mp4").write_bytes(clip)
    (tmp_path / "videos" / "broken.webm").write_bytes(b"no video")
    rows = [row(0, files=("videos/a #1.mp4",), prompt="a kite that flies"), row(1, files=("videos/broken.webm",))]
    page = visit(write_report(tmp_path, rows, title="Kites")).page
    poster = page.locator(".card").nth(0).locator("video")
    expect(poster).to_have_attribute("aria-label", "a kite that flies")
    expect(poster).not_to_have_js_property("videoWidth", 0)
    assert poster.evaluate("video => video.videoWidth > video.videoHeight && video.paused")
    expect(page.locator(".card").nth(0)).to_contain_text("▶ Video")
    expect(page.locator(".card").nth(1)).to_contain_text("not to be played")
    page.locator(".shot").first.click()
    shown = page.locator("#stage video")
    assert shown.evaluate(PLAYED) > 0
    assert page.locator("#open").evaluate("link => link.href").endswith("/videos/a%20%231.mp4")


def test_the_page_of_the_example_plays_its_videos(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / "videos.jsonl"
    command = [
        sys.executable,
        "-m",
        "toapis_async",
        "batch",
        str(example),
        "--out",
        "v",
        "--sandbox",
        "--speed",
        "1000",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)  # noqa: S603
    page = visit(tmp_path / "v" / "index.html").page
    expect(page.locator(".is-done video")).to_have_count(3)
    for place, shape in enumerate(("wide", "square", "high")):
        page.locator(".shot").nth(place).click()
        shown = page.locator("#stage video")
        assert shown.evaluate(PLAYED) > 0
        width, height = shown.evaluate("video => [video.videoWidth, video.videoHeight]")
        assert {"wide": width > height, "square": width == height, "high": width < height}[shape]
        page.keyboard.press("Escape")


def test_more_than_two_thousand_rows_come_in_pages(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(write_report(tmp_path, (row(i) for i in range(4_500)), title="many"))
    page, cards = seen.page, seen.page.locator(".card")
    pager = page.get_by_role("navigation", name="Pages", exact=True)
    expect(cards).to_have_count(2_000)
    expect(pager).to_contain_text("Page 1 of 3")
    pager.get_by_role("button", name="Last").click()
    expect(cards).to_have_count(500)
    expect(page.locator("#shown")).to_have_text("4,001 to 4,500 of 4,500")
    cards.first.locator(".shot").click()
    page.keyboard.press("ArrowLeft")
    assert seen.looked_at() == "row-3999"
    page.keyboard.press("Escape")
    expect(pager).to_contain_text("Page 2 of 3")
    expect(page.locator('[data-at="3999.0"]')).to_be_focused()
    page.get_by_role("searchbox").fill("row-44")
    expect(cards).to_have_count(111)
    expect(pager).to_be_hidden()


def test_two_thousand_rows_are_one_page(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    page = visit(write_report(tmp_path, (row(i) for i in range(2_000)), title="just so")).page
    expect(page.locator(".card")).to_have_count(2_000)
    expect(page.locator(".pager").first).to_be_hidden()


def test_the_policy_keeps_even_a_script_that_got_in_from_asking_anything(
    run: Path, visit: Callable[..., Visit]
) -> None:
    seen = visit(run)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        tried = """async (elsewhere) => {
            const told = "securitypolicyviolation";
            const refused = new Promise((done) => document.addEventListener(told, done, { once: true }));
            new Image().src = elsewhere;
            const rule = (await refused).effectiveDirective;
            const fetched = await fetch(elsewhere).then(() => true, () => false);
            let written = true;
            try { document.body.insertAdjacentHTML("beforeend", "<p>"); } catch { written = false; }
            return [rule, fetched, written];
        }"""
        assert seen.page.evaluate(tried, f"http://127.0.0.1:{server.getsockname()[1]}/") == ["img-src", False, False]
        with pytest.raises(BlockingIOError):  # nobody knocked
            server.accept()
    assert len(seen.said) >= 3
    seen.said.clear()
    seen.requests.clear()


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 390), ("light", 1440), ("dark", 1440)])
def test_it_fits_every_screen_in_light_and_dark(
    run: Path, visit: Callable[..., Visit], scheme: str, width: int
) -> None:
    page = visit(run, color_scheme=scheme, viewport={"width": width, "height": 800}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red = int(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
    assert (red > 128) == (scheme == "light")
    page.locator(".shot").first.click()
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= width
    expect(page.get_by_role("button", name="Close")).to_be_in_viewport()


# ------------------------------------------------------------------------------------------------ finding and keeping


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Rows with several pictures, references, costs and reasons."""
    images, refs = tmp_path / "images", tmp_path / "references"
    trio = tuple(draw(images / f"t{i}.png", 300, 200) for i in range(3))
    rows = [
        timed(0, 0, 20, files=trio, key="three/kites", prompt="three kites", credits=Decimal("3.5")),
        timed(
            1, 1, 40, files=(draw(images / "b.png"),), prompt="a boat", credits=Decimal(12),
            references=(
                draw(refs / "logo.png"), "https://files.test/a b.png?x=<y>", "../secret.png", "javascript:alert(1)"
            ),
        ),
        timed(2, 2, 30, status="failed", error=RowError("TaskFailed", "content_policy", "refused")),
        timed(3, 3, 30, status="failed", error=RowError("TaskFailed", "generation_failed", "no image")),
        timed(4, 4, 30, status="failed", error=RowError("TaskFailed", "generation_failed", "no image either")),
    ]  # fmt: skip
    return write_report(tmp_path, rows, title="Pairs")


def test_rows_are_sorted_and_found_by_the_reason_of_their_failure(pairs: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(pairs)
    page = seen.page
    page.locator("#sort").select_option("seconds")
    assert seen.keys_shown() == ["row-1", "row-2", "row-3", "row-4", "three/kites"]
    page.locator("#sort").select_option("cost")
    assert seen.keys_shown()[:2] == ["row-1", "three/kites"]
    page.locator("#sort").select_option("order")
    assert page.locator("#reason option").all_inner_texts() == [
        "any reason",
        "generation_failed (2)",
        "content_policy (1)",
    ]
    page.locator("#reason").select_option("generation_failed")
    assert seen.keys_shown() == ["row-3", "row-4"]
    page.locator("#reason").select_option("")
    assert len(seen.keys_shown()) == 5


def test_each_picture_has_an_address_that_opens_it(pairs: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(pairs)
    page = seen.page
    page.locator(".shot").nth(1).click()
    expect(page).to_have_url(f"{pairs.as_uri()}#three%2Fkites/2")
    assert page.locator("#link").get_attribute("href") == "#three%2Fkites/2"
    page.keyboard.press("Escape")
    expect(page).to_have_url(pairs.as_uri())
    page.locator("#sort").select_option("cost")
    page.locator("input[name=state][value=failed]").check(force=True)
    page.evaluate("location.hash = '#three%2Fkites/3'")  # hidden by the filter: shown all the same
    expect(page.locator("#viewer")).to_be_visible()
    assert seen.looked_at() == "three/kites"
    assert "picture 3 of 3" in page.locator("#place").inner_text()
    again = visit(Path(f"{pairs}"), viewport={"width": 900, "height": 700})
    again.page.goto(f"{pairs.as_uri()}#row-1")
    expect(again.page.locator("#viewer")).to_be_visible()
    assert again.looked_at() == "row-1"
    for unknown in ("#nobody", "#%E0%A4%A", "#three%2Fkites/99"):
        again.page.evaluate(f"location.hash = {unknown!r}")
    assert "picture 3 of 3" in again.page.locator("#place").inner_text()


def test_pictures_of_one_row_stand_together_with_what_they_were_made_from(
    pairs: Path, visit: Callable[..., Visit]
) -> None:
    seen = visit(pairs)
    page = seen.page
    page.locator(".shot").first.click()
    strip = page.locator("#together button")
    assert strip.count() == 3
    strip.nth(2).click()
    assert "picture 3 of 3" in page.locator("#place").inner_text()
    assert page.locator("#together [aria-current]").get_attribute("aria-label") == "Picture 3 of 3"
    assert page.locator("#made-from").is_hidden()
    page.keyboard.press("ArrowRight")
    assert page.locator("#together").is_hidden()
    items = page.locator("#references li")
    assert items.count() == 4
    assert items.nth(0).locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    link = items.nth(1).locator("a")
    assert link.get_attribute("href") == "https://files.test/a%20b.png?x=%3Cy%3E"
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert items.nth(2).inner_text() == "secret.png: missing"
    assert items.nth(3).locator("a").count() == 0


def test_the_prompt_is_copied(pairs: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(pairs, permissions=["clipboard-read", "clipboard-write"])
    page = seen.page
    page.locator(".shot").first.click()
    page.locator("#copy").click()
    expect(page.locator("#copied")).to_have_text(re.compile("Copied|Selected"))
    if page.locator("#copied").inner_text() == "Copied":
        assert page.evaluate("navigator.clipboard.readText()") == "three kites"
    else:
        assert page.evaluate("String(getSelection())").strip() == "three kites"


def test_a_swipe_goes_to_the_next_picture_and_back(pairs: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(pairs, viewport={"width": 390, "height": 800}, has_touch=True)
    page = seen.page
    page.locator(".shot").first.click()
    swipe = """([from, to, down]) => {
        const stage = document.getElementById("stage");
        const at = (x, y) => new Touch({ identifier: 1, target: stage, clientX: x, clientY: y });
        const send = (name, touches, touch) =>
            stage.dispatchEvent(new TouchEvent(name, { touches, changedTouches: [touch] }));
        send("touchstart", [at(from, 200)], at(from, 200));
        send("touchend", [], at(to, 200 + down));
    }"""
    for from_x, to_x, down, shown in ((300, 100, 10, 2), (300, 280, 0, 2), (300, 100, 300, 2), (100, 300, 5, 1)):
        page.evaluate(swipe, [from_x, to_x, down])
        assert f"picture {shown} of 3" in page.locator("#place").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "rows"), [(390, "run"), (1200, "run"), (1200, "pairs")])
def test_axe_finds_nothing(
    request: pytest.FixtureRequest, visit: Callable[..., Visit], scheme: str, width: int, rows: str
) -> None:
    axe = files(pytest.importorskip("axe_playwright_python")).joinpath("axe.min.js").read_text("utf-8")
    path: Path = request.getfixturevalue(rows)
    seen = visit(path, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    page = seen.page
    page.evaluate(f"{axe}; 0")
    assert _findings(page) == []
    page.locator(".shot").nth(3 if rows == "pairs" else 0).click()
    assert _findings(page) == []


def _findings(page: Page) -> list[str]:
    found: dict[str, Any] = page.evaluate("axe.run()")
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]
