"""When a loop is taken to be at rest, asked in the very moments that matter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from toapis_async.testing.virtual import Restful

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def in_the_selector(restful: Restful, timeout: float | None, act: Callable[[], object] = int) -> bool:
    """Whether it rests, asked while its loop is in the selector, after something happened there."""
    told: list[bool] = []

    def wait(_: float | None) -> list[object]:
        act()
        told.append(restful.rests)
        return []

    restful.wait = wait  # type: ignore[assignment]
    restful.select(timeout)
    return told[0]


@pytest.mark.parametrize(("timeout", "rests"), [(None, True), (5.0, True), (0, False)])
def test_a_loop_rests_while_it_waits(loop: asyncio.AbstractEventLoop, timeout: float | None, rests: bool) -> None:
    restful = Restful(loop)
    assert in_the_selector(restful, timeout) is rests
    assert not restful.rests


def test_an_event_that_waits_to_be_fetched_is_work(loop: asyncio.AbstractEventLoop) -> None:
    assert not in_the_selector(Restful(loop), None, lambda: loop.call_soon_threadsafe(int))


def test_who_came_back_while_we_asked_may_have_sent_something(loop: asyncio.AbstractEventLoop) -> None:
    restful = Restful(loop)

    class ComesAndGoes:
        def poll(self, _: int) -> list[object]:
            restful.wait = lambda _: []
            restful.select(0)
            restful._waits = True
            return []

    restful._ready = ComesAndGoes()  # type: ignore[assignment]
    assert not in_the_selector(restful, None)


def test_its_next_timer_is_known(loop: asyncio.AbstractEventLoop) -> None:
    restful = Restful(loop)
    loop.time = lambda: 100.0  # type: ignore[method-assign]
    in_the_selector(restful, 5.0)
    assert restful.left_s == 5.0
    in_the_selector(restful, None)
    assert restful.left_s is None


def test_a_loop_without_a_selector_is_refused() -> None:
    with pytest.raises(TypeError, match=r"virtual time needs asyncio's own event loop .*, not object"):
        Restful(object())  # type: ignore[arg-type]


def test_a_loop_is_let_go_as_it_was(loop: asyncio.AbstractEventLoop) -> None:
    restful = Restful(loop)
    restful.let_go()
    assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"
    assert not restful._rounds
