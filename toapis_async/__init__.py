"""The asyncio-native client for the ToAPIs image service.

    async with ToAPIs() as client:
        generation = await client.generate("a red kite over the sea", size="16:9")
        files = await generation.save("out")

Names are loaded when first used, so that `import toapis_async` costs nothing (aiohttp alone takes 200 ms).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toapis_async.batch.batch import Batch
    from toapis_async.batch.item import BatchItem, BatchStatistics, RunningRow
    from toapis_async.client import ToAPIs
    from toapis_async.engine.core import ClientStatistics
    from toapis_async.engine.shared.leases import SharedStatistics
    from toapis_async.errors import (
        AuthenticationFailed,
        BudgetExceeded,
        ClientStateError,
        ContentRefused,
        DownloadFailed,
        InsufficientQuota,
        InvalidRequest,
        JournalError,
        JournalLocked,
        LinkExpired,
        RateLimited,
        ServiceError,
        SessionClosed,
        SubmitUncertain,
        TaskFailed,
        TaskNotFound,
        TaskOverdue,
        ToAPIsError,
        TransportError,
        UnreadableAnswer,
        WaitTimeout,
        WebhookRejected,
    )
    from toapis_async.handle import TaskHandle
    from toapis_async.lifetime import ClientState
    from toapis_async.models import Balance, Generation, Learned, Model, Price, Upload, WebhookOutcome
    from toapis_async.request.image import ImageFields, ImageRequest, ImageRow
    from toapis_async.request.video import VideoRequest
    from toapis_async.settings import Journal, RateLimits, Settings
    from toapis_async.shared import Shared
    from toapis_async.sinks import Sink, StoredFile
    from toapis_async.task import Billing, GeneratedImage, GeneratedVideo, TaskError, TaskSnapshot, TaskStatus, Usage
    from toapis_async.webhooks import Webhooks

__version__ = "0.1.0"
__all__ = [
    "AuthenticationFailed",
    "Balance",
    "Batch",
    "BatchItem",
    "BatchStatistics",
    "Billing",
    "BudgetExceeded",
    "ClientState",
    "ClientStateError",
    "ClientStatistics",
    "ContentRefused",
    "DownloadFailed",
    "GeneratedImage",
    "GeneratedVideo",
    "Generation",
    "ImageFields",
    "ImageRequest",
    "ImageRow",
    "InsufficientQuota",
    "InvalidRequest",
    "Journal",
    "JournalError",
    "JournalLocked",
    "Learned",
    "LinkExpired",
    "Model",
    "Price",
    "RateLimited",
    "RateLimits",
    "RunningRow",
    "ServiceError",
    "SessionClosed",
    "Settings",
    "Shared",
    "SharedStatistics",
    "Sink",
    "StoredFile",
    "SubmitUncertain",
    "TaskError",
    "TaskFailed",
    "TaskHandle",
    "TaskNotFound",
    "TaskOverdue",
    "TaskSnapshot",
    "TaskStatus",
    "ToAPIs",
    "ToAPIsError",
    "TransportError",
    "UnreadableAnswer",
    "Upload",
    "Usage",
    "VideoRequest",
    "WaitTimeout",
    "WebhookOutcome",
    "WebhookRejected",
    "Webhooks",
    "__version__",
]

_HOMES = (
    "errors",
    "task",
    "models",
    "request.image",
    "request.video",
    "settings",
    "shared",
    "sinks",
    "handle",
    "batch.item",
    "batch.batch",
    "webhooks",
    "engine.shared.leases",
    "engine.core",
    "lifetime",
    "client",
)
"""Where the names live, the modules that are quick to import first."""


def __getattr__(name: str) -> object:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                value: object = getattr(module, name)
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
