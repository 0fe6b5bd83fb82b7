"""What is told of a batch at its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toapis_async.batch.item import BatchItem
from toapis_async.cli.output import in_cli_terms
from toapis_async.cli.summary import RETRY_COMMAND, RETRY_HINT, BatchSummary, balance_line, section
from toapis_async.cli.table import aligned, cut
from toapis_async.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    ContentRefused,
    InsufficientQuota,
    InvalidRequest,
    LinkExpired,
    ServiceError,
    SubmitUncertain,
    TaskFailed,
)
from toapis_async.models import Balance, Generation
from toapis_async.protocol.budget import Budget, PriceClass, Prices
from toapis_async.protocol.wording import amount
from toapis_async.request import ImageRequest

if TYPE_CHECKING:
    from toapis_async.errors import ToAPIsError

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)


def failed(key: str, error: ToAPIsError) -> BatchItem:
    return BatchItem(0, key, None, False, error=error)


def done(index: int, took_s: float | None) -> BatchItem:
    ended = None if took_s is None else BEGAN + timedelta(seconds=took_s)
    return BatchItem(index, f"k{index}", None, True, generation=Generation("t", None, None, (), BEGAN, ended))


def test_the_slowest_rows_are_told_slowest_first() -> None:
    summary = BatchSummary()
    for index, took_s in enumerate([3, 200, None, 7, 45, 7]):
        summary.note(done(index, took_s))
    assert summary.slowest() == ["3 min 20 s  k1", "      45 s  k4", "       7 s  k3"]


def test_rows_that_failed_alike_are_one_reason() -> None:
    summary = BatchSummary()
    for number in range(5):
        summary.note(failed(f"a{number}", TaskFailed("no luck", task_id=f"t{number}", code="generation_failed")))
    summary.note(failed("b", TaskFailed("too big", task_id="t", code="other")))
    assert summary.failed() == [
        "5 rows: no luck (generation_failed)",
        "  a0",
        "  a1",
        "  a2",
        "  …",
        "b: too big (other)",
    ]


def test_many_reasons_are_cut() -> None:
    summary = BatchSummary()
    for number in range(8):
        summary.note(failed(f"a{number}", TaskFailed("no luck", task_id="t", code=f"c{number}")))
    assert summary.failed()[-1] == "3 rows for other reasons"
    assert len(summary.failed()) == 6


def test_what_was_not_sent_is_no_failure_of_its_own() -> None:
    summary = BatchSummary()
    summary.note(failed("a", BudgetExceeded("could pass")))
    summary.note(failed("b", BudgetExceeded("could pass, too")))
    summary.note(failed("c", InsufficientQuota("empty", status=402)))
    assert (summary.failed(), summary.rows_stopped) == ([], 1)
    assert summary.past_budget() == ["2 rows not sent; the first, a: could pass"]


def test_a_section_has_its_name_once() -> None:
    assert section("failed", ["a", "b"]) == ["  failed   a", "           b"]
    assert section("failed", []) == []


def test_columns_line_up_in_every_script() -> None:
    assert aligned([("风筝", "1"), ("kite", "200"), ("\x1b", "3")], right={1}) == [
        "风筝    1",
        "kite  200",
        "\\x1b    3",
    ]
    assert aligned([]) == []
    assert cut("风筝风筝", 5) == "风筝…"
    assert cut("two\n lines", 20) == "two lines"


@pytest.mark.parametrize(
    ("credits_", "told"), [("1000", "1,000"), ("1E+3", "1,000"), ("0.380", "0.38"), ("12.50", "12.5"), ("100", "100")]
)
def test_credits_are_told_exactly(credits_: str, told: str) -> None:
    assert amount(Decimal(credits_)) == told


def test_a_balance_that_says_nothing_is_not_told() -> None:
    assert balance_line(Balance(), "after") is None
    assert balance_line(Balance(unlimited_quota=True), "after") == "unlimited after"
    assert balance_line(Balance(remain_credits=1234.5), "before") == "1,234.50 credits before"


def told_by(**fields: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        ImageRequest.of({"prompt": "x", **fields})
    return in_cli_terms(str(caught.value))


def test_errors_speak_the_terms_of_the_command_line() -> None:
    assert '--extra size=… of `toapis generate`, or "extra": {"size": …} in a row of ' in told_by(size="auto")
    assert "give the name of a local file, and it is uploaded for you" in told_by(reference_images=["data:image/png"])
    assert "give the name of a local file, and it is uploaded for you" in told_by(reference_images=["kite"])
    doubt = SubmitUncertain("ask client.find('ta-1') before sending it again", client_business_id="ta-1")
    assert in_cli_terms(str(doubt)) == "ask `toapis status ta-1` before sending it again"
    with pytest.raises(BudgetExceeded) as caught:
        Budget(Prices({}), most_credits=Decimal(1)).reserve(PriceClass("m", "1k"), 1)
    assert in_cli_terms(str(caught.value)).endswith("state it in credits apiece with --price m/1k=…")


def test_rows_with_fewer_images_than_asked_for_are_named() -> None:
    summary = BatchSummary()
    for index, (came, asked) in enumerate([(1, 4), (2, 2), (1, None), (0, 1), (3, 4), (2, 4)]):
        files = tuple(Path(f"{i}.png") for i in range(came))
        summary.note(BatchItem(index, f"k{index}", ImageRequest("a kite", n=asked), True, files=files))
    assert summary.fewer() == ["images than asked for came for 4 rows: k0: 1 of 4, k3: 0 of 1, k4: 3 of 4, …"]
    assert BatchSummary().fewer() == []


@pytest.mark.parametrize(
    ("error", "is_retried"),
    [
        (TaskFailed("no luck", task_id="t"), True),
        (LinkExpired("gone"), True),
        (ContentRefused("no", status=422), True),
        (ServiceError("busy", status=503), False),
        (AuthenticationFailed("no", status=401), False),
        (SubmitUncertain("lost", client_business_id="b"), False),
        (BudgetExceeded("full"), False),
    ],
)
def test_retry_failed_is_named_only_where_the_same_command_sends_nothing(error: ToAPIsError, is_retried: bool) -> None:
    summary = BatchSummary()
    summary.note(failed("a", error))
    assert summary.retry_hint() == ([RETRY_HINT] if is_retried else [])
    assert summary.retry_hint("toapis batch …") == ([RETRY_COMMAND, "toapis batch …"] if is_retried else [])
