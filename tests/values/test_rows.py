"""Rows of a batch: keys that stay, and file names that never meet."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.batch.rows import Row, RowReader
from toapis_async.errors import InvalidRequest
from toapis_async.protocol.naming import digest, file_stem
from toapis_async.request import ImageRequest

if TYPE_CHECKING:
    from pathlib import Path


async def read(*raws: object, key: Any = None) -> list[Row]:
    with closing(RowReader(key)) as reader:
        return [await reader.read(raw) for raw in raws]


def message(row: Row) -> str:
    assert row.request is None
    assert row.error is not None
    return str(row.error)


# ------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    "raw",
    [
        "a kite",
        {"prompt": "a kite"},
        {"prompt": "a kite", "key": ""},
        {"prompt": "a kite", "key": None},
        ImageRequest("a kite"),
    ],
)
async def test_a_row_without_a_key_is_named_after_its_prompt_and_a_digest(raw: object) -> None:
    (row,) = await read(raw)
    assert row.request == ImageRequest("a kite")
    assert re.fullmatch(r"a-kite~[0-9a-f]{8}", row.key)
    assert (row.index, row.stem, row.error) == (0, row.key, None)


@pytest.mark.parametrize(
    ("raw", "field", "words"),
    [
        ("", "prompt", "prompt is empty"),
        ({"prompt": "a", "size": "auto"}, "size", "not supported"),
        ({"prompt": "a", "sise": "1:1"}, "sise", "did you mean 'size'"),
        ({}, "prompt", "prompt is missing"),
        (5, None, "a request is an ImageRequest, a mapping of its fields or a prompt, not int"),
        (None, None, "not NoneType"),
        ({"prompt": "a", "key": ["x"]}, "key", "a key must be a non-empty text, not ['x']"),
        ({"prompt": "a", "key": True}, "key", "not True"),
        ({"prompt": "a", "key": 0.5}, "key", "not 0.5"),
    ],
)
async def test_a_bad_row_comes_back_with_its_error_under_its_number(raw: object, field: str | None, words: str) -> None:
    first, row, last = await read("fine", raw, "fine, too")
    assert words in message(row)
    assert row.error is not None
    assert row.error.field == field
    assert (row.index, row.key, row.stem) == (1, "row-2", "")
    assert first.request is not None
    assert last.request is not None
    assert last.index == 2


async def test_a_bad_row_keeps_the_key_it_was_given_and_does_not_use_it_up() -> None:
    bad, good = await read({"key": "kite", "prompt": ""}, {"key": "kite", "prompt": "a"})
    assert bad.key == "kite"
    assert good.error is None


# ------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize(("given_key", "expected"), [("kite", "kite"), (7, "7"), ("风筝", "风筝"), (" x ", " x ")])
async def test_a_key_column_names_the_row_and_is_no_field(given_key: object, expected: str) -> None:
    raw = {"prompt": "a", "key": given_key}
    (row,) = await read(raw)
    assert row.key == expected
    assert row.request == ImageRequest("a")
    assert raw == {"prompt": "a", "key": given_key}


async def test_any_column_can_be_the_key() -> None:
    rows = await read({"prompt": "a", "name": "x"}, {"prompt": "b", "name": ""}, key="name")
    assert [rows[0].key, rows[0].request] == ["x", ImageRequest("a")]
    assert rows[1].key.startswith("b~")


async def test_a_field_of_the_request_can_be_the_key_and_stays_a_field() -> None:
    first, second = await read(
        {"prompt": "a", "client_business_id": "order-a"}, {"prompt": "b"}, key="client_business_id"
    )
    assert first.key == "order-a"
    assert first.request == ImageRequest("a", client_business_id="order-a")
    assert "no column 'client_business_id'" in message(second)


async def test_a_row_without_the_named_column_is_a_bad_row() -> None:
    missing, text, request = await read({"prompt": "a"}, "a", ImageRequest("a"), key="name")
    assert "the row has no column 'name'" in message(missing)
    for row in (text, request):
        assert "a row that is no mapping has no column 'name'" in message(row)
        assert row.error is not None
        assert row.error.field == "name"


async def test_the_default_key_column_is_a_plain_field_when_another_is_named() -> None:
    (row,) = await read({"prompt": "a", "key": "x", "name": "y"}, key="name")
    assert "unknown field 'key'" in message(row)


async def test_a_key_function_is_given_the_row_itself() -> None:
    seen: list[object] = []

    def name(raw: object) -> str:
        seen.append(raw)
        return f"n{len(seen)}"

    raws = ["a", {"prompt": "b"}, ImageRequest("c")]
    rows = await read(*raws, key=name)
    assert [row.key for row in rows] == ["n1", "n2", "n3"]
    assert seen == raws


@pytest.mark.parametrize("result", ["", None, 0.5, True, b"x"])
async def test_a_key_function_that_gives_no_key_makes_a_bad_row(result: object) -> None:
    (row,) = await read("a", key=lambda _: result)
    assert "a key must be a non-empty text" in message(row)


async def test_a_key_function_that_fails_makes_a_bad_row_with_its_reason() -> None:
    def name(raw: Any) -> str:
        raise LookupError("no such thing " + "x" * 5_000)

    (row,) = await read("a", key=name)
    assert message(row).startswith("the key function raised LookupError: no such thing")
    assert len(message(row)) < 160
    assert row.error is not None
    assert isinstance(row.error.__cause__, LookupError)


@pytest.mark.parametrize("keys", [("a", "a"), ("7", 7), (7, 7)])
async def test_a_key_used_before_makes_a_bad_row_naming_the_first(keys: tuple[object, object]) -> None:
    rows = await read("first", *({"prompt": "a", "key": key} for key in keys))
    assert f"key {str(keys[0])!r} is the key of row 2 already; keys are unique" in message(rows[2])
    assert rows[2].error is not None
    assert rows[2].error.field == "key"
    assert rows[2].key == str(keys[1])


async def test_an_endless_key_is_cut_in_messages() -> None:
    rows = await read(*({"prompt": "a", "key": key} for key in ("x" * 9_000, "x" * 9_000, ["y"] * 9_000)))
    assert len(message(rows[1])) < 150
    assert len(message(rows[2])) < 150


# ------------------------------------------------------------------------------------------------ equal rows


async def test_equal_rows_are_told_apart_by_their_occurrence() -> None:
    first, second, other, third = await read("a", {"prompt": "a"}, "b", ImageRequest("a"))
    assert [second.key, third.key] == [f"{first.key}.2", f"{first.key}.3"]
    assert other.key.startswith("b~")
    assert "." not in other.key


async def test_a_made_key_stays_when_rows_are_inserted() -> None:
    before = await read("a", "b", "a")
    after = await read("new", {"prompt": ""}, "a", "newer", "b", "a")
    assert [row.key for row in before] == [after[2].key, after[4].key, after[5].key]


async def test_equal_rows_with_keys_of_their_own_do_not_count() -> None:
    _, row = await read({"prompt": "a", "key": "x"}, "a")
    assert "." not in row.key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"size": "1:1"}, {"size": "2:1"}),
        ({"n": 1}, {"n": 2}),
        ({}, {"quality": "low"}),
        ({"metadata": {"a": 1}}, {"metadata": {"a": 2}}),
        ({"extra": {"seed": 1}}, {"extra": {"seed": 2}}),
        ({"reference_images": [b"1"]}, {"reference_images": [b"2"]}),
        ({"reference_images": [b"1", b"2"]}, {"reference_images": [b"2", b"1"]}),
        ({"reference_images": ["https://x.example/1"]}, {"reference_images": ["https://x.example/2"]}),
    ],
)
async def test_any_difference_in_the_fields_is_another_row(first: dict[str, Any], second: dict[str, Any]) -> None:
    rows = await read({"prompt": "a", **first}, {"prompt": "a", **second})
    assert rows[0].key != rows[1].key
    assert not rows[1].key.endswith(".2")


async def test_the_order_of_columns_and_members_makes_no_difference() -> None:
    mixed: dict[Any, Any] = {1: "x", "b": 2, "a": 3}
    same: dict[Any, Any] = {"a": 3, "b": 2, 1: "x"}
    first, second = await read(
        {"prompt": "a", "size": "1:1", "metadata": mixed}, {"metadata": same, "size": "1:1", "prompt": "a"}
    )
    assert second.key == f"{first.key}.2"


async def test_local_files_count_by_their_content(tmp_path: Path) -> None:
    def reference(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    files = [reference("a.png", b"1"), reference("b.png", b"1"), reference("c.png", b"2")]
    gone = [tmp_path / "gone.png", tmp_path / "gone too.png"]
    rows = await read(*({"prompt": "a", "reference_images": [file]} for file in [*files, b"1", *gone, gone[0]]))
    keys = [row.key for row in rows]
    assert keys[1] == f"{keys[0]}.2"
    assert keys[3] == f"{keys[0]}.3"
    assert len({keys[0], keys[2], keys[4], keys[5]}) == 4
    assert keys[6] == f"{keys[4]}.2"
    files[0].write_bytes(b"new")
    (again,) = await read({"prompt": "a", "reference_images": files[:1]})
    assert again.key not in keys


# ------------------------------------------------------------------------------------------------ file names


async def test_keys_that_differ_in_case_only_get_files_of_their_own() -> None:
    rows = await read(*({"prompt": "a", "key": key} for key in ("Kite", "kite", "KITE", "Straße", "STRASSE")))
    stems = [row.stem for row in rows]
    assert stems[0] == "Kite"
    assert stems[1] == f"kite~{digest('kite')}"
    assert len({stem.casefold() for stem in stems}) == 5
    assert [row.key for row in rows] == ["Kite", "kite", "KITE", "Straße", "STRASSE"]


async def test_a_key_that_is_the_made_up_name_of_another_gets_a_file_of_its_own() -> None:
    made_up = f"kite~{digest('kite')}"
    rows = await read(*({"prompt": "a", "key": key} for key in ("Kite", made_up, "kite", "a/b", file_stem("a/b"))))
    assert len({row.stem.casefold() for row in rows}) == 5


@settings(max_examples=100)
@given(keys=st.lists(st.text(st.sampled_from("aAß/~-2. "), min_size=1, max_size=4), unique=True, max_size=12))
async def test_no_two_rows_share_a_file(keys: list[str]) -> None:
    rows = await read(*({"prompt": "a", "key": key} for key in keys))
    assert all(row.error is None for row in rows)
    assert len({row.stem.casefold() for row in rows}) == len(keys)


# ------------------------------------------------------------------------------------------------ sources


def test_a_row_without_a_request_has_no_other_error_than_an_invalid_request() -> None:
    assert Row(0, "k", "", error=InvalidRequest("m")).request is None
