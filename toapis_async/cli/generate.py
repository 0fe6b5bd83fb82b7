"""`toapis generate`: one request, from the prompt to files."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from toapis_async.cli.output import ALL_DONE
from toapis_async.cli.progress import refreshing, task_view
from toapis_async.cli.results import generation_record
from toapis_async.cli.session import SANDBOX_FOLDER, Session
from toapis_async.protocol.budget import images_of
from toapis_async.protocol.wording import count, duration
from toapis_async.request import ImageRequest

if TYPE_CHECKING:
    from pathlib import Path

    from toapis_async.cli.options import Options
    from toapis_async.cli.output import Output


async def generate(options: Options, out: Output, fields: dict[str, Any], folder: Path, timeout_s: float | None) -> int:
    """Generate, save, and print the files."""
    request = ImageRequest.of(fields)
    session = Session(options, out)
    started_s = time.monotonic()
    try:
        async with session.opened(folder / SANDBOX_FOLDER):
            view = task_view(out)
            session.watch = view.on_event
            async with refreshing(view):
                generation = await session.client.generate(request, timeout_s=timeout_s)
                files = await generation.save(folder)
    except (Exception, asyncio.CancelledError):
        session.pending.warn(out, session.status_command())
        raise
    out.note(f"{count(len(files), 'image')} in {duration(time.monotonic() - started_s)}")
    asked = images_of(request.body())
    if len(files) < asked:
        out.warn(f"the service made fewer images than asked for: {len(files)} of {asked}")
    for file in files:
        out.result(str(file))
    out.record(generation_record(generation, files))
    return ALL_DONE
