"""Keys: who a request comes from. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from toapis_async.sandbox.service import Caller

if TYPE_CHECKING:
    from collections.abc import Mapping

ONLY_USER = "user"


class KeyRing:
    """The keys that are let in; without a list, any non-empty one is, and all belong to one user."""

    def __init__(self, keys: Mapping[str, str] | None) -> None:
        self._keys = None if keys is None else dict(keys)

    def caller(self, headers: Mapping[str, str]) -> Caller | None:
        """Who sent these headers; `None` when the service does not know them."""
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            return None
        user = ONLY_USER if self._keys is None else self._keys.get(key)
        return None if user is None else Caller(user, hashlib.sha256(key.encode()).hexdigest()[:16])
