"""Submissions whose caller went away."""

from __future__ import annotations

MOST_UNCLAIMED = 10_000
"""Ids kept for `unclaimed()`; beyond that the oldest go, so that a web app whose visitors leave does not grow."""


class Unclaimed:
    """Their client_business_ids, in their order, each once."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """Oldest first."""
        return tuple(self._ids)

    def leave(self, client_business_id: str) -> None:
        """Its caller went away. Beyond `MOST_UNCLAIMED` the oldest are forgotten."""
        self._ids[client_business_id] = None
        if len(self._ids) > MOST_UNCLAIMED:
            del self._ids[next(iter(self._ids))]

    def claim(self, client_business_id: str | None) -> None:
        """Somebody holds a handle on it again."""
        self._ids.pop(client_business_id or "", None)
