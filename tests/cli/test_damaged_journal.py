"""A damaged journal in a batch's folder: one line with a way out for each command, never a traceback."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine.journal_kit import make_first_version
from toapis_async.cli.run_status import JOURNAL

from .conftest import IN_A_BLINK, run

if TYPE_CHECKING:
    from collections.abc import Callable

OUT = Path("out")
COMMANDS = {
    "status": ("status", "out"),
    "status --json": ("status", "out", "--json"),
    "report": ("report", "out"),
    "dry run": ("batch", "rows.jsonl", "--out", "out", "--dry-run"),
    "batch": ("batch", "rows.jsonl", "--out", "out", *IN_A_BLINK),
}


def sql(statement: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.executescript(f"PRAGMA ignore_check_constraints = ON; PRAGMA writable_schema = ON; {statement}")

    return damage


def written(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def beside(suffix: str, content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.with_name(f"{path.name}{suffix}").write_bytes(content)

    return damage


def flipped(seed: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        flipping, changed = random.Random(seed), bytearray(content)
        for _ in range(40):
            changed[flipping.randrange(100, len(changed))] ^= 1 << flipping.randrange(8)
        return bytes(changed)

    return change


REFUSED = {
    "cut short": written(lambda content: content[: len(content) // 2]),
    "cut in its head": written(lambda content: content[:60]),
    "all zeros": written(lambda content: bytes(len(content))),
    "its last pages are zeros": written(lambda content: content[:4096] + bytes(len(content) - 4096)),
    "text": written(lambda _: b"milk and bread, and then some more of it"),
    "noise": written(lambda content: random.Random(1).randbytes(len(content))),
    "another's database": sql("PRAGMA application_id = 7"),
    "a newer one": sql("PRAGMA user_version = 99"),
    "no submissions": sql("DROP TABLE submission"),
    "no files": sql("DROP TABLE file"),
    "no facts": sql("DROP TABLE fact"),
    "a column is missing": sql("ALTER TABLE submission RENAME COLUMN stem TO stems"),
    "another schema": sql(
        "DROP TABLE submission; CREATE TABLE submission (id, run); INSERT INTO submission VALUES (1, '1')"
    ),
    "an unknown state": sql("UPDATE submission SET state = 'melted' WHERE id = 2"),
    "an unknown kind": sql("UPDATE submission SET kind = 'song' WHERE id = 1"),
    "text for a number of images": sql("UPDATE submission SET images = 'two' WHERE id = 1"),
    "text for the time of a loss": sql("UPDATE submission SET lost_at = 'noon' WHERE id = 1"),
    "a state of bytes": sql("UPDATE submission SET state = x'ff00' WHERE id = 2"),
    "bytes that are no text": sql("UPDATE submission SET key = CAST(x'ff' AS TEXT) WHERE id = 1"),
    "bytes for a run": sql("UPDATE submission SET run = x'31'"),
    "a request that is no JSON": sql("UPDATE submission SET request = '{' WHERE id = 1"),
    "a request that is a list": sql("UPDATE submission SET request = '[1]' WHERE id = 1"),
    "a request of bytes": sql("UPDATE submission SET request = x'7b7d' WHERE id = 1"),
    "an answer that is no JSON": sql("UPDATE submission SET answer = 'milk' WHERE id = 1"),
    "an answer that is a number": sql("UPDATE submission SET answer = '7' WHERE id = 1"),
    "a refusal with a status of text": sql(
        """UPDATE submission SET answer = '{"status": "x"}' WHERE state = 'refused'"""
    ),
    "text for a time": sql("UPDATE submission SET intended_at = 'noon' WHERE id = 1"),
    "a time past all": sql("UPDATE submission SET ended_at = 1e300 WHERE id = 1"),
    "an endless time": sql("UPDATE submission SET ended_at = -9e999 WHERE id = 1"),
    "text for a place": sql("UPDATE submission SET place = 'first' WHERE id = 1"),
    "text for an occurrence": sql("UPDATE submission SET occurrence = 'once' WHERE id = 1"),
    "bytes for a file's name": sql("UPDATE file SET name = x'00'"),
    "text for a file's place": sql("UPDATE file SET place = 'first'"),
    "text for a file's time": sql("UPDATE file SET saved_at = 'noon'"),
}
BORNE = {
    "one that claims to be older": sql("PRAGMA user_version = -5"),
    "an answer with a number that JSON has not": sql(
        """UPDATE submission SET answer = replace(answer, '{', '{"x": -Infinity, "y": NaN, ') WHERE id = 1"""
    ),
    "a file outside": sql("UPDATE file SET name = '../../../etc/passwd'"),
    "huge numbers": sql("UPDATE submission SET place = 9223372036854775807 WHERE id = 1"),
    "a log of noise": beside("-wal", b"noise" * 900),
    "a lock of zeros": beside(".lock", bytes(8192)),
    **{f"flipped bits {seed}": written(flipped(seed)) for seed in range(12)},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a batch with a row that is done, one that failed and one that was refused."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("rows.jsonl").write_text(
            '{"key": "k", "prompt": "a kite"}\n{"prompt": "[fail]"}\n{"prompt": "[refuse]"}\n'
        )
        assert run(*COMMANDS["batch"]).code == 1
    return folder


@pytest.fixture
def journal(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path / OUT / JOURNAL


@pytest.mark.parametrize("damage", REFUSED)
def test_a_damaged_journal_is_one_line_with_a_way_out(journal: Path, damage: str) -> None:
    REFUSED[damage](journal)
    content = journal.read_bytes()
    for name, command in COMMANDS.items():
        ran = run(*command)
        last = ran.stderr.splitlines()[-1]
        assert (name, ran.code) == (name, 2), ran.stderr
        assert last.startswith("error: "), (name, ran.stderr)
        assert ran.stderr.count("error: ") == 1
        assert any(way in last for way in ("take another path", "update toapis-async")), (name, last)
        assert len(last) < 400
    assert journal.read_bytes() == content


@pytest.mark.parametrize("damage", BORNE)
def test_what_can_be_borne_is_and_what_cannot_is_one_line(journal: Path, damage: str) -> None:
    BORNE[damage](journal)
    for command in COMMANDS.values():
        ran = run(*command)
        assert ran.code in {0, 1, 2}, ran.stderr
        assert ran.code != 2 or ran.stderr.splitlines()[-1].startswith("error: ")


def test_an_earlier_versions_journal_is_brought_up_to_date_by_its_batch(journal: Path) -> None:
    make_first_version(journal)
    for name in ("status", "report", "dry run"):
        ran = run(*COMMANDS[name])
        assert (ran.code, "run its batch again" in ran.stderr) == (2, True)
    ran = run(*COMMANDS["batch"])
    assert "going on with 3 rows: 1 done, 1 failed, 1 refused" in ran.stderr
    assert run(*COMMANDS["status"]).stdout.startswith("3 rows sent: 1 done, 1 failed, 1 refused")
