"""Why nothing can be sent, while it can't."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from toapis_async.events import SubmitAgain, SubmitInDoubt, SubmitRetried, Throttled
from toapis_async.protocol.wording import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.cli.output import Output
    from toapis_async.events import Event

SAME_AGAIN_S: Final = 10.0
OTHER_REASON_S: Final = 2.0
LONG_PAUSE_S: Final = 3.0


class Hindrances:
    """Tells the first time at once, then when the reason changes and now and then."""

    def __init__(self, out: Output, retry_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._retry_s = retry_s
        self._clock = clock
        self._told: dict[str, tuple[str, float]] = {}  #: by kind: the last reason, and when

    def heard(self, event: Event) -> None:
        if isinstance(event, SubmitRetried):
            text = f"can't submit yet: {event.reason}; trying again (up to {self._retry_s:g} s)"
            self._tell("retried", event.reason, text)
        elif isinstance(event, SubmitInDoubt):
            text = f"an answer was lost ({event.reason}): looking the task up by its id before anything is sent again"
            self._tell("in doubt", event.reason, text)
        elif isinstance(event, SubmitAgain):
            self._tell("again", "", "a submission was not to be found after all: sending it again under the same id")
        elif isinstance(event, Throttled) and event.pause_s >= LONG_PAUSE_S:
            what = "submissions" if event.category == "submit" else "looks at tasks"
            self._tell(event.category, "", f"the service asks for a pause: no {what} for {duration(event.pause_s)}")

    def _tell(self, kind: str, reason: str, text: str) -> None:
        now_s = self._clock()
        last = self._told.get(kind)
        if last is not None and now_s - last[1] < (SAME_AGAIN_S if reason == last[0] else OTHER_REASON_S):
            return
        self._told[kind] = reason, now_s
        self._out.note(text)
