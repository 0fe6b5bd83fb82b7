"""The table, the file and the charts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from benchmarks.charts import Series, bars, scatter, write_all
from benchmarks.report import Row, table, write_json

if TYPE_CHECKING:
    from pathlib import Path

RUN = {"cpu_ms_per_task": 1.5, "gets_per_task": 4.0}
DETAILS = {
    "frontier": {"one class": [("fixed 5 s", 6.0, 2.5, 4.8), ("ours", 4.0, 2.7, 5.0), ("ours", 3.0, 3.4, 6.0)]},
    "peers": {"toapis-async": RUN, "fal-client": RUN | {"cpu_ms_per_task": 9.0}},
    "instructions": {"bare_life": 1.6e6, "life": 2.4e6},
}


def test_a_row_takes_the_median_and_shows_the_spread() -> None:
    row = Row(4, "ratio", (0.5, 0.9, 0.6), 0.7)
    assert (row.got, row.met) == (0.6, True)
    assert row.cells()[3:] == ("0.600 (0.550 .. 0.750)", "met")
    assert Row(4, "ratio", (0.8,), 0.7).cells()[3:] == ("0.800", "NOT MET")
    assert Row(4, "no goal", (0.8,)).met is None
    assert Row(3, "peers", (), 0.1, "not installed").met is None


def test_the_table_has_a_line_a_row() -> None:
    assert len(table([Row(1, "a", (1.0,)), Row(2, "b", (2.0,))]).splitlines()) == 3


def test_the_file_is_json(tmp_path: Path) -> None:
    write_json(tmp_path / "results" / "latest.json", [Row(1, "a", (1.0, 2.0), 3)], {"date": "2026-11-22"}, {})
    kept = json.loads((tmp_path / "results" / "latest.json").read_text())
    assert kept["rows"][0] == {
        "measure": 1, "what": "a", "values": [1.0, 2.0], "reach": 3, "note": "", "got": 1.5, "met": True
    }  # fmt: skip


def test_the_charts_are_well_formed_and_escape_names() -> None:
    for text in (
        scatter("a & b", "x", "y", [Series("<one>", ((1.0, 2.0), (3.0, 1.0)))]),
        bars("t", {"<a>": 1.0}, "ms"),
    ):
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  (our own)


def test_every_chart_with_figures_is_written(tmp_path: Path) -> None:
    write_all(tmp_path, DETAILS)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "cpu-ms-per-task.svg",
        "frontier-one-class.svg",
        "gets-per-task.svg",
        "instructions-of-a-life.svg",
    ]
    for path in tmp_path.iterdir():
        ET.fromstring(path.read_text())  # noqa: S314  (our own)
