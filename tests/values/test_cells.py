"""Rows as spreadsheets and data frames hold them."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, time
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest

from toapis_async.batch.cells import plain_fields, plain_value, size_of_time
from toapis_async.batch.rows import Row, RowReader
from toapis_async.batch.source import rows_of_frame
from toapis_async.errors import InvalidRequest
from toapis_async.request import ImageRequest

NAN = float("nan")
KNOWN = ("key", "prompt", "size", "n")


class Scalar:
    """A number as numpy holds it."""

    ndim = 0

    def __init__(self, value: Any) -> None:
        self._value = value

    def item(self) -> Any:
        return self._value


class NAType:
    """Nothing, as pandas has it: it has no truth, not even in a comparison with itself."""

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class NaTType(datetime):
    """No time, as pandas has it."""


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (1.0, 1),
        (-0.0, 0),
        (1.5, 1.5),
        (float("inf"), float("inf")),
        (NAN, None),
        (NAType(), None),
        (NaTType(2026, 1, 1), None),
        (Scalar(3), 3),
        (Scalar(3.0), 3),
        (Scalar(NAN), None),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (date(2026, 11, 5), "2026-11-05"),
        (datetime(2026, 11, 5, 9, tzinfo=UTC), "2026-11-05T09:00:00+00:00"),
        (True, True),
        ("1.0", "1.0"),
        (None, None),
    ],
)
def test_a_cell_has_a_plain_value(cell: object, value: object) -> None:
    assert plain_value(cell) == value
    assert type(plain_value(cell)) is type(value)


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        ("16:09", "16:9"),
        ("3:04", "3:4"),
        ("03:04", "3:4"),
        ("1:01", "1:1"),
        ("16:09:00", "16:9"),
        ("4:09 PM", "16:9"),
        ("3:04:00 a.m.", "3:4"),
        ("12:01 am", "0:1"),
        (time(21, 9).isoformat(), "21:9"),
        ("9:16", "9:16"),
        ("2:3", "2:3"),
        ("1024:768", "1024:768"),
        ("16:09:30", "16:09:30"),
        ("16x9", "16x9"),
        ("auto", "auto"),
        (None, None),
        (5, 5),
    ],
)
def test_a_ratio_that_became_a_time_of_day_is_the_ratio_again(size: object, ratio: object) -> None:
    assert size_of_time(size) == ratio


def test_columns_match_in_any_letter_case_and_nameless_empty_ones_are_left_out() -> None:
    row = {" Prompt": "a kite", "SIZE": time(16, 9), "Unnamed: 3": NAN, "": None, "Other": 1.0, "n": NAN}
    assert plain_fields(row, KNOWN) == {"prompt": "a kite", "size": "16:9", "Other": 1, "n": None}
    assert plain_fields({"": "x"}, KNOWN) == {"": "x"}


def test_two_columns_that_mean_one_field_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="'size' twice, in different letter cases"):
        plain_fields({"size": "1:1", "Size": "16:9"}, KNOWN)


async def read_rows(*rows: object, key: str | None = None) -> list[Row]:
    with closing(RowReader(key)) as reader:
        return [await reader.read(row) for row in rows]


async def test_a_batch_reads_rows_as_data_frames_hold_them() -> None:
    rows = [
        {"Key": UUID(int=1), "Prompt": "a lamp", "n": 1.0, "size": "1:1"},
        {"Key": date(2026, 11, 5), "Prompt": "a boat", "n": NAN, "size": NAN},
        {"Key": Scalar(7), "Prompt": "a kite", "n": Scalar(2), "size": "16:09"},
        {"Key": 8.0, "Prompt": "a ship"},
        {"Key": NAN, "Prompt": "a tree"},
    ]
    read = await read_rows(*rows)
    assert [row.error for row in read] == [None] * 5
    assert [row.key for row in read[:4]] == [str(UUID(int=1)), "2026-11-05", "7", "8"]
    assert read[4].given_key is None
    assert [row.request for row in read[:3]] == [
        ImageRequest("a lamp", n=1, size="1:1"),
        ImageRequest("a boat"),
        ImageRequest("a kite", n=2, size="16:9"),
    ]
    [plain] = await read_rows({"prompt": "a lamp", "n": 1, "size": "1:1"})
    assert read[0].identity == plain.identity


async def test_a_key_column_of_the_users_own_matches_in_any_letter_case_too() -> None:
    [row] = await read_rows({"ID": Scalar(3), "prompt": "a kite"}, key="id")
    assert (row.key, row.error) == ("3", None)


async def test_a_data_frame_may_hold_lists_numbers_and_objects_as_text() -> None:
    frame = import_module("pandas").DataFrame(
        {
            "Prompt": ["a lamp", "a boat"],
            "Reference images": ["https://a.de/1.png; https://a.de/2.png", None],
            "N": ["2", "1.0"],
            "metadata": [' {"a": 1}', "no JSON"],
        }
    )
    lamp, boat = await read_rows(*rows_of_frame(frame))
    assert lamp.request == ImageRequest(
        "a lamp", reference_images=["https://a.de/1.png", "https://a.de/2.png"], n=2, metadata={"a": 1}
    )
    assert "metadata must be a mapping" in str(boat.error)


async def test_rows_of_python_keep_their_types_strict() -> None:
    [row] = await read_rows({"prompt": "a lamp", "n": "2"})
    assert "n must be a whole number" in str(row.error)
