"""What a batch was made from, on its page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.report.kit import draw, rows_of
from toapis_async.cli.references import references_in

from .conftest import IN_A_BLINK, run

if TYPE_CHECKING:
    from pathlib import Path


def test_local_references_are_kept_small_beside_the_page_and_links_stay_links(tmp_path: Path) -> None:
    logo = draw(tmp_path / "pictures" / "logo.png", 800, 600)
    rows = [
        {"key": "both", "prompt": "a", "reference_images": [logo, "https://files.test/a.png"]},
        {"key": "again", "prompt": "b", "reference_images": [logo]},
        {"key": "none", "prompt": "c"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    ran = run("batch", "p.jsonl", "--out", "out", *IN_A_BLINK)
    assert ran.code == 0, ran.stderr
    [small] = (tmp_path / "out" / "thumbs" / "references").iterdir()
    shown = {row["key"]: row.get("references") for row in rows_of(tmp_path / "out" / "index.html")}
    link = f"thumbs/references/{small.name}"
    local = {"name": small.name, "link": link, "thumb": link}
    assert shown == {
        "both": [local, {"name": "https://files.test/a.png", "link": "https://files.test/a.png"}],
        "again": [local],
        "none": None,
    }
    assert run("report", "out").code == 0
    assert [row.get("references") for row in rows_of(tmp_path / "out" / "index.html")][1] == [local]


def test_what_a_journal_names_is_never_a_path(tmp_path: Path) -> None:
    hostile = {"content": "../../etc/passwd"}
    fields = {
        "reference_images": [hostile, {"path": "/etc/passwd"}, "/etc/passwd", 7],
        "image_with_roles": [{"url": hostile}],
    }
    assert references_in(tmp_path, fields) == ()
