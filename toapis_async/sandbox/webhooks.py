"""Events pushed to a receiver when tasks end: signed, at least once, by the documented ladder of retries.

Knows the rules for receivers, signs by the published recipe, and owns the deliveries under way.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from toapis_async.sandbox import answers
from toapis_async.sandbox.faults import DEFAULT_SLOW_S, Fault
from toapis_async.sandbox.jobs import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.sandbox.answers import BillingMode, Links
    from toapis_async.sandbox.faults import FaultPlan
    from toapis_async.sandbox.jobs import JsonObject
    from toapis_async.sandbox.tasks import Task

RETRIES_S: Final[tuple[float, ...]] = (10.0, 30.0, 120.0, 600.0, 3_600.0, 21_600.0, 86_400.0)
"""Waits before the second attempt and so on, at speed 1; then the event is given up."""
TIMEOUT_S: Final = 10.0
"""What a receiver has to answer in, whatever the speed: it does not live in the sandbox's time."""
USER_AGENT: Final = "ToAPIs-Webhook/1.0"
_NOT_CONFIGURED: Final = "webhooks are disabled, or this API key has no webhook URL or secret"
SIGNED_HEADERS: Final = ("X-ToAPIs-Webhook-Id", "X-ToAPIs-Webhook-Timestamp", "X-ToAPIs-Webhook-Signature")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST of one event. `status` is `None` when no answer came within the time-out."""

    at: float
    event_id: str
    type: str
    task_id: str | None
    number: int
    status: int | None


class Webhooks:
    """What the console holds for the key (a receiver's URL and a secret), and the events on their way there."""

    def __init__(
        self,
        clock: Callable[[], float],
        speed: float,
        faults: FaultPlan,
        *,
        links: Callable[[Task], Links],
        billing: BillingMode,
        log_size: int,
    ) -> None:
        self.log: deque[Attempt] = deque(maxlen=log_size)
        """The latest attempts, oldest first."""
        self._clock = clock
        self._speed = speed
        self._faults = faults
        self._links = links
        self._billing: BillingMode = billing
        self._url: URL | None = None
        self._secrets: tuple[str, ...] = ()
        self._session: aiohttp.ClientSession | None = None
        self._deliveries: set[asyncio.Task[None]] = set()
        self._ends: dict[str, asyncio.Event] = {}
        self._tests = 0

    def configure(self, url: str | None, secret: str | tuple[str, ...] | None) -> None:
        """Set the key's URL and secret (two while one replaces the other); `None` takes them away.

        Holds for tasks submitted from now on. Raises `ValueError` for a URL the service would not take.
        """
        self._url = None if url is None else checked_receiver(url)
        self._secrets = (secret,) if isinstance(secret, str) else secret or ()
        if any(not text.strip() for text in self._secrets):
            raise ValueError("a webhook secret is empty")

    def receiver_of(self, callback_url: str | None) -> URL | None:
        """Where a submission's event goes; `None`: nowhere. Raises `RefusedError` for a `callback_url` against the
        rules."""
        configured = self._url is not None and bool(self._secrets)
        if callback_url is None:
            return self._url if configured else None
        if self._url is None or not configured:
            raise RefusedError(400, "webhook_not_configured", _NOT_CONFIGURED)
        try:
            receiver = checked_receiver(callback_url)
        except ValueError as error:
            raise RefusedError(400, "invalid_request", f"callback_url: {error}", param="callback_url") from None
        if receiver.origin() != self._url.origin():  # the service's own text for this is not published
            message = "callback_url must have the origin of the webhook URL of this API key"
            raise RefusedError(400, "invalid_request", message, param="callback_url")
        return receiver

    def start(self) -> None:
        """Open what deliveries go through."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())

    async def aclose(self) -> None:
        """Drop what is on its way, and wait until it is gone."""
        for delivery in self._deliveries:
            delivery.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def watch(self, task: Task, receiver: URL) -> None:
        """Send this task's event there when it ends."""
        self._ends[task.task_id] = asyncio.Event()
        delivery = asyncio.get_running_loop().create_task(self._deliver(task, receiver), name="toapis-sandbox-event")
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    def reset(self) -> None:
        """Drop what is on its way, and the log; the receiver stays."""
        for delivery in self._deliveries:
            delivery.cancel()
        self._ends.clear()
        self.log.clear()

    def ended(self, task: Task) -> None:
        """A task was ended before its time."""
        if task.task_id in self._ends:
            self._ends[task.task_id].set()

    async def send_test(self) -> int | None:
        """Send an `endpoint.test` event, as the console's button does: one attempt. The receiver's answer."""
        if self._url is None or not self._secrets:
            raise RuntimeError("no receiver is configured: configure(url, secret)")
        self._tests += 1
        event = answers.test_event(f"evt_test_{self._tests}", int(self._clock()))
        return await self._post(self._url, event, None, 1)

    async def _deliver(self, task: Task, receiver: URL) -> None:
        await self._end_of(task)
        drawn = self._faults.draw("event", task.subjects)
        if task.vanished is not None or Fault.DROPPED in drawn:
            return
        if Fault.SLOW in drawn:
            late_s = drawn[Fault.SLOW]
            await asyncio.sleep((DEFAULT_SLOW_S if late_s is None else late_s) / self._speed)
        event = answers.event(task, _event_id(task), self._clock(), self._links(task), self._billing)
        for _ in range(2 if Fault.DUPLICATED in drawn else 1):
            await self._send(receiver, event, task.task_id)

    async def _end_of(self, task: Task) -> None:
        end = self._ends[task.task_id]
        while (now := self._clock()) < task.notified_at:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(task.notified_at - now, 86_400.0)):
                    await end.wait()
                    end.clear()
        del self._ends[task.task_id]

    async def _send(self, receiver: URL, event: JsonObject, task_id: str) -> None:
        """Attempts until one succeeds or the ladder ends."""
        for number, wait_s in enumerate((0.0, *RETRIES_S), 1):
            await asyncio.sleep(wait_s / self._speed)
            status = await self._post(receiver, event, task_id, number)
            if status is not None and 200 <= status < 300:
                return

    async def _post(self, receiver: URL, event: JsonObject, task_id: str | None, number: int) -> int | None:
        """One attempt, signed with a fresh timestamp. Only the status of the answer is read."""
        assert self._session is not None, "the sandbox is not started"
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        event_id, timestamp, status = str(event["id"]), str(int(self._clock())), None
        signatures = ",".join(f"v1={signature(secret, event_id, timestamp, body)}" for secret in self._secrets)
        values = dict(zip(SIGNED_HEADERS, (event_id, timestamp, signatures), strict=True))
        headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT, **values}
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.post(receiver, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        self.log.append(Attempt(self._clock(), event_id, str(event["type"]), task_id, number, status))
        return status


def signature(secret: str, event_id: str, timestamp: str, body: bytes) -> str:
    """Lower-case hex of HMAC-SHA256 over `event_id.timestamp.body`, keyed with the secret's text."""
    message = b".".join((event_id.encode(), timestamp.encode(), body))
    return hmac.digest(secret.encode(), message, hashlib.sha256).hex()


def checked_receiver(url: str) -> URL:
    """A receiver's URL: HTTPS on a public host, or anything on loopback, which the service itself would refuse.
    Raises `ValueError`."""
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError:
        raise ValueError("not a URL") from None
    if parsed.scheme not in {"http", "https"} or not host or not port:
        raise ValueError("not an http(s) URL")
    if parsed.user is not None or parsed.password is not None or parsed.fragment:
        raise ValueError("a receiver has no user, password or fragment")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        loopback, public = host == "localhost", True
    else:
        loopback, public = address.is_loopback, address.is_global
    if not loopback and (parsed.scheme != "https" or not public):
        raise ValueError("a receiver must be HTTPS on a public host (here also HTTP on loopback)")
    return parsed


def _event_id(task: Task) -> str:
    return f"evt_{hashlib.blake2b(task.task_id.encode(), digest_size=12).hexdigest()}"
