"""`pytest -p tests.on_uvloop`: tests run in uvloop's event loops, where it is installed.

Those in virtual time (those that use the fixtures of `toapis_async.testing`, too), and those that put a sandbox's clock
forward, are skipped: uvloop keeps its time to itself, and the library says so.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator


SAID = ("can't be given a clock", "virtual time needs asyncio's own event loop")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], AbstractEventLoop]]:
    return {"uvloop": import_module("uvloop").new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("looptime") is not None:
            item.add_marker(pytest.mark.skip(reason="virtual time needs asyncio's own loop"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    with _skipped_without_a_clock():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    with _skipped_without_a_clock():
        yield


@contextmanager
def _skipped_without_a_clock() -> Generator[None]:
    try:
        yield
    except TypeError as error:
        if not any(words in str(error) for words in SAID):
            raise
        pytest.skip(str(error))
