"""Instructions of the client, counted by valgrind's callgrind: the first witness, whatever else the machine does."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.contenders.bare import POLLS
from benchmarks.contenders.counted_ours import MORE_POLLS
from benchmarks.contenders.kit import Order
from benchmarks.processes import contend, serving
from benchmarks.report import Findings, Row
from benchmarks.tasks import BucketConfig, Config

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S = 0.25
"""Between two polls: long beside a request, which takes tens of milliseconds under callgrind."""
PLENTY = BucketConfig(1e6, 1e6)


def rows(*, quick: bool) -> Findings:
    """Measure 1, first reading: a life of ours (a submission, three polls that show something new, the last of them its
    result) against the same four requests of bare aiohttp; and a submission and a poll against one request each."""
    if shutil.which("valgrind") is None:
        return Findings([Row(1, "instructions of a life / bare aiohttp's same four requests", (), None, "no valgrind")])
    contenders = {"counted_bare": 50, "counted_ours": 50 if quick else 200}
    with ThreadPoolExecutor(len(contenders)) as pool:
        bare, ours = pool.map(_per_round, contenders, contenders.values())
    post, get, bare_life = bare
    submit, life, long_life = ours
    poll = (long_life - life) / MORE_POLLS
    compared = (
        (f"instructions of a life, {POLLS} polls / bare aiohttp's same {POLLS + 1} requests", life, bare_life, 1.45),
        ("  a submission / a POST", submit, post, 1.55),
        ("  a poll that shows something new / a GET", poll, get, 1.15),
    )
    found = [
        Row(1, what, (ours / bare,), reach, f"{ours / 1e3:.0f} / {bare / 1e3:.0f} thousand")
        for what, ours, bare, reach in compared
    ]
    counts = {"post": post, "get": get, "bare_life": bare_life, "submit": submit, "poll": poll, "life": life}
    return Findings(found, {"instructions": counts})


def _per_round(name: str, count: int) -> list[float]:
    with serving(Config(submit=PLENTY, query=PLENTY)) as url:
        order = Order(url, count, interval_s=INTERVAL_S)
        run = partial(contend, name, order, more_environment={"PYTHONHASHSEED": "0"})
        return [total / count for total in counted(lambda valgrind: run(under=valgrind))]


def counted(run: Callable[[list[str]], object]) -> list[int]:
    """The instructions of each stretch (see `contenders.counted`) of the program that `run` starts under callgrind,
    with the arguments it is given."""
    with TemporaryDirectory() as folder:
        run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--dump-before=getpriority"])
        # A dump at each mark: the second is of the first stretch, the third of what came between, and so on.
        dumps = sorted(Path(folder).glob("out.*"), key=lambda dump: int(dump.suffix[1:]))
        return [_total(dump) for dump in dumps[1::2]]


def _total(dump: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
