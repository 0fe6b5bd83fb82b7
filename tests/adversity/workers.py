"""Rounds with several workers on one journal's folder: the same orders are sent to two of them, workers are killed at
random and at chosen instants, stopped and started again, and in the end every task was paid once and every image is on
disk."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from toapis_async.sandbox import Limits, Sandbox

from .checks import NEVER_SAID, broken_images
from .plans import GATEWAY, LATEST_S, LOST, SLOW_ANSWERS, SPEED, Trouble
from .processes import Process, Processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from toapis_async.sandbox import Job

    from .plans import Side

_JOURNAL = "toapis_async.engine.journal"
POINTS: Final[dict[str, int]] = {
    f"{_JOURNAL}.folder:_opened": 1,
    f"{_JOURNAL}.locks:Processes.join": 1,
    f"{_JOURNAL}.file:_bind": 1,
    f"{_JOURNAL}.records:put_intent": 12,
    f"{_JOURNAL}.records:put_accepted": 8,
    f"{_JOURNAL}.records:put_end": 8,
    f"{_JOURNAL}.records:put_files": 6,
    f"{_JOURNAL}.records:hold_intent": 2,
    f"{_JOURNAL}.records:take_over": 3,
    f"{_JOURNAL}.records:put_run": 1,
    f"{_JOURNAL}.records:submitter_of": 10,
    f"{_JOURNAL}.writer:JournalWriter._commit": 40,
    "toapis_async.engine.transport:Transport.post": 8,
    "aiohttp:ClientResponse.start": 20,
    "toapis_async.engine.part:Part.finish": 6,
}
"""Where a worker can be killed, and how often it comes by."""
FAST = Limits(submit_per_s=500, submit_burst=300, query_per_s=500, query_burst=300)
ROUND_BOUND_S = 90.0


@dataclass(frozen=True)
class WorkersPlan:
    """One round. `repr` tells it all; what it can't fix is how fast this machine is."""

    seed: int
    number: int
    workers: int = 3
    orders: int = 10  #: each is sent to two of the workers
    minted: int = 6
    rows: int = 5  #: of a run that every worker wants to do
    troubles: tuple[Trouble, ...] = ()  #: built into the workers in the order of their starts
    kills_s: tuple[float, ...] = ()  #: seconds between kills of some worker from outside
    stops_s: tuple[float, ...] = ()  #: the same of stops, for half a second each
    faults: tuple[Any, ...] = ()
    visible_after_s: float = 0.0  #: in the service's seconds
    is_shared: bool = True  #: the journal; else each start has one of its own
    kind: str = "workers"

    @property
    def window_s(self) -> float:
        """The window of look-ups."""
        return self.visible_after_s / SPEED + 1.0


def workers_plan(seed: int, number: int) -> WorkersPlan:
    """The plan of a round."""
    rng = random.Random(f"{seed}/{number}/workers")

    def at_point() -> Trouble:
        point, calls = rng.choice(tuple(POINTS.items()))
        side: Side = rng.choice(("before", "after"))
        return Trouble(point=point, side=side, call=rng.randint(1, calls))

    def trouble() -> Trouble:
        if rng.random() < 0.3:
            return Trouble(statement=int(1 + rng.expovariate(1 / 60)))
        return at_point() if rng.random() < 0.8 else Trouble()

    return WorkersPlan(
        seed,
        number,
        workers=rng.randint(2, 4),
        orders=rng.randint(4, 12),
        troubles=tuple(trouble() for _ in range(rng.randint(2, 6))),
        kills_s=tuple(rng.expovariate(1 / 0.4) for _ in range(rng.randint(1, 5))),
        stops_s=tuple(rng.expovariate(1 / 0.6) for _ in range(rng.choice((0, 0, 2)))),
        faults=rng.choice(((), LOST, GATEWAY, SLOW_ANSWERS)),
        visible_after_s=rng.choice((0.0, rng.uniform(0, LATEST_S))),
    )


@dataclass
class WorkersOutcome:
    """What a round showed."""

    plan: WorkersPlan
    runs: int = 0  #: starts of workers
    kills: int = 0
    paid: int = 0
    paid_twice: int = 0
    images: int = 0
    lost: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def told(self) -> str:
        """For people: the plan, and what broke."""
        return "\n  ".join([repr(self.plan), *self.log, *(f"PROBLEM {each}" for each in self.problems)])


async def play_workers(plan: WorkersPlan, home: Path) -> WorkersOutcome:
    """Play a round in a folder that is empty or not there."""
    began_s = time.monotonic()

    def service_time_s(job: Job) -> float:
        return random.Random(f"{plan.seed}/{job.prompt}").uniform(1.0, 10.0)

    async with Sandbox(
        seed=plan.seed + plan.number,
        speed=SPEED,
        limits=FAST.at_speed(1 / SPEED),
        service_time_s=service_time_s,
        visible_after_s=plan.visible_after_s,
        pictures=False,
        log_size=100_000,
    ) as sandbox:
        for kind, fault, probability in plan.faults:
            sandbox.faults.chance(kind, fault, probability)
        round_ = _Round(plan, home, sandbox, WorkersOutcome(plan))
        await round_.play()
    round_.outcome.seconds = time.monotonic() - began_s
    return round_.outcome


class _Round:
    def __init__(self, plan: WorkersPlan, home: Path, sandbox: Sandbox, outcome: WorkersOutcome) -> None:
        self.plan = plan
        self.outcome = outcome
        self._sandbox = sandbox
        self._home = home
        self._out = home / "out"
        self._out.mkdir(parents=True)
        self._rng = random.Random(f"{plan.seed}/{plan.number}/workers/run")
        self._key = "sk-" + random.Random(f"{plan.seed}/{plan.number}/key").randbytes(24).hex()
        self._processes = Processes(home / "launcher.err")
        self._workers: dict[int, Process] = {}
        self._troubles = iter(plan.troubles)
        self._rows = [f"row {number}" for number in range(plan.rows)]
        self._expected_signals: set[int] = set()
        self._write_jobs()

    def _write_jobs(self) -> None:
        plan = self.plan
        homes = [self._rng.sample(range(plan.workers), 2) for _ in range(plan.orders)]
        for slot in range(plan.workers):
            jobs = {
                "orders": [str(number) for number, home in enumerate(homes) if slot in home],
                "minted": [str(number) for number in range(plan.minted) if number % plan.workers == slot],
                "runs": {"r": self._rows},
                "done": f"done-{slot}",
            }
            (self._home / f"jobs-{slot}").write_text(json.dumps(jobs), "utf-8")

    async def play(self) -> None:
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        await self._processes.start(environment | {"TOAPIS_API_KEY": self._key})
        try:
            async with asyncio.timeout(ROUND_BOUND_S):
                await self._to_the_end()
        except TimeoutError:
            self.outcome.problems.append(f"not done after {ROUND_BOUND_S:g} s: {sorted(os.listdir(self._out))}")
        finally:
            for process in self._workers.values():
                process.send_signal(signal.SIGKILL)
            await self._processes.aclose()
        await self._books()

    async def _to_the_end(self) -> None:
        async with asyncio.TaskGroup() as group:
            for slot in range(self.plan.workers):
                group.create_task(self._slot(slot))
            await _until(lambda: len(self._workers) == self.plan.workers)
            await asyncio.gather(self._kill(), self._stop())
            await _until(self._is_done)
            (self._out / "stop").touch()

    async def _slot(self, slot: int) -> None:
        """A worker, started again whenever it dies, as a process manager does."""
        while True:
            process = self._workers[slot] = await self._started(slot)
            code = await process.over
            self.outcome.kills += code == -signal.SIGKILL
            if code == 0:
                return
            if code != -signal.SIGKILL:
                self.outcome.problems.append(f"the worker in place {slot} ended with {code}")

    async def _started(self, slot: int) -> Process:
        self.outcome.runs += 1
        number = self.outcome.runs
        trouble = asdict(next(self._troubles, Trouble())) | {"folder": str(self._out)}
        jobs, err = self._home / f"jobs-{slot}", self._home / f"{number}.err"
        journals = "journals" if self.plan.is_shared else f"journals-{number}"
        arguments = ["worker", str(jobs), str(self._out), journals, self._sandbox.base_url, str(self.plan.window_s)]
        return await self._processes.run(number, trouble, arguments, self._home / f"{number}.out", err)

    async def _kill(self) -> None:
        for wait_s in self.plan.kills_s:
            await asyncio.sleep(wait_s)
            self._some_worker().send_signal(signal.SIGKILL)

    async def _stop(self) -> None:
        for wait_s in self.plan.stops_s:
            await asyncio.sleep(wait_s)
            stopped = self._some_worker()
            stopped.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.5)
            stopped.send_signal(signal.SIGCONT)

    def _some_worker(self) -> Process:
        return self._workers[self._rng.choice(sorted(self._workers))]

    def _is_done(self) -> bool:
        """Whether all jobs are done, and each image that was paid for is on disk."""
        done = all((self._out / f"done-{slot}").exists() for slot in range(self.plan.workers))
        return done and not self._missing()

    def _missing(self) -> list[str]:
        paid = [entry for entry in self._sandbox.ledger if entry.paid and not entry.prompt.startswith("row ")]
        return [entry.task_id for entry in paid if not (self._out / "images" / f"{entry.task_id}.png").exists()]

    async def _books(self) -> None:
        outcome, ledger, problem = self.outcome, self._sandbox.ledger, self.outcome.problems.append
        paid = Counter(entry.prompt for entry in ledger if entry.paid)
        wanted = {f"order {number}" for number in range(self.plan.orders)} | {*self._rows}
        outcome.paid = paid.total()
        outcome.paid_twice = sum(times - 1 for times in paid.values())
        if outcome.paid_twice:
            problem(f"paid twice: {[prompt for prompt, times in paid.items() if times > 1]}")
        if never := wanted - {*paid}:
            problem(f"not submitted: {sorted(never)}")
        outcome.lost = len(self._missing())
        files = list((self._out / "images").glob("[!.]*.png"))
        outcome.images = len(files)
        if outcome.lost or len(files) != len(paid):
            problem(f"{outcome.lost} lost; {len(files)} images of {len(paid)} tasks: {self._missing()}")
        for name, reason in broken_images(self._out / "images"):
            problem(f"{name} has its name, but is not whole: {reason}")
        await self._are_as_served(files)
        self._journal()
        for path in self._home.rglob("*"):
            if path.is_file() and self._key.encode() in path.read_bytes():
                problem(f"the key is in {path.relative_to(self._home)}")
        for path in sorted(self._home.glob("*.err")):
            said = path.read_text("utf-8", "replace")
            outcome.log.append(f"{path.name}: {said[-300:]!r}")
            if any(words in said for words in NEVER_SAID):
                problem(f"{path.name}: {said[-1_500:]}")

    async def _are_as_served(self, files: list[Path]) -> None:
        async with aiohttp.ClientSession() as session:
            for file in files:
                if not file.stem.startswith("task_"):
                    continue
                async with session.get(f"{self._sandbox.files_url}/generated/{file.stem}-0.png") as answer:
                    if answer.status == 200 and await answer.read() != file.read_bytes():
                        self.outcome.problems.append(f"{file.name} is not what was served")

    def _journal(self) -> None:
        """There is one, which holds every id that was sent, and no lock of a process that is gone for good."""
        journals = list((self._out / "journals").glob("*.journal"))
        if not self.plan.is_shared:
            return
        if len(journals) != 1:
            self.outcome.problems.append(f"{len(journals)} journals")
            return
        with closing(sqlite3.connect(journals[0])) as db:
            known = {found for (found,) in db.execute("SELECT client_business_id FROM submission")}
            left = db.execute(
                "SELECT client_business_id, state FROM submission WHERE state IN ('intent', 'accepted')"
            ).fetchall()
        if unknown := {entry.client_business_id for entry in self._sandbox.ledger} - known:
            self.outcome.problems.append(f"sent, but not written down: {unknown}")
        taken = {entry.client_business_id for entry in self._sandbox.ledger if entry.paid}
        if unfinished := [each for each in left if each[0] in taken]:
            self.outcome.problems.append(f"unfinished in the journal: {unfinished}")


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (what is waited for tells nobody)
        await asyncio.sleep(0.02)
