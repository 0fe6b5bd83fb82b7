"""What a batch may spend, what it would spend, and what stops it."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toapis_async.batch.rows import RowReader
from toapis_async.cli import dry_run
from toapis_async.engine.journal.records import Intent, Record, State
from toapis_async.errors import TransportError
from toapis_async.protocol.budget import Budget, Prices
from toapis_async.sandbox import Sandbox

from .conftest import IN_A_BLINK, results_of, run

if TYPE_CHECKING:
    from .conftest import Ran


@pytest.fixture
def rows() -> str:
    written = [{"key": "small", "prompt": "a kite"}, {"key": "two", "prompt": "kites", "n": 2}]
    written += [{"key": "big", "prompt": "a big kite", "resolution": "2k", "quality": "high"}]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in written))
    return "rows.jsonl"


def batch(rows: str, *options: str) -> Ran:
    return run("batch", rows, "--out", "out", *options)


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: Sandbox) -> None:
        raise AssertionError

    monkeypatch.setattr(Sandbox, "start", never)


# ---------------------------------------------------------------------------------------------- caps


def test_what_does_not_fit_is_not_sent_and_told(rows: str, sandboxes: list[Sandbox]) -> None:
    ran = batch(rows, "--budget-credits", "5", "--price", "1.5", "--price", "gpt-image-2-vip/2k=2", *IN_A_BLINK)
    assert ran.code == 1
    assert [entry.request["prompt"] for entry in sandboxes[0].ledger] == ["a kite", "kites"]
    assert results_of(Path("out"))[2]["error"]["type"] == "BudgetExceeded"
    assert "2 of 3 done, 0 failed, 1 not sent in" in ran.stderr
    assert re.search(
        r"3 rows left for about [\d.]+ credits, but the budget has [\d.]+ left: not all will be", ran.stderr
    )
    assert "  budget   1 row not sent; the first, big: not sent: 1 more image for 2 credits" in ran.stderr
    assert "  credits  4.5 of 5 spent" in ran.stderr
    again = batch(rows, "--budget-credits", "6.5", "--price", "1.5", "--price", "gpt-image-2-vip/2k=2", *IN_A_BLINK)
    assert (again.code, "6.5 of 6.5 spent" in again.stderr) == (0, True)


def test_a_cap_on_images_needs_no_price(rows: str, sandboxes: list[Sandbox]) -> None:
    ran = batch(rows, "--max-images", "3", *IN_A_BLINK)
    assert ran.code == 1
    assert "2 of 3 done, 0 failed, 1 not sent in" in ran.stderr
    assert len(sandboxes[0].ledger) == 2


def test_a_budget_without_prices_goes_by_those_of_the_service(rows: str, sandboxes: list[Sandbox]) -> None:
    ran = batch(rows, "--budget-credits", "1000000", *IN_A_BLINK)
    assert (ran.code, len(sandboxes[-1].ledger)) == (0, 3)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_budget_without_a_price_for_each_row_is_misuse_and_sends_nothing(
    sandboxes: list[Sandbox], options: tuple[str, ...]
) -> None:
    rows = [{"prompt": "a kite"}, {"prompt": "by token", "model": "gpt-image-2.5-vip"}, {"prompt": "?", "model": "new"}]
    Path("some.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    ran = batch("some.jsonl", "--budget-credits", "5", *options, *IN_A_BLINK)
    assert ran.code == 2
    assert ran.stderr == (
        "error: a budget needs prices, and 2 rows have none, stated or the service's: add --price gpt-image-2.5-vip="
        "CREDITS --price new=CREDITS (or --price CREDITS for all); nothing was sent\n"
    )
    assert not Path("out").exists()
    assert [len(sandbox.ledger) for sandbox in sandboxes] == [0]


@pytest.mark.parametrize("price", ["", "x", "-1", "nan", "m=", "=3", "a/b/c/d=3", "m//high=3", "m=two"])
def test_a_price_that_is_none_is_misuse(rows: str, price: str) -> None:
    ran = batch(rows, "--price", price, *IN_A_BLINK)
    assert (ran.code, len(ran.stderr.splitlines())) == (2, 1)
    assert "is no [MODEL/RESOLUTION/QUALITY=]CREDITS, such as 2.5 for all" in ran.stderr


@pytest.mark.parametrize("amount", ["x", "-1", "inf"])
def test_a_budget_that_is_none_is_misuse(rows: str, amount: str) -> None:
    ran = batch(rows, "--budget-credits", amount, "--price", "1", *IN_A_BLINK)
    assert (ran.code, "is no amount of credits" in ran.stderr) == (2, True)


# ---------------------------------------------------------------------------------------------- dry runs


@pytest.mark.usefixtures("no_sandbox")
def test_a_dry_run_needs_no_key_sends_nothing_and_leaves_nothing(rows: str) -> None:
    ran = batch(rows, "--dry-run", "--price", "1.5", "--price", "gpt-image-2-vip/2k=12")
    assert ran.code == 0
    assert ran.stdout.splitlines() == [
        "3 of 3 rows would be sent: 4 images, 16.5 credits",
        "  takes about 30 s to 2 min 00 s: a task 30 s to 2 min 00 s, as usual",
        "",
        "  class                      rows  images  each  credits",
        "  gpt-image-2-vip/1k/medium     2       3   1.5      4.5",
        "  gpt-image-2-vip/2k/high       1       1    12       12",
        "",
        "  small  a kite",
        "  two    kites",
        "  big    a big kite",
    ]
    assert ran.stderr == "a dry run: nothing was sent\n"
    assert sorted(path.name for path in Path().iterdir()) == ["rows.jsonl"]


def test_rows_that_differ_in_their_references_alone_are_one_line_of_a_dry_run() -> None:
    links = [[], ["https://x.example/a.png"], ["https://x.example/a.png", "https://x.example/b.png"]]
    rows = [json.dumps({"prompt": "a kite", "reference_images": each}) for each in links]
    Path("references.jsonl").write_text("\n".join(rows))
    ran = batch("references.jsonl", "--dry-run", "--price", "2")
    assert [line for line in ran.stdout.splitlines() if "gpt-image" in line] == [
        "  gpt-image-2-vip/1k/medium     3       3     2        6"
    ]


def test_a_dry_run_without_prices_says_nothing_of_credits(rows: str) -> None:
    ran = batch(rows, "--dry-run")
    assert ran.stdout.startswith("3 of 3 rows would be sent: 4 images\n")
    assert "credits" not in ran.stdout
    half = batch(rows, "--dry-run", "--price", "gpt-image-2-vip/2k=12")
    assert half.stdout.startswith("3 of 3 rows would be sent: 4 images, 12 credits and what has no price\n")


def test_a_dry_run_with_a_key_counts_by_the_services_prices(rows: str, sandboxes: list[Sandbox]) -> None:
    ran = batch(rows, "--dry-run", "--price", "gpt-image-2-vip/2k=12", *IN_A_BLINK)
    foretold = Decimal(ran.stdout.splitlines()[0].split(" images, ")[1].removesuffix(" credits"))
    assert sorted(path.name for path in Path().iterdir()) == ["rows.jsonl"]
    assert sandboxes[0].requests.count("submit") == 0
    batch(rows, *IN_A_BLINK)
    charged = sum(entry.credits for entry in sandboxes[1].ledger if entry.request["prompt"] != "a big kite")
    assert float(foretold) == pytest.approx(charged + 12)


def test_a_dry_run_goes_on_when_the_services_prices_are_not_to_be_had(
    rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object, **__: object) -> Any:
        raise TransportError("no answer")

    monkeypatch.setattr("toapis_async.client.ToAPIs.prices", silent)
    ran = batch(rows, "--dry-run", *IN_A_BLINK)
    assert ran.code == 0
    assert ran.stdout.splitlines()[0] == "3 of 3 rows would be sent: 4 images"
    assert "the service's prices are not to be had: no answer" in ran.stderr


def test_a_dry_run_tells_how_long_it_will_take_and_why() -> None:
    Path("many.txt").write_text("".join(f"kite number {number}\n" for number in range(350)))
    pace = "a task 30 s to 2 min 00 s, as usual; 5 submissions a second after the first 50"
    assert batch("many.txt", "--dry-run").stdout.splitlines()[1] == f"  takes about 1 min 30 s to 3 min 00 s: {pace}"
    assert "16.7 submissions a second" in batch("many.txt", "--dry-run", "--tier", "vip").stdout
    assert batch("many.txt", "--dry-run", "--max-in-flight", "50").stdout.splitlines()[1] == (
        f"  takes about 3 min 30 s to 14 min 00 s: {pace}; 50 tasks at once"
    )
    Path("few.txt").write_text("a kite\n")
    assert ": a task 30 s to 2 min 00 s, as usual\n" in batch("few.txt", "--dry-run").stdout
    assert "  takes about 1.5 s to 6.0 s: " in batch("few.txt", "--dry-run", "--sandbox").stdout
    Path("films.jsonl").write_text('{"kind": "video", "model": "kling-v3", "prompt": "a kite"}\n')
    assert "takes about 1 min 00 s to 5 min 00 s" in batch("films.jsonl", "--dry-run").stdout


def test_a_dry_run_goes_by_the_times_of_earlier_passes() -> None:
    Path("p.txt").write_text("".join(f"kite {number}\n" for number in range(6)))
    assert batch("p.txt", *IN_A_BLINK).code == 0
    Path("p.txt").write_text("".join(f"kite {number}\n" for number in range(9)))
    line = batch("p.txt", "--dry-run", "--sandbox").stdout.splitlines()[-6]
    assert "as in earlier passes" in batch("p.txt", "--dry-run", "--sandbox").stdout, line


def test_a_dry_run_foretells_what_the_run_then_does(rows: str, sandboxes: list[Sandbox]) -> None:
    Path("first.jsonl").write_text('{"key": "two", "prompt": "kites", "n": 2}\n{"key": "bad", "prompt": "[refuse]"}\n')
    assert batch("first.jsonl", *IN_A_BLINK).code == 1
    with Path(rows).open("a") as file:
        file.write('{"key": "bad", "prompt": "[refuse]"}\n')
    caps = ("--budget-credits", "5", "--price", "1.5")
    foretold = batch(rows, "--dry-run", "--json", *caps)
    assert {row["key"]: row["would"] for row in foretold.records} == {
        "small": "send",
        "two": "done",
        "big": "over budget",
        "bad": "failed",
    }
    assert foretold.records[0] == {
        "index": 0,
        "key": "small",
        "would": "send",
        "prompt": "a kite",
        "class": "gpt-image-2-vip/1k/medium",
        "images": 1,
        "credits": "1.5",
    }
    assert [row["would"] for row in batch(rows, "--dry-run", "--json", "--retry-failed").records] == [
        "send",
        "done",
        "send",
        "send",
    ]
    assert [row["would"] for row in batch(rows, "--dry-run", "--json", "--overwrite").records] == ["send"] * 4
    ran = batch(rows, *caps, *IN_A_BLINK)
    assert ran.code == 1
    assert {row["key"]: (row["error"] or {}).get("type") for row in results_of(Path("out"))} == {
        "small": None,
        "two": None,
        "big": "BudgetExceeded",
        "bad": "ContentRefused",
    }
    assert sandboxes[1].requests.count("submit") == 1


@pytest.mark.parametrize(
    ("state", "files", "outcome"),
    [
        (State.INTENT, {}, "look up"),
        (State.WITHDRAWN, {}, "send"),
        (State.REFUSED, {}, "failed"),
        (State.ACCEPTED, {}, "running"),
        (State.COMPLETED, {}, "fetch"),
        (State.COMPLETED, {0: "a.png"}, "done"),
        (State.FAILED, {}, "failed"),
    ],
)
async def test_what_an_earlier_pass_left_of_a_row_decides(state: State, files: dict[int, str], outcome: str) -> None:
    reader = RowReader(None)
    row = await reader.read("a kite")
    reader.close()
    assert row.identity is not None
    intent = Intent("b1", row.identity.digest, row.identity.text, run="1")
    known = Record(intent, state, "t1", "t1", None, 1.0, 2.0, 3.0, 1, 1, files=files)
    found = dry_run._outcome(row, {"prompt": "a kite"}, lambda *_: known, Budget(Prices({})), retry_failed=False)
    assert found == outcome


def test_a_dry_run_names_a_row_that_was_changed_since(rows: str) -> None:
    assert batch(rows, *IN_A_BLINK).code == 0
    Path(rows).write_text('{"key": "small", "prompt": "another kite"}\n')
    ran = batch(rows, "--dry-run")
    assert ran.stdout.splitlines() == [
        "0 of 1 row would be sent: 0 images",
        "  1  changed since they were sent, and refused: give them other keys",
    ]


# ---------------------------------------------------------------------------------------------- the account


def test_the_balance_is_told_as_the_account_says_it(rows: str) -> None:
    ran = batch(rows, *IN_A_BLINK)
    before, after = [line.split() for line in ran.stderr.splitlines() if "credits before" in line or "after" in line]
    assert before == ["balance", "100,000.00", "credits", "before"]
    assert Decimal(after[0].replace(",", "")) < 100_000


def test_a_balance_that_cannot_be_had_is_left_out(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> Any:
        raise TransportError("no answer")

    monkeypatch.setattr("toapis_async.client.ToAPIs.balance", silent)
    ran = batch(rows, *IN_A_BLINK)
    assert (ran.code, "balance" in ran.stderr) == (0, False)


@pytest.mark.parametrize(
    ("account", "told", "way_out"),
    [
        (
            {"credits": 0.0},
            "(HTTP 402, insufficient_quota)",
            "top the account up; the same command then sends the rest",
        ),
        ({"keys": {}}, "(HTTP 401, unauthorized)", "see to the key; the same command then sends the rest"),
    ],
)
def test_an_account_that_can_pay_no_more_stops_the_batch_at_once(
    monkeypatch: pytest.MonkeyPatch, sandboxes: list[Sandbox], account: dict[str, Any], told: str, way_out: str
) -> None:
    Path("many.txt").write_text("".join(f"kite number {number}\n" for number in range(300)))
    with monkeypatch.context() as patch:
        made = Sandbox.__init__
        patch.setattr(Sandbox, "__init__", lambda self, **given: made(self, **{**given, **account}))
        ran = batch("many.txt", *IN_A_BLINK)
    assert ran.code == 1
    stopped, *_ = ran.stderr.splitlines()
    assert stopped.startswith("error: stopped, for each further row would meet the same: ")
    assert stopped.endswith(told)
    assert any(
        word in stopped for word in ("same: the service refuses the API key: ", "same: the balance is too low: ")
    )
    assert "0 of 300 done, 0 failed, 300 not sent in" in ran.stderr
    assert way_out in ran.stderr
    assert sandboxes[0].requests.count("submit") < 100
    assert batch("many.txt", "--dry-run").stdout.startswith("300 of 300 rows would be sent")
