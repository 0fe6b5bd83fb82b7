"""`toapis generate`: one request, from the prompt to files."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toapis_async.cli.lines import reference
from toapis_async.cli.output import ALL_DONE, CliError
from toapis_async.cli.places import Place
from toapis_async.cli.progress import refreshing, task_view
from toapis_async.cli.results import generation_record
from toapis_async.cli.session import SANDBOX_FOLDER, Session
from toapis_async.engine.fingerprint import fingerprint
from toapis_async.protocol.budget import images_of
from toapis_async.protocol.wording import count, duration
from toapis_async.request import REQUESTS, VIDEO_MODELS, request_of
from toapis_async.settings import Journal

if TYPE_CHECKING:
    from toapis_async.cli.options import Options
    from toapis_async.cli.output import Output
    from toapis_async.request import Kind, Request


def request_from(kind: Kind | None, references: tuple[str, ...], *, mask: str | None, **fields: Any) -> Request:
    """The request that the options of the command line mean; without a kind, of the one that the model makes.

    Raises `CliError` for options of the other kind, and `InvalidRequest`.
    """
    model: str | None = fields["model"]
    kind = kind or ("video" if model in VIDEO_MODELS else "image")
    if mask is not None:
        fields["mask_url"] = reference(mask, Path())
    given = {name: value for name, value in fields.items() if value is not None}
    for name in given:
        if name not in REQUESTS[kind].field_names:
            option = "mask" if name == "mask_url" else name.replace("_", "-")
            other = "image" if kind == "video" else "video"
            raise CliError(f"--{option} is for {other}s (--kind {other}), not for {kind}s")
    if kind == "video" and model is None:
        raise CliError("--kind video needs --model, such as seedance-2 (toapis models --type video lists them)")
    if references:
        files = [reference(text, Path()) for text in references]
        given |= _video_references(str(model), files) if kind == "video" else {"reference_images": files}
    return request_of(given, kind)


def _video_references(model: str, files: list[Any]) -> dict[str, Any]:
    """The field that a video model's page lists for pictures to work from, with these in it.

    Raises `CliError` where none is known: a model that ignores a field is paid all the same.
    """
    known = VIDEO_MODELS.get(model)
    if known is not None:
        for name in ("reference_images", "image_urls"):
            if name in known.references:
                return {name: files}
        if "reference_image" in known.roles.get("image_with_roles", ()):
            return {"image_with_roles": [{"url": file, "role": "reference_image"} for file in files]}
    raise CliError(
        f"which field {model} reads pictures from is not known here: name it in a row of `toapis batch`, such as "
        f'{{"kind": "video", "model": "{model}", "image_urls": ["boat.png"], …}}'
    )


async def generate(
    options: Options, out: Output, request: Request, target: Path, timeout_s: float | None, *, embed: bool, opens: bool
) -> int:
    """Generate, save where `target` means (see `Place`), and print the files. Returns the exit code."""
    session = Session(options, out)
    started_s = time.monotonic()
    digest = (await fingerprint(request)).digest
    place = await asyncio.to_thread(Place.reserved, target, request.prompt or request.model, digest)
    try:
        async with session.opened(place.folder / SANDBOX_FOLDER, Journal(place.journal)):
            view = task_view(out, session.sandbox_name)
            session.watch = view.on_event
            async with refreshing(view):
                generation = await session.client.generate(request, timeout_s=timeout_s)
                files = await generation.save(place.folder, name=place.stem, embed=embed)
        session.pending.settled(generation.task_id, generation.client_business_id)
    finally:
        session.pending.warn(out, lambda ids: session.fetch_command(ids, place.folder))
        if not session.pending:
            await asyncio.to_thread(place.release)
    files = await asyncio.to_thread(place.named, files)
    out.note(f"{count(len(files), request.kind)} in {duration(time.monotonic() - started_s)}")
    asked = images_of(request.body())
    if len(files) < asked:
        out.warn(f"the service made fewer {request.kind}s than asked for: {len(files)} of {asked}")
    if place.file is not None and len(files) == 1 and files[0] != place.file:
        sent = files[0].suffix[1:].upper()
        out.warn(f"the service sent a file of the kind {sent}: it is {files[0].name}, not {place.file.name}")
    for file in files:
        out.result(str(file))
        if opens:
            await asyncio.to_thread(click.launch, str(file))
    out.record(generation_record(generation, files))
    return ALL_DONE
