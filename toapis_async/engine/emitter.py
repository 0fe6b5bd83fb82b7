"""Events on their way to the application's listeners."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Concatenate, NoReturn, ParamSpec

from toapis_async.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from toapis_async.events import Event

P = ParamSpec("P")


class Emitter:
    """Makes an event's record and gives it to every listener; makes none when nobody listens."""

    def __init__(self, listeners: Sequence[Callable[[Event], None]], *, with_prompts: bool = False) -> None:
        self._listeners = tuple(listeners)
        self._with_prompts = with_prompts
        self._loop = asyncio.get_running_loop()
        self._is_interrupted = False

    def __call__(self, record: Callable[Concatenate[float, P], Event], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make `record(now, …)`. Whatever a listener raises is logged: an application's bug ends neither a task nor a
        permit. Only `KeyboardInterrupt` and `SystemExit` pass, the first of them: they leave the event loop right after
        this step of it, which is so never half done."""
        if not self.is_heard:
            return
        event = record(self._loop.time(), *args, **kwargs)
        logger.debug("%s", event)
        for listener in self._listeners:
            try:
                listener(event)
            except (KeyboardInterrupt, SystemExit) as error:
                if not self._is_interrupted:  # a second one would cut the clean-up short
                    self._is_interrupted = True
                    self._loop.call_soon(_raise, error)
            except BaseException:  # a CancelledError, too: nobody cancelled the engine's task
                logger.exception("Settings.on_event raised for %s", type(event).__name__)

    @property
    def is_heard(self) -> bool:
        """Whether anybody wants events: nobody need work out what only they say otherwise."""
        return bool(self._listeners) or logger.isEnabledFor(logging.DEBUG)

    def add(self, listener: Callable[[Event], None]) -> None:
        """Give it every event from now on, too."""
        self._listeners = (*self._listeners, listener)

    def public_prompt(self, prompt: str | None) -> str | None:
        """The prompt, or None unless `Settings(events_with_prompts=True)`."""
        return prompt if self._with_prompts else None


def _raise(error: BaseException) -> NoReturn:
    raise error
