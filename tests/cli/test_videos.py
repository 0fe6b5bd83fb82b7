"""Videos through the command line, against a sandbox over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.events import TaskAccepted
from toapis_async.protocol.filetype import MP4, sniff
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
    again = run("batch", file, "--out", "out", *IN_A_BLINK)
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
        assert run("batch", file, "--out", "out", "--sandbox", "--speed", "20").code == 130
    [row] = results_of(Path("out"))
    assert (row["ok"], row["error"]["type"]) == (False, "StillRunning")
    assert run("batch", file, "--out", "out", *IN_A_BLINK).code == 0
    assert results_of(Path("out"))[0]["files"] == ["videos/boat.mp4"]
    assert len(sandboxes[1].ledger) == 1


def test_a_video_of_a_row_that_is_gone_from_the_file_is_fetched_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        interrupt_at(patched, TaskAccepted, 1)
        run("batch", mixed(BOAT), "--out", "out", "--sandbox", "--speed", "20")
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
    assert boat["kind"] == "video"
    assert (boat["size"], boat["quality"], boat["duration"]) == ("9:16", "pro", "5 s")
    assert [(picture["link"], picture["video"]) for picture in boat["pictures"]] == [("videos/boat.mp4", True)]
    assert "Files a minute" in page


def test_a_dry_run_counts_videos() -> None:
    ran = run("batch", mixed(BOAT), "--out", "out", "--dry-run", "--price", "kling-v3=9")
    assert ran.code == 0
    assert "1 of 1 row would be sent: 1 video, 9 credits" in ran.stdout
    assert "rows  videos  each" in ran.stdout
    assert "2 files" in run("batch", mixed(KITE, BOAT), "--out", "out", "--dry-run").stdout
