"""What is left for looks to find when events tell of most ends."""

from __future__ import annotations

from typing import Final

MEMORY: Final = 0.8
"""How much of the share is kept from one end to the next: about the last five decide."""
LEAST: Final = 0.02
"""The share never falls below this, so that looks, though rare, go on: one may be up to 50 times as dear. Less would
save slow tasks a look or two; when events stop, the tasks then under way would be seen even later."""


class Backstop:
    """The share of ends that looks had to find, lately. 1 until events have come: looks are then as if there were
    none, so that with webhooks that never arrive nothing is later than without. The price of a look is divided by it:
    what a look finds, on average, shrinks by as much."""

    def __init__(self) -> None:
        self._share = 1.0

    @property
    def share(self) -> float:
        """From `LEAST`, when events tell of every end, to 1, when none come."""
        return max(self._share, LEAST)

    def ended(self, *, by_event: bool) -> None:
        """A task's end was told by an event, or found by a look."""
        self._share = MEMORY * self._share + (1.0 - MEMORY) * (not by_event)
