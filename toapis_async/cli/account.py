"""`toapis status`, `balance`, `upload` and `models`: one question each, or one a name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from attrs import asdict

from toapis_async.cli.output import ALL_DONE, exit_code_of
from toapis_async.cli.results import billing_record, time_record
from toapis_async.cli.session import SANDBOX_FOLDER, Session
from toapis_async.cli.table import aligned
from toapis_async.errors import ToAPIsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from toapis_async.cli.options import Options
    from toapis_async.cli.output import Output
    from toapis_async.models import Balance, Model, Upload
    from toapis_async.task import TaskSnapshot

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


async def status(options: Options, out: Output, task_ids: tuple[str, ...]) -> int:
    """One question and one line a task."""

    def told(_: str, snapshot: TaskSnapshot) -> None:
        out.result(_status_line(snapshot))
        out.record(_status_record(snapshot))

    async with Session(options, out).opened(_known_sandbox()) as session:
        return await _each(out, task_ids, session.client.status, told)


async def balance(options: Options, out: Output, scope: Literal["key", "user"]) -> int:
    """What is left."""
    async with Session(options, out).opened(_known_sandbox()) as session:
        found = await session.client.balance(scope)
    for line in _balance_lines(found):
        out.result(line)
    out.record({"scope": scope, **asdict(found)})
    return ALL_DONE


async def upload(options: Options, out: Output, files: tuple[Path, ...]) -> int:
    """Send pictures and print their addresses."""
    async with Session(options, out).opened(Path(SANDBOX_FOLDER)) as session:

        def told(file: Path, sent: Upload) -> None:
            out.result(sent.url)
            out.record({"file": str(file), **asdict(sent)})

        return await _each(out, files, session.client.upload, told)


async def models(options: Options, out: Output, kind: str) -> int:
    """What the service offers."""
    async with Session(options, out).opened(_known_sandbox()) as session:
        found = await session.client.models(kind)
    for model, line in zip(found, aligned([_model_line(model) for model in found]), strict=True):
        out.result(line)
        out.record({**model.raw, "id": model.id})
    if not found:
        out.note(f"the service offers no models of type {kind}")
    return ALL_DONE


async def _each(
    out: Output,
    names: tuple[Asked, ...],
    ask: Callable[[Asked], Awaitable[Answer]],
    told: Callable[[Asked, Answer], None],
) -> int:
    """Ask about all at once, tell in order; an error is told in its place and never the end of the others."""

    async def answer(name: Asked) -> Answer | ToAPIsError:
        try:
            return await ask(name)
        except ToAPIsError as error:
            return error

    exit_code = ALL_DONE
    for name, answered in zip(names, await asyncio.gather(*map(answer, names)), strict=True):
        if isinstance(answered, ToAPIsError):
            out.failure(answered, asked=str(name))
            exit_code = max(exit_code, exit_code_of(answered))
        else:
            told(name, answered)
    return exit_code


def _known_sandbox() -> Path | None:
    """The sandbox that `generate --sandbox` left in this folder; None (in memory) where there is none."""
    folder = Path(SANDBOX_FOLDER)
    return folder if folder.is_dir() else None


def _model_line(model: Model) -> tuple[str, str, str]:
    """Its id, who made it, and which requests it takes, where the service says."""
    owner, kinds = model.raw.get("owned_by"), model.raw.get("supported_endpoint_types")
    told = ", ".join(map(str, cast("list[object]", kinds))) if isinstance(kinds, list) else ""
    return model.id, owner if isinstance(owner, str) else "", told


def _status_line(snapshot: TaskSnapshot) -> str:
    progress = "" if snapshot.progress is None else f"{snapshot.progress}%"
    ending = "  ".join(image.url for image in snapshot.images)
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
        "urls": [image.url for image in snapshot.images],
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
        return "not told"
    usd = f"  (${credits_ / per_usd:,.2f})" if per_usd else ""
    return f"{credits_:>14,.2f} credits{usd}"
