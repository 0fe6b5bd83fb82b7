"""A task's progress as server-sent events, for a browser's `EventSource`; any framework that streams can send them.

`StreamingResponse(server_sent_events(handle), headers=HEADERS)` is all that FastAPI or Starlette need.
"""

from __future__ import annotations

import asyncio
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from toapis_async.errors import ToAPIsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from toapis_async.handle import TaskHandle
    from toapis_async.task import TaskSnapshot

__all__ = ["HEADERS", "server_sent_events"]

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
)
"""Of the response: nothing on the way may keep or gather it (`X-Accel-Buffering` is nginx's word for that)."""


async def server_sent_events(handle: TaskHandle, *, keep_alive_s: float = 15.0) -> AsyncIterator[bytes]:
    """The states of a task as they are seen: a message for each, beginning with the present one, and at the end an
    event `done` with the last, after which the page closes its `EventSource`.

    The data is JSON: `task_id`, `status`, `progress`, `urls` of the files, and `error` (`code` and `message`) of a task
    that failed, or whose watching ended. After `keep_alive_s` seconds without news a comment is sent, so that proxies
    do not close the connection. Raises nothing; a reader that leaves disturbs neither the task nor other readers.
    """
    updates = handle.updates()
    last: dict[str, Any] = {"task_id": handle.task_id, "status": None, "progress": None, "urls": [], "error": None}
    while True:
        coming = asyncio.ensure_future(anext(updates, None))
        try:
            while not (await asyncio.wait([coming], timeout=keep_alive_s))[0]:
                yield b": still there\n\n"
            snapshot = coming.result()
        except ToAPIsError as error:
            last["error"] = {"code": type(error).__name__, "message": str(error)}
            snapshot = None
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait([coming])
        if snapshot is None:
            break
        last = _record(snapshot)
        if not snapshot.status.is_final:
            yield b"data: " + json.dumps(last).encode() + b"\n\n"
    yield b"event: done\ndata: " + json.dumps(last).encode() + b"\n\n"


def _record(snapshot: TaskSnapshot) -> dict[str, Any]:
    error = snapshot.error
    return {
        "task_id": snapshot.task_id,
        "status": snapshot.status.value,
        "progress": snapshot.progress,
        "urls": [file.url for file in snapshot.files],
        "error": None if error is None else {"code": error.code, "message": error.message},
    }
