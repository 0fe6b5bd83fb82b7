"""Opens what `ToAPIs(shared=…)` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toapis_async.engine.shared.host import HostStore
from toapis_async.engine.shared.port import Store
from toapis_async.shared import HOST, Shared, resolve_shared

if TYPE_CHECKING:
    from toapis_async.settings import Credentials


def checked_shared(given: str | Shared | Store | None) -> Shared | Store | None:
    """What was given, or what TOAPIS_SHARED says; a store of one's own as it is. Raises as `resolve_shared` does."""
    return given if isinstance(given, Store) else resolve_shared(given)


async def open_store(shared: Shared | Store | None, credentials: Credentials) -> Store | None:
    """Raises `ClientStateError` for what can't be used, nor will be later. A store that is only not there now is
    returned: limits never fail closed."""
    if shared is None or isinstance(shared, Store):
        return shared
    identity = shared.identity(credentials)
    if shared.kind == HOST:
        return HostStore.open(identity, shared.lease_s)
    from toapis_async.engine.shared.redis import RedisStore  # noqa: PLC0415  (an extra)

    return await RedisStore.open(shared.url, identity, shared.lease_s)
