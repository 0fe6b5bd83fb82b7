"""The command line: `toapis`.

`commands` declares commands and options and imports nothing heavy, so that `--help` is fast; the modules with their
bodies (`generate`, `batch`, `account`, `sandbox`) are imported when a command runs.
"""

from toapis_async.cli.commands import main

__all__ = ["main"]
