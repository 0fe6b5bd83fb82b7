"""What processes of one account share their limits through: `ToAPIs(shared=…)`."""

from __future__ import annotations

import hashlib
import math
import os
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from toapis_async.errors import ClientStateError, InvalidRequest

if TYPE_CHECKING:
    from attrs import Attribute

    from toapis_async.settings import Credentials

HOST: Final = "host"
OFF: Final = "off"
SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys")
_KNOWN: Final = f"known are {HOST} (the processes of one machine and user), redis://…, rediss://…, valkey://… and {OFF}"
_LEASE_S: Final = (0.05, 10.0)
_NAME: Final = re.compile(r"[\w.:@/+-]{1,100}")


def _check_url(instance: object, attribute: Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(f"shared must be text or a Shared, not {type(value).__name__}", field="shared")
    scheme, mark, rest = value.partition("://")
    if value == HOST or (mark and scheme.lower() in SCHEMES and rest.strip("/") and value.isprintable()):
        return
    # The rest is not quoted: it may hold a password.
    shown = f"{scheme[:20]}://…" if mark else value[:20] if value.isalnum() else "a text of another form"
    raise InvalidRequest(f"shared: {_KNOWN}; not {shown!r}", field="shared")


def _check_name(instance: object, attribute: Attribute[str | None], value: object) -> None:
    if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
        raise InvalidRequest("shared: a name is 1 to 100 letters, digits and .:@/+-_", field="shared")


def _check_lease(instance: object, attribute: Attribute[float], value: object) -> None:
    low, high = _LEASE_S
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"shared: lease_s must be a number of seconds, not {type(value).__name__}", field="shared")
    if not low <= value <= high:
        raise InvalidRequest(f"shared: lease_s is {low:g} to {high:g} seconds", field="shared")


@frozen
class Shared:
    """What the processes of one account share their limits through, so that together they keep to its rate.

    `url` is `"host"` (a locked file: the processes of one machine and user) or a `redis://`, `rediss://` or `valkey://`
    URL (extra `redis`). It may hold a password, so it is never shown. Raises `InvalidRequest` for anything else.
    """

    url: str = field(validator=_check_url, repr=False)
    name: str | None = field(default=None, validator=_check_name, kw_only=True)
    """Who shares: by default those with the same API key at the same address. Give several keys of one account the same
    name: the service counts by account [docs]."""
    lease_s: float = field(default=0.5, validator=_check_lease, kw_only=True)
    """For how many seconds ahead a process takes turns at a time (0.05 to 10): longer asks the store less often, and
    gives away less quickly what it turns out not to need."""

    @property
    def kind(self) -> str:
        """`"host"` or `"redis"`."""
        return HOST if self.url == HOST else "redis"

    def identity(self, credentials: Credentials) -> str:
        """Who shares, as 16 hex digits: of the key and the name nothing can be read from it."""
        who = f"name {self.name}" if self.name is not None else f"key {credentials.api_key}"
        return hashlib.sha256(f"toapis-async {credentials.base_url} {who}".encode()).hexdigest()[:16]


def resolve_shared(given: str | Shared | None) -> Shared | None:
    """What was given, else what TOAPIS_SHARED says now; None when nothing is to be shared.

    Raises `InvalidRequest` for a word that is not known, and `ClientStateError` when the extra it needs is missing.
    """
    if given is None:
        given = os.environ.get("TOAPIS_SHARED", "").strip() or OFF
    shared = given if isinstance(given, Shared) else None if given == OFF else Shared(given)
    if shared is not None and shared.kind == "redis" and find_spec("redis") is None:
        raise ClientStateError("shared: Redis needs the extra [redis]: pip install 'toapis-async[redis]'")
    return shared
