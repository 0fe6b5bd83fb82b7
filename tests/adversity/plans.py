"""What befalls a round of the machine that kills, drawn from a seed: same seed, number and kind, same plan."""

from __future__ import annotations

import errno
import random
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from toapis_async.sandbox import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from toapis_async.sandbox.faults import Kind as RequestKind
    from toapis_async.sandbox.faults import TimedFault
    from toapis_async.sandbox.service import DuplicateIds

Side = Literal["before", "after"]
SPEED: Final = 20.0
"""How fast the service's time passes in a round."""
LATEST_S: Final = 20.0
"""How late a task can be found at most, in the service's seconds."""

_JOURNAL = "toapis_async.engine.journal"
_FILE, _RECORDS, _WRITER = f"{_JOURNAL}.file", f"{_JOURNAL}.records", f"{_JOURNAL}.writer:JournalWriter"
_PART, _RESULTS = "toapis_async.engine.part:Part", "toapis_async.cli.results:Results"
POINTS: Final[dict[str, int]] = {
    f"{_FILE}:create": 1,
    f"{_FILE}:_locked": 1,
    f"{_FILE}:_migrate": 1,
    f"{_FILE}:_bind": 1,
    f"{_RECORDS}:put_intent": 12,
    f"{_RECORDS}:put_accepted": 12,
    f"{_RECORDS}:put_end": 12,
    f"{_RECORDS}:put_files": 12,
    f"{_RECORDS}:record_of_row": 12,
    f"{_RECORDS}:paid": 1,
    f"{_WRITER}._commit": 40,
    f"{_WRITER}.aclose": 1,
    "toapis_async.engine.transport:Transport.post": 12,
    "aiohttp:ClientResponse.start": 30,
    "toapis_async.engine.queries:Queries.find_within": 3,
    "toapis_async.engine.queries:Queries.find": 8,
    f"{_PART}.finish": 12,
    f"{_PART}.add": 12,
    f"{_PART}.flush": 12,
    f"{_PART}._named": 12,
    "os:fsync": 24,
    "pathlib:Path.replace": 13,
    f"{_RESULTS}._append": 12,
    f"{_RESULTS}._rewrite": 1,
}
"""Where a process can be killed, and how often a run of a dozen rows comes by."""


@dataclass(frozen=True)
class Trouble:
    """What is built into a process; without a `disk` it is killed there."""

    point: str | None = None  #: a function by its name
    side: Side = "before"
    call: int = 1
    statement: int | None = None  #: the number of the SQL statement before which it is killed
    disk: int | None = None  #: from the point (else from the start) on, writing fails with this errno
    most_pages: int | None = None  #: the journal can't grow beyond this
    clock_back_s: float = 0.0


@dataclass(frozen=True)
class Blow:
    """What hits a process from outside."""

    when: Literal["started", "alive", "accepted"] = "alive"  #: alive: its first request came
    value: float = 0.0  #: seconds after that; or how many more tasks the service has accepted
    signal: int = signal.SIGKILL
    again_s: float | None = None  #: the signal once more, so much later


@dataclass(frozen=True)
class Run:
    """One start of the command."""

    trouble: Trouble | None = None
    blow: Blow | None = None
    rival: Literal["none", "later", "at once"] = "none"  #: the same command a second time, beside this one

    @property
    def writes_fail(self) -> bool:
        return self.trouble is not None and (self.trouble.disk or self.trouble.most_pages) is not None


@dataclass(frozen=True)
class Plan:
    """One round. `repr` tells it all; what it can't fix is how fast this machine is."""

    kind: str
    seed: int
    number: int
    program: bool = False  #: the small program instead of the command line
    rows: int = 10
    runs: tuple[Run, ...] = ()
    faults: tuple[tuple[RequestKind, Fault | TimedFault, float], ...] = ()
    visible_after_s: float = 0.0  #: in the service's seconds
    duplicate_ids: DuplicateIds = "run_again"
    spare_s: float = 1.0  #: by how much the window of look-ups is longer than a task is late
    harmed: float = 0.0  #: the share of connections that the network harms
    grows: bool = False  #: a row is put in front of the others before every run

    @property
    def window_s(self) -> float:
        """The window of look-ups."""
        return self.visible_after_s / SPEED + self.spare_s

    @property
    def rng(self) -> random.Random:
        return random.Random(f"{self.seed}/{self.number}/{self.kind}/run")


LOST: Final = (("submit", Fault.LOST_ANSWER, 0.15), ("submit", Fault.LOST_ANSWER_RESET, 0.15))
GATEWAY: Final = (
    ("submit", Fault.HTML_504, 0.10),
    ("submit", Fault.HTML_504_ACCEPTED, 0.15),
    ("submit", Fault.ERROR_500_ACCEPTED, 0.05),
    ("submit", Fault.HTML_502, 0.05),
    ("submit", Fault.HTML_524_ACCEPTED, 0.05),
    ("submit", Fault.TRUNCATED_JSON, 0.05),
    ("submit", Fault.BREAKS_OFF, 0.05),
    ("submit", Fault.RATE_LIMITED.lasting(2), 0.05),
    ("query", Fault.HTML_502, 0.05),
    ("query", Fault.TRUNCATED_JSON, 0.05),
)
FILES: Final = (
    ("file", Fault.BREAKS_OFF, 0.20),
    ("file", Fault.DROPPED, 0.10),
    ("file", Fault.HTML_503, 0.05),
    ("file", Fault.NOT_FOUND, 0.05),
    ("file", Fault.SLOW.lasting(8), 0.20),
)
SLOW_ANSWERS: Final = (("submit", Fault.SLOW.lasting(6), 1.0),)


def plan_of(seed: int, number: int, kind: str | None = None) -> Plan:
    """The plan of a round; without a kind, the kinds take turns."""
    kind = kind or KINDS[number % len(KINDS)]
    rng = random.Random(f"{seed}/{number}/{kind}")
    program, rows, grows = rng.random() < 0.3, rng.randint(6, 14), rng.random() < 0.25
    return replace(Plan(kind, seed, number, program=program, rows=rows, grows=grows), **_DRAW[kind](rng))


def _killed(rng: random.Random) -> Run:
    if rng.random() < 0.3:
        return Run(blow=Blow("started", rng.uniform(0.0, 1.0)))
    return Run(blow=Blow("alive", rng.expovariate(1 / 0.4)))


def _kills(rng: random.Random) -> tuple[Run, ...]:
    return tuple(_killed(rng) for _ in range(rng.randint(1, 4)))


def _at_point(rng: random.Random) -> Trouble:
    point, calls = rng.choice(tuple(POINTS.items()))
    return Trouble(point=point, side=rng.choice(("before", "after")), call=rng.randint(1, calls))


def _points(rng: random.Random) -> dict[str, Any]:
    runs = tuple(Run(_at_point(rng)) for _ in range(rng.randint(1, 4)))
    return {"runs": runs, "faults": rng.choice(((), LOST))}


def _statements(rng: random.Random) -> dict[str, Any]:
    runs = tuple(Run(Trouble(statement=int(1 + rng.expovariate(1 / 40)))) for _ in range(rng.randint(1, 5)))
    return {"runs": runs}


def _answers(rng: random.Random) -> dict[str, Any]:
    """Killed while answers are on their way: accepted, and the client does not know."""
    runs = tuple(Run(blow=Blow("accepted", rng.randint(1, 4))) for _ in range(rng.randint(1, 3)))
    late = rng.choice((0.0, rng.uniform(0, LATEST_S)))
    return {"runs": runs, "faults": SLOW_ANSWERS, "visible_after_s": late}


def _late(rng: random.Random) -> dict[str, Any]:
    return {"runs": _kills(rng), "faults": LOST, "visible_after_s": rng.uniform(0, LATEST_S)}


def _gateway(rng: random.Random) -> dict[str, Any]:
    return {"runs": _kills(rng), "faults": GATEWAY, "duplicate_ids": rng.choice(("run_again", "refuse", "replay"))}


def _disk(rng: random.Random) -> dict[str, Any]:
    number = rng.choice((errno.ENOSPC, errno.EROFS))
    point, calls = rng.choice([item for item in POINTS.items() if item[1] > 1])
    side: Side = rng.choice(("before", "after"))
    troubles = (
        Trouble(disk=number),
        Trouble(disk=number, point=point, side=side, call=rng.randint(1, calls)),
        Trouble(most_pages=rng.randint(8, 16)),
    )
    first = (_killed(rng),) if rng.random() < 0.5 else ()
    return {"runs": (*first, Run(rng.choice(troubles)), *first)}


def _clock(rng: random.Random) -> dict[str, Any]:
    runs = [Run(Trouble(clock_back_s=rng.uniform(1, 3 * 86_400)), _killed(rng).blow) for _ in range(rng.randint(1, 3))]
    return {"runs": tuple(runs), "faults": rng.choice(((), LOST, FILES))}


def _signals(rng: random.Random) -> dict[str, Any]:
    def run() -> Run:
        again_s = rng.choice((None, rng.uniform(0.0, 0.5)))
        return Run(blow=Blow("alive", rng.expovariate(1 / 0.4), rng.choice((signal.SIGINT, signal.SIGTERM)), again_s))

    runs = tuple(run() for _ in range(rng.randint(1, 3)))
    return {"runs": runs, "faults": rng.choice(((), LOST, SLOW_ANSWERS)), "program": False}


def _rivals(rng: random.Random) -> dict[str, Any]:
    first = (_killed(rng),) if rng.random() < 0.5 else ()
    runs = (*first, Run(rival=rng.choice(("later", "at once"))))
    return {"runs": runs, "faults": rng.choice(((), LOST, FILES))}


def _mixed(rng: random.Random) -> dict[str, Any]:
    runs = tuple(rng.choice((_killed(rng), Run(_at_point(rng)))) for _ in range(rng.randint(2, 5)))
    faults = (*rng.choice((LOST, GATEWAY)), *FILES)
    late = rng.uniform(0, LATEST_S)
    return {"runs": runs, "faults": faults, "visible_after_s": late, "harmed": rng.choice((0.0, 0.5))}


_DRAW: Final[dict[str, Callable[[random.Random], dict[str, Any]]]] = {
    "kills": lambda rng: {"runs": _kills(rng)},
    "points": _points,
    "statements": _statements,
    "answers": _answers,
    "lost": lambda rng: {"runs": _kills(rng), "faults": LOST},
    "gateway": _gateway,
    "late": _late,
    "files": lambda rng: {"runs": _kills(rng), "faults": FILES},
    "network": lambda rng: {"runs": _kills(rng), "harmed": 0.7},
    "disk": _disk,
    "clock": _clock,
    "signals": _signals,
    "rivals": _rivals,
    "mixed": _mixed,
}
KINDS: Final = tuple(_DRAW)
