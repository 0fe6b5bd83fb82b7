"""For tests of what you build on this package: a pytest plugin, scenarios, virtual time. See docs/testing.md.

    @pytest.mark.toapis_sandbox(ANSWER_LOST)
    async def test_nothing_is_paid_twice(toapis_sandbox, toapis_client):
        async with toapis_client:
            await toapis_client.generate("a red kite over the sea")
        assert len(toapis_sandbox.ledger) == 1

Names are loaded when first used: pytest loads the plugin wherever this package is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toapis_async.testing.scenarios import (
        ANSWER_LOST,
        EXPIRES_BEFORE_DOWNLOAD,
        NEVER_ENDS,
        NOT_SENT,
        OUT_OF_CREDITS,
        RATE_LIMITED,
        SECOND_POLL_FAILS,
        TASK_FAILS,
        TASK_VANISHES,
        Scenario,
    )
    from toapis_async.testing.threaded import ThreadedSandbox

__all__ = [
    "ANSWER_LOST",
    "EXPIRES_BEFORE_DOWNLOAD",
    "NEVER_ENDS",
    "NOT_SENT",
    "OUT_OF_CREDITS",
    "RATE_LIMITED",
    "SECOND_POLL_FAILS",
    "TASK_FAILS",
    "TASK_VANISHES",
    "Scenario",
    "ThreadedSandbox",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        home = "threaded" if name == "ThreadedSandbox" else "scenarios"
        value: object = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
