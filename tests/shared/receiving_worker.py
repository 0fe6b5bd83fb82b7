"""One of several processes that submit tasks and receive events on one socket.

Prints "done" when its own tasks are and, when its input ends, how many events had which outcome."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter
from importlib import import_module
from typing import Any

from aiohttp import web

from tests.shared.kit import PATIENCE, PATIENT_S
from toapis_async import Settings, ToAPIs
from toapis_async.receivers import aiohttp_handler


async def main(order: dict[str, Any]) -> None:
    for bound in PATIENCE:
        module, _, name = bound.rpartition(".")
        setattr(import_module(module), name, PATIENT_S)
    never_s = 3_600.0
    settings = Settings(first_poll_s=never_s, min_poll_interval_s=never_s, webhook_secrets=order["secret"])
    outcomes: Counter[str] = Counter()
    async with ToAPIs("sk-any", base_url=order["base_url"], settings=settings, shared=order["shared"]) as client:
        receive = aiohttp_handler(client.webhooks)

        async def counted(request: web.Request) -> web.StreamResponse:
            answer = await receive(request)
            assert isinstance(answer, web.Response)
            outcomes[str(answer.text)] += 1
            answer.force_close()  # the next event comes by a new connection, to whoever takes it first
            return answer

        app = web.Application()
        app.router.add_post("/hook", counted)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, socket.socket(fileno=order["fd"])).start()
        await asyncio.gather(*(client.generate(f"kite {number}") for number in range(order["tasks"])))
        sys.stdout.write("done\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
