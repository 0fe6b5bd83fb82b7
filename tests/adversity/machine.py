"""The machine that kills: plays a plan's round with real processes, and holds what is left against the books."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from toapis_async.sandbox import Limits, Sandbox

from . import checks
from .plans import SPEED, Run, Trouble
from .processes import Process, Processes
from .program import SINGLES
from .proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from toapis_async.sandbox import Job

    from .plans import Blow, Plan

MOST_CALM_RUNS = 12
"""Starts without new trouble after those of the plan; from the fifth on also the service and the network are well."""
RUN_BOUND_S = 60.0
FAST = Limits(submit_per_s=500, submit_burst=300, query_per_s=500, query_burst=300)
QUICKLY = ("--tier", "svip", "--first-poll-s", "0.05", "--min-poll-interval-s", "0.05")


@dataclass
class Outcome:
    """What a round showed."""

    plan: Plan
    runs: int = 0
    kills: int = 0  #: processes that ended by SIGKILL
    paid: int = 0  #: tasks
    paid_twice: int = 0
    images: int = 0  #: on disk, whole, and what the service served
    lost: int = 0  #: paid for and not on disk
    harms: int = 0  #: what the network did to connections
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)  #: what each run did

    def told(self) -> str:
        """For people: the plan, and what broke."""
        return "\n  ".join([repr(self.plan), *self.log, *(f"PROBLEM {each}" for each in self.problems)])


class _Service(Sandbox):
    """A sandbox whose links lead through the bad network, if there is one."""

    network: Proxy | None = None

    @property
    def files_url(self) -> str:
        return self.network.url if self.network else super().files_url

    @property
    def own_files_url(self) -> str:
        return super().files_url


async def play(plan: Plan, folder: Path) -> Outcome:
    """Play a round in a folder that is empty or not there. What broke is in the outcome; raises only for bugs of the
    machine."""
    outcome = Outcome(plan)
    began_s = time.monotonic()
    rng = plan.rng

    def service_time_s(job: Job) -> float:
        return random.Random(f"{plan.seed}/{job.prompt}").uniform(1.0, 10.0)

    sandbox = _Service(
        seed=plan.seed + plan.number,
        speed=SPEED,
        limits=FAST.at_speed(1 / SPEED),
        service_time_s=service_time_s,
        visible_after_s=plan.visible_after_s,
        duplicate_ids=plan.duplicate_ids,
        pictures=False,
        log_size=100_000,
    )
    async with AsyncExitStack() as stack:
        networks: list[Proxy] = []
        if plan.harmed:
            networks = [
                Proxy(rng, lambda: int(sandbox.base_url.rpartition(":")[2]), plan.harmed),
                Proxy(rng, lambda: int(sandbox.own_files_url.rpartition(":")[2]), plan.harmed, carries_files=True),
            ]
            for network in networks:
                await network.start()
                stack.push_async_callback(network.aclose)
            sandbox.network = networks[1]
        await stack.enter_async_context(sandbox)
        for kind, fault, probability in plan.faults:
            sandbox.faults.chance(kind, fault, probability)
        await Round(plan, folder, sandbox, networks, outcome).play()
        outcome.harms = sum(network.done.total() for network in networks)
    outcome.seconds = time.monotonic() - began_s
    return outcome


@dataclass
class Ended:
    """How a process ended, and what it said."""

    code: int
    stderr: str
    pid: int
    lived: bool  #: it had sent a request when the blow came, or it met no blow
    accepted: int = 0  #: tasks the service took meanwhile


@dataclass
class Round:
    """A round under way."""

    plan: Plan
    home: Path  #: an empty folder
    sandbox: _Service
    networks: list[Proxy]  #: in front of the API and of the files, if there is one
    outcome: Outcome
    _started: int = 0

    def __post_init__(self) -> None:
        self.out = self.home / "out"
        self.key = "sk-" + random.Random(f"{self.plan.seed}/{self.plan.number}/key").randbytes(24).hex()
        self.home.mkdir(exist_ok=True)
        self.processes = Processes(self.home / "launcher.err")
        self._rows = _rows(self.plan.rows)
        self._base_url = self.networks[0].url if self.networks else self.sandbox.base_url

    async def play(self) -> None:
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        await self.processes.start(environment | {"TOAPIS_API_KEY": self.key})
        try:
            await self._runs()
        finally:
            await self.processes.aclose()

    async def _runs(self) -> None:
        done = False
        for run in self.plan.runs:
            done = await self._one(run) and not run.writes_fail  # the journal may not hold all that was done
            if done:
                break
        for calm in range(MOST_CALM_RUNS):
            if done:
                break
            if calm == 4:
                self._heal()
            done = await self._one(Run())
        self._heal()
        if not done:
            self._problem(f"not done after {self._started} runs")
        await checks.books(self)
        if done:
            await self._once_more()

    async def _once_more(self) -> None:
        """A run that is done pays for nothing when it is started again."""
        before = len(self.sandbox.ledger)
        if not await self._one(Run()):
            self._problem("started again when all was done, it failed")
        if len(self.sandbox.ledger) != before:
            self._problem("started again when all was done, it submitted")
        if self.plan.program and (said := self._output(self._started).read_text("utf-8")) != "recovered 0\n":
            self._problem(f"started again when all was done, it {said}")
        checks.results(self)

    def _heal(self) -> None:
        self.sandbox.faults.clear()
        for network in self.networks:
            network.harmed = 0.0

    async def _one(self, run: Run) -> bool:
        """One start of the command, and a rival beside it if there is to be one. True when it ended as done."""
        if self.plan.grows and self._started and run != Run():
            self._rows.insert(0, {"prompt": f"put in front {self._started}"})
        before = len(self.sandbox.ledger)
        if run.rival == "none":
            ended = await self._process(run)
        else:
            ended = await self._with_rival(run)
        ended.accepted = len(self.sandbox.ledger) - before
        checks.after_run(self, run, ended)
        return ended.code == 0

    async def _with_rival(self, run: Run) -> Ended:
        at_once = run.rival == "at once"
        first = asyncio.ensure_future(self._process(run))
        if not at_once:
            await self._alive(self.sandbox.requests.total, first)
        second = await self._process(Run())
        ended = await first
        refused = [each for each in (ended, second) if each.code == 2]
        for each in refused:
            other = second if each is ended else ended
            if "is using the journal" not in each.stderr:
                self._problem(f"a rival was refused, but not for the journal: {each.stderr[-300:]}")
            elif not at_once and f"process {other.pid} is" not in each.stderr:
                self._problem(f"the refusal does not name the other's pid {other.pid}: {each.stderr[-300:]}")
        if len(refused) == 2:
            self._problem("two that were started at once refused each other")
        return second if ended in refused and at_once else ended

    # ---------------------------------------------------------------------------------------------- processes

    async def _process(self, run: Run) -> Ended:
        self._started += 1
        number = self._started
        rows = self.home / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in self._rows), "utf-8")
        trouble = asdict(run.trouble or Trouble()) | {"folder": str(self.out)}
        before = self.sandbox.requests.total
        accepted = len(self.sandbox.ledger)
        out = self._output(number)
        err = out.with_suffix(".err")
        process = await self.processes.run(number, trouble, self._arguments(rows), out, err)
        lived = True
        try:
            async with asyncio.timeout(RUN_BOUND_S):
                if run.blow is not None:
                    lived = await self._strike(process, run.blow, before, accepted)
                await asyncio.shield(process.over)
        except TimeoutError:
            self._problem(f"run {number} still runs after {RUN_BOUND_S:g} s")
        finally:
            process.send_signal(signal.SIGKILL)
            code = await process.over
        self.outcome.runs += 1
        self.outcome.kills += code == -signal.SIGKILL
        stderr = err.read_text("utf-8", "replace") if err.exists() else ""
        self.outcome.log.append(
            f"run {number}: code {code}, {len(self.sandbox.ledger)} in the books; {stderr[-200:]!r}"
        )
        return Ended(code, stderr, process.pid, lived)

    def _output(self, number: int) -> Path:
        return self.home / f"run-{number}.out"

    def _arguments(self, rows: Path) -> list[str]:
        if self.plan.program:
            return ["program", str(rows), str(self.out), self._base_url, str(self.plan.window_s)]
        options = ["--base-url", self._base_url, "--reconcile-window-s", f"{self.plan.window_s:g}", *QUICKLY]
        return ["batch", str(rows), "--out", str(self.out), *options]

    async def _strike(self, process: Process, blow: Blow, before: int, accepted: int) -> bool:
        """Hit a process at its instant, if it lives to see it; whether it was alive by then."""
        over = process.over
        if blow.when == "accepted":
            await _until(lambda: len(self.sandbox.ledger) >= accepted + blow.value, over)
        else:
            if blow.when == "alive":
                await self._alive(before, over)
            await asyncio.wait([over], timeout=blow.value)
        lived = self.sandbox.requests.total > before
        for pause_s in (0.0, blow.again_s):
            if pause_s is not None:
                await asyncio.wait([over], timeout=pause_s)
                process.send_signal(blow.signal)
        return lived

    async def _alive(self, before: int, over: asyncio.Future[Any]) -> None:
        await _until(lambda: self.sandbox.requests.total > before, over)

    def _problem(self, text: str) -> None:
        self.outcome.problems.append(text)

    @property
    def wanted(self) -> dict[str, tuple[int, int]]:
        """Each prompt, how many rows have it and how many images a row of it gives."""
        wanted: dict[str, tuple[int, int]] = {}
        for row in self._rows:
            times, _ = wanted.get(row["prompt"], (0, 0))
            wanted[row["prompt"]] = (times + 1, row.get("n", 1))
        if self.plan.program:
            wanted |= {f"single {number}": (1, 1) for number in range(SINGLES)}
            taken = {entry.prompt for entry in self.sandbox.ledger if entry.paid}
            wanted |= {prompt: (1, 1) for prompt in taken if prompt.startswith("minted ")}
        return wanted

    @property
    def row_count(self) -> int:
        return len(self._rows)


def _rows(number: int) -> list[dict[str, Any]]:
    """Rows with and without a key, one with two images, and twins at the end."""
    rows: list[dict[str, Any]] = [{"prompt": f"picture {index}"} for index in range(number - 2)]
    for index, row in enumerate(rows):
        if index % 2:
            row["key"] = f"key-{index}"
    rows[1]["n"] = 2
    return [*rows, {"prompt": "twin"}, {"prompt": "twin"}]


async def _until(condition: Callable[[], bool], over: asyncio.Future[Any]) -> None:
    while not over.done() and not condition():  # noqa: ASYNC110  (what is waited for tells nobody)
        await asyncio.sleep(0.002)
