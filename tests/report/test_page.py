"""The page as a file: only what is ours runs in it, links lead where they should, and it is whole or not there."""

from __future__ import annotations

import os
import weakref
from base64 import b64encode
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from tests.report.kit import HOSTILE, NAMES, START, Elements, draw, pictures_of, row, rows_of, words_of
from toapis_async.report import RowError, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toapis_async.report import ReportRow


# ---------------------------------------------------------------------------------------------------- untrusted text


@pytest.mark.parametrize("text", [*HOSTILE, "half a pair: \ud800", "nul: \0", "凧 🪁"])
def test_a_hostile_text_is_data_wherever_it_stands(tmp_path: Path, text: str) -> None:
    plain = Elements(write_report(tmp_path, [row(error=RowError("T", "c", "m"))], title="t")).tags
    told = RowError(text, text, text)
    given = row(prompt=text, key=text, model=text, size=text, quality=text, task_id=text, service_s=1.0, error=told)
    page = write_report(tmp_path, [given], title=text)
    names = [tag for tag, _ in Elements(page).tags]
    assert names.count("script") == 2
    assert "img" not in names
    assert not [name for _, attributes in Elements(page).tags for name in attributes if name.startswith("on")]
    assert set(names) - {tag for tag, _ in plain} <= {
        "svg",
        "text",
        "line",
        "rect",
        "title",
        "b",
        "span",
        "section",
        "p",
    }
    (record,) = rows_of(page)
    assert {record[name] for name in ("prompt", "key", "model", "task")} == {text}
    assert record["error"] == {"type": text, "code": text, "message": text}


def test_the_rows_hold_nothing_that_html_or_javascript_would_read(tmp_path: Path) -> None:
    page = write_report(tmp_path, [row(prompt="".join(HOSTILE))], title="t")
    (data,) = (text for text in Elements(page).texts["script"] if text.startswith("["))
    assert not set(data) & set("<>&\u2028\u2029")


def test_the_policy_lets_only_what_we_wrote_run(tmp_path: Path) -> None:
    elements = Elements(write_report(tmp_path, [row()], title="t"))
    (policy,) = (a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "'self' file:"
    code = next(text for text in elements.texts["script"] if "use strict" in text)
    for rule, text in (("script-src", code), ("style-src", elements.texts["style"][0])):
        assert rules[rule] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def test_the_page_names_no_other_place(tmp_path: Path) -> None:
    page = write_report(tmp_path, [row(files=(draw(tmp_path / "images" / "a.png"),))], title="t")
    elements = Elements(page)
    assert not [
        tag for tag, attributes in elements.tags if tag in {"link", "iframe", "object"} or attributes.get("src")
    ]
    assert {a["href"] for _, a in elements.tags if "href" in a} == {"#pictures"}
    assert "//" not in elements.texts["style"][0].replace("/*", "")
    assert "http" not in page.read_text().replace('http-equiv="', "")


# ------------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("name", NAMES)
def test_a_link_leads_to_the_very_file_and_so_does_its_thumbnail(tmp_path: Path, name: str) -> None:
    (picture,) = pictures_of(write_report(tmp_path, [row(files=(draw(tmp_path / "images" / name),))], title="t"))
    for link in (picture["link"], picture["thumb"]):
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
        assert (tmp_path / unquote(parts.path)).is_file()
    assert unquote(picture["link"]) == f"images/{name}"


@pytest.mark.parametrize(
    "file", ["../a.png", "images/../../a.png", "/etc/hostname", "", "..", "..\\a.png", "C:\\a.png", "a\0.png"]
)
def test_a_file_outside_the_folder_gets_no_link(tmp_path: Path, file: str) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "run").mkdir()
    (picture,) = pictures_of(write_report(tmp_path / "run", [row(files=(file,))], title="t"))
    assert "link" not in picture
    assert picture["problem"] == "outside the folder"
    assert not (tmp_path / "run" / "thumbs").exists()


def test_a_file_that_is_gone_or_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images" / "pipe.png")
    files = ("images/gone.png", "images", "images/pipe.png", "images/\ud800.png")
    told = [(p["problem"], "link" in p) for p in pictures_of(write_report(tmp_path, [row(files=files)], title="t"))]
    assert told == [("missing", False), ("no file", False), ("no file", False), ("missing", False)]


# -------------------------------------------------------------------------------------------------------- the record


def test_a_row_carries_what_is_known_and_nothing_else(tmp_path: Path) -> None:
    known = row(3, credits=Decimal("174.60"), service_s=23.4, submitted_at=START, n=2, client_business_id="b")
    assert rows_of(write_report(tmp_path, [known], title="t")) == [
        {
            "index": 3, "key": "row-3", "state": "done", "prompt": "prompt 3", "cut": 0, "n": 2, "credits": "174.6",
            "took": "23 s", "seconds": 23.4, "submitted": 1_795_363_200_000, "business": "b", "pictures": [],
        }
    ]  # fmt: skip


@pytest.mark.parametrize("credits", ["NaN", "Infinity", "1e999999"])
def test_an_amount_past_all_bounds_is_not_known(tmp_path: Path, credits: str) -> None:  # noqa: A002
    page = write_report(tmp_path, [row(credits=Decimal(credits), service_s=float("inf"))], title="t")
    assert not {"credits", "took"} & set(rows_of(page)[0])
    assert "no price known" in words_of(page)


def test_a_very_long_prompt_is_cut_and_says_by_how_much(tmp_path: Path) -> None:
    (record,) = rows_of(write_report(tmp_path, [row(prompt="x" * 32_000)], title="t"))
    assert (len(record["prompt"]), record["cut"]) == (4_000, 28_000)


def test_rows_keep_their_order_while_thumbnails_are_made(tmp_path: Path) -> None:
    files = [draw(tmp_path / "images" / f"{i}.png", 400 if i % 7 == 0 else 4) for i in range(150)]
    page = write_report(tmp_path, (row(i, files=(file,)) for i, file in enumerate(files)), title="t")
    assert [record["index"] for record in rows_of(page)] == list(range(150))
    assert [p["name"] for p in pictures_of(page)] == [f"{i}.png" for i in range(150)]


def test_memory_holds_a_few_rows_however_many_there_are(tmp_path: Path) -> None:
    alive: weakref.WeakSet[ReportRow] = weakref.WeakSet()
    most = 0

    def many() -> Iterator[ReportRow]:
        nonlocal most
        for i in range(3_000):
            one = row(i, prompt=f"{i}")
            alive.add(one)
            most = max(most, len(alive))
            yield one

    assert len(rows_of(write_report(tmp_path, many(), title="t"))) == 3_000
    assert most < 100


# ----------------------------------------------------------------------------------------------- whole, or not at all


def test_the_old_page_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    page = write_report(tmp_path, [row(key="old")], title="t")
    before = page.stat().st_ino

    def rows() -> Iterator[ReportRow]:
        yield row(key="new")
        assert "old" in page.read_text()

    write_report(tmp_path, rows(), title="t")
    assert rows_of(page)[0]["key"] == "new"
    assert page.stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_source_that_fails_leaves_the_old_page(tmp_path: Path) -> None:
    page = write_report(tmp_path, [row(key="old")], title="t")

    def rows() -> Iterator[ReportRow]:
        yield row(key="new")
        raise LookupError("the journal broke")

    with pytest.raises(LookupError):
        write_report(tmp_path, rows(), title="t")
    assert rows_of(page)[0]["key"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_full_disk_leaves_the_old_page_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(tmp_path, [row(key="old")], title="t")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, [row(key="new")], title="t")
    assert rows_of(page)[0]["key"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_page_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>my own site</title>")
    with pytest.raises(FileExistsError, match=r"not a page that toapis-async made.*index\.html"):
        write_report(tmp_path, [row()], title="t")
    assert "my own site" in (tmp_path / "index.html").read_text()


def test_a_page_is_made_of_no_rows(tmp_path: Path) -> None:
    page = write_report(tmp_path, [], title="nothing")
    assert rows_of(page) == []
    assert "from 0 rows" in words_of(page)


def test_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    assert "Not finished yet" in words_of(write_report(tmp_path, [row(), row(1, status="running")], title="t"))
    assert "Not finished yet" not in words_of(write_report(tmp_path, [row(), row(1, status="failed")], title="t"))
