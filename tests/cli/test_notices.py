"""Why nothing can be sent, while it can't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toapis_async.cli.notices import Notices
from toapis_async.events import SubmitRetried, Throttled

if TYPE_CHECKING:
    import pytest

    from toapis_async.cli.output import Output


def test_a_reason_is_told_once_and_then_counted(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    notices = Notices(out, 120.0)
    for reason in ("no route", "502", "502", "no route", "502"):
        notices.on_event(SubmitRetried(0.0, "b1", reason, 0.5))
    assert notices.retries == 5
    assert capsys.readouterr().err.splitlines() == [
        "can't submit yet: no route; trying again (up to 120 s)",
        "can't submit yet: 502; trying again (up to 120 s)",
    ]


def test_only_a_long_pause_is_told(out: Output, capsys: pytest.CaptureFixture[str]) -> None:
    notices = Notices(out, 120.0, lambda: 0.0)
    for category, pause_s in (("submit", 1.0), ("submit", 30.0), ("submit", 31.0), ("query", 30.0)):
        notices.on_event(Throttled(0.0, category, pause_s))
    assert capsys.readouterr().err.splitlines() == [
        "the service asks for a pause: no submissions for 30 s",
        "the service asks for a pause: no queries for 30 s",
    ]
