"""What must hold after every run, however it ended, and what must hold at the end."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from PIL import Image

from toapis_async.engine.journal.reader import records

if TYPE_CHECKING:
    from toapis_async.engine.journal.records import Record

    from .machine import Ended, Round
    from .plans import Run

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130
PNG_END = b"IEND\xaeB`\x82"
NEVER_SAID = ("Traceback", "never retrieved", "never awaited", "ResourceWarning")


def after_run(round_: Round, run: Run, ended: Ended) -> None:
    """Whatever happened: what was sent was written down before, what has a name is whole, and the key is nowhere."""
    problem, stderr, code = round_.outcome.problems.append, ended.stderr, ended.code
    if ended.lived:  # before, Python itself may be interrupted while it imports
        for words in NEVER_SAID:
            if words in stderr:
                problem(f"stderr says {words!r}: {stderr[-1_500:]}")
        if code not in _expected(run, stderr):
            problem(f"ended with {code}: {stderr[-600:]}")
    if run.writes_fail and code not in {DONE, -signal.SIGKILL}:
        _explained(round_, run, ended)
    known = journal_ids(round_.out / "journal.sqlite")
    unknown = [entry.client_business_id for entry in round_.sandbox.ledger if entry.client_business_id not in known]
    if unknown:
        problem(f"sent, but not written down: {unknown}")
    for name, reason in broken_images(round_.out / "images"):
        problem(f"{name} has its name, but is not whole: {reason}")


def _expected(run: Run, stderr: str) -> set[int]:
    codes = {DONE, FAILED}
    if run.trouble is not None and not run.writes_fail:
        codes.add(-signal.SIGKILL)
    if run.writes_fail:
        codes.add(MISUSE)
    if run.rival != "none":
        codes.add(MISUSE)
    if run.blow is not None:
        codes |= {-signal.SIGKILL} if run.blow.signal == signal.SIGKILL else {INTERRUPTED}
        is_told = "  images   " in stderr or "  page     " in stderr or stderr.endswith("error: interrupted\n")
        if is_told:  # all of it: Python itself was interrupted on its way out
            codes.add(-run.blow.signal)
    return codes


def _explained(round_: Round, run: Run, ended: Ended) -> None:
    assert run.trouble is not None
    told = ended.stderr.lower()
    if not any(words in told for words in ("no space left", "disk is full", "read-only", "readonly", "unable to open")):
        round_.outcome.problems.append(f"the disk's trouble is not told: {ended.stderr[-600:]!r}")
    if run.trouble.disk and not run.trouble.point and ended.accepted:
        round_.outcome.problems.append(f"{ended.accepted} tasks were paid for without a disk to write on")


def journal_ids(journal: Path) -> set[str]:
    """Every id in a journal. A copy is read: to open it would tidy up what a killed process left."""
    with tempfile.TemporaryDirectory() as folder:
        copied = [shutil.copy(file, folder) for file in journal.parent.glob(f"{journal.name}*")]
        if not copied:
            return set()
        db = sqlite3.connect(Path(folder) / journal.name)
        try:
            return {found for (found,) in db.execute("SELECT client_business_id FROM submission")}
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return set()
            raise
        finally:
            db.close()


def broken_images(folder: Path) -> list[tuple[str, str]]:
    """The files under a final name that are no whole picture, and why."""
    broken: list[tuple[str, str]] = []
    for path in folder.glob("*"):
        if not path.name.startswith("."):
            try:
                with Image.open(path) as image:
                    image.load()
                if not path.read_bytes().endswith(PNG_END):  # Pillow does without
                    broken.append((path.name, "its end is missing"))
            except OSError as error:
                broken.append((path.name, str(error)))
    return broken


async def books(round_: Round) -> None:
    """At the end: each row paid once, each image as it was served, results complete, and the key nowhere."""
    outcome, sandbox = round_.outcome, round_.sandbox
    problem = outcome.problems.append
    paid = Counter(entry.prompt for entry in sandbox.ledger if entry.paid)
    wanted = {prompt: times for prompt, (times, _) in round_.wanted.items()}
    outcome.paid = paid.total()
    outcome.paid_twice = sum(max(0, times - wanted.get(prompt, 0)) for prompt, times in paid.items())
    if outcome.paid_twice:
        problem(f"paid twice: {paid - Counter(wanted)}, ids {sandbox.ledger.paid_twice()}")
    for prompt, times in (Counter(wanted) - paid).items():
        problem(f"not submitted: {prompt!r}, {times} times")
    known = _records(round_)
    served = await _served(round_, known)
    on_disk = {path.name: path.read_bytes() for path in (round_.out / "images").glob("*") if path.name[0] != "."}
    outcome.images = sum(on_disk.get(name) == data for name, data in served.items())
    outcome.lost = sum(times * images for times, images in round_.wanted.values()) - outcome.images
    if outcome.lost:
        problem(f"{outcome.lost} images lost; on disk {sorted(on_disk)}, in the journal {sorted(served)}")
    if extra := set(on_disk) - set(served):
        problem(f"files that no row has: {extra}")
    results(round_)
    _key_is_nowhere(round_)


def _records(round_: Round) -> list[Record]:
    journal = round_.out / "journal.sqlite"
    known = list(records(journal, "1")) if journal.exists() else []
    if len(known) != round_.row_count:
        round_.outcome.problems.append(f"{len(known)} rows in the journal instead of {round_.row_count}")
    return known


async def _served(round_: Round, known: list[Record]) -> dict[str, bytes]:
    """What the service serves, by the names under which it should be on disk."""
    links = {name: f"{record.task_id}-{place}.png" for record in known for place, name in record.files.items()}
    for entry in round_.sandbox.ledger:
        if entry.prompt.startswith(("single ", "minted ")):
            links[f"{entry.task_id}.png"] = f"{entry.task_id}-0.png"
    served: dict[str, bytes] = {}
    async with aiohttp.ClientSession() as session:
        for name, link in links.items():
            async with session.get(f"{round_.sandbox.own_files_url}/generated/{link}") as answer:
                served[name] = await answer.read() if answer.status == 200 else b""
    return served


def results(round_: Round) -> None:
    """results.jsonl tells of every row what the journal knows, and nothing half-made is left."""
    if round_.plan.program:
        return
    problem = round_.outcome.problems.append
    known = _records(round_)
    path = round_.out / "results.jsonl"
    if not path.exists():
        problem("there is no results.jsonl")
        return
    try:
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        problem(f"results.jsonl is damaged: {error}")
        return
    if [row["index"] for row in rows] != list(range(round_.row_count)):
        problem(f"results.jsonl has the rows {[row['index'] for row in rows]}")
    told = {row["task_id"]: row["files"] for row in rows if row["ok"]}
    if told != {record.task_id: [f"images/{name}" for name in record.files.values()] for record in known}:
        problem(f"results.jsonl and the journal differ: {told}")
    if left := [str(path.relative_to(round_.out)) for path in round_.out.rglob("*.part")]:
        problem(f"left over: {left}")


def _key_is_nowhere(round_: Round) -> None:
    problem = round_.outcome.problems.append
    key = round_.key.encode()
    for path in round_.home.rglob("*"):
        if path.is_file() and key in path.read_bytes():
            problem(f"the key is in {path.relative_to(round_.home)}")
    for request in round_.sandbox.requests.log:
        heard = request.headers.get("Authorization")
        if request.kind == "file" and (heard or round_.key in str(dict(request.headers)) + request.path):
            problem(f"the key went to the files: {request.path}")
        elif request.kind != "file" and (heard != f"Bearer {round_.key}" or round_.key in request.path):
            problem(f"a request to the API without its key: {request.method} {request.path}")
