"""Signed events for the tests of webhooks, by the sandbox's own signature: a bug in ours must not cancel itself out."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from toapis_async.sandbox.webhooks import SIGNED_HEADERS, signature

if TYPE_CHECKING:
    from toapis_async import ToAPIs, WebhookOutcome

    from ..engine.kit import FakeService

SECRET = "whsec_SECRETsecret0123456789"
URL = "https://files.example/by-event.png"


def event(task_id: str, business_id: str | None = None, *, event_id: str | None = None, **more: Any) -> dict[str, Any]:
    """The body of an event about a completed task."""
    data = {
        "task_id": task_id,
        "task_type": "image",
        "model": "gpt-image-2-vip",
        "status": "SUCCESS",
        "progress": "100%",
        "result": {"type": "image", "data": [{"url": URL}]},
        "error": None,
        "submitted_at": 1_755_000_000,
        "finished_at": 1_755_000_020,
        **({"client_business_id": business_id} if business_id else {}),
        **more,
    }
    kind = "generation.failed" if data["status"] == "FAILURE" else "generation.completed"
    return {"id": event_id or f"evt_{task_id}", "type": kind, "api_version": "v1", "created_at": 1, "data": data}


def signed(
    body: dict[str, Any] | bytes, *, secret: str = SECRET, at_s: float | None = None
) -> tuple[bytes, dict[str, str]]:
    """What `deliver` is given."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    event_id = "evt_raw" if isinstance(body, bytes) else str(body["id"])
    timestamp = str(int(time.time() if at_s is None else at_s))
    values = (event_id, timestamp, f"v1={signature(secret, event_id, timestamp, raw)}")
    return raw, dict(zip(SIGNED_HEADERS, values, strict=True))


async def deliver(client: ToAPIs, body: dict[str, Any] | bytes) -> WebhookOutcome:
    return await client.webhooks.deliver(*signed(body))


class Pusher:
    """Sends an event for every task of a `FakeService` when it ends, but for those that are lost."""

    def __init__(self, service: FakeService, client: ToAPIs) -> None:
        self._service = service
        self._client = client
        self.loses = False
        self.outcomes: list[WebhookOutcome] = []

    async def run(self) -> None:
        """Until cancelled."""
        pushed: set[str] = set()
        loop = asyncio.get_running_loop()
        while True:
            for made in list(self._service.tasks.values()):
                ended = loop.time() - made.accepted_s >= self._service.service_time_s
                if ended and made.task_id not in pushed:
                    pushed.add(made.task_id)
                    if not self.loses:
                        self.outcomes.append(await deliver(self._client, event(made.task_id, made.client_business_id)))
            await asyncio.sleep(0.25)
