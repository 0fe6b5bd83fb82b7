"""The command line: `toapis`.

Floors within this room: `commands` declares what can be typed and imports nothing heavy, so that help is instant; the
bodies (`generate`, `batch`, `account`, `sandbox`) are imported when a command runs.
"""

from toapis_async.cli.commands import main

__all__ = ["main"]
