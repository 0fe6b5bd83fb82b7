"""The error table's last column, Retry-After, and back-off."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toapis_async.errors import (
    InsufficientQuota,
    InvalidRequest,
    RateLimited,
    ServiceError,
    ToAPIsError,
    TransportError,
    UnreadableAnswer,
)
from toapis_async.protocol.retry import RefusalKind, backoff_s, may_pass, refusal_kind, retry_after_s

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
NOW_S = NOW.timestamp()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", RefusalKind.FINAL),
        (400, "webhook_not_configured", RefusalKind.FINAL),
        (401, "unauthorized", RefusalKind.FINAL),
        (401, "authentication_error", RefusalKind.FINAL),
        (401, "new_api_error", RefusalKind.FINAL),
        (402, "insufficient_quota", RefusalKind.FINAL),
        (402, "402", RefusalKind.FINAL),
        (403, "", RefusalKind.FINAL),
        (404, "404", RefusalKind.FINAL),
        (408, "", RefusalKind.FINAL),
        (422, "content_policy_violation", RefusalKind.FINAL),
        (499, "", RefusalKind.FINAL),
        (429, "rate_limit_exceeded", RefusalKind.RETRYABLE),
        (429, "429", RefusalKind.RETRYABLE),
        (429, "", RefusalKind.RETRYABLE),
        (503, "rate_limit_unavailable", RefusalKind.RETRYABLE),
        (503, "model_not_found", RefusalKind.FINAL),
        (503, "new_api_error", RefusalKind.UNCERTAIN),
        (503, "", RefusalKind.UNCERTAIN),
        (500, "internal_error", RefusalKind.UNCERTAIN),
        (500, "rate_limit_unavailable", RefusalKind.UNCERTAIN),
        (502, "", RefusalKind.UNCERTAIN),
        (502, "model_not_found", RefusalKind.UNCERTAIN),
        (504, "", RefusalKind.UNCERTAIN),
        (524, "", RefusalKind.UNCERTAIN),
        (599, "", RefusalKind.UNCERTAIN),
        (301, "", RefusalKind.FINAL),
        (307, "", RefusalKind.FINAL),
        (399, "", RefusalKind.FINAL),
        (200, "unreadable", RefusalKind.UNCERTAIN),
        (101, "", RefusalKind.UNCERTAIN),
    ],
)
def test_the_kind_of_a_refusal_is_the_last_column_of_the_error_table(status: int, code: str, kind: RefusalKind) -> None:
    assert refusal_kind(ServiceError("no", status=status, code=code)) is kind


@pytest.mark.parametrize("status", [200, 400, 402, 403, 429, 500])
def test_an_empty_account_is_final_under_any_status(status: int) -> None:
    assert refusal_kind(InsufficientQuota("no", status=status, code="insufficient_quota")) is RefusalKind.FINAL


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TransportError("lost", may_have_been_accepted=True, sent=1), RefusalKind.UNCERTAIN),
        (TransportError("not sent"), RefusalKind.RETRYABLE),
        (TransportError("nobody trusts it", retryable=False), RefusalKind.FINAL),
    ],
    ids=str,
)
def test_what_the_network_did_to_a_submission(error: TransportError, kind: RefusalKind) -> None:
    assert refusal_kind(error) is kind


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (TransportError("lost", sent=1), True),
        (TransportError("not sent"), True),
        (TransportError("nobody trusts it", retryable=False), False),
        (RateLimited("slow"), True),
        (ServiceError("page", status=502), True),
        (ServiceError("fault", status=500, code="internal_error"), True),
        (ServiceError("down", status=503, code="rate_limit_unavailable"), True),
        (ServiceError("no channel", status=503, code="model_not_found"), False),
        (ServiceError("bad", status=400), False),
        (ServiceError("in a good answer", status=200), False),
        (InsufficientQuota("empty", status=429), False),
        (UnreadableAnswer("what?", status=200), False),
        (InvalidRequest("no"), False),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_may_pass_by_itself(error: ToAPIsError, passes: bool) -> None:
    assert may_pass(error) is passes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("-inf", 0.0),
        ("300.5", 300.0),
        ("1e400", 300.0),
        ("inf", 300.0),
        ("9" * 400, 300.0),
        ("nan", None),
        ("", None),
        (None, None),
        ("soon", None),
        ("7 s", None),
        (",", None),
        ("Sat, 99 Foo", None),
        ("1 Jan 2020 1:1:1 +99999", None),
        (format_datetime(NOW.replace(second=30), usegmt=True), 30.0),
        ("Sat, 01 Aug 2026 12:00:30 -0000", 30.0),
        ("Sat, 01 Aug 2026 14:00:30 +0200", 30.0),
        ("Saturday, 01-Aug-26 12:00:30 GMT", 30.0),
        (format_datetime(NOW.replace(hour=11), usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 300.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_retry_after_is_seconds_from_now_within_its_cap(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, NOW_S, 300.0) == expected


def test_a_date_without_a_zone_is_not_in_the_zone_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time  # noqa: PLC0415

    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert retry_after_s("Sat, 01 Aug 2026 12:00:30", NOW_S, 300.0) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@settings(max_examples=100)
@given(
    value=st.one_of(st.text(max_size=40), st.from_regex(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,5} [\d:]{0,9}.*")),
    now_s=st.floats(0, 1e10),
)
def test_any_header_is_a_wait_within_bounds_or_none(value: str, now_s: float) -> None:
    wait_s = retry_after_s(value, now_s, 60.0)
    assert wait_s is None or 0 <= wait_s <= 60


@settings(max_examples=200)
@given(
    failures=st.integers(1, 10_000),
    base_s=st.floats(1e-3, 10),
    cap_s=st.floats(1e-3, 100),
    seed=st.integers(0, 2**32),
)
def test_back_off_is_half_to_all_of_its_doubling_up_to_its_cap(
    failures: int, base_s: float, cap_s: float, seed: int
) -> None:
    full_s = min(base_s * 2.0 ** min(failures - 1, 1_000), cap_s)
    wait_s = backoff_s(failures, base_s=base_s, cap_s=cap_s, rng=random.Random(seed))
    if failures <= 31 or full_s <= base_s * 2**30:
        assert full_s / 2 <= wait_s <= full_s * (1 + 1e-12)
    assert 0 < wait_s <= cap_s


def test_back_off_is_spread_out() -> None:
    rng = random.Random(1)
    waits = [backoff_s(3, base_s=0.5, cap_s=10, rng=rng) for _ in range(1_000)]
    assert min(waits) == pytest.approx(1.0, abs=0.01)
    assert max(waits) == pytest.approx(2.0, abs=0.01)
