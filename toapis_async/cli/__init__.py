"""The command line: `toapis`.

`commands` and `account_commands` declare commands and options and import nothing heavy, so that `--help` is fast; the
modules with their bodies (`generate`, `batch`, `account`, `sandbox`) are imported when a command runs.
"""

from toapis_async.cli import account_commands as account_commands
from toapis_async.cli import agents_command as agents_command
from toapis_async.cli.commands import main

__all__ = ["main"]
