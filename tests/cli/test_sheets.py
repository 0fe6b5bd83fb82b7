"""Sheets of prompts: what separates columns, Excel, Parquet, and columns that are no fields of a request."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, time, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.batch.template import PromptTemplate
from toapis_async.cli.columns import Columns
from toapis_async.cli.output import CliError
from toapis_async.cli.prompts import opened
from toapis_async.errors import InvalidRequest

from .conftest import IN_A_BLINK, results_of, run

if TYPE_CHECKING:
    from pathlib import Path

ROW = {"key": "k", "prompt": "a kite, red", "n": 2}


def read(path: Path, columns: Columns | None = None) -> tuple[list[Any], str]:
    """The rows of a file, and what is told of how it is read."""
    with opened(str(path), None, columns) as prompts:
        assert list(prompts.rows()) == list(prompts.rows())
        return list(prompts.rows()), " ".join(prompts.notes)


def problems_of(path: Path, columns: Columns | None = None) -> dict[int, str]:
    with opened(str(path), None, columns) as prompts:
        return {line.number: str(line.problem) for line in asyncio.run(prompts.check()).problems}


def workbook(path: Path, *sheets: list[list[Any]]) -> Path:
    book = import_module("openpyxl").Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, 1):
        sheet = book.create_sheet(f"Sheet {number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def parquet(path: Path, **columns: list[Any]) -> Path:
    import_module("pyarrow.parquet").write_table(import_module("pyarrow").table(columns), path)
    return path


# ---------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("mark", "told"), [(",", ""), (";", "semicolons between columns"), ("\t", "tabs between")])
def test_columns_are_separated_by_what_the_header_shows(tmp_path: Path, mark: str, told: str, encoding: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(f'KEY{mark}Prompt{mark}N\r\nk{mark}"a kite, red"{mark}2\r\n'.encode(encoding))
    rows, note = read(file)
    assert rows == [ROW]
    assert told in note
    assert ("UTF-16" in note) == (encoding == "utf-16")
    assert bool(note) == bool(told or encoding == "utf-16")


def test_prompts_full_of_other_marks_do_not_mislead(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt\tsize\na, b, c; d\t1:1\ne, f, g; h\t2:3\n")
    assert read(tmp_path / "a.csv")[0] == [
        {"prompt": "a, b, c; d", "size": "1:1"},
        {"prompt": "e, f, g; h", "size": "2:3"},
    ]


@pytest.mark.parametrize("name", ["a.tsv", "a.dat", "a.txt"])
def test_a_table_with_tabs_is_one_under_other_names_too(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("key\tprompt\tn\r\nk\ta kite, red\t2\r\n".encode("utf-16"))  # as Excel saves text
    assert read(tmp_path / name)[0] == [ROW]


def test_the_line_in_which_excel_is_told_the_separator_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('sep=;\nkey;prompt;n\nk;"a kite, red";2\n')
    assert read(tmp_path / "a.csv")[0] == [ROW]
    (tmp_path / "a.csv").write_text('sep=,\nkey,prompt,n\nk,"a kite, red",2\n')
    assert read(tmp_path / "a.csv")[0] == [ROW]


def test_cells_past_the_header_are_told_with_its_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt;size\na;1:1;x\n")
    assert problems_of(tmp_path / "a.csv") == {2: "3 cells under 2 columns: put text with semicolons in quotes"}


@pytest.mark.parametrize(
    "content", ["\ufeffa kite".encode("utf-16-le") + b"\0", b"\xff\xfe\x00\xd8a\0", b"\xff\xfe\0\0a"]
)
def test_what_only_begins_as_utf_16_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(CliError, match="save it as UTF-8"):
        read(tmp_path / "a.txt")


# ---------------------------------------------------------------------------------------------- lists in a cell


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("a.png;b.png", ["a.png", "b.png"]),
        ("a.png | b.png;", ["a.png", "b.png"]),
        ("my kite.png; b.png", ["my kite.png", "b.png"]),
        ("a.png b.png", ["a.png", "b.png"]),
        ('["my kite.png", "b.png"]', ["my kite.png", "b.png"]),
        ("one; two.png", ["one; two.png"]),
    ],
)
def test_a_cell_may_hold_a_list(tmp_path: Path, cell: str, names: list[str]) -> None:
    for name in ("a.png", "b.png", "my kite.png", "one; two.png"):
        (tmp_path / name).touch()
    file = workbook(tmp_path / "a.xlsx", [["prompt", "Reference Images"], ["x", cell]])
    [row], _ = read(file)
    assert row["reference_images"] == [tmp_path / name for name in names]


# ---------------------------------------------------------------------------------------------- sheets


def test_cells_of_a_workbook_are_read_as_a_person_sees_them(tmp_path: Path) -> None:
    file = workbook(
        tmp_path / "a.xlsx",
        [
            ["Key", "PROMPT", "n", "Size", "Seed", "layer_decomposition", "Metadata", None],
            [1.0, "a kite", 2.0, time(16, 9), 7, True, '{"a": 1}', None],
            [],
            [datetime(2026, 11, 5), 2026, None, timedelta(hours=32, minutes=9), None, False],
            [datetime(2026, 11, 5, 9, 30), 0.5, "2", "16:9"],
        ],
    )
    rows, note = read(file)
    assert rows == [
        {"key": "1", "prompt": "a kite", "n": 2, "size": "16:09:00", "seed": 7}
        | {"layer_decomposition": True, "metadata": {"a": 1}},
        {"key": "2026-11-05", "prompt": "2026", "size": "32:09", "layer_decomposition": False},
        {"key": "2026-11-05T09:30:00", "prompt": "0.5", "n": 2, "size": "16:9"},
    ]
    assert note == ""


def test_a_workbook_gives_its_first_sheet_and_says_so(tmp_path: Path) -> None:
    rows, note = read(workbook(tmp_path / "a.xlsx", [["prompt"], ["a kite"]], [["notes"], ["of mine"]]))
    assert rows == [{"prompt": "a kite"}]
    assert note.endswith("reading the first of 2 sheets, 'Sheet 1'")


def test_cells_with_errors_and_formulas_without_values_are_problems_by_their_row(tmp_path: Path) -> None:
    file = workbook(tmp_path / "a.xlsx", [["prompt", "n"], ["fine", 1], ["x", "#REF!"], ["=A2", 1]])
    assert problems_of(file) == {
        3: "cell B3 holds the error #REF!",
        4: "cell A4 holds a formula that was never computed: open the file in a spreadsheet program and save it",
    }
    ran = run("batch", str(file), "--out", "out", "--sandbox")
    assert (ran.code, "error: row 3: cell B3 holds" in ran.stderr) == (2, True)


@pytest.mark.parametrize("content", [b"PK\x03\x04 and no zip", b"PAR1 and no columns"])
def test_a_broken_sheet_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    ran = run("batch", "a.xlsx", "--out", "out", "--sandbox")
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)
    assert ran.stderr.startswith("error: a.xlsx can't be read as a")


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet"])
def test_a_web_page_under_the_name_of_a_sheet_is_not_bought_line_by_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<!doctype html>\n<title>Sign in</title>\n")
    ran = run("batch", name, "--out", "out", "--sandbox")
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)
    assert ran.stderr.startswith(f"error: {name} is no {name[1:]} file, nor a table")
    (tmp_path / name).write_text("prompt,size\na kite,1:1\n")
    assert run("batch", name, "--out", "out", "--dry-run").code == 0


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toapis_async.batch.sheets.MAX_UNPACKED_BYTES", 1_000)
    with pytest.raises(InvalidRequest, match=r"unpacks to .* bytes, which is too much"):
        read(workbook(tmp_path / "a.xlsx", [["prompt"], ["a kite"]]))


@pytest.mark.parametrize(
    ("name", "module", "way_out"),
    [("a.xlsx", "openpyxl", "pip install 'toapis-async[excel]'"), ("a.parquet", "pyarrow.parquet", "install pyarrow")],
)
def test_a_reader_that_is_not_installed_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, way_out: str
) -> None:
    file = tmp_path / name
    workbook(file, [["prompt"]]) if name == "a.xlsx" else parquet(file, prompt=["a"])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidRequest) as refused:
        read(file)
    assert way_out in str(refused.value)


def test_parquet_columns_become_fields(tmp_path: Path) -> None:
    file = parquet(
        tmp_path / "a.parquet",
        Key=[1, 2],
        prompt=["a kite", "a boat"],
        n=[2.0, float("nan")],
        image_urls=[["https://a.de/1.png", "https://a.de/2.png"], None],
        metadata=[{"a": 1}, None],
    )
    assert read(file)[0] == [
        {"key": "1", "prompt": "a kite", "n": 2, "metadata": {"a": 1}}
        | {"image_urls": ["https://a.de/1.png", "https://a.de/2.png"]},
        {"key": "2", "prompt": "a boat"},
    ]


def test_one_sheet_in_any_format_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt;n\na kite;2\n")
    workbook(tmp_path / "a.xlsx", [["Prompt", "N"], ["a kite", 2]])
    parquet(tmp_path / "a.parquet", prompt=["a kite"], n=[2])
    assert run("batch", "a.csv", "--out", "out", *IN_A_BLINK).code == 0
    for name in ("a.xlsx", "a.parquet"):
        ran = run("batch", name, "--out", "out", "--dry-run", "--sandbox")
        assert "1  done already" in ran.stdout


def test_a_sheet_from_stdin_is_known_by_its_bytes(tmp_path: Path) -> None:
    content = workbook(tmp_path / "a.xlsx", [["prompt"], ["a kite"]]).read_bytes()
    assert run("batch", "-", "--out", "out", *IN_A_BLINK, stdin=content).code == 0


# ---------------------------------------------------------------------------------------------- columns


def columns(template: str | None = None, ignored: tuple[str, ...] = (), kept: tuple[str, ...] = ()) -> Columns:
    return Columns(ignored, kept, None if template is None else PromptTemplate.of(template))


def test_a_template_makes_prompts_of_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Colour,noun,size\nred,kite,1:1\n,boat,\n")
    made = columns("a {colour} { noun } of {size} {{braces}}")
    with opened(str(tmp_path / "a.csv"), None, made) as prompts:
        first, second = prompts.lines()
    assert first.row == {"size": "1:1", "prompt": "a red kite of 1:1 {braces}"}
    assert (second.number, second.problem) == (3, "the prompt template needs 'colour', which is empty here")
    (tmp_path / "a.jsonl").write_text('{"Colour": "red", "noun": 2.0}')
    assert read(tmp_path / "a.jsonl", columns("a {colour} {noun}"))[0] == [{"prompt": "a red 2"}]


@pytest.mark.parametrize(
    "text",
    ["{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{}", "{0}", "{a:{b}}", "{a", "a}", "no column", "{a.__class__}", "{ }"],
)
def test_a_template_takes_nothing_but_names_of_columns(text: str) -> None:
    with pytest.raises(InvalidRequest, match="the prompt template"):
        PromptTemplate.of(text)
    ran = run("batch", "-", "--out", "out", "--prompt-template", text, stdin="prompt\n")
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)


def test_a_prompt_of_its_own_beside_a_template_is_a_question_to_the_user(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,noun\na boat,kite\n,kite\n")
    assert "--ignore-columns prompt" in problems_of(tmp_path / "a.csv", columns("a {noun}"))[2]
    assert read(tmp_path / "a.csv", columns("a {noun}", ignored=("Prompt",)))[0] == [{"prompt": "a kite"}] * 2
    (tmp_path / "b.csv").write_text("prompt,noun\na boat,kite\n")
    assert read(tmp_path / "b.csv", columns("{prompt} and a {noun}"))[0] == [{"prompt": "a boat and a kite"}]


def test_columns_that_are_no_fields_are_ignored_or_kept_by_name_and_else_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("SKU,prompt,Notes of mine,size\n0001,a kite,mine,1:1\n0002,a boat,,2:3\n")
    with pytest.raises(CliError) as told:
        read(tmp_path / "a.csv")
    assert "unknown field 'SKU'" in str(told.value)
    assert "--ignore-columns 'SKU' leaves it out, --keep-columns keeps it" in str(told.value)
    how = ("--ignore-columns", "notes OF mine", "--keep-columns", "sku,Size")
    ran = run("batch", "a.csv", "--out", "out", *how, *IN_A_BLINK)
    assert ran.code == 0, ran.stderr
    assert [row["columns"] for row in results_of(tmp_path / "out")] == [
        {"SKU": "0001", "size": "1:1"},
        {"SKU": "0002", "size": "2:3"},
    ]
    again = run("batch", "a.csv", "--out", "out", *how, *IN_A_BLINK, "--json")
    assert {row["columns"]["SKU"] for row in again.records if "columns" in row} == {"0001", "0002"}


def test_a_column_to_be_kept_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,sku\na,1\n")
    with pytest.raises(CliError, match="no column 'suk', but 'prompt', 'sku'"):
        read(tmp_path / "a.csv", columns(ignored=("sku",), kept=("suk",)))


def test_plain_text_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a kite\n")
    with pytest.raises(CliError, match="there are no columns to use"):
        read(tmp_path / "a.txt", columns("a {noun}"))
