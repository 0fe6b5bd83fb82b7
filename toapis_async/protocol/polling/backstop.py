"""What is left for polls to find when events report most ends."""

from __future__ import annotations

from typing import Final

MEMORY: Final = 0.8
"""How much of the share is kept from one end to the next: about the last five decide."""
LEAST: Final = 0.02
"""The share never falls below this, so that polls, though rare, go on: one may be up to 50 times as dear. Less would
save slow tasks a poll or two; when events stop, the tasks then under way would be seen even later."""


class Backstop:
    """The share of recent ends that polls had to find. 1 until events have come: polls are then made as if there
    were none, so that webhooks that never arrive delay nothing. The price of a poll is divided by it:
    what a poll finds, on average, shrinks by as much."""

    def __init__(self) -> None:
        self._share = 1.0

    @property
    def share(self) -> float:
        """From `LEAST`, when events report every end, to 1, when none come."""
        return max(self._share, LEAST)

    def ended(self, *, by_event: bool) -> None:
        """A task's end was reported by an event, or found by a poll."""
        self._share = MEMORY * self._share + (1.0 - MEMORY) * (not by_event)
