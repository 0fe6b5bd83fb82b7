"""Notices for people while submissions are retried, in doubt or paused by the service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from toapis_async.events import CreditsShort, SubmitAgain, SubmitInDoubt, SubmitRetried, Throttled
from toapis_async.protocol.wording import amount, count, duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.cli.output import Output
    from toapis_async.events import Event

SAME_AGAIN_S: Final = 10.0
OTHER_REASON_S: Final = 2.0
LONG_PAUSE_S: Final = 3.0
MOST_REASONS: Final = 20


class Notices:
    """Prints a notice at once the first time, then at most every 2 s for a new reason and every 10 s for the same; why
    nothing can be submitted is told once a reason, and counted."""

    def __init__(self, out: Output, retry_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._retry_s = retry_s
        self._clock = clock
        self._last: dict[str, tuple[str, float]] = {}  #: by kind: the last reason, and when
        self._told: set[str] = set()  #: reasons for which nothing could be submitted
        self.retries: int = 0  #: of submissions

    def on_event(self, event: Event) -> None:
        if isinstance(event, SubmitRetried):
            self.retries += 1
            if event.reason not in self._told and len(self._told) < MOST_REASONS:
                self._told.add(event.reason)
                self._out.note(f"can't submit yet: {event.reason}; trying again (up to {self._retry_s:g} s)")
        elif isinstance(event, SubmitInDoubt):
            text = f"an answer was lost ({event.reason}): looking the task up by its id before anything is sent again"
            self._note("in doubt", event.reason, text)
        elif isinstance(event, SubmitAgain):
            self._note("again", "", "a submission was not to be found after all: sending it again under the same id")
        elif isinstance(event, Throttled) and event.pause_s >= LONG_PAUSE_S:
            what = "submissions" if event.category == "submit" else "queries"
            self._note(event.category, "", f"the service asks for a pause: no {what} for {duration(event.pause_s)}")
        elif isinstance(event, CreditsShort):
            whose = "the budget has" if event.of == "budget" else "the key has"
            rows, needed = count(event.rows_left, "row"), amount(round(event.needed_credits, 2))
            left = amount(round(event.left_credits, 2))
            self._out.warn(f"{rows} left for about {needed} credits, but {whose} {left} left: not all will be sent")

    def _note(self, kind: str, reason: str, text: str) -> None:
        now_s = self._clock()
        last = self._last.get(kind)
        if last is not None and now_s - last[1] < (SAME_AGAIN_S if reason == last[0] else OTHER_REASON_S):
            return
        self._last[kind] = reason, now_s
        self._out.note(text)
