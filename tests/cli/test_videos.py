"""Videos through the command line, against a sandbox over real sockets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.cli import session
from toapis_async.cli.generate import request_from
from toapis_async.events import TaskAccepted
from toapis_async.protocol.filetype import MP4, sniff
from toapis_async.protocol.token import Token
from toapis_async.sandbox import clips

from .conftest import IN_A_BLINK, interrupt_at, results_of, run

if TYPE_CHECKING:
    from toapis_async.sandbox import Sandbox
    from toapis_async.sandbox.jobs import Job

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "videos.jsonl"


@pytest.fixture(autouse=True)
def _ready_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are the ready-made clips, as without PyAV: filming takes a second each."""

    def film(job: Job, index: int, reference: bytes | None, **_: object) -> bytes:
        return clips.ready_made(job, index, reference)

    monkeypatch.setattr(clips, "film", film)


def mixed(*rows: dict[str, Any]) -> str:
    Path("mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "mixed.jsonl"


KITE = {"key": "kite", "prompt": "a red kite"}
BOAT = {"key": "boat", "kind": "video", "model": "kling-v3", "prompt": "a paper boat", "duration": 5}


def test_the_example_becomes_a_folder_of_videos() -> None:
    ran = run("batch", str(EXAMPLE), "--out", "v", *IN_A_BLINK)
    assert ran.code == 0
    rows = results_of(Path("v"))
    assert [row["files"] for row in rows] == [[f"videos/{key}.mp4"] for key in ("boat", "kite", "lighthouse")]
    assert all(sniff((Path("v") / row["files"][0]).read_bytes()) == MP4 for row in rows)
    assert sorted(ran.stdout.splitlines()) == [f"v/{row['files'][0]}" for row in rows]
    assert "  videos   v/videos  (3 new files, " in ran.stderr
    assert not Path("v/images").exists()
    assert "images" not in ran.stderr


def test_images_and_videos_go_into_folders_of_their_own_and_a_second_pass_finds_them(sandboxes: list[Sandbox]) -> None:
    file = mixed(KITE, BOAT)
    first = run("batch", file, "--out", "out", *IN_A_BLINK)
    assert "  images   out/images  (1 new file, " in first.stderr
    assert "  videos   out/videos  (1 new file, " in first.stderr
    assert run("status", "out").stdout == "2 rows sent: 2 done\n"
    again = run("batch", file, "--out", "out", *IN_A_BLINK)
    assert "going on with 2 rows: 2 done" in again.stderr
    assert (first.code, again.code) == (0, 0)
    assert [row["files"] for row in results_of(Path("out"))] == [["images/kite.png"], ["videos/boat.mp4"]]
    assert "new file" not in again.stderr
    assert len(sandboxes[1].ledger) == 2  # what the first pass paid for


def test_a_video_that_went_away_is_fetched_again_into_its_folder(sandboxes: list[Sandbox]) -> None:
    file = mixed(BOAT)
    run("batch", file, "--out", "out", *IN_A_BLINK)
    Path("out/videos/boat.mp4").unlink()
    assert run("batch", file, "--out", "out", *IN_A_BLINK).code == 0
    assert Path("out/videos/boat.mp4").stat().st_size > 1_000
    assert len(sandboxes[1].ledger) == 1


def test_overwrite_makes_videos_anew(sandboxes: list[Sandbox]) -> None:
    file = mixed(BOAT)
    run("batch", file, "--out", "out", *IN_A_BLINK)
    assert run("batch", file, "--out", "out", "--overwrite", *IN_A_BLINK).code == 0
    assert len(sandboxes[1].ledger) == 2
    assert [path.name for path in Path("out/videos").iterdir()] == ["boat.mp4"]


def test_an_interrupted_video_is_taken_up(monkeypatch: pytest.MonkeyPatch, sandboxes: list[Sandbox]) -> None:
    file = mixed(BOAT)
    with monkeypatch.context() as patched:
        interrupt_at(patched, TaskAccepted, 1)
        assert run("batch", file, "--out", "out", "--sandbox", "--speed", "100").code == 130
    [row] = results_of(Path("out"))
    assert (row["ok"], row["error"]["type"]) == (False, "StillRunning")
    assert run("batch", file, "--out", "out", *IN_A_BLINK).code == 0
    assert results_of(Path("out"))[0]["files"] == ["videos/boat.mp4"]
    assert len(sandboxes[1].ledger) == 1


def test_a_video_of_a_row_that_is_gone_from_the_file_is_fetched_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        interrupt_at(patched, TaskAccepted, 1)
        run("batch", mixed(BOAT), "--out", "out", "--sandbox", "--speed", "100")
    assert run("batch", mixed(KITE), "--out", "out", *IN_A_BLINK).code == 0
    assert Path("out/videos/boat.mp4").is_file()
    assert Path("out/images/kite.png").is_file()


def test_half_written_videos_of_a_killed_process_are_removed() -> None:
    Path("out/videos").mkdir(parents=True)
    Path("out/videos/.boat.mp4.0.part").touch()
    assert run("batch", mixed(KITE), "--out", "out", *IN_A_BLINK).code == 0
    assert not Path("out/videos").exists()


def test_the_page_knows_videos_from_images() -> None:
    rows = mixed(KITE, BOAT | {"aspect_ratio": "9:16", "mode": "pro"})
    run("batch", rows, "--out", "out", *IN_A_BLINK)
    page = Path("out/index.html").read_text("utf-8")
    [boat] = [json.loads(line.strip().strip(",")) for line in page.splitlines() if '"key":"boat"' in line]
    assert (boat["kind"], boat["state"]) == ("video", "done")
    assert boat["took"]
    assert (boat["size"], boat["quality"], boat["duration"]) == ("9:16", "pro", "5 s")
    assert [(picture["link"], picture["video"]) for picture in boat["pictures"]] == [("videos/boat.mp4", True)]
    assert "Files a minute" in page


def test_a_dry_run_counts_videos() -> None:
    ran = run("batch", mixed(BOAT), "--out", "out", "--dry-run", "--price", "kling-v3=9")
    assert ran.code == 0
    assert "1 of 1 row would be sent: 1 video, 9 credits" in ran.stdout
    assert "rows  videos  each" in ran.stdout
    assert "2 files" in run("batch", mixed(KITE, BOAT), "--out", "out", "--dry-run").stdout


# ------------------------------------------------------------------------------------------------ one at a time

BOAT_OPTIONS = ("--kind", "video", "--model", "kling-v3", "--duration", "5")


def test_one_video_is_saved_and_its_path_printed(sandboxes: list[Sandbox]) -> None:
    options = ("--aspect-ratio", "9:16", "--metadata", "cfg_scale=0.5", "--extra", 'mode="pro"', "--out", "out")
    ran = run("generate", "a paper boat", *BOAT_OPTIONS, *options, *IN_A_BLINK)
    assert ran.code == 0
    [file] = ran.stdout.splitlines()
    assert sniff(Path(file).read_bytes()) == MP4
    assert "1 video in " in ran.stderr
    [entry] = sandboxes[0].ledger
    assert entry.kind == "video"
    assert entry.request == {
        "model": "kling-v3",
        "prompt": "a paper boat",
        "duration": 5,
        "aspect_ratio": "9:16",
        "metadata": {"cfg_scale": 0.5},
        "mode": "pro",
        "client_business_id": entry.client_business_id,
    }


def test_the_model_says_the_kind_and_some_need_no_prompt(sandboxes: list[Sandbox]) -> None:
    run("generate", "a kite", "--out", "refs", *IN_A_BLINK)
    [picture] = Path("refs").glob("*.png")
    ran = run("generate", "--model", "viduq3", "--reference", str(picture), "--json", *IN_A_BLINK)
    assert (ran.code, ran.records[0]["model"]) == (0, "viduq3")
    assert [url.endswith(".mp4") for url in ran.records[0]["urls"]] == [True]
    [entry] = sandboxes[1].ledger
    assert "prompt" not in entry.request


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ("viduq3", {"image_urls": ["https://files.toapis.com/a.png"]}),
        ("grok-video-1.0", {"reference_images": ["https://files.toapis.com/a.png"]}),
        ("seedance-2", {"image_with_roles": [{"url": "https://files.toapis.com/a.png", "role": "reference_image"}]}),
    ],
)
def test_a_reference_goes_into_the_field_that_the_models_page_lists(model: str, field: dict[str, Any]) -> None:
    request = request_from(
        None, ("https://files.toapis.com/a.png",), mask=None, model=model, prompt="a boat", duration=5
    )
    assert request.body() == {"model": model, "prompt": "a boat", "duration": 5} | field


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a boat", "--kind", "video"), "--kind video needs --model, such as seedance-2"),
        (("a boat", "--duration", "5"), "--duration is for videos (--kind video), not for images"),
        (("a boat", *BOAT_OPTIONS, "--mask", "a.png"), "--mask is for images (--kind image), not for videos"),
        (("a boat", *BOAT_OPTIONS, "-n", "2"), "--n is for images"),
        (("a boat", "--model", "kling-v3", "--duration", "99"), "--extra duration=… of `toapis generate`"),
        (("a boat", *BOAT_OPTIONS, "--reference", "a.png"), "which field kling-v3 reads pictures from is not known"),
        (("a boat", "--extra", "mode=pro"), "'mode=pro' is no KEY=JSON"),
        (("a boat", "--metadata", "7"), "'7' is no KEY=JSON"),
        (("a boat", "--kind", "sound"), "'sound' is not one of 'image', 'video'"),
        (("--model", "gpt-image-2"), "prompt is missing"),
    ],
)
def test_options_that_cannot_be_right_are_misuse_and_send_nothing(
    arguments: tuple[str, ...], told: str, sandboxes: list[Sandbox]
) -> None:
    ran = run("generate", *arguments, *IN_A_BLINK)
    assert (ran.code, sandboxes) == (2, [])
    assert told in ran.stderr


def test_a_mask_is_a_file_like_a_reference(sandboxes: list[Sandbox]) -> None:
    run("generate", "a kite", "--out", "refs", *IN_A_BLINK)
    [picture] = map(str, Path("refs").glob("*.png"))
    options = ("--model", "gpt-image-2", "--reference", picture, "--mask", picture)
    assert run("generate", "the same at dusk", *options, *IN_A_BLINK).code == 0
    [entry] = sandboxes[1].ledger
    assert str(entry.request["mask_url"]).startswith("http://127.0.0.1:")


@pytest.fixture
def video_id() -> str:
    """A finished video, which the sandbox of this folder knows."""
    [record] = run("generate", "a paper boat", *BOAT_OPTIONS, "--json", *IN_A_BLINK).records
    return str(record["task_id"])


@pytest.mark.parametrize("kind", [(), ("--kind", "video")])
def test_videos_are_found_and_fetched_by_their_ids(video_id: str, kind: tuple[str, ...]) -> None:
    [record] = run("status", video_id, *kind, "--sandbox", "--json").records
    assert (record["status"], [url.endswith(".mp4") for url in record["urls"]]) == ("completed", [True])
    assert ".mp4" in run("status", video_id, *kind, "--sandbox").stdout
    assert run("fetch", video_id, *kind, "--out", "f", *IN_A_BLINK).stdout == f"f/{video_id}.mp4\n"


def test_a_video_is_no_image(video_id: str) -> None:
    for command in ("status", "fetch"):
        ran = run(command, video_id, "--kind", "image", *IN_A_BLINK)
        assert (ran.code, ran.stdout) == (1, "")
        assert video_id in ran.stderr


def test_a_token_is_taken_where_an_id_is(video_id: str) -> None:
    token = str(Token("video", video_id, video_id, None, None, time.time(), 1))
    assert run("status", token, "--sandbox").stdout.startswith(f"{video_id}  completed")
    assert run("fetch", token, "--out", "f", *IN_A_BLINK).stdout == f"f/{video_id}.mp4\n"
    for command in ("status", "fetch"):
        ran = run(command, token[:-9], *IN_A_BLINK)
        assert (ran.code, ran.stderr.count("this token was cut or changed")) == (2, 1)


def test_without_pillow_pictures_are_plain_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "find_spec", lambda _: None)
    ran = run("generate", "a kite", "--out", "out", *IN_A_BLINK)
    assert ran.code == 0
    assert "pictures are plain without Pillow: pip install 'toapis-async[sandbox]'" in ran.stderr
    assert Path(ran.stdout.strip()).suffix == ".png"
