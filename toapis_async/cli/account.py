"""`toapis status`, `fetch`, `balance`, `upload` and `models`."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from attrs import asdict

from toapis_async.cli.output import ALL_DONE, SOME_FAILED, CliError, exit_code_of
from toapis_async.cli.places import left_in
from toapis_async.cli.results import billing_record, generation_record, time_record
from toapis_async.cli.session import SANDBOX_FOLDER, Session
from toapis_async.engine.threads import in_thread
from toapis_async.errors import ToAPIsError
from toapis_async.protocol.token import decode_token
from toapis_async.protocol.wording import count
from toapis_async.settings import Journal
from toapis_async.task import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from toapis_async.cli.options import Options
    from toapis_async.cli.output import Output
    from toapis_async.handle import TaskHandle
    from toapis_async.models import Balance, Generation, Upload
    from toapis_async.request import Kind
    from toapis_async.task import TaskSnapshot

Name = TypeVar("Name")
Found = TypeVar("Found")


async def status(
    options: Options, out: Output, task_ids: tuple[str, ...], kind: Kind | None, *, watch: bool = False
) -> int:
    """Print one line per task; with `watch`, one at each change until all have ended. Returns the exit code."""

    def show(_: str, snapshot: TaskSnapshot) -> None:
        out.result(_status_line(snapshot))
        out.record(_status_record(snapshot))

    async with Session(options, out).opened(known_sandbox()) as session:

        async def query(task_id: str) -> TaskSnapshot:
            token = decode_token(task_id)
            known = (task_id, kind) if token is None else (token.query_id, token.kind)
            return await session.client.status(*known)

        async def follow(task_id: str) -> TaskSnapshot:
            handle = session.client.attach(task_id, kind)
            async for snapshot in handle.updates():
                if not snapshot.status.is_final:
                    show(task_id, snapshot)
            assert handle.snapshot is not None
            failed.extend([task_id] if handle.status is TaskStatus.FAILED else [])
            return handle.snapshot

        failed: list[str] = []
        exit_code = await _each(out, task_ids, follow if watch else query, show)
        return exit_code or (SOME_FAILED if failed else ALL_DONE)


async def fetch(
    options: Options, out: Output, task_ids: tuple[str, ...], folder: Path, kind: Kind | None, *, embed: bool
) -> int:
    """Wait for tasks, save their files into `folder` and print the paths. Returns the exit code.

    What a `generate` that was cut short left in the folder gives the names, and is removed."""
    left = await asyncio.to_thread(left_in, folder, task_ids)
    async with Session(options, out).opened(known_sandbox(folder)) as session:
        client = session.client

        async def saved(task_id: str) -> tuple[Generation, tuple[Path, ...]]:
            place = left.get(task_id)
            found = await _saved(client.attach(task_id, kind), folder, name=place.stem if place else None, embed=embed)
            if place is not None:
                await asyncio.to_thread(place.release)
            return found

        return await _each(out, task_ids, saved, partial(_show_saved, out))


async def fetch_unsaved(options: Options, out: Output, journal: Path, folder: Path, *, embed: bool) -> int:
    """Save what a journal's plain submissions made and nobody saved, and print the paths. Returns the exit code."""
    if await in_thread(_is_folder_without_journal, journal):
        raise CliError(f"{journal} holds no journal that processes share; that of a batch is {journal}/journal.sqlite")
    async with Session(options, out).opened(known_sandbox(folder), Journal(journal)) as session:
        handles = {handle.task_id: handle for handle in session.client.recovered()}
        if not handles:
            out.note(f"{journal} holds no plain submission to be saved (a batch's rows are saved by its own command)")

        async def saved(task_id: str) -> tuple[Generation, tuple[Path, ...]]:
            return await _saved(handles[task_id], folder, embed=embed)

        exit_code = await _each(out, tuple(handles), saved, partial(_show_saved, out))
        further = session.client.statistics().recoverable - len(handles)
        if further > 0:
            out.note(f"{count(further, 'older submission')} to be saved: the same command goes on with them")
        return exit_code


def _is_folder_without_journal(path: Path) -> bool:
    return path.is_dir() and not any(path.glob("*.journal"))


async def _saved(
    handle: TaskHandle, folder: Path, *, embed: bool, name: str | None = None
) -> tuple[Generation, tuple[Path, ...]]:
    generation = await handle
    return generation, await generation.save(folder, name=name, embed=embed)


def _show_saved(out: Output, _: str, saved: tuple[Generation, tuple[Path, ...]]) -> None:
    generation, files = saved
    for file in files:
        out.result(str(file))
    out.record(generation_record(generation, files))


async def balance(options: Options, out: Output, scope: Literal["key", "user"]) -> int:
    """Print the balance of the key or the account."""
    async with Session(options, out).opened(known_sandbox()) as session:
        found = await session.client.balance(scope)
    for line in _balance_lines(found):
        out.result(line)
    out.record({"scope": scope, **asdict(found)})
    return ALL_DONE


async def upload(options: Options, out: Output, files: tuple[Path, ...]) -> int:
    """Upload files and print their URLs."""
    async with Session(options, out).opened(Path(SANDBOX_FOLDER)) as session:

        def show(file: Path, sent: Upload) -> None:
            out.result(sent.url)
            out.record({"file": str(file), **asdict(sent)})

        return await _each(out, files, session.client.upload, show)


async def _each(
    out: Output,
    names: tuple[Name, ...],
    query: Callable[[Name], Awaitable[Found]],
    show: Callable[[Name, Found], None],
) -> int:
    """Run `query` for all names at once and show the results in their order; an error is printed in its place.

    Returns the exit code.
    """

    async def found_or_error(name: Name) -> Found | ToAPIsError:
        try:
            return await query(name)
        except ToAPIsError as error:
            return error

    exit_code = ALL_DONE
    async with asyncio.TaskGroup() as group:
        queries = [group.create_task(found_or_error(name)) for name in names]
        for name, asked in zip(names, queries, strict=True):
            found = await asked
            if isinstance(found, ToAPIsError):
                out.failure(found, name=str(name))
                exit_code = max(exit_code, exit_code_of(found))
            else:
                show(name, found)
    return exit_code


def known_sandbox(folder: Path | None = None) -> Path | None:
    """The sandbox that `generate --sandbox` left in `folder`, or in this one; None (in memory) where there is none."""
    places = [Path(SANDBOX_FOLDER)] if folder is None else [folder / SANDBOX_FOLDER, Path(SANDBOX_FOLDER)]
    return next((place for place in places if place.is_dir()), None)


def _status_line(snapshot: TaskSnapshot) -> str:
    progress = "" if snapshot.progress is None else f"{snapshot.progress}%"
    ending = "  ".join(file.url for file in snapshot.files)
    if snapshot.error is not None:
        ending = f"{snapshot.error.message}{f' ({snapshot.error.code})' if snapshot.error.code else ''}"
    return f"{snapshot.task_id}  {snapshot.status.replace('_', ' '):<11}  {progress:>4}  {ending}".rstrip()


def _status_record(snapshot: TaskSnapshot) -> dict[str, Any]:
    return {
        "ok": True,
        "task_id": snapshot.task_id,
        "client_business_id": snapshot.client_business_id,
        "status": snapshot.status.value,
        "raw_status": snapshot.raw_status,
        "progress": snapshot.progress,
        "model": snapshot.model,
        "urls": [file.url for file in snapshot.files],
        "created_at": time_record(snapshot.created_at),
        "completed_at": time_record(snapshot.completed_at),
        "expires_at": time_record(snapshot.expires_at),
        "error": asdict(snapshot.error) if snapshot.error else None,
        "billing": billing_record(snapshot.billing),
    }


def _balance_lines(balance: Balance) -> list[str]:
    left = "unlimited" if balance.unlimited_quota else _amount(balance.remain_credits, balance.credits_per_usd)
    used = _amount(balance.used_credits, balance.credits_per_usd)
    return [f"left  {left}", f"used  {used}"]


def _amount(credits_: float | None, per_usd: float | None) -> str:
    if credits_ is None:
        return "not stated"
    usd = f"  (${credits_ / per_usd:,.2f})" if per_usd else ""
    return f"{credits_:>14,.2f} credits{usd}"
