"""What is printed, and where: results on stdout, everything for people on stderr.

Text of the service, of prompts and of files is never trusted with the terminal: `plain` shows control characters
(escape sequences among them) as what they are.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TextIO

import click

from toapis_async.errors import ClientStateError, DownloadFailed, InvalidRequest, JournalError, ToAPIsError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping

ALL_DONE, SOME_FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130
_SEEN_SAFELY = frozenset("\u00a0\u3000\u200d")  # two spaces, and the joiner within emoji

_TERMS: Final = (
    (
        r"extra=\{'([\w.]+)': …\} sends it unchecked",
        r'--extra \1=… of `toapis generate`, or "extra": {"\1": …} in a row of `toapis batch`, sends it unchecked',
    ),
    (r"(pass the file as|for a local file pass) Path\(…\) or bytes", "give the name of a local file"),
    (r"client\.find\('([^']+)'\)", r"`toapis status \1`"),
    (r"Settings\(prices=\{[^}]*\}\) or --price", "--price"),
    (r"--same-account or Journal\(path, same_account=True\)", "--same-account"),
    (r" \(or pass api_key=…\)", ""),
    (r"base_url\b", "--base-url (or TOAPIS_BASE_URL)"),
)
"""Messages of the library, which name Python arguments, by the options and commands that do the same."""


KEY_VARIABLES: Final = ("TOAPIS_API_KEY", "TOAPIS_API_KEY_FILE")
_REFUSED_KEY: Final = "the service refuses the API key"


class CliError(Exception):
    """A failure that is not the library's, with the exit code it stands for."""

    def __init__(self, message: str, exit_code: int = MISUSE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Above(Protocol):
    """A live display: prints a line above itself."""

    def print_above(self, line: str) -> None: ...


class Output:
    """The two streams of one command."""

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self.quiet = quiet
        self.live: Above | None = None
        self.is_incomplete: bool = False  #: something could not be written, for another reason than a reader who left

    @property
    def on_terminal(self) -> bool:
        """Whether people watch stderr on something that can redraw lines."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def result(self, text: str) -> None:
        """A line that people pipe (a path, an id); with --json there is a record instead."""
        if not self.json:
            self._print(sys.stdout, plain(text))

    def record(self, record: Mapping[str, Any]) -> None:
        """A line for machines, with --json only."""
        if self.json:
            self._print(sys.stdout, json.dumps(record))

    def note(self, text: str) -> None:
        """A line for people."""
        if not self.quiet:
            self._print(sys.stderr, plain(text))

    def warn(self, text: str) -> None:
        """A line for people that --quiet must not hide."""
        self._print(sys.stderr, plain(text))

    def error(self, text: str) -> None:
        """What went wrong, in one line."""
        self.warn(f"error: {text}")

    def failure(self, error: ToAPIsError, name: str | None = None) -> None:
        """An error of the library, for people and for machines, with the files that were saved nevertheless; `name`
        says which of several it is about."""
        text = in_cli_terms(str(error))
        self.error(f"{name}: {text}" if name and name not in text else text)
        ids = {"task_id": error.task_id, "client_business_id": error.client_business_id}
        files = [str(file) for file in error.files] if isinstance(error, DownloadFailed) else []
        for file in files:
            self.result(file)
        saved = {"files": files} if files else {}
        self.record({"ok": False, "asked": name, **ids, **saved, "error": error_record(error)})

    def _print(self, stream: TextIO, line: str) -> None:
        if self.live is not None and stream.isatty():
            self.live.print_above(line)
            return
        encoding = stream.encoding or "utf-8"
        try:
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()
        except OSError as error:
            # The reader has left (`| head`), or the disk is full. What was submitted is still paid for, so the work
            # goes on without this stream; and the interpreter's flush at exit must not fail a second time.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
            if not isinstance(error, BrokenPipeError):
                self.is_incomplete = True
                if stream is sys.stdout:
                    self.error(f"can't write to standard output: {error.strerror}")


def open_closed_streams() -> None:
    """Open standard streams that were closed before the start (`>&-`) on nothing: there is no `sys.stdout` then, and
    the first file that is opened would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


@contextmanager
def reported(out: Output) -> Generator[None]:
    """Turn what goes wrong inside into one line on stderr and the exit code that belongs to it."""
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        out.error("interrupted")
        raise click.exceptions.Exit(INTERRUPTED) from None
    except ToAPIsError as error:
        out.failure(error)
        raise click.exceptions.Exit(exit_code_of(error)) from None
    except CliError as error:
        out.error(str(error))
        raise click.exceptions.Exit(error.exit_code) from None
    except OSError as error:
        out.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise click.exceptions.Exit(SOME_FAILED) from None


def run(out: Output, body: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command's body and leave with its exit code."""
    raise click.exceptions.Exit(asyncio.run(interruptible(out, body)))


async def interruptible(out: Output, body: Coroutine[Any, Any, int]) -> int:
    """Run a body so that Ctrl-C (or SIGTERM) cancels it, and Ctrl-C again cancels its closing.

    asyncio's own handling raises KeyboardInterrupt at the second, in whatever code runs at that moment.
    """
    running = asyncio.current_task()
    assert running is not None

    def interrupt() -> None:
        if not running.cancelling():
            out.note("stopping; once more to leave at once")
        running.cancel()

    with calling_on_signals(interrupt):
        code = await body
    return code or (SOME_FAILED if out.is_incomplete else ALL_DONE)


@contextmanager
def calling_on_signals(callback: Callable[[], None]) -> Generator[None]:
    """Call back on Ctrl-C and SIGTERM while the body runs."""
    loop = asyncio.get_running_loop()
    numbers, replaced = (signal.SIGINT, signal.SIGTERM), dict[signal.Signals, Any]()

    def call_back(*_: object) -> None:
        loop.call_soon_threadsafe(callback)

    try:
        for number in numbers:
            try:
                loop.add_signal_handler(number, callback)
            except NotImplementedError:  # Windows
                replaced[number] = signal.signal(number, call_back)
        yield
    finally:
        for number in numbers:
            if number in replaced:
                signal.signal(number, replaced[number])
            else:
                loop.remove_signal_handler(number)


def exit_code_of(error: ToAPIsError) -> int:
    """2 when the caller asked for something impossible, 1 when it did not work out."""
    return MISUSE if isinstance(error, InvalidRequest | ClientStateError | JournalError) else SOME_FAILED


def error_record(error: ToAPIsError) -> dict[str, Any]:
    """An error as results.jsonl and --json tell it."""
    return {
        "type": type(error).__name__,
        "code": getattr(error, "code", None) or None,
        "message": getattr(error, "message", None) or str(error),
    }


def in_cli_terms(text: str) -> str:
    """The text of an error with Python arguments and calls replaced by the options and commands that do the same."""
    for python, option in _TERMS:
        text = re.sub(python, option, text)
    variable = next((name for name in KEY_VARIABLES if os.environ.get(name)), None)
    return text.replace(_REFUSED_KEY, f"the service refused the key in {variable}") if variable else text


def plain(text: str) -> str:
    """Text that can do nothing to a terminal: control and invisible characters are written as escapes."""
    return "".join(c if c.isprintable() or c in _SEEN_SAFELY else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
