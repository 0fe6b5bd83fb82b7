"""`toapis sandbox`: the stand-in of the service as a process of its own."""

from __future__ import annotations

import asyncio
import difflib
import os
from typing import TYPE_CHECKING, cast

from attrs import asdict

from toapis_async.cli.output import ALL_DONE, CliError, calling_on_signals
from toapis_async.cli.session import SANDBOX_KEY, settings_of, start
from toapis_async.protocol.wording import count
from toapis_async.sandbox import Fault
from toapis_async.sandbox.faults import KINDS

if TYPE_CHECKING:
    from toapis_async.cli.options import Options
    from toapis_async.cli.output import Output
    from toapis_async.sandbox import FaultPlan, Sandbox
    from toapis_async.sandbox.faults import Kind


async def serve(out: Output, sandbox: Sandbox, served: Options) -> int:
    """Run until Ctrl-C or SIGTERM, which are how this command is meant to end. `served` is what a client needs."""
    stop = asyncio.Event()
    await start(sandbox)
    try:
        with calling_on_signals(stop.set):
            _print_address(out, sandbox, served)
            await stop.wait()
    finally:
        await sandbox.aclose()
    out.note(
        f"stopped after {count(sandbox.requests.total, 'request')}: {count(len(sandbox.ledger), 'task')} "
        f"in the books, {sandbox.requests.rate_limited:,} answers of 429"
    )
    return ALL_DONE


def add_receiver(sandbox: Sandbox, url: str) -> None:
    """Where events go. The secret comes from the environment: a command line is there for every process to read."""
    secret = os.environ.get("TOAPIS_WEBHOOK_SECRET", "").strip()
    if not secret:
        raise CliError("--webhook-url: set TOAPIS_WEBHOOK_SECRET to what the events are to be signed with")
    try:
        sandbox.webhooks.configure(url, secret)
    except ValueError as error:
        raise CliError(f"--webhook-url: {error}") from None


def add_fault(plan: FaultPlan, text: str) -> None:
    """Understand `[KIND:]NAME=PROBABILITY`; without a kind it meets the first kind of request that it can."""
    name, _, chance = text.rpartition("=")
    kind, _, name = name.rpartition(":")
    try:
        fault, probability = Fault(name), float(chance)
    except ValueError:
        raise CliError(f"--fault {text}: {_what_is_wrong(name)}") from None
    refusal: ValueError | None = None
    for candidate in [kind] if kind else KINDS:
        try:
            plan.chance(cast("Kind", candidate), fault, probability)
        except ValueError as error:
            refusal = refusal or error
        else:
            return
    raise CliError(f"--fault {text}: {refusal}")


def _what_is_wrong(name: str) -> str:
    known = [fault.value for fault in Fault]
    if name in known:
        return "say how often, as in lost_answer=0.05"
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _print_address(out: Output, sandbox: Sandbox, served: Options) -> None:
    out.result(f"export TOAPIS_BASE_URL={sandbox.base_url}")
    out.result(f"export TOAPIS_API_KEY={SANDBOX_KEY}")
    out.record({"base_url": sandbox.base_url, "files_url": sandbox.files_url, "api_key": SANDBOX_KEY})
    speed = served.speed or 1
    compressed = speed != 1
    pace = f"{speed:g} times as fast" if compressed else "as fast"
    out.note(f"The sandbox is ready, {pace} as the service; any key will do.")
    if not out.json:
        out.note("Run the two lines above in another terminal, then for example:")
        out.note(f'  toapis generate "a red kite over the sea"{_patience(served) if compressed else ""}')
        if compressed:
            out.note("In Python:")
            out.note(f"  ToAPIs(settings={_python(served)})")
    out.note(f"Its tasks, charges and faults: {sandbox.base_url}/")
    out.note("Ctrl-C stops it.")


def _patience(served: Options) -> str:
    waits = settings_of(served)
    return f" --first-poll-s {waits.first_poll_s:g} --min-poll-interval-s {waits.min_poll_interval_s:g}"


def _python(served: Options) -> str:
    waits = settings_of(served)
    limits = ", ".join(f"{name}={_cut(rate)}" for name, rate in asdict(waits.rate_limits).items())
    return (
        f"Settings(first_poll_s={waits.first_poll_s:g}, min_poll_interval_s={waits.min_poll_interval_s:g}, "
        f"limits=RateLimits({limits}))"
    )


def _cut(rate: float) -> str:
    """To two places and never up: a rate that is a trifle too high ends in a 429."""
    return f"{int(rate * 100) / 100:.2f}".rstrip("0").rstrip(".")
