"""Prompt files: what is read, and how every bad line is named."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.cli.lines import reference
from toapis_async.cli.output import CliError
from toapis_async.cli.prompts import MOST_SHOWN, Checked, opened
from toapis_async.errors import InvalidRequest

if TYPE_CHECKING:
    from toapis_async.cli.formats import Format


def rows_of(path: Path, given_format: Format | None = None) -> list[Any]:
    with opened(str(path), given_format) as prompts:
        return list(prompts.rows())


def check(path: Path) -> Checked:
    with opened(str(path)) as prompts:
        return asyncio.run(prompts.check())


def problems_of(path: Path) -> dict[int, str]:
    return {line.number: str(line.problem) for line in check(path).problems}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prompts"


# ---------------------------------------------------------------------------------------------- what is read


def test_plain_lines_are_prompts_and_blank_ones_are_none(file: Path) -> None:
    file.write_bytes("\ufeffa red kite\r\n\n  \n  a blue one  \n[bold]no markup[/]".encode())
    assert rows_of(file) == ["a red kite", "a blue one", "[bold]no markup[/]"]


def test_json_lines_are_rows_of_fields_or_prompts(file: Path) -> None:
    file.write_bytes('\ufeff{"prompt": "a kite", "n": 2, "key": "k"}\n\n"红风筝"\n'.encode())
    assert rows_of(file) == [{"prompt": "a kite", "n": 2, "key": "k"}, "红风筝"]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.jsonl", '"a kite"', ["a kite"]),
        ("a.NDJSON", '"a kite"', ["a kite"]),
        ("a.txt", '"a kite"', ['"a kite"']),
        ("a.csv", "prompt\na kite", [{"prompt": "a kite"}]),
        ("a.dat", '\n{"prompt": "a kite"}', [{"prompt": "a kite"}]),
        ("a.dat", "{a kite", ["{a kite"]),
        ("a.dat", "7 kites", ["7 kites"]),
        ("a.dat", "7", ["7"]),
        ("a.dat", "", []),
        ("a.dat", "\nkey,prompt\nk,a kite", [{"key": "k", "prompt": "a kite"}]),
        ("a.dat", "\ufeffprompt, size\na kite,", [{"prompt": "a kite"}]),
        ("a.dat", "prompt\na kite", ["prompt", "a kite"]),
        ("a.dat", "prompt, kite\na", ["prompt, kite", "a"]),
        ("a.dat", "key,n\na", ["key,n", "a"]),
        ("a.dat", "a,prompt" + "x" * 200_000, ["a,prompt" + "x" * 200_000]),
        ("a.json", '{"prompt": "a kite"}', [{"prompt": "a kite"}]),
        ("a.json", "", []),
        ("a.txt", "key,prompt", ["key,prompt"]),
        ("a.txt", "key;prompt", ["key;prompt"]),
    ],
)
def test_the_format_follows_from_the_name_else_from_the_first_line(
    tmp_path: Path, name: str, content: str, rows: list[Any]
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert rows_of(tmp_path / name) == rows


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", '[\n  "a kite"\n]', "begins like a JSON array: make it one row a line (jq -c '.[]' "),
        ("a.dat", ' [{"prompt": "a"}]', "begins like a JSON array"),
        ("a.jsonl", "[\n", "begins like a JSON array"),
        ("a.json", "a kite", "is not JSON row by row: make it one row a line (jq -c . "),
        ("a.dat", '{\n"prompt": "a kite"\n}', "is not JSON row by row"),
        ("a.png", "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no text in UTF-8 (or UTF-16 with its mark) but a binary file"),
        ("a.xls", "\xd0\xcf\x11\xe0", "is a sheet of a kind that is not read: save it as .xlsx or .csv"),
        ("a.jsonl", "\0", "is no text in UTF-8"),
    ],
)
def test_what_would_be_misread_and_paid_for_is_refused(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CliError) as refused:
        rows_of(tmp_path / name)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_given_format_is_taken_literally(file: Path) -> None:
    file.write_text("[\n{\nkey;prompt\n")
    assert rows_of(file, "txt") == ["[", "{", "key;prompt"]
    file.write_text("key;prompt\nk;a kite")
    assert rows_of(file, "csv") == [{"key": "k", "prompt": "a kite"}]
    file.write_text("a\0b\n")
    with pytest.raises(CliError, match="binary"):
        rows_of(file, "txt")


def test_a_given_format_goes_before_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text('"a kite"')
    assert rows_of(tmp_path / "a.txt", "jsonl") == ["a kite"]


def test_csv_cells_become_fields_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "\ufeffkey, prompt ,n,size,reference_images,image_urls,metadata\n"
        'k1,"a kite,\nin two lines",2,16:9,'
        'https://a.de/1.png https://a.de/2.png,"[""https://a.de/3.png""]","{""a"": 1}"\n'
        "\n"
        ",,,,,,\n"
        "7,another, , ,\n",
        encoding="utf-8",
    )
    first, second = rows_of(tmp_path / "a.csv")
    assert first == {
        "key": "k1",
        "prompt": "a kite,\nin two lines",
        "n": 2,
        "size": "16:9",
        "reference_images": ["https://a.de/1.png", "https://a.de/2.png"],
        "image_urls": ["https://a.de/3.png"],
        "metadata": {"a": 1},
    }
    assert second == {"key": "7", "prompt": "another"}


def test_local_references_are_looked_for_beside_the_prompt_file(file: Path) -> None:
    file.write_text('{"prompt": "a", "reference_images": ["kite.png", "https://a.de/b.png"]}')
    [row] = rows_of(file)
    assert row["reference_images"] == [file.parent / "kite.png", "https://a.de/b.png"]


@pytest.mark.parametrize("name", ["/abs/c.png", "../c.png", "sub/../../c.png", "~/c.png"])
def test_a_prompt_file_cannot_reach_pictures_outside_its_folder(file: Path, name: str) -> None:
    file.write_text(json.dumps({"prompt": "a", "image_urls": [name]}))
    with opened(str(file)) as prompts:
        [line] = prompts.lines()
    assert "outside the prompt file's folder" in (line.problem or "")


@pytest.mark.parametrize("text", ["https://a.de/b.png", "htp://typo", "data:image/png;base64,xx", 7, None])
def test_what_cannot_be_a_file_is_left_for_the_request_to_judge(text: object) -> None:
    assert reference(text, Path()) == text


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("chair\0.png", "'chair.png' is no name of a file: a character of it can't be in one"),
        ("chair\ud800.png", "'chair.png' is no name of a file: a character of it can't be in one"),
        ("~no-such-user/x.png", "there is no file '~no-such-user/x.png', nor such a home folder"),
        ("~2-chairs.png", "there is no file '~2-chairs.png', nor such a home folder"),
        ("loop.png", "can't use the file 'loop.png': Too many levels of symbolic links"),
        ("x" * 2_000, f"{'x' * 99 + '…'!r} is too long for the name of a file (2,000 characters); base64 is not"),
        ("iVBORw0KGgo/" * 500, "is too long for the name of a file (6,000 characters); base64 is not accepted"),
        ("iVBORw0KGgo/" * 50, "there is no file "),
    ],
)
def test_a_reference_that_can_be_no_file_is_a_problem_with_its_line_and_is_not_echoed_at_length(
    file: Path, name: str, problem: str
) -> None:
    (file.parent / "loop.png").symlink_to("loop.png")
    file.write_text('{"prompt": "fine"}\n' + json.dumps({"prompt": "x", "reference_images": [name]}))
    [(number, text)] = problems_of(file).items()
    assert (number, problem in text, len(text) < 300) == (2, True, True), text


def test_a_file_whose_name_begins_with_a_tilde_is_used(file: Path) -> None:
    (file.parent / "~2-chairs.png").touch()
    file.write_text('{"prompt": "x", "reference_images": ["~2-chairs.png"]}')
    [row] = rows_of(file)
    assert row["reference_images"] == [file.parent / "~2-chairs.png"]
    assert problems_of(file) == {}


def test_a_cell_may_name_a_file_with_blanks_and_else_the_message_says_how(tmp_path: Path) -> None:
    (tmp_path / "my kite.png").touch()
    (tmp_path / "a.csv").write_text(
        'prompt,reference_images\nx,my kite.png\ny,"[""my kite.png""]"\nz,my kites.png\n', encoding="utf-8"
    )
    assert [row["reference_images"] for row in rows_of(tmp_path / "a.csv")][:2] == [[tmp_path / "my kite.png"]] * 2
    [(number, text)] = problems_of(tmp_path / "a.csv").items()
    assert number == 4
    assert text.endswith('my, nor is it an http(s) URL (a name with blanks is written ["my kite.png"])')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_ends_a_line(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(f"a lamp{end}a boat{end}{end}a kite".encode())
    assert rows_of(tmp_path / "a.txt") == ["a lamp", "a boat", "a kite"]
    (tmp_path / "a.jsonl").write_bytes(f'{{"prompt": "a lamp"}}{end}"a boat"'.encode())
    assert rows_of(tmp_path / "a.jsonl") == [{"prompt": "a lamp"}, "a boat"]
    (tmp_path / "a.csv").write_bytes(f'prompt,size{end}"a lamp,{end}lit",1:1{end}a boat,{end}x,y,z{end}'.encode())
    with opened(str(tmp_path / "a.csv")) as prompts:
        lamp, boat, bad = prompts.lines()
    assert [lamp.row, boat.row] == [{"prompt": f"a lamp,{end}lit", "size": "1:1"}, {"prompt": "a boat"}]
    assert (bad.number, bad.problem) == (5, "3 cells under 2 columns: put text with commas in quotes")


def test_cells_as_spreadsheets_and_data_frames_write_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "Key,PROMPT,N,Size,,Unnamed: 5\na,a lamp,1.0,16:09,,,,\nb,a boat,,3:04,,\nnan,nan,NaN,nan,,\n,,,,,\n",
        encoding="utf-8",
    )
    assert rows_of(tmp_path / "a.csv") == [
        {"key": "a", "prompt": "a lamp", "n": 1, "size": "16:09"},
        {"key": "b", "prompt": "a boat", "size": "3:04"},
        {"key": "nan", "prompt": "nan"},
    ]
    (tmp_path / "a.jsonl").write_text('{"Key": "a", "PROMPT": "a lamp", "n": 1.0, "size": NaN}')
    assert rows_of(tmp_path / "a.jsonl") == [{"key": "a", "prompt": "a lamp", "n": 1, "size": None}]


def test_columns_of_numbers_truths_and_files_have_values_of_their_kind(tmp_path: Path) -> None:
    (tmp_path / "mask.png").touch()
    (tmp_path / "a.csv").write_text(
        "prompt,seed,output_compression,layer_decomposition,mask_url\n"
        "a,7,80.0,TRUE,mask.png\n"
        "b,x,,maybe,https://a.de/mask.png\n"
        "c,,,,missing.png\n"
    )
    first, second, _ = rows_of(tmp_path / "a.csv")
    assert first == {
        "prompt": "a",
        "seed": 7,
        "output_compression": 80,
        "layer_decomposition": True,
        "mask_url": tmp_path / "mask.png",
    }
    assert second == {
        "prompt": "b",
        "seed": "x",
        "layer_decomposition": "maybe",
        "mask_url": "https://a.de/mask.png",
    }
    problems = problems_of(tmp_path / "a.csv")
    assert problems.keys() == {3, 4}
    assert problems[4].startswith("mask_url: there is no file ")


def test_a_cell_under_no_name_is_a_problem_not_a_loss(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",prompt\n0,a lamp\n,a boat\n")
    assert problems_of(tmp_path / "a.csv") == {
        2: "column 1 has no name in the header, but holds '0' here: name the column, or remove it"
    }


def test_one_field_under_two_letter_cases_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "n": 1, "N": 2}')
    assert problems_of(tmp_path / "a.jsonl") == {1: "the row has 'n' twice, in different letter cases"}
    (tmp_path / "a.csv").write_text("prompt,n,N\na,1,2\n")
    with pytest.raises(CliError, match="the header has 'n' twice"):
        rows_of(tmp_path / "a.csv")


def test_a_pipe_can_be_read_twice(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=('"a kite"\n',))
    writing.start()
    with opened(str(pipe)) as prompts:
        assert [list(prompts.rows()) for _ in range(2)] == [["a kite"], ["a kite"]]
        assert prompts.folder == Path()
    writing.join()


# ---------------------------------------------------------------------------------------------- what is wrong


def test_every_bad_json_line_is_named_by_its_number(file: Path) -> None:
    file.write_bytes(
        b'{"prompt": "fine"}\n'
        b"\n"
        b'{"prompt": "x", "sizee": "1:1"}\n'
        b'{"prompt": "x"\n'
        b"[1, 2]\n"
        b"\xff\xfe\n"
        b'{"prompt": ""}\n'
        b'{"prompt": "x", "key": "a"}\n'
        b'{"prompt": "x", "key": "a"}\n'
        b'{"prompt": "x", "reference_images": ["missing.png"]}\n'
        b'{"prompt": "x", "reference_images": "kite.png"}\n'
        b'{"prompt": "x", "extra": %s\n'
        b'{"prompt": "x", "n": %s}\n' % (b"[" * 100_000, b"1" * 5_000)
    )
    found = problems_of(file)
    starts = {
        3: "unknown field 'sizee': did you mean 'size'?",
        4: "not JSON: Expecting ',' delimiter in column",
        5: "a row is {",
        6: "not UTF-8 (byte 0xff in place 1)",
        7: "prompt is empty",
        9: "key 'a' is the key of row",
        10: "reference_images[0]: there is no file",
        11: "reference_images must be a list",
        12: "not JSON: maximum recursion depth",
        13: "not JSON: Exceeds the limit",
    }
    assert found.keys() == starts.keys()
    assert {number: text for number, text in found.items() if not text.startswith(starts[number])} == {}


def test_bad_encoding_is_named_in_plain_lines(file: Path) -> None:
    file.write_bytes(b"a kite\nna\xefve\n")
    assert problems_of(file) == {2: "not UTF-8 (byte 0xef in place 3): save the file as UTF-8"}


def test_every_bad_csv_row_is_named_by_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b"prompt,n,metadata\n"
        b"fine,1,\n"
        b'"in\ntwo lines",two,\n'
        b"too,1,,many\n"
        b"na\xefve,1,\n"
        b"x,1,{\n"
        b'"x" y,1,\n'
        b'"never closed,1,\n'
        b"swallowed,1,\n"
    )
    found = problems_of(tmp_path / "a.csv")
    starts = {
        3: "n must be a whole number",
        5: "4 cells under 3 columns",
        6: "not UTF-8 (byte 0xef in place 3)",
        7: "column metadata is not JSON",
        8: "not CSV: ',' expected",
        9: "not CSV: unexpected end of data",
    }
    assert found.keys() == starts.keys()
    assert {number: text for number, text in found.items() if not text.startswith(starts[number])} == {}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("prompt,sizee", "the header: unknown field 'sizee': did you mean 'size'?"),
        ("prompt,n,n", "the header has 'n' twice"),
        ("key,n", "the header has no column 'prompt'"),
        ("prompt,kye", "the header: unknown field 'kye': did you mean 'key'?"),
        ("prompt,xyzzy", "the header: unknown field 'xyzzy': known are key, "),
        ('"prompt', "not CSV: unexpected end of data"),
    ],
)
def test_a_bad_csv_header_is_told_instead_of_its_rows(tmp_path: Path, header: str, problem: str) -> None:
    (tmp_path / "a.csv").write_text(f"\n{header}\nx,1,2\ny,1,2\n")
    with pytest.raises(CliError) as told:
        check(tmp_path / "a.csv")
    assert str(told.value).startswith(f"line 2: {problem}")


def test_a_csv_file_without_a_line_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    assert check(tmp_path / "a.csv") == Checked(0, (), 0)


def test_the_listing_is_capped_and_the_count_is_not(file: Path) -> None:
    file.write_text('{"prompt": ""}\n' * (MOST_SHOWN + 2_000))
    checked = check(file)
    assert (checked.rows, checked.bad, len(checked.problems)) == (MOST_SHOWN + 2_000, MOST_SHOWN + 2_000, MOST_SHOWN)


def test_a_file_that_changed_after_its_check_ends_the_rows(file: Path) -> None:
    file.write_text('"a kite"\n{')
    with opened(str(file), "jsonl") as prompts, pytest.raises(InvalidRequest, match=r"line 2: not JSON.*meanwhile"):
        list(prompts.rows())
