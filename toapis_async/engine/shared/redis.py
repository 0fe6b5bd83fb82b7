"""Turns and ends shared through Redis or Valkey. The only module that imports redis-py (the extra `redis`)."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from toapis_async.engine.shared.lua import arguments_of, grant_of, script
from toapis_async.engine.shared.port import STORE_TIMEOUT_S, StoreLost, check_cancelled
from toapis_async.errors import ClientStateError
from toapis_async.protocol.lenient import shorten

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from toapis_async.engine.shared.port import Outgoing
    from toapis_async.protocol.leasing import Ask, Grant
    from toapis_async.protocol.tiers import Category

_PASSING: Final = (
    "LOADING",
    "OOM",
    "MISCONF",
    "BUSY",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "READONLY",
    "UNKILLABLE",
)
"""Answers of a Redis that is in trouble, and may be out of it later; any other refusal stays one."""


KEPT_S: Final = 600
"""How long an end can be read by those who come later."""
QUIET_S: Final = 1.0
"""After such a silence the subscription is tried by a ping."""
PONG_S: Final = 1.0
"""How long the ping has to be answered."""
_PUBLISH: Final = """
local kept = 0
for i = 3, #ARGV, 2 do
    if ARGV[i + 1] == '1' then
        kept = kept + 1
        redis.call('SET', KEYS[kept], ARGV[i], 'EX', ARGV[2], 'NX')
    end
    redis.call('PUBLISH', ARGV[1], ARGV[i])
end
"""
"""ARGV: the channel, how long to keep, then messages, each with whether it is kept, under the next of KEYS. One command
for all, since the CPU of redis-py goes by commands."""


class RedisStore:
    """A connection pool and two scripts. Every key is `toapis:{identity}:…`, in one hash slot."""

    kind = "redis"

    def __init__(self, url: str, identity: str, lease_s: float) -> None:
        """Connects when first used. Raises `ClientStateError` for a URL that redis-py can't read."""
        scheme, _, rest = url.partition("://")
        try:
            self.connection: Redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
                f"{scheme.lower().replace('valkey', 'redis')}://{rest}",
                socket_timeout=STORE_TIMEOUT_S,
                socket_connect_timeout=STORE_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),  # what was taken twice would be spent twice
                protocol=2,
            )
        except (ValueError, TypeError):  # its words may quote a password
            raise ClientStateError("shared: the Redis URL can't be read; like redis://host:6379/0") from None
        self.lease_s = lease_s
        self.on_epoch: Callable[[], None] = lambda: None
        self._identity = identity
        self._script = self.connection.register_script(script())
        self._publish = self.connection.register_script(_PUBLISH)

    @classmethod
    async def open(cls, url: str, identity: str, lease_s: float) -> RedisStore:
        """A store that was reached once, or is not there now. Raises `ClientStateError` when Redis refuses what is
        asked of it: the password, or its clock inside a script."""
        store = cls(url, identity, lease_s)
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await store.connection.eval("return redis.call('TIME')", 1, store.key("submit"))
        except BaseException as error:
            check_cancelled()
            refusal = _refusal(error)
            if refusal is None and isinstance(error, (TimeoutError, exceptions.RedisError, OSError)):
                return store
            await store.aclose()
            if refusal is None:
                raise
            raise ClientStateError(f"shared: Redis refuses to be used: {refusal}") from None
        return store

    def key(self, name: str) -> str:
        """The name of a key or channel of those who share."""
        return f"toapis:{{{self._identity}}}:{name}"

    async def lease(self, category: Category, ask: Ask) -> Grant:
        """See `Store`."""
        try:
            arguments = [*arguments_of(ask), self.key("epochs")]
            answer = await self._script(keys=[self.key(category)], args=arguments)
            return grant_of(cast("Sequence[bytes]", answer))
        except (exceptions.RedisError, OSError, ValueError, TypeError, OverflowError) as error:
            raise StoreLost(reason_of(error)) from None

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """See `Channel`."""
        keys = [self.key(f"end:{each.keep_as}") for each in outgoing if each.keep_as is not None]
        arguments: list[bytes | str | int] = [self.key("ends"), KEPT_S]
        for each in outgoing:
            arguments += [each.message, int(each.keep_as is not None)]
        try:
            await self._publish(keys=keys, args=arguments)
        except (exceptions.RedisError, OSError) as error:
            raise StoreLost(reason_of(error)) from None

    async def kept(self, task_ids: Sequence[str]) -> Sequence[bytes | None]:
        """See `Channel`."""
        try:
            answer = await self.connection.mget([self.key(f"end:{task_id}") for task_id in task_ids])
        except (exceptions.RedisError, OSError) as error:
            raise StoreLost(reason_of(error)) from None
        return [message if isinstance(message, bytes) else None for message in cast("Sequence[object]", answer)]

    async def messages(self) -> AsyncGenerator[bytes | None, None]:
        """See `Channel`. Not by redis-py's `PubSub`: it connects again by itself, and nobody would know of the gap."""
        pool, connection, epochs = self.connection.connection_pool, None, self.key("epochs").encode()
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            await connection.send_command("SUBSCRIBE", self.key("ends"), self.key("epochs"))
            is_tried = False
            while True:
                check_cancelled()
                wait_s = PONG_S if is_tried else QUIET_S
                answer = cast(
                    "Sequence[bytes] | None", await connection.read_response(disable_decoding=True, timeout=wait_s)
                )
                if answer is None and is_tried:
                    raise StoreLost("Redis does not answer")
                if is_tried := answer is None:
                    await connection.send_command("PING")
                elif answer[0] == b"message" and answer[1] == epochs:
                    self.on_epoch()
                elif answer[0] == b"message":
                    yield answer[2]
                elif answer[0] == b"subscribe":
                    if answer[1] == epochs:  # the second, and both are there
                        yield None
                elif answer[0] != b"pong":
                    raise StoreLost("Redis answers what is no message")
        except (exceptions.RedisError, OSError, ValueError, TypeError, LookupError) as error:  # or no Redis at all
            raise StoreLost(reason_of(error)) from None
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)
                await pool.release(connection)

    async def aclose(self) -> None:
        """See `Store`."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self.connection.aclose()
        except (exceptions.RedisError, OSError, TimeoutError):
            pass


def reason_of(error: BaseException) -> str:
    """An error of redis-py in a few words, without the URL."""
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError):
        return f"Redis can't be reached ({type(error).__name__})"
    return f"Redis answers {shorten(str(error), 100)}"


def _refusal(error: BaseException) -> str | None:
    """Why it is of no use to try again; None when it may be."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return "the user name or password in its URL is not right"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "its certificate is not trusted"
    if isinstance(error, TypeError):
        return "an option in its URL is not known"
    if not isinstance(error, exceptions.ResponseError) or _is_passing(error):
        return None
    moved = "MOVED: it is one of a Redis Cluster, and one that has all keys is needed"
    text = moved if isinstance(error, exceptions.AskError) else shorten(str(error), 100)  # MovedError is one
    return f"{text} (it must run Lua scripts that read its TIME: Redis 5 or later, or Valkey; no Sentinel)"


def _is_passing(error: exceptions.ResponseError) -> bool:
    is_known = isinstance(error, exceptions.BusyLoadingError | exceptions.OutOfMemoryError | exceptions.ReadOnlyError)
    return is_known or str(error).startswith(_PASSING)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
