"""Where `generate` puts its files, under which names, and what a command that was cut short leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from toapis_async.cli.places import Place
from toapis_async.events import TaskAccepted

from .conftest import IN_A_BLINK, interrupt_at, run

DIGEST = "ab12cd34ef"


def test_names_are_the_prompts_slug_and_nothing_is_replaced() -> None:
    first, second = (run("generate", "A Red Kite!", *IN_A_BLINK) for _ in range(2))
    name = first.stdout.strip()
    assert name.startswith("a-red-kite~")
    assert second.stdout.strip() == name.replace(".png", ".2.png")
    several = run("generate", "A Red Kite!", "-n", "2", "--out", "kites", *IN_A_BLINK).stdout.splitlines()
    assert [path.rpartition("-")[2] for path in several] == ["1.png", "2.png"]
    assert sorted(path.name for path in Path().iterdir()) == sorted([".sandbox", name, second.stdout.strip(), "kites"])


def test_the_same_prompt_has_the_name_that_a_batch_gives_it() -> None:
    Path("p.txt").write_text("a red kite\n")
    assert run("batch", "p.txt", "--out", "out", *IN_A_BLINK).code == 0
    [of_batch] = Path("out/images").glob("*.png")
    assert run("generate", "a red kite", *IN_A_BLINK).stdout == f"{of_batch.name}\n"


def test_a_file_is_written_under_its_name_and_replaced() -> None:
    Path("kite.png").write_text("an old one")
    ran = run("generate", "a kite", "--out", "kite.png", *IN_A_BLINK)
    assert (ran.code, ran.stdout) == (0, "kite.png\n")
    assert Path("kite.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in Path().iterdir()) == [".sandbox", "kite.png"]


def test_the_bytes_decide_the_extension_and_what_stands_there_is_left_alone() -> None:
    Path("kite.png").write_text("mine")
    ran = run("generate", "a kite", "--out", "kite.jpg", *IN_A_BLINK)
    assert (ran.code, ran.stdout) == (0, "kite.2.png\n")
    assert "the service sent a file of the kind PNG: it is kite.2.png, not kite.jpg" in ran.stderr
    assert Path("kite.png").read_text() == "mine"
    assert not Path("kite.jpg").exists()


def test_several_files_of_one_name_are_numbered_in_a_folder_that_is_made() -> None:
    ran = run("generate", "a kite", "-n", "2", "--out", "new/kite.png", "--json", *IN_A_BLINK)
    assert ran.records[0]["files"] == ["new/kite-1.png", "new/kite-2.png"]


def test_a_folder_whose_name_has_an_extension_is_a_folder() -> None:
    Path("kites.png").mkdir()
    assert run("generate", "a kite", "--out", "kites.png", *IN_A_BLINK).stdout.startswith("kites.png/a-kite~")


@pytest.mark.parametrize(("name", "kind"), [("kite.JPG", ".jpg"), ("kite.jpeg", ".jpg"), ("Kite.png", ".png")])
def test_a_name_of_the_right_kind_is_kept_as_it_is(tmp_path: Path, name: str, kind: str) -> None:
    place = Place.reserved(tmp_path / name, "a kite", DIGEST)
    saved = tmp_path / f"{place.stem}{kind}"
    saved.touch()
    assert place.named([saved]) == (tmp_path / name,)
    assert not saved.exists()


def test_two_commands_at_once_never_get_one_name(tmp_path: Path) -> None:
    places = [Place.reserved(tmp_path, "a kite", DIGEST) for _ in range(3)]
    assert [place.stem for place in places] == ["a-kite~ab12cd34", "a-kite~ab12cd34.2", "a-kite~ab12cd34.3"]


@pytest.mark.parametrize("arguments", [("a kite [refuse]",), ("a kite [fail]",)])
def test_what_cost_nothing_leaves_nothing(arguments: tuple[str, ...]) -> None:
    assert run("generate", *arguments, "--out", "kites", *IN_A_BLINK).code == 1
    assert [path.name for path in Path("kites").iterdir()] == [".sandbox"]


def test_what_is_made_is_opened_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    run("generate", "a kite", *IN_A_BLINK)
    assert opened == []
    ran = run("generate", "a kite", "-n", "2", "--open", *IN_A_BLINK)
    assert opened == ran.stdout.splitlines()


def test_a_command_that_is_killed_leaves_a_journal_to_fetch_from() -> None:
    command = [sys.executable, "-m", "toapis_async", "generate", "a kite", "--sandbox", "--speed", "4", "--out", "k"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stderr is not None
    assert process.stderr.readline().startswith("accepted as ")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [journal] = Path("k").glob("*.journal")
    ran = run("fetch", "--unsaved", str(journal), "--out", "k", *IN_A_BLINK)
    assert ran.code == 0, ran.stderr
    assert len(list(Path("k").glob("*.png"))) == 1


def test_a_watched_task_is_told_at_each_change_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        interrupt_at(patched, TaskAccepted, 1)
        assert run("generate", "a kite", "--client-business-id", "mine", "--sandbox", "--speed", "4").code == 130
    watched = run("status", "mine", "--watch", "--sandbox", "--speed", "20", "--json")
    assert watched.code == 0
    assert len(watched.records) > 1
    assert watched.records[-1]["status"] == "completed"
    assert all(record["status"] != "completed" for record in watched.records[:-1])
    failed = run("generate", "a kite [fail]", *IN_A_BLINK, "--json").records[0]["task_id"]
    assert run("status", failed, "--watch", *IN_A_BLINK).code == 1
    assert run("status", failed, *IN_A_BLINK).code == 0
    Path("out").mkdir()
    assert "--watch is for tasks" in run("status", "out", "--watch").stderr
