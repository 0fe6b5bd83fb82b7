"""Runs the command line, or the program beside this file, with trouble built in, in a process for each order.

An order is a line of JSON on standard input (`processes.Processes.run`), with the trouble as `plans.Trouble` makes it.
The library itself has no hooks: what is to fail is found by its name and wrapped before anything runs, so that a
renamed function shows as an error here.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime
import errno
import functools
import importlib
import inspect
import io
import json
import os
import runpy
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toapis_async.cli import main as toapis

Hit = Callable[[], None]
SQL_WORDS = {errno.ENOSPC: "database or disk is full", errno.EROFS: "attempt to write a readonly database"}
PROGRAMS = {name: Path(__file__).with_name(f"{name}.py") for name in ("program", "worker")}
IMPORTED = ("toapis_async.client", "toapis_async.cli.batch", "toapis_async.display.thumbs", "PIL.PngImagePlugin")
"""What every run needs: imported once."""
WRITING = ("INSERT", "UPDATE", "DELETE", "CREATE", "COMMIT", "PRAGMA JOURNAL_MODE")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Disk:
    """The disk under one folder: once broken, whatever is to be written there fails."""

    def __init__(self, folder: str, number: int) -> None:
        self.folder = folder
        self.number = number
        self.broken = False
        for module, name in ((io, "open"), (builtins, "open"), (os, "open"), (os, "mkdir"), (os, "replace")):
            setattr(module, name, self._guarded(getattr(module, name)))
        wrap("toapis_async.engine.part:Part.flush", before=self.check)
        wrap("toapis_async.cli.results:Results._append", before=self.check)

    def break_down(self) -> None:
        self.broken = True

    def check(self) -> None:
        if self.broken:
            raise OSError(self.number, os.strerror(self.number))

    def check_sql(self, sql: str) -> None:
        if self.broken and sql.lstrip().upper().startswith(WRITING):
            raise sqlite3.OperationalError(SQL_WORDS[self.number])

    def _guarded(self, act: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(act)
        def guarded(path: Any, *args: Any, **named: Any) -> Any:
            how = args[0] if args else named.get("mode", "r")
            reads = (
                how & os.O_ACCMODE == os.O_RDONLY if act.__name__ == "open" and isinstance(how, int) else how == "rb"
            )
            if self.broken and not isinstance(path, int) and str(path).startswith(self.folder) and not reads:
                raise OSError(self.number, os.strerror(self.number), str(path))
            return act(path, *args, **named)

        return guarded


def found(point: str) -> tuple[Any, str]:
    """What holds a function, and its name there."""
    module, _, path = point.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def wrap(point: str, *, before: Hit | None = None, after: Hit | None = None) -> None:
    """Let `before` and `after` run around a function, named as in `package.module:Class.method`."""
    owner, name = found(point)
    original = getattr(owner, name)

    async def awaiting(*args: Any, **named: Any) -> Any:
        if before is not None:
            before()
        result = await original(*args, **named)
        if after is not None:
            after()
        return result

    def calling(*args: Any, **named: Any) -> Any:
        if before is not None:
            before()
        result = original(*args, **named)
        if after is not None:
            after()
        return result

    setattr(owner, name, functools.wraps(original)(awaiting if inspect.iscoroutinefunction(original) else calling))


def at_call(number: int, act: Hit) -> Hit:
    """What does nothing until it is called for the `number`-th time."""
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            act()

    return count


def watch_sqlite(folder: str, statement: Hit | None, disk: Disk | None, most_pages: int | None) -> None:
    """Every connection to a database in the folder counts its statements, and meets the disk's trouble."""
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if disk is not None:
                disk.check_sql(sql)
            return super().execute(sql, *args)

    def connected(path: Any, **named: Any) -> sqlite3.Connection:
        if folder not in str(path):
            return connect(path, **named)
        connection = connect(path, factory=Watched, **named)
        if most_pages is not None and not str(path).endswith(".lock"):
            connection.execute(f"PRAGMA max_page_count = {most_pages}")
        if statement is not None:
            connection.set_trace_callback(lambda _: statement())
        return connection

    sqlite3.connect = connected  # type: ignore[assignment]


def set_clock_back(seconds: float) -> None:
    """This process's clock is slow by so much."""
    now = time.time

    class Slow(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Slow:
            return cls.fromtimestamp(now() - seconds, tz)

    time.time = lambda: now() - seconds
    downloads: Any = importlib.import_module("toapis_async.engine.downloads")
    downloads.datetime = Slow


def prepare(trouble: dict[str, Any]) -> None:
    disk = Disk(trouble["folder"], trouble["disk"]) if trouble["disk"] else None
    act = disk.break_down if disk is not None else kill
    if trouble["point"]:
        hit = at_call(trouble["call"], act)
        wrap(trouble["point"], **{trouble["side"]: hit})
    elif disk is not None:
        disk.break_down()
    statement = at_call(trouble["statement"], kill) if trouble["statement"] else None
    if statement or disk or trouble["most_pages"]:
        watch_sqlite(trouble["folder"], statement, disk, trouble["most_pages"])
    if trouble["clock_back_s"]:
        set_clock_back(trouble["clock_back_s"])


def serve() -> dict[str, Any]:
    """Fork a process for each order, tell its pid and how it ended on standard output. Returns in each of these
    processes, with its order; ends when there are no more orders."""
    for line in sys.stdin:
        if os.fork() == 0:
            order: dict[str, Any] = json.loads(line)
            if (pid := os.fork()) == 0:
                return order
            report(order, "pid", pid)
            report(order, "code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os._exit(0)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()
    raise SystemExit


def report(order: dict[str, Any], what: str, value: int) -> None:
    os.write(1, json.dumps([order["number"], what, value]).encode() + b"\n")


def redirect(number: int, path: str, flags: int) -> None:
    opened = os.open(path, flags)
    os.dup2(opened, number)
    os.close(opened)


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    order = serve()
    redirect(0, os.devnull, os.O_RDONLY)
    redirect(1, order["out"], os.O_WRONLY | os.O_CREAT)
    redirect(2, order["err"], os.O_WRONLY | os.O_CREAT)
    prepare(order["trouble"])
    what, *arguments = order["arguments"]
    if what in PROGRAMS:
        sys.argv[1:] = arguments
        runpy.run_path(str(PROGRAMS[what]), run_name="__main__")
    else:
        toapis([what, *arguments], prog_name="toapis")


if __name__ == "__main__":
    main()
