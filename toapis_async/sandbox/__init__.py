"""A stand-in for the ToAPIs image and video service, for demos, for our tests and for yours.

    async with Sandbox(speed=20) as sandbox:
        ...  # point any client at sandbox.base_url, with any key

It speaks HTTP on two loopback ports (API and files), keeps books (`sandbox.ledger`), counts requests
(`sandbox.requests`), sends events (`sandbox.webhooks`) and lets things go wrong on demand (`sandbox.faults`).
It knows nothing of the client in this package: what they agree on is the service's contract. A prompt with
`[refuse]` in it is refused with 422; one with `[fail]` fails and is refunded.
"""

from __future__ import annotations

from toapis_async.sandbox.answers import BillingMode
from toapis_async.sandbox.clock import Clock
from toapis_async.sandbox.faults import Fault, FaultPlan, Kind, Step, TimedFault
from toapis_async.sandbox.jobs import ImageJob, Job, VideoJob
from toapis_async.sandbox.ledger import Ledger, LedgerEntry
from toapis_async.sandbox.limits import TIERS, Limits, Tier
from toapis_async.sandbox.server import PillowMissingError, Sandbox
from toapis_async.sandbox.service import DuplicateIds
from toapis_async.sandbox.store import StateDirError
from toapis_async.sandbox.tasks import Failure
from toapis_async.sandbox.traffic import LoggedRequest, RequestLog
from toapis_async.sandbox.webhooks import Attempt, Webhooks

__all__ = [
    "TIERS",
    "Attempt",
    "BillingMode",
    "Clock",
    "DuplicateIds",
    "Failure",
    "Fault",
    "FaultPlan",
    "ImageJob",
    "Job",
    "Kind",
    "Ledger",
    "LedgerEntry",
    "Limits",
    "LoggedRequest",
    "PillowMissingError",
    "RequestLog",
    "Sandbox",
    "StateDirError",
    "Step",
    "Tier",
    "TimedFault",
    "VideoJob",
    "Webhooks",
]
