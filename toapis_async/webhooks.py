"""Events pushed to us: `client.webhooks`. See `toapis_async.receivers` for servers that call it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from toapis_async.errors import ClientStateError, WebhookRejected
from toapis_async.models import WebhookOutcome
from toapis_async.protocol.signature import verify
from toapis_async.protocol.webhook import decode_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.engine.core import Engine
    from toapis_async.protocol.signature import Headers


class Webhooks:
    """Takes the service's events and resolves the tasks they are about, in whichever process they are watched when ends
    are shared. Made by `client.webhooks`."""

    def __init__(self, secrets: tuple[str, ...], opened: Callable[[], Engine]) -> None:
        if not secrets:
            raise ClientStateError("webhooks are off: give the key's secret with Settings(webhook_secrets=…)")
        self._secrets = secrets
        self._opened = opened

    async def deliver(self, body: bytes, headers: Headers) -> WebhookOutcome:
        """Verify an event and resolve the task it is about. Waits for nothing, so that the service is answered in time;
        with `ToAPIs(shared="redis://…")` for a second or two at most, until another process's event is handed on.

        `body` is the raw body: one that was parsed and written anew bears another signature. Raises `WebhookRejected`,
        whose `status` is what to answer: 503 while the client is not open (yet, or any more), or when the event is of
        no task of this client and could not be handed on; nothing was taken then, and the service comes again.
        """
        if not isinstance(body, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"deliver takes the raw body as bytes, not {type(body).__name__}")
        body = bytes(body)
        event_id = verify(body, headers, self._secrets, time.time())
        try:
            engine = self._opened()
        except ClientStateError as error:
            raise WebhookRejected(f"the event can't be taken: {error}", status=503) from error
        event = decode_event(body, event_id)
        outcome = engine.tasks.receive(event)
        if engine.ends is None or (end := event.end) is None:
            return outcome
        if outcome is WebhookOutcome.EARLY:
            engine.ends.pass_on(end)
        elif outcome is WebhookOutcome.UNKNOWN_TASK:
            if not await engine.ends.hand_on(end):
                raise WebhookRejected("the event could not be handed on to the process that has its task", status=503)
            return WebhookOutcome.HANDED_ON
        return outcome

    def __repr__(self) -> str:
        return f"<Webhooks, {len(self._secrets)} secret{'s' if len(self._secrets) > 1 else ''}>"
